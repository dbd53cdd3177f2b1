"""Runs the commands of README.md as they are written, in the clone it is called in: CI does. python tools/readme.py

A command ends well, or serves on port 3000: then the README's curl lines are tried on it, and it is ended. The keys
are made up, and Groq is a simulated one.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import requests
from groqsim import GroqSim

README = Path(__file__).parent.parent / "README.md"
APP, SERVED = "https://<your app>", "http://localhost:3000"
KEY = "gsk_readme"
PATIENCE = 900  # seconds for one command; the tests take the longest


def commands() -> list[str]:
    """The lines of its shell blocks, in their order, then what its text says of `.venv`."""
    text = README.read_text("utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    return lines + re.findall(r"(?<=`)\.venv/bin/[^`\n]+(?=`)", text)


def serves() -> bool:
    with suppress(requests.RequestException):
        return requests.get(f"{SERVED}/health", timeout=5).ok
    return False


def is_running(group: int) -> bool:
    """Whether a process of this group is left, after a moment to end in."""
    with suppress(ProcessLookupError):
        for _ in range(50):
            os.killpg(group, 0)
            time.sleep(0.1)
        return True
    return False


def ends_or_serves(command: subprocess.Popen[bytes]) -> bool:
    """Wait until it serves, or has ended well, which is ``False``."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if serves():
            return True
        with suppress(subprocess.TimeoutExpired):
            assert command.wait(0.5) == 0, f"it failed with {command.returncode}"
            return False
    raise AssertionError(f"it neither ended nor served within {PATIENCE} s")


@contextmanager
def started(line: str, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    command = subprocess.Popen(["bash", "-c", line], env=env, start_new_session=True)
    try:
        yield command
    finally:
        with suppress(ProcessLookupError):
            os.killpg(command.pid, signal.SIGTERM)
        command.wait(30)
        assert not is_running(command.pid), "it has left a process behind"


def run(line: str, curls: list[str], env: dict[str, str]) -> None:
    print(f"\n$ {line}", flush=True)
    assert not serves(), f"something serves on {SERVED} already"
    if line.startswith("python3 -m venv"):
        shutil.rmtree(".venv", ignore_errors=True)  # who goes without make has none yet
    with started(line, env) as command:
        if ends_or_serves(command):
            for curl in curls:
                print(f"  $ {curl}", flush=True)
                subprocess.run(["bash", "-c", curl], check=True, stdout=sys.stdout)
    if line.startswith("cp ") and ".env" in shlex.split(line, comments=True):
        file = Path(".env")  # "put your own keys into its first setting"
        file.write_text(file.read_text("utf-8").replace("GROQ_API_KEYS=", f"GROQ_API_KEYS={KEY}", 1), "utf-8")


def main() -> None:
    lines = commands()
    curls = [f"{line.replace(APP, SERVED)} --fail" for line in lines if line.startswith("curl ")]
    assert curls, "no curl line"
    with GroqSim({KEY: "org_readme"}) as sim:
        for line in lines:
            if not line.startswith("curl "):
                run(line, curls, os.environ | {"GROQ_BASE_URL": sim.url})


if __name__ == "__main__":
    main()
