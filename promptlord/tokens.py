"""How many tokens Groq will count, estimated with caution."""

import re

_DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w.+=-]+)*;base64,")


def estimate(text: str) -> int:
    """Tokens of ``text``, rather too many: three ASCII characters each, and of other scripts two bytes."""
    plain = len(text.encode("ascii", "ignore"))
    return -(-plain // 3) + (len(text.encode("utf-8", "surrogatepass")) - plain + 1) // 2


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
