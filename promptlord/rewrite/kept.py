"""What of a draft a better prompt must still have: code, links, addresses, placeholders, numbers, its script. Pure.

Nothing else runs meanwhile, so all of it takes time in proportion to the texts: no expression begins again where its
like has just failed, nor looks further than a line or some tens of characters.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator
from enum import Enum
from itertools import islice
from textwrap import dedent
from typing import NamedTuple

from promptlord.rewrite import numerals

MANY = 30  # losses; more are not told
SHOWN = 100  # characters of a part; a longer one is told by its beginning


class Kind(Enum):
    BLOCK = "code block"
    CODE = "inline code"
    LINK = "link"
    ADDRESS = "e-mail address"
    PLACEHOLDER = "placeholder"
    NUMBER = "number"
    SCRIPT = "script"


class Loss(NamedTuple):
    """A part of a draft that an answer lacks; without ``text`` where it has left the draft's script."""

    kind: Kind
    text: str = ""

    @property
    def shown(self) -> str:
        return self.text if len(self.text) <= SHOWN else f"{self.text[:SHOWN]} …"


# What is one and the same to whoever reads it: a phone's quotes, blanks and hyphens that do not break, digits.
_SAME = str.maketrans(
    dict.fromkeys("“”„«»", '"') | dict.fromkeys("‘’", "'") | dict.fromkeys("\u00a0\u202f\u2009\u3000", " ")
    | {"\u2011": "-"}
    | numerals.DIGITS
)  # fmt: skip
_SIGN = re.compile(r"[`~@{\[<$\d]|://|www\.|[^\0-\u024f\u1e00-\u1eff\u2000-\u206f]")  # of anything that could be lost
_FENCE = re.compile(r"[ \t]*+(`{3,}+|~{3,}+)([^`]*)\Z")
# Characters before and after are told by ASCII: in scripts without blanks any other letter may stand there.
_CODE = re.compile(r"(?<![A-Za-z0-9`])`([^`\n]+)`(?![A-Za-z0-9`])")
_LINK = re.compile(r"(?<![A-Za-z0-9])(?:[A-Za-z][A-Za-z0-9+.-]{0,20}+://|www\.)[\w~:/?#@!$&'()*+,;=%{}|.-]++", re.ASCII)
_ADDRESS = re.compile(r"(?<![\w.%+-])[\w.%+-]{1,64}+@[A-Za-z0-9-]{1,63}+(?:\.[A-Za-z0-9-]{1,63}+)++", re.ASCII)
_PLACEHOLDER = re.compile(
    r"""\{\{ [^{}\n]{1,60} \}\}
    | \$? \{ [^\W\d][\w\ .-]{0,40} \}
    | (?<! [A-Za-z0-9_\]!] ) (?! \[x\] ) \[ [^\W\d_][\w\ /'-]{0,30} \] (?! [(\[:] )
    | (?<! [A-Za-z0-9] ) < [^\W\d_][\w\ -]{0,30} >
    | \$ (?: [1-9] (?! \w | [.,]\d ) | [A-Z_][A-Z0-9_]{2,40} )
    """,
    re.VERBOSE,
)
_SLOT = re.compile(r"\{\{[^{}\n]{1,60}\}\}|\$?\{[^{}\n]{1,42}\}|\[[^\[\]\n]{1,32}\]|<[^<>\n]{1,32}>|\$\w{1,41}")
_MARKUP = {"<b>", "<br>", "<hr>", "<i>", "<img>", "<li>", "<p>"}  # that need no end; other markup is known by its end
_LETTER = re.compile(r"[^\W\d_]")
_LATIN = re.compile(r"[A-Za-z\u00aa\u00ba\u00c0-\u024f\u1e00-\u1eff]")
_MUCH, _LITTLE = 1 / 3, 1 / 5  # of a text's letters


def losses(draft: str, answer: str) -> list[Loss]:
    """What ``answer`` lacks of ``draft``, ``MANY`` at the most; nothing if it is as good as there."""
    return list(islice(_losses(plain(draft), plain(answer)), MANY)) if _SIGN.search(draft) else []


def placeholders(text: str) -> set[str]:
    """What somebody's program is to fill in, however it is spaced; in code and markup there are none."""
    text = _CODE.sub(" ", _blocks(plain(text))[1])
    return {_tight(slot) for slot in _taken(_PLACEHOLDER, text)[0] if not _is_markup(slot, text)}


def in_words(lost: Collection[Loss]) -> str:
    """How many of each kind; nothing of themselves."""
    kinds = Counter(loss.kind.value for loss in lost)
    return ", ".join(f"{count} × {kind}" for kind, count in kinds.items())


def plain(text: str) -> str:
    """The same for texts that look the same."""
    if not text.isascii():
        text = text.translate(_SAME)
    return text.replace("\r", "").replace("&nbsp;", " ").replace("&amp;", "&")


def _losses(draft: str, answer: str) -> Iterator[Loss]:
    blocks, draft = _blocks(draft)
    if blocks:
        whole = "\n\0\n".join([*_blocks(answer)[0], _trimmed(answer)])
        yield from (Loss(Kind.BLOCK, block) for block in blocks if block not in whole)
    codes, draft = _taken(_CODE, draft)
    if codes:
        squeezed = _squeezed(answer)
        yield from (Loss(Kind.CODE, code) for code in codes if not _stands_in(squeezed, _squeezed(code.strip("`"))))
    for kind, pattern, norm in ((Kind.LINK, _LINK, _link), (Kind.ADDRESS, _ADDRESS, str.casefold)):
        found, draft = _taken(pattern, draft)
        if found:
            kept = set(map(norm, pattern.findall(answer)))
            yield from (Loss(kind, part) for part in found if norm(part) not in kept)
    slots, draft = _taken(_PLACEHOLDER, draft)
    if slots := [slot for slot in slots if not _is_markup(slot, draft)]:
        kept = set(map(_tight, _SLOT.findall(answer)))
        yield from (Loss(Kind.PLACEHOLDER, slot) for slot in slots if _tight(slot) not in kept)
    if found := list(dict.fromkeys(numerals.wanted(draft))):
        had = numerals.told(answer)
        yield from (Loss(Kind.NUMBER, number) for number in found if not numerals.is_told(number, had))
    if _has_left(draft, answer):
        yield Loss(Kind.SCRIPT)


def _taken(pattern: re.Pattern[str], text: str) -> tuple[list[str], str]:
    """Each different match, and the text without them."""
    found = dict.fromkeys(match[0] for match in pattern.finditer(text))
    return list(found), pattern.sub(" ", text) if found else text


def _blocks(text: str) -> tuple[list[str], str]:
    """The fenced code blocks, without what indents all of their lines; and the text without them."""
    blocks, block, rest, fence = [], list[str](), list[str](), ""
    for line in text.split("\n"):
        marks = _FENCE.match(line)
        if not fence:
            fence = marks[1] if marks else ""
            rest += [] if marks else [line]
        elif marks and marks[1].startswith(fence) and not marks[2].strip():
            blocks.append(block)
            block, fence = [], ""
        else:
            block.append(line)
    code = (dedent(_trimmed("\n".join(lines))).strip("\n") for lines in [*blocks, block])
    return [lines for lines in dict.fromkeys(code) if lines], "\n".join(rest)


def _trimmed(text: str) -> str:
    return "\n".join(map(str.rstrip, text.split("\n")))


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def _stands_in(text: str, code: str) -> bool:
    """Whether it is there as it is, and not as the beginning or the end of a longer word."""
    return code in text and bool(re.search(rf"(?<![A-Za-z0-9]){re.escape(code)}(?![A-Za-z0-9])", text))


def _link(link: str) -> str:
    """Where a link leads, without what only ends its sentence."""
    link = link.partition("://")[2] or link
    link = link.rstrip(".,;:!?'*_~/")
    extra = link.count(")") - link.count("(")
    while extra > 0 and link.endswith(")"):
        link, extra = link[:-1], extra - 1
    return link.rstrip(".,;:!?'*_~/")


def _is_markup(slot: str, draft: str) -> bool:
    return slot.startswith("<") and (slot.lower() in _MARKUP or f"</{slot[1:]}" in draft)


def _tight(slot: str) -> str:
    return re.sub(r"(?<=[{\[<])\s+|\s+(?=[}\]>])", "", slot)


def _has_left(draft: str, answer: str) -> bool:
    """Whether an answer is in Latin letters where the draft is not; such letters in it may be all that it quotes."""
    beyond, share = _beyond_latin(draft)
    if share <= _MUCH:
        return False
    left, still = _beyond_latin(_LINK.sub(" ", _CODE.sub(" ", _blocks(answer)[1])))
    return left < beyond / 2 and still < _LITTLE


def _beyond_latin(text: str) -> tuple[int, float]:
    """How many of its letters are not Latin, and their share."""
    if text.isascii():
        return 0, 0.0
    letters = len(_LETTER.findall(text))
    beyond = letters - len(_LATIN.findall(text))
    return beyond, beyond / letters if letters else 0.0
