"""What of a draft a better prompt must still have: code, links, addresses, placeholders, numbers, its script. Pure.

Nothing else runs meanwhile, so all of it takes time in proportion to the texts: no expression begins again where its
like has just failed, nor looks further than a line or some tens of characters.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator
from enum import Enum
from itertools import islice
from typing import NamedTuple
from urllib.parse import unquote

from promptlord.rewrite import numerals
from promptlord.rewrite.code import INLINE, blocks_of, has_code, has_lines, lines_of, squeezed
from promptlord.rewrite.looks import plain

MANY = 30  # losses; more are not told
SHOWN = 100  # characters of a part; a longer one is told by its beginning
REMARK = 3  # words in brackets that may be no placeholder, but a remark


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
        return self.text if len(self.text) <= SHOWN else f"{self.text[:SHOWN]} [and so on]"


_PARTS = re.compile(r"[@{\[<$%【\d]|://|www\.")  # signs of links, addresses, placeholders and numbers
# Characters before and after are told by ASCII: in scripts without blanks any other letter may stand there.
_PATH = r"[A-Za-z0-9_~:/?#@!$&'()*+=%{}.\u00c0-\u024f\u0400-\u04ff-]++"
_LINK = re.compile(
    rf"(?<![A-Za-z0-9])(?:[A-Za-z][A-Za-z0-9+.-]{{0,20}}+://|www\.){_PATH}(?:[,;](?!\d|https?:|www\.){_PATH})*"
)
_ADDRESS = re.compile(r"(?<![\w.%+-])[\w.%+-]{1,64}+@[A-Za-z0-9-]{1,63}+(?:\.[A-Za-z0-9-]{1,63}+)+", re.ASCII)
_PLACEHOLDER = re.compile(
    r"""\{\{ [^{}\n]{1,60} \}\}
    | (?<! [\w)] ) \$? \{ (?: \d | [^\W\d] [^{}\n:;"'=,()\[\]]{0,40} ) \}
    | (?<! [A-Za-z0-9_\]!] ) (?<! [-*]\ ) \[ [^\W\d_] [^\[\]\n]{0,40} \] (?! [(\[] | :\s*+\S++:// )
    | (?<! [A-Za-z0-9] ) < [^\W\d_] [^<>\n=/"']{0,30} >
    | 【 [^【】\n]{1,40} 】
    | \$ (?: [1-9] (?! [\w%] | [.,]\d ) | [A-Za-z_]\w{2,40} (?! [\w%] ) )
    | % [A-Z_]{3,30} %
    """,
    re.VERBOSE,
)
_SLOTS = tuple(  # one may stand in another
    re.compile(pattern)
    for pattern in (
        r"\{\{[^{}\n]{1,60}\}\}",
        r"\$?\{[^{}\n]{1,42}\}",
        r"\[[^\[\]\n]{1,42}\]",
        r"<[^<>\n]{1,32}>",
        r"【[^【】\n]{1,40}】",
        r"[$%]\w{1,41}%?",
    )
)
_MARKUP_NAMES = """
    a alt b body br button ctrl div em enter esc footer form h1 h2 h3 head header hr html i img input li link main meta
    nav ol p script section shift space span strong style tab table td th title tr ul
"""  # which is no placeholder even where nothing ends it; other markup is known by its end
_MARKUP = frozenset(_MARKUP_NAMES.split())
_DOLLARS = r"(?<!\d){0}\s?(?:USD|dollars?|bucks|\$)|(?:USD|US\$)\s?{0}(?!\d)"
_LATIN = re.compile(r"[A-Za-z\u00aa\u00b5\u00ba\u00c0-\u024f\u1e00-\u1eff]+")
_BEYOND_LATIN = re.compile(r"[^\W\d_A-Za-z\u00aa\u00b5\u00ba\u00c0-\u024f\u1e00-\u1eff]+")
_FEW = 4  # letters; where there are more, an answer without any has lost them
_MUCH, _LITTLE = 1 / 3, 1 / 5  # of a text's letters


def losses(draft: str, answer: str) -> list[Loss]:
    """What ``answer`` lacks of ``draft``, ``MANY`` at the most; nothing if it is as good as there."""
    return list(islice(_losses(draft, answer), MANY))


def placeholders(text: str) -> set[str]:
    """What somebody's program is to fill in, however it is spaced; in code and markup there are none."""
    text = INLINE.sub(" ", blocks_of(plain(text))[1])
    return {_tight(slot) for slot in _taken(_PLACEHOLDER, text)[0] if not _is_markup(slot, text)}


def in_words(lost: Collection[Loss]) -> str:
    """How many of each kind; nothing of themselves."""
    kinds = Counter(loss.kind.value for loss in lost)
    return ", ".join(f"{count} × {kind}" for kind, count in kinds.items())


def _losses(draft: str, answer: str) -> Iterator[Loss]:
    """Of what was typed: code is compared as it is, the rest as it looks. What it has no sign of is not looked for."""
    typed = draft
    if "`" in draft or "~~~" in draft:
        blocks, draft = blocks_of(draft)
        codes, draft = _taken(INLINE, draft)
        whole, text = lines_of(answer) if blocks else "", squeezed(answer)
        yield from (Loss(Kind.BLOCK, block) for block in blocks if not has_lines(whole, block))
        yield from (Loss(Kind.CODE, code) for code in codes if not has_code(text, code))
    draft = plain(draft)
    if _PARTS.search(draft):
        typed, looks = plain(typed), plain(answer)
        for kind, pattern, norm in ((Kind.LINK, _LINK, _link), (Kind.ADDRESS, _ADDRESS, str.casefold)):
            found, draft = _taken(pattern, draft)
            if found:
                kept = set(map(norm, pattern.findall(looks)))
                yield from (Loss(kind, part) for part in found if norm(part) not in kept)
        slots, draft = _taken(_PLACEHOLDER, draft)
        if slots := [slot for slot in slots if slot in typed and not _is_markup(slot, draft)]:
            kept = {_tight(slot) for pattern in _SLOTS for slot in pattern.findall(looks)}
            yield from (Loss(Kind.PLACEHOLDER, slot) for slot in slots if not _is_slot_kept(slot, kept, looks))
        yield from (Loss(Kind.NUMBER, number) for number in numerals.missing(draft, looks))
    if _has_left(draft, answer):
        yield Loss(Kind.SCRIPT)


def _taken(pattern: re.Pattern[str], text: str) -> tuple[list[str], str]:
    """Each different match, and the text without them."""
    found = dict.fromkeys(match[0] for match in pattern.finditer(text))
    return list(found), pattern.sub(" ", text) if found else text


def _link(link: str) -> str:
    """Where a link leads, without what only ends its sentence."""
    link = unquote(link.partition("://")[2] or link)
    link = link.rstrip(".,;:!?'*_~/")
    closing = len(link) - len(link.rstrip(")"))
    extra = min(closing, max(0, link.count(")") - link.count("(")))
    host, slash, path = link[: len(link) - extra].rstrip(".,;:!?'*_~/").partition("/")
    return host.casefold().removeprefix("www.") + slash + path


def _is_markup(slot: str, draft: str) -> bool:
    return slot.startswith("<") and (slot[1:-1].strip().lower() in _MARKUP or f"</{slot[1:]}" in draft)


def _is_slot_kept(slot: str, kept: Collection[str], answer: str) -> bool:
    """Whether it is there: of dollars in other words too, and of a remark in brackets also without these."""
    if _tight(slot) in kept:
        return True
    if slot[0] == "$" and slot[1:].isdigit():
        return bool(re.search(_DOLLARS.format(slot[1:]), answer, re.IGNORECASE))
    return slot[0] == "[" and len(slot.split()) >= REMARK and slot[1:-1].casefold() in answer.casefold()


def _tight(slot: str) -> str:
    slot = re.sub(r"(?<=[{\[<])\s+|\s+(?=[}\]>])", "", slot)
    return slot.casefold() if slot[0] in "[<" else slot


def _has_left(draft: str, answer: str) -> bool:
    """Whether an answer is in Latin letters where the draft is not; such letters in it may be all that it quotes."""
    beyond, share = _beyond_latin(draft)
    if share <= _MUCH and beyond < _FEW:
        return False
    left, _ = _beyond_latin(answer)
    if left >= beyond / 2:  # as mostly
        return False
    left, still = _beyond_latin(_LINK.sub(" ", INLINE.sub(" ", blocks_of(answer)[1])))
    return not left or (share > _MUCH and still < _LITTLE)


def _beyond_latin(text: str) -> tuple[int, float]:
    """How many of its letters are not Latin, and their share."""
    if text.isascii():
        return 0, 0.0
    beyond = sum(map(len, _BEYOND_LATIN.findall(text)))
    letters = beyond + sum(map(len, _LATIN.findall(text)))
    return beyond, beyond / letters if letters else 0.0
