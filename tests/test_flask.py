"""``flask``, as one types it beside a ``.env``: the port it serves on, and what it says."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import BIN, ROOT, environment, free_port

Run = Callable[..., subprocess.Popen[str]]
pytestmark = pytest.mark.live


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("app.py", "keypool.py", ".flaskenv"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "promptlord", tmp_path / "promptlord", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.fixture
def flask(project: Path) -> Iterator[Run]:
    """Start ``flask`` with these arguments, a ``.env`` of this content and these variables."""
    with ExitStack() as started:

        def run(*arguments: str, dotenv: str = "", **env: str) -> subprocess.Popen[str]:
            (project / ".env").write_text(dotenv)
            inherited = {"PATH": environment()["PATH"], "PYTHONUNBUFFERED": "1"}
            server = subprocess.Popen(
                [BIN / "flask", *arguments],
                cwd=project,
                env=inherited | env,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            started.callback(server.communicate)
            started.callback(server.kill)
            return server

        yield run


def until(server: subprocess.Popen[str], words: str) -> None:
    """Read what it says until it says these words."""
    assert server.stdout
    assert any(words in line for line in server.stdout)


def port(server: subprocess.Popen[str]) -> int:
    """The port that it says it runs on, or would if it were free."""
    assert server.stdout
    for line in server.stdout:
        if said := re.search(r"Running on http://127\.0\.0\.1:(\d+)|Port (\d+) is in use", line):
            return int(said[1] or said[2])
    raise AssertionError("it does not run")


@pytest.fixture
def free() -> tuple[str, str]:
    return free_port(), free_port()


def test_flask_run_obeys_port(flask: Run, free: tuple[str, str]) -> None:
    assert port(flask("run", PORT=free[0])) == int(free[0])


def test_flask_run_says_what_it_has_loaded(flask: Run, free: tuple[str, str]) -> None:
    until(flask("run", PORT=free[0], GROQ_API_KEYS="gsk_a"), "✅ Loaded 1 Groq API key(s)")


def test_flask_run_obeys_port_where_flask_reads_no_file(flask: Run, free: tuple[str, str]) -> None:
    assert port(flask("run", PORT=free[0], PYTHON_DOTENV_DISABLED="1")) == int(free[0])


def test_flask_run_obeys_the_port_of_the_env_file(flask: Run, free: tuple[str, str]) -> None:
    assert port(flask("run", dotenv=f"PORT={free[0]}")) == int(free[0])


def test_the_environments_port_beats_the_env_files(flask: Run, free: tuple[str, str]) -> None:
    assert port(flask("run", dotenv=f"PORT={free[0]}", PORT=free[1])) == int(free[1])


def test_flasks_own_option_beats_both(flask: Run, free: tuple[str, str]) -> None:
    assert port(flask("run", "--port", free[0], dotenv=f"PORT={free[1]}")) == int(free[0])


def test_flasks_own_variable_beats_both(flask: Run, free: tuple[str, str]) -> None:
    assert port(flask("run", dotenv=f"PORT={free[1]}", FLASK_RUN_PORT=free[0])) == int(free[0])


def test_an_option_that_names_the_default_is_obeyed_too(flask: Run, free: tuple[str, str]) -> None:
    assert port(flask("run", "--port", "3000", dotenv=f"PORT={free[0]}")) == 3000


def test_help_says_nothing_else(flask: Run) -> None:
    said, _ = flask("--help", dotenv="GROQ_API_KEYZ=gsk_a\ngsk_b").communicate(timeout=10)

    assert said.startswith("Usage: flask ")
    assert "check-keys" in said
    assert "GROQ_API_KEY" not in said


def test_check_keys_names_typing_errors_before_it_asks(flask: Run) -> None:
    dotenv = "GROQ_API_KEYS=<gsk_a>\ngsk_b\nGROQ_BASE_URL=http://127.0.0.1:9"

    said, _ = flask("check-keys", dotenv=dotenv).communicate(timeout=20)

    assert said.startswith("⚠️  .env, line 2: passed over")
    assert "0 of 1 keys work." in said
