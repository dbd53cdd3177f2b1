"""The README: short, without a link that leads nowhere or a command that is none. ``tools/readme.py`` runs those."""

import re
from pathlib import Path

import pytest
import readme

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDES = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")),
]


def headings(file: Path) -> set[str]:
    """As a forge makes anchors of them."""
    found = re.findall(r"^#+ (.+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_it_is_read_in_five_minutes() -> None:
    assert len(TEXT.splitlines()) <= 120


@pytest.mark.parametrize("name", GUIDES)
def test_each_link_inside_the_project_leads_somewhere(name: str) -> None:
    text, folder = (ROOT / name).read_text(encoding="utf-8"), (ROOT / name).parent
    links = re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text)

    for target in {markdown or image for markdown, image in links}:
        path, _, anchor = target.partition("#")
        if not re.match(r"https?:", target):
            assert (folder / path).exists() if path else True, target
            assert not anchor or anchor in headings(folder / path if path else ROOT / name), target


@pytest.mark.parametrize("name", GUIDES)
def test_each_target_of_make_exists(name: str) -> None:
    targets = set(re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))

    named = re.findall(r"(?:^|`)make ([\w./-]+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)

    assert set(named) <= targets


def test_ci_runs_the_commands_as_they_are_written() -> None:
    words = [line.split("#")[0].split() for line in readme.commands()]

    assert ["make", "demo"] in words
    assert ["make", "test"] in words
    assert re.search(r"^\S+ tools/readme\.py$", (ROOT / ".ci/run").read_text(encoding="utf-8"), re.MULTILINE)


def test_there_is_no_other_block_of_commands_than_those_that_are_run() -> None:
    assert set(re.findall(r"^```(\w*)", TEXT, re.MULTILINE)) <= {"sh", "python", ""}
    assert not re.search(r"^(\$|    )", TEXT, re.MULTILINE)
