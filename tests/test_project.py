"""What the forge and those who join in read: the workflow, the forms, the targets of make."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
FORGE = sorted((ROOT / ".github").rglob("*.yml"))
FORMS = [file for file in FORGE if file.parent.name == "ISSUE_TEMPLATE" and file.stem != "config"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def of(file: Path) -> dict[Any, Any]:
    read: dict[Any, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return read


def supported() -> list[str]:
    """From the oldest Python that ruff checks for to the one that the platforms run."""
    oldest = re.search(r'target-version = "py3(\d+)"', read("pyproject.toml"))
    newest = re.fullmatch(r"3\.(\d+)\n", read(".python-version"))
    assert oldest
    assert newest
    return [f"3.{minor}" for minor in range(int(oldest[1]), int(newest[1]) + 1)]


@pytest.mark.parametrize("file", FORGE, ids=lambda file: file.name)
def test_what_the_forge_reads_is_yaml(file):
    assert of(file)


@pytest.mark.parametrize("file", FORMS, ids=lambda file: file.name)
def test_a_form_has_a_name_and_asks_each_thing_once(file):
    form = of(file)
    asked = [field["id"] for field in form["body"]]

    assert form["name"]
    assert form["description"]
    assert asked
    assert len(set(asked)) == len(asked)


def test_nobody_reports_a_bug_without_looking_for_keys():
    (secrets,) = [field for field in of(ROOT / ".github/ISSUE_TEMPLATE/bug.yml")["body"] if field["id"] == "secrets"]

    assert [(option["required"], "key" in option["label"]) for option in secrets["attributes"]["options"]] == [
        (True, True)
    ]


def test_ci_checks_exactly_the_pythons_that_are_supported():
    (job,) = of(ROOT / ".github/workflows/ci.yml")["jobs"].values()
    steps = job["steps"]

    assert job["strategy"]["matrix"]["python"] == supported()
    assert "${{ matrix.python }}" in [step["with"].get("python-version") for step in steps if "with" in step]
    assert steps[-1]["run"] == "make check PYTHON=python${{ matrix.python }}"


def test_make_help_lists_every_target_that_is_described():
    described = dict(re.findall(r"^([\w-]+):.*?## (.+)", read("Makefile"), re.MULTILINE))

    listed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()

    assert {"demo", "test", "check", "help"} <= described.keys()
    assert [line.split(maxsplit=2)[1:] for line in listed] == [[*each] for each in described.items()]
    assert len({line.index(says) for line, says in zip(listed, described.values(), strict=True)}) == 1, "not aligned"
