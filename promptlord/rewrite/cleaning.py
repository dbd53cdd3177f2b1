"""What models put around a prompt although told not to is taken off. Pure."""

import re

LAYERS = 10  # of labels, fences, quotes around a prompt; where there are more, a model repeats itself

# A model that repeats itself must not make this backtrack: its quantifiers are possessive, and the last one,
# which goes back to the last new line, does so once.
_LABEL = re.compile(
    r"""[#*_\s]*+
    (?: (?:sure|certainly|of[ ]course|absolutely) [,.!]*+ \s++ )?
    (?: here (?:['’]s|[ ]is) \s++ )?
    (?: (?:the|an?|your) \s++ )?
    [*_]*+ (?:enhanced|improved|rewritten|refined|revised|better|optimi[sz]ed) \s++ (?:prompt|version)
    (?: \s++ of \s++ (?:the|your) \s++ (?:original \s++)? prompt )?
    (?: [*_\s]*+ (?: : (?:[*_]++(?=\s|\Z))? | \Z ) | (?> [*_\s]* \n) )
    """,
    re.IGNORECASE | re.VERBOSE,
)
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
    label = _LABEL.match(text)
    return text[label.end() :].strip() if label else text


def _unfenced(text: str) -> str:
    first, _, rest = text.partition("\n")
    around = first.startswith("```") and "`" not in first[3:] and rest.endswith("```")
    return rest[:-3].strip() if around and "```" not in rest[:-3] else text


def _unquoted(text: str) -> str:
    closing, inner = _QUOTES.get(text[:1], ""), text[1:-1]
    around = closing and len(text) > 1 and text.endswith(closing)
    return inner.strip() if around and text[0] not in inner and closing not in inner else text
