"""The drafts of ``corpus.toml``."""

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

LENGTH = 5000  # characters of a draft that is filled, as many as the service takes


class Draft(NamedTuple):
    """A rough draft, and what is known of it; see the head of ``corpus.toml``."""

    id: str
    language: str
    traps: tuple[str, ...]
    text: str
    absent: tuple[str, ...]
    present: tuple[str, ...]
    good: str


def corpus() -> list[Draft]:
    """All of them, in the order of the file."""
    read = tomllib.loads((Path(__file__).parent / "corpus.toml").read_text("utf-8"))
    return [_draft(each) for each in read["draft"]]


def _draft(each: dict[str, Any]) -> Draft:
    text = each["draft"] + each.get("fill", "") * LENGTH
    text = (text[: each.get("length", LENGTH)] if "fill" in each else text).strip()
    good = each["good"].strip().replace("{draft}", text)
    traps, absent, present = (tuple(each.get(name, ())) for name in ("traps", "absent", "present"))
    return Draft(each["id"], each["language"], traps, text, absent, present, good)


def some(drafts: list[Draft], count: int | None) -> list[Draft]:
    """``count`` of them (``None``: all), spread evenly, so that each trap has its share."""
    if count is None or count >= len(drafts):
        return drafts
    return [drafts[place * len(drafts) // count] for place in range(count)]
