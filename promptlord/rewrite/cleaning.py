"""What models put around a prompt although told not to is taken off. Pure."""

import re

LAYERS = 10  # of labels, fences, quotes around a prompt; where there are more, a model repeats itself

HEAD = 150  # characters; no label is longer


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# "Here is the enhanced prompt" in the languages that most people speak: a label has a word of the first list and one of
# the second, and before its colon or the end of its line no others than these, but where it leads in and ends its line.
_BETTER = _words("""
    enhanced improved rewritten refined revised reworked better polished optimized optimised
    mejorado mejorada optimizado optimizada reescrito reescrita amélioré améliorée optimisé optimisée réécrit réécrite
    melhorado melhorada aprimorado aprimorada otimizado otimizada migliorato migliorata ottimizzato
    verbesserter verbesserte optimierter optimierte überarbeiteter überarbeitete geliştirilmiş iyileştirilmiş
    улучшенный улучшенная оптимизированный оптимизированная доработанный доработанная переписанный
    المحسن المحسّن المحسنة المحسّنة محسن محسّن محسنة محسّنة بہتر बेहतर उन्नत संशोधित উন্নত সংশোধিত
    disempurnakan ditingkatkan diperbaiki 改进 优化 增强 完善 改写 改善 改良 強化 最適化 개선된 향상된
""")
_PROMPT = _words("""
    prompt version versión instrucción invite versão versione istem промпт промт запрос версия
    الموجه المطالبة البرومبت النص الصيغة موجه نص صيغة پرامپٹ प्रॉम्प्ट प्रॉम्ट संस्करण প্রম্পট
    提示词 提示语 提示 版本 プロンプト 프롬프트
""")
_LEADS = _words("""
    sure certainly absolutely of here here's below aquí voici voilà aqui ecco hier işte вот إليك هذا یہ यह यहाँ এখানে
    berikut 以下是 这是 下面是 以下は 다음은
""")
_OTHERS = _words("""
    course is the a an your my this original rough draft
    está tienes tiene el la un una tu su de del es le votre ton du est tem o um uma seu sua do é il ist der die ein eine
    dein deine ihr ihre des deines ihres prompts ваш ваша твой твоя промпта запроса هو ہے رہا آپ کا है रहा आपका আপনার
    ini adalah yang telah 后 过 的 您的 你的 如下 された した 後の です 입니다
""")
_KNOWN = _BETTER | _PROMPT | _LEADS | _OTHERS
_JOINED = "|".join(sorted((word for word in _KNOWN if word[0] >= "\u3040"), key=len, reverse=True))  # without blanks
_WORD = re.compile(rf"{_JOINED}|[^\s#*_,.!\u3040-\u9fff]++|[\u3040-\u9fff]")
_BEFORE = re.compile(r"[#*_\s]*+")
_AFTER = re.compile(r"(?:[*_]|[^\S\n])*+(?:[:：](?:[*_]++(?=\s|\Z))?|\Z|(?=\n))")
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "„": "“", "「": "」"}


def clean(text: str) -> str:
    """Take off what models put around a prompt although told not to: thoughts, a label, a fence, quotes.

    Takes time in proportion to the text, whatever it is: nothing else runs meanwhile.
    """
    text = text.strip()
    for _ in range(LAYERS):  # one may lie in another
        before = text
        text = _unquoted(_unfenced(_unlabelled(text)))
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
    if _BETTER.isdisjoint(words) or _PROMPT.isdisjoint(words):
        return False
    return _KNOWN.issuperset(words) or (leads and words[0] in _LEADS)


def _unfenced(text: str) -> str:
    first, _, rest = text.partition("\n")
    around = first.startswith("```") and "`" not in first[3:] and rest.endswith("```")
    return rest[:-3].strip() if around and "```" not in rest[:-3] else text


def _unquoted(text: str) -> str:
    closing, inner = _QUOTES.get(text[:1], ""), text[1:-1]
    around = closing and len(text) > 1 and text.endswith(closing)
    return inner.strip() if around and text[0] not in inner and closing not in inner else text
