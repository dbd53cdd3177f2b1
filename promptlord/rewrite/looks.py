"""What is one and the same to whoever reads it. Pure."""

import re

# A phone's quotes, blanks and hyphens that do not break.
_SAME = str.maketrans(
    dict.fromkeys("“”„«»", '"')
    | dict.fromkeys("‘’", "'")
    | dict.fromkeys("\u00a0\u202f\u2009\u3000", " ")
    | {"\u2011": "-"}
)
_ENTITIES = {"&nbsp;": " ", "&amp;": "&", "&lt;": "<", "&gt;": ">", "\r": ""}
_ESCAPED = re.compile(r"\\([\[\]{}<>_*])")


def usual(text: str) -> str:
    """With usual quotes, blanks and hyphens."""
    return text if text.isascii() else text.translate(_SAME)


def plain(text: str) -> str:
    """The same for texts that look the same."""
    text = usual(text)
    for entity, char in _ENTITIES.items():
        text = text.replace(entity, char)
    return _ESCAPED.sub(r"\1", text)
