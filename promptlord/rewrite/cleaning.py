"""What models put around a prompt although told not to is taken off. Pure."""

import re

LAYERS = 10  # of labels, fences, quotes around a prompt; where there are more, a model repeats itself

HEAD = 150  # characters; no label is longer


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# "Sure, here is the enhanced prompt" in the languages that most people speak. A label says that it is better, and of
# what, or leads in to a prompt; before its colon or the end of its line it has no other words than these, but where it
# leads in and ends its line. "My" is in none of them: who speaks of something of theirs goes on to show it.
_BETTER = _words("""
    enhanced improved rewritten refined revised reworked better polished optimized optimised new
    mejorado mejorada optimizado optimizada reescrito reescrita nuevo amélioré améliorée optimisé optimisée réécrit
    nouveau melhorado melhorada aprimorado aprimorada otimizado otimizada novo migliorato migliorata ottimizzato nuovo
    verbesserter verbesserte optimierter optimierte überarbeiteter überarbeitete neuer geliştirilmiş iyileştirilmiş
    улучшенный улучшенная оптимизированный оптимизированная доработанный доработанная переписанный обновлённый новый
    المحسن المحسّن المحسنة المحسّنة محسن محسّن محسنة محسّنة بہتر बेहतर उन्नत संशोधित উন্নত সংশোধিত
    disempurnakan ditingkatkan diperbaiki 改进 优化 增强 完善 改写 改善 改良 強化 最適化 개선된 향상된
""")
_PROMPT = _words("""
    prompt instrucción invite istem промпт промт запрос الموجه المطالبة البرومبت موجه پرامپٹ प्रॉम्प्ट प्रॉम्ट প্রম্পট
    提示词 提示语 提示 プロンプト 프롬프트
""")
_VERSION = _words("""
    version draft versión versão versione версия вариант النسخة النص الصيغة نص صيغة संस्करण 版本 版
""")
_LEADS = _words("""
    sure certainly absolutely of okay ok great here here's below this i've
    claro aquí voici voilà bien aqui certo ecco natürlich gerne hier elbette işte конечно вот بالتأكيد إليك هذا
    یہ यह यहाँ এখানে berikut 好的 当然 以下是 这是 下面是 もちろんです もちろん 以下は 以下が こちらが 다음은
""")
_OTHERS = _words("""
    course is the a an rough it for you está tienes tiene el la un una de del es le sûr du est tem o um uma do é il ist
    der die ein eine des prompts промпта запроса هو ہے رہا है रहा ini adalah yang telah 后 过 的 如下 された した 後の
    です 입니다
""")
_YOURS = _words("""
    your original tu su votre ton seu sua dein deine deines ihr ihre ihres ваш ваша вашего твой твоя твоего آپ کا आपका
    আপনার 您的 你的
""")
_KNOWN = _BETTER | _PROMPT | _VERSION | _LEADS | _OTHERS | _YOURS
_THEIRS = _words("""
    my our i we mi mis mon ma mes notre meu minha mein meine meines meiner unser мой моя моего моей наш 我 我的 私の
""")
_JOINED = "|".join(sorted((word for word in _KNOWN if word[0] >= "\u3040"), key=len, reverse=True))  # without blanks
_WORD = re.compile(rf"{_JOINED}|[^\s#*_,.!¡！。，、\u3040-\u9fff]++|[\u3040-\u9fff]")
_BEFORE = re.compile(r"[#*_>\s✨🚀✅¡-]*+")
_AFTER = re.compile(r"(?:[*_]|[^\S\n])*(?:[:：](?:[*_]++(?=\s|\Z))?|\Z|(?=\n))")
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "„": "“", "「": "」"}


def clean(text: str, draft: str = "") -> str:
    """Take off what models put around a prompt although told not to: thoughts, a label, a fence, quotes.

    What the ``draft`` itself begins with stays. Takes time in proportion to the text, whatever it is: nothing else runs
    meanwhile.
    """
    text = text.strip()
    for _ in range(LAYERS):  # one may lie in another
        before = text
        text = _unlabelled(text)
        if text[:1] != draft[:1]:
            text = _unquoted(_unfenced(text))
        if text == before:
            break
    return text


def _unlabelled(text: str) -> str:
    if text.startswith("<think>"):
        text = text.partition("</think>")[2].lstrip()
    start = _BEFORE.match(text).end()  # type: ignore[union-attr]
    line, _, _ = text[start : start + HEAD].partition("\n")
    head, *rest = re.split("[:：]", line, maxsplit=1)
    after = _AFTER.match(text, start + len(head.rstrip("*_ \u00a0\u202f")))
    ends = rest and not rest[0].strip("*_ ")
    return text[after.end() :].strip() if after and _is_label(head, leads=bool(ends)) else text


def _is_label(head: str, *, leads: bool) -> bool:
    """Whether it says no more than that an enhanced prompt follows; ``leads``: its colon ends the line."""
    words = _WORD.findall(head.casefold().replace("’", "'"))
    leads = leads and bool(words) and words[0] in _LEADS
    if _KNOWN.issuperset(words):
        what = not _PROMPT.isdisjoint(words), not _VERSION.isdisjoint(words)
        return (any(what) and not _BETTER.isdisjoint(words)) or (what[0] and leads)
    of_a_prompt = not (_PROMPT | _YOURS).isdisjoint(words) and _THEIRS.isdisjoint(words)
    return leads and of_a_prompt and not _BETTER.isdisjoint(words)


def _unfenced(text: str) -> str:
    first, _, rest = text.partition("\n")
    around = first.startswith("```") and "`" not in first[3:] and rest.endswith("```")
    return rest[:-3].strip() if around and "```" not in rest[:-3] else text


def _unquoted(text: str) -> str:
    closing, inner = _QUOTES.get(text[:1], ""), text[1:-1]
    around = closing and len(text) > 1 and text.endswith(closing)
    return inner.strip() if around and text[0] not in inner and closing not in inner else text
