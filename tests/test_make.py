"""The Makefile, as a newcomer types it: a demo that holds, and a ``.venv`` that survives whatever ends it half-way."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
import requests
from conftest import BIN, ROOT, free_port, poll

pytestmark = pytest.mark.live
Make = Callable[..., subprocess.Popen[str]]
BENT = {  # a developer's own, none of which the demo may follow
    "GROQ_API_KEYS": "gsk_own",
    "GROQ_API_KEY": "gsk_own",
    "GROQ_BASE_URL": "http://127.0.0.1:9",
    "GROQ_MODELS": "none",
    "CLIENT_LIMITS": "1 per day",
    "ACCESS_TOKENS": "own",
    "REDIS_URL": "redis://127.0.0.1:9",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "GUNICORN_CMD_ARGS": "--bind 0.0.0.0:9",
}


def is_running(group: int) -> bool:
    with suppress(ProcessLookupError):
        os.killpg(group, 0)
        return True
    return False


def end(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.fixture
def make() -> Iterator[Make]:
    """Start ``make`` with these arguments, as a group of processes of its own."""
    with ExitStack() as started:

        def run(*arguments: str, cwd: Path = ROOT, **env: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                ["make", "--no-print-directory", *arguments],
                cwd=cwd,
                env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | env,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            started.callback(end, process)
            return process

        yield run


# The demo


class Demo:
    """``make demo`` on free ports; ``said`` is all that it has printed before it serves."""

    def __init__(self, make: Make, **env: str) -> None:
        self.port, self.sim_port = free_port(), free_port()
        self.process = make(*demo(self.port, self.sim_port), **env)
        self.said = "".join(self._beginning())

    def _beginning(self) -> Iterator[str]:
        assert self.process.stdout
        for line in self.process.stdout:
            yield line
            if line == "Ctrl-C ends it.\n":
                return
        raise AssertionError("it has ended")

    def lines(self) -> list[str]:
        """What it suggests to type; each fails where its answer is an error."""
        found = re.findall(r"^  (\S(?:\\\n|.)*)", self.said, re.MULTILINE)
        return [re.sub(r"\bcurl ", "curl -fsS ", line) for line in found]


def demo(port: str, sim_port: str) -> list[str]:
    return ["demo", f"PORT={port}", f"SIM_PORT={sim_port}", f"BIN={BIN}", "-o", ".venv/run"]


def test_what_the_demo_suggests_works_when_typed_at_once_and_again(make: Make) -> None:
    started = Demo(make, **BENT)
    told = [
        subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=30, check=True).stdout
        for line in started.lines() * 2
    ]

    enhance, v1, _, thrice, health = told[:5]
    assert json.loads(enhance)["enhancedPrompt"]
    assert json.loads(v1)["choices"]
    assert thrice.count("enhancedPrompt") == 3
    assert json.loads(health)["failedKeys"] == [{"keyIndex": 1, "failCount": 1, "inCooldown": True}]
    assert len(told) == 10


def test_the_demo_names_its_page_first_and_how_to_open_it(make: Make) -> None:
    started = Demo(make)

    found = re.search(r"http://localhost:\d+/", started.said)
    assert found
    assert "curl" not in started.said[: found.start()]
    assert "any name, demo" in started.said
    assert requests.get(found[0], timeout=5).status_code == 401
    assert "data-status" in requests.get(found[0], auth=("any name", "demo"), timeout=5).text


def test_the_demo_serves_this_machine_alone(make: Make) -> None:
    started = Demo(make)

    for port in (started.port, started.sim_port):
        socket.create_connection(("127.0.0.1", int(port)), 5).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", int(port)), 5)


@pytest.mark.parametrize("told", ["Ctrl-C", "make alone"])
def test_the_demo_ends_all_that_it_began(make: Make, told: str) -> None:
    started = Demo(make)

    if told == "Ctrl-C":
        os.killpg(started.process.pid, signal.SIGINT)
    else:
        started.process.terminate()
    rest, _ = started.process.communicate(timeout=20)

    until(lambda: not is_running(started.process.pid))
    assert "Traceback" not in rest


class Stranger:
    """Some other program, on a port that the demo wants, which remembers what it is sent."""

    def __init__(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.heard = b""
        self._socket = socket.create_server((address, int(free_port())), family=family)
        self.port = str(self._socket.getsockname()[1])
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                with self._socket.accept()[0] as caller:
                    self.heard += caller.recv(1000)

    def close(self) -> None:
        self._socket.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1", "::"])
@pytest.mark.parametrize("port", ["PORT", "SIM_PORT"])
def test_where_a_port_is_taken_the_demo_stops_and_tells_the_stranger_nothing(
    make: Make, address: str, port: str
) -> None:
    with closing(Stranger(address)) as stranger:
        ports = (stranger.port, free_port()) if port == "PORT" else (free_port(), stranger.port)
        process = make(*demo(*ports))
        said, _ = process.communicate(timeout=20)

    first, *rest = said.splitlines()
    assert first.startswith(f"Port {stranger.port} is taken by another program: end that, or type make demo {port}=")
    assert [line for line in rest if not line.startswith("make: ***")] == []
    assert process.returncode != 0
    assert stranger.heard == b""


def test_a_port_that_is_held_but_not_served_is_taken_too(make: Make) -> None:
    with closing(socket.socket()) as held:
        held.bind(("127.0.0.1", int(free_port())))
        said, _ = make(*demo(str(held.getsockname()[1]), free_port())).communicate(timeout=20)

    assert re.match(r"Port \d+ is taken by another program", said)


@pytest.mark.parametrize("ports", [("3100", "3100"), ("abc", "3100"), ("3100", "70000"), ("0", "3100"), ("3100", "-1")])
def test_ports_that_will_not_do_are_told_in_one_sentence(make: Make, ports: tuple[str, str]) -> None:
    said, _ = make(*demo(*ports)).communicate(timeout=20)

    assert re.match(r"(SIM_)?PORT must be a number from 1 to 65535", said)
    assert len([line for line in said.splitlines() if not line.startswith("make: ***")]) == 1


# .venv


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A project of which nothing is installed, and whose requirements need no network."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.txt").touch()
    return tmp_path


def until(condition: Callable[[], bool]) -> None:
    assert any(condition() for _ in poll(30, every=0.005))


def installs(make: Make, project: Path, *arguments: str) -> subprocess.Popen[str]:
    return make(".venv/run", *(arguments or [f"PYTHON={sys.executable}"]), cwd=project)


def works(project: Path) -> bool:
    pip = [str(project / ".venv/bin/python"), "-m", "pip", "--version"]
    return (project / ".venv/run").exists() and not subprocess.run(pip, capture_output=True, check=False).returncode


@pytest.mark.parametrize(
    ("reached", "how"),
    [("pyvenv.cfg", signal.SIGKILL), ("bin/python", signal.SIGINT), ("made", signal.SIGKILL)],
)
def test_an_interrupted_venv_is_made_anew(make: Make, bare: Path, reached: str, how: signal.Signals) -> None:
    first = installs(make, bare)
    until((bare / ".venv" / reached).exists)
    os.killpg(first.pid, how)
    first.communicate(timeout=20)
    assert not (bare / ".venv/run").exists()

    installs(make, bare).communicate(timeout=60)

    assert works(bare)


def old_python(file: Path) -> Path:
    """A Python that says it is 3.10."""
    answer = "import sys; sys.version_info = (3, 10, 13); exec(sys.argv[2])"
    file.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{answer}' \"$@\"\n")
    file.chmod(0o755)
    return file


def test_an_old_python_is_refused_in_one_sentence(make: Make, bare: Path) -> None:
    process = installs(make, bare, f"PYTHON={old_python(bare / 'python3.10')}")
    said, _ = process.communicate(timeout=20)

    assert said.splitlines()[0] == "Python 3.11 or newer is needed: https://www.python.org/downloads/"
    assert process.returncode != 0
    assert not (bare / ".venv").exists()


def test_no_python_at_all_is_told_likewise(make: Make, bare: Path) -> None:
    said, _ = installs(make, bare, "PYTHON=").communicate(timeout=20)

    assert said.startswith("Python 3.11 or newer is needed: https://www.python.org/downloads/\n")


@pytest.mark.parametrize("state", ["old", "gone"])
def test_a_venv_whose_python_will_not_do_is_made_anew(make: Make, bare: Path, state: str) -> None:
    python = bare / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    if state == "old":
        old_python(python)
    else:
        python.symlink_to("/nowhere/python3")
    for stamp in ("made", "run"):
        (bare / ".venv" / stamp).touch()

    installs(make, bare).communicate(timeout=60)

    assert works(bare)
