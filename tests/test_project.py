"""What those who join in read: the targets of make."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_make_help_lists_every_target_that_is_described():
    described = dict(re.findall(r"^([\w-]+):.*?## (.+)", read("Makefile"), re.MULTILINE))

    listed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()

    assert {"demo", "test", "check", "help"} <= described.keys()
    assert [line.split(maxsplit=2)[1:] for line in listed] == [[*each] for each in described.items()]
    assert len({line.index(says) for line, says in zip(listed, described.values(), strict=True)}) == 1, "not aligned"
