"""How many tokens Groq will count, estimated with caution."""

import math
import re

_DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w.+=-]+)*;base64,")

# Tokens a character takes in plain text, rounded up, as gpt-oss' own tokenizer (o200k) has it. English 0.25, code 0.4;
# Cyrillic, Greek, Hebrew, Arabic 0.2 to 0.45; of Asia's scripts Hindi 0.3, Thai 0.4, Khmer and Korean 0.6, Chinese 0.7
# (traditional 1.07), Japanese 0.75; Lao, Amharic, emoji and signs 1.4 to 2.
_ASCII = 1 / 3
_BEYOND = (
    (re.compile("[\u0080-\u07ff]+"), 1 / 2),
    (re.compile("[\u0900-\u0e7f\u1000-\u10ff\u1780-\u17ff]+"), 0.6),
    (re.compile("[\u2000-\u206f\u3000-\u9fff]+"), 1.0),
    (re.compile("[\uac00-\ud7af\uff00-\uffef]+"), 1.0),  # which as one would take 3 ms of each start
    (re.compile("[^\0-\x7f]+"), 2.0),
)
_SLICE = 1 << 16  # characters; all of a large text at once would take many times its memory


def estimate(text: str) -> int:
    """Tokens of ``text``, rather too many."""
    plain = len(text.encode("ascii", "ignore"))
    tokens = plain * _ASCII
    if plain < len(text):
        tokens += sum(_beyond_ascii(text[start : start + _SLICE]) for start in range(0, len(text), _SLICE))
    return math.ceil(tokens - 1e-6)


def _beyond_ascii(text: str) -> float:
    tokens = 0.0
    for script, each in _BEYOND:
        rest = script.sub("", text)
        tokens, text = tokens + each * (len(text) - len(rest)), rest
    return tokens


def estimate_all(data: object) -> int:
    """An estimate for all text in it, however deep; not for pictures and sounds, which stand in it as data URLs."""
    tokens, rest = 0, [data]
    while rest:
        match rest.pop():
            case str(text) if not _DATA_URL.match(text):
                tokens += estimate(text)
            case dict(parts):
                rest += parts.values()
            case list(parts):
                rest += parts
    return tokens
