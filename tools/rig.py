"""What a measurement needs: simulated Groqs and real gunicorns of this service, each a process of its own."""

import http.client
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

from groqsim import GroqSim, Trouble

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for those who measure a module alone
STARTS_IN = 30.0  # seconds, on a busy machine
ENDS_IN = 35.0  # seconds; gunicorn lets go of what is in flight after 29


class Seen(NamedTuple):
    """A call as the simulator saw it, at its instant."""

    at: float
    key: str
    prompt: str
    status: int


class Groq:
    """A simulator in another process."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.url: str = pipe.recv()

    def calls(self) -> list[Seen]:
        self._pipe.send("calls")
        calls: list[Seen] = self._pipe.recv()
        return calls


def _simulate(pipe: Connection, settings: Mapping[str, Any], faults: Mapping[str, str]) -> None:
    with GroqSim(**settings) as sim:
        for key, name in faults.items():
            sim.order(Trouble.named(name), key=key, times=None)
        pipe.send(sim.url)
        while pipe.recv():
            pipe.send(
                [Seen(call.at, call.key, call.json["messages"][-1]["content"], call.status) for call in sim.calls]
            )


@contextmanager
def groq(settings: Mapping[str, Any], faults: Mapping[str, str]) -> Iterator[Groq]:
    """A simulator with these ``settings``; ``faults``: what calls with a key always meet."""
    spawn = multiprocessing.get_context("spawn")
    pipe, theirs = spawn.Pipe()
    process = spawn.Process(target=_simulate, args=(theirs, settings, faults), daemon=True)
    process.start()
    try:
        yield Groq(pipe)
    finally:
        process.terminate()
        process.join(5)


class Service(NamedTuple):
    """A running service: where it listens, its worker's process, and the seconds from its start to its first answer."""

    port: int
    worker: int
    started_in: float


@contextmanager
def service(url: str, keys: Sequence[str], models: Sequence[str], **more: str) -> Iterator[Service]:
    """The service as a user would start it, but for the clients' limits and ``more`` settings."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = {
        "GROQ_API_KEYS": ",".join(keys),
        "GROQ_BASE_URL": url,
        "GROQ_MODELS": ",".join(models),
        "CLIENT_LIMITS": "",
        "GUNICORN_CMD_ARGS": f"--bind 127.0.0.1:{port}",
        "PYTHON_DOTENV_DISABLED": "1",
        "PATH": os.environ["PATH"],
    } | more
    command, began = [sys.executable, "-m", "gunicorn"], time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, began)
        took = time.monotonic() - began
        (worker,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield Service(port, int(worker), took)
    finally:
        process.terminate()
        try:
            process.wait(ENDS_IN)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_for(port: int, began: float) -> None:
    while time.monotonic() < began + STARTS_IN:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.02)
    raise SystemExit("The service does not start; does `make run`?")


def post(port: int, prompt: str) -> tuple[int, int, str]:
    """Ask for one enhancement; return its status, ``Retry-After`` and error, 0 and "" if there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/enhance", json.dumps({"prompt": prompt}), {"Content-Type": "application/json"})
        response = connection.getresponse()
        body = json.loads(response.read())
        return response.status, int(response.headers.get("Retry-After", 0)), body.get("error", "")
    finally:
        connection.close()
