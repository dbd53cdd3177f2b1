"""What is wrong with an answer, by rule: no model judges another. Pure."""

import re
from collections.abc import Callable, Mapping

from eval.corpus import Draft
from promptlord.rewrite.cleaning import clean
from promptlord.rewrite.kept import losses, placeholders

LEAST, MOST = 0.8, 12  # times the draft's length
SOME = 700  # characters that even the shortest draft may become,
MORE = 2500  # and those that may be added to a long one

SCRIPTS = {
    "ru": "[\u0400-\u04ff]",
    "el": "[\u0370-\u03ff\u1f00-\u1fff]",
    "ar": "[\u0600-\u06ff]",
    "he": "[\u0590-\u05ff]",
    "hi": "[\u0900-\u097f]",
    "th": "[\u0e00-\u0e7f]",
    "zh": "[\u4e00-\u9fff]",
    "ja": "[\u3040-\u30ff]",
    "ko": "[\uac00-\ud7af]",
}
SHARE = 0.2  # of its letters that an answer has of its language's own; of kana Japanese has half
WORDS = {  # that hardly a sentence lacks
    "en": "the a an and of to for in is that with it your my me be on how what",
    "de": "der die das und ein eine einen zu mit für ist nicht den dem von auf wie ich mir",
    "es": "el la los las y de un una para con que en es no por lo mi como sin",
    "fr": "le la les et de des un une pour avec que en est pas du dans ce qui sur",
    "pt": "o a os as e de um uma para com que em não por da do no na seu",
    "it": "il lo la i gli e di un una per con che in è non del della sei ci",
    "tr": "ve bir bu için ile de da ne olan gibi çok en ama sen kısa yaz",
}
_WORDS = {language: frozenset(words.split()) for language, words in WORDS.items()}

_LEAD_IN = re.compile(
    r"""(?: (?:sure|certainly|of\ course|absolutely|okay|great)[!,.:] | (?:当然|好的|もちろん(?:です)?)[！，。]
    | (?:here(?:['’]s|\ is|\ are)|below\ is|hier\ ist|voici|aquí\ (?:está|tienes)|aqui\ está|вот|إليك|以下[是は]|다음은)
      [^\n]{0,80} (?:prompt|version|draft|промпт|запрос|الموجه|提示|文本|版本|プロンプト|文章|프롬프트)
    | i(?:['’]ve|\ have)\ (?:rewritten|improved|made|enhanced) )
    [^\n]{0,150} [:：.!！。]? \s*\n""",
    re.IGNORECASE | re.VERBOSE,
)
_TALK = re.compile(
    r"\n[^\n]{0,40}\b(?:let me know if|feel free to (?:ask|adjust|change)|hope this helps|would you like me)[^\n]*\Z",
    re.IGNORECASE,
)


def _kept(draft: Draft, answer: str) -> bool:
    return not losses(draft.text, answer)


def _same_language(draft: Draft, answer: str) -> bool:
    """By the script, or by the small words, of which another language must not have clearly more."""
    if script := SCRIPTS.get(draft.language):
        letters = re.findall(r"[^\W\d_]", re.sub(r"```.*?```|`[^`\n]*`", " ", answer, flags=re.DOTALL))
        return len(re.findall(script, answer)) >= SHARE * len(letters)
    said = re.findall(r"[^\W\d_]+", answer.casefold())
    counts = {language: sum(word in words for word in said) for language, words in _WORDS.items()}
    own = counts.pop(draft.language)
    return max(counts.values()) <= 1.2 * own + 2


def _bare(draft: Draft, answer: str) -> bool:
    """Without a lead-in, a label, quotes or a fence around it, or talk behind it."""
    return clean(answer) == answer.strip() and not _LEAD_IN.match(answer.lstrip("*# ")) and not _TALK.search(answer)


def _not_answered(draft: Draft, answer: str) -> bool:
    return not any(_has(answer, word) for word in draft.absent)


def _has(text: str, word: str) -> bool:
    if not word.isascii():
        return word.casefold() in text.casefold()
    return bool(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE))


def _still_says(draft: Draft, answer: str) -> bool:
    """Each of the draft's ``present``: a reference, a quotation, a name; where there is a choice, one of the words."""
    return all(any(_has(answer, word) for word in words.split("|")) for words in draft.present)


def _right_length(draft: Draft, answer: str) -> bool:
    most = max(SOME, min(MOST * len(draft.text), len(draft.text) + MORE))
    return LEAST * len(draft.text) <= len(answer) <= most


def _nothing_to_fill_in(draft: Draft, answer: str) -> bool:
    return placeholders(answer) <= placeholders(draft.text)


CHECKS: Mapping[str, Callable[[Draft, str], bool]] = {
    "keeps all parts": _kept,
    "keeps the language": _same_language,
    "nothing around it": _bare,
    "still says it": _still_says,
    "does not answer": _not_answered,
    "right length": _right_length,
    "no new placeholders": _nothing_to_fill_in,
}


def failures(draft: Draft, answer: str) -> list[str]:
    """The checks that an answer does not pass, by their names."""
    return [name for name, passes in CHECKS.items() if not passes(draft, answer)]
