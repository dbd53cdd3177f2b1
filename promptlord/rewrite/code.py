"""Code in a draft, fenced or between backticks, and whether an answer has it as it is. Pure."""

import re
from collections.abc import Iterable
from itertools import groupby
from textwrap import dedent

from promptlord.rewrite.looks import usual

SHORT = 4  # letters of a word of code that might be any word

# A fence may follow words in its line ("fix this: ```js") or a list's marker; before the one that ends it may be code.
# Here and beside, no group repeats possessively: in Python 3.11 that loses its place where the group matches in part.
_OPENS = re.compile(r"([^`~]*+)(`{3,}+|~{3,}+)[\w+#.-]*+[ \t]*+\Z")
# What may stand before and after is told by ASCII: in scripts without blanks it is any other letter.
INLINE = re.compile(r"(?<![A-Za-z0-9`])(`{1,3})(?![`\s])([^`\n]*[^`\s])\1(?![A-Za-z0-9`])")
_WORDLY = re.compile(r"[A-Za-z0-9_]")


def blocks_of(text: str) -> tuple[list[str], str]:
    """The fenced code blocks, as they are compared, and the text without them."""
    blocks, block, rest, fence = list[list[str]](), list[str](), list[str](), ""
    for line in text.split("\n"):
        if not fence:
            opens = _OPENS.match(line)
            rest.append(opens[1] if opens else line)
            fence = opens[2] if opens else ""
        elif line.rstrip().endswith(fence):
            blocks.append([*block, line.rstrip().rstrip(fence[0])])
            block, fence = [], ""
        else:
            block.append(line)
    code = map(_as_code, [*blocks, block])
    return [lines for lines in dict.fromkeys(code) if lines], "\n".join(rest)


def _as_code(lines: Iterable[str]) -> str:
    """Lines without what quotes or indents all of them, without empty ones, and with blanks for tabs."""
    lines = [line.rstrip().expandtabs(4) for line in lines if line.strip()]
    if all(line.lstrip().startswith(">") for line in lines):
        lines = [line.lstrip()[1:] for line in lines if line.strip(" >")]
    return dedent("\n".join(lines))


def lines_of(text: str) -> str:
    """What of a text may be code: its blocks, all its lines, and those that are indented, without what indents them."""
    groups = [[*lines] for indented, lines in groupby(text.split("\n"), _is_indented) if indented]
    parts = [*blocks_of(text)[0], _as_code(text.split("\n")), *map(_as_code, groups)]
    return "\n\0\n".join(["", *parts, ""])


def _is_indented(line: str) -> bool:
    return not line.strip() or line[0] in " \t"


def has_lines(whole: str, block: str) -> bool:
    """Whether a block is in what ``lines_of`` returned, line by line; a phone's quotes may have been mended."""
    return any(f"\n{lines}\n" in whole for lines in {block, usual(block)})


def squeezed(text: str) -> str:
    return " ".join(text.split())


def has_code(text: str, code: str) -> bool:
    """Whether inline code is in a squeezed text: not within a longer word, nor a short word as one of the others."""
    code = squeezed(code.strip("`"))
    before, after = (
        r"(?<![A-Za-z0-9_])" * bool(_WORDLY.match(code)),
        r"(?![A-Za-z0-9_])" * bool(_WORDLY.match(code[-1:])),
    )
    if code.isalpha() and len(code) <= SHORT:
        before, after = "(?<=[`*'\"“‘«])", "(?=[`*'\"”’»])"
    return any(each in text and bool(re.search(before + re.escape(each) + after, text)) for each in {code, usual(code)})
