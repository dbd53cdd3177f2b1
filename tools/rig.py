"""What a measurement needs: simulated Groqs and real gunicorns of this service, each a process of its own."""

import http.client
import itertools
import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.request import urlopen

from completions import draft_of
from groqsim import Account, GroqSim, Received, Trouble

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for those who measure a module alone
STARTS_IN = 30.0  # seconds, on a busy machine
ENDS_IN = 35.0  # seconds; gunicorn lets go of what is in flight after 29
TOKEN = "token"  # that opens /v1


class Seen(NamedTuple):
    """A call as the simulator saw it, at its instant."""

    at: float
    key: str
    model: str
    prompt: str
    tokens: int
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


class Begun(GroqSim):
    """A simulator whose day has begun before the first call."""

    def begin(self, had: int) -> None:
        """Let each organization have had so many tokens of each model."""
        now = self.clock()
        for lane in itertools.product({*self.keys.values()}, self.models):
            self._lanes[lane] = Account(self.limits, now)
            self._lanes[lane].add({"TPD": -had}, now)


def _simulate(pipe: Connection, settings: Mapping[str, Any], faults: Mapping[str, str], had: int) -> None:
    sim = Begun(**settings)
    sim.begin(had)
    with sim:
        for key, name in faults.items():
            sim.order(Trouble.named(name), key=key, times=None)
        pipe.send(sim.url)
        while pipe.recv():
            pipe.send([_seen(call) for call in sim.calls])


def _seen(call: Received) -> Seen:
    return Seen(call.at, call.key, call.model, draft_of(call.json["messages"][-1]), call.tokens, call.status)


@contextmanager
def groq(settings: Mapping[str, Any], faults: Mapping[str, str], had: int = 0) -> Iterator[Groq]:
    """A simulator with these ``settings``; ``faults``: what calls with a key always meet. ``had``: see ``Begun``."""
    with beside(_simulate, settings, faults, had) as pipe:
        yield Groq(pipe)


@contextmanager
def beside(work: Callable[..., None], *arguments: object) -> Iterator[Connection]:
    """Do ``work`` in another process; yields the end of a pipe whose other end is the work's first argument."""
    spawn = multiprocessing.get_context("spawn")
    pipe, theirs = spawn.Pipe()
    process = spawn.Process(target=work, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()  # so that a work which ends is noticed here
    try:
        yield pipe
    finally:
        process.terminate()
        process.join(5)


class Service(NamedTuple):
    """A running service: where it listens, its processes, and the seconds from its start to its first answer.

    ``worker`` is the one that it started with; see ``workers_of`` for the one after a reload.
    """

    port: int
    worker: int
    started_in: float
    master: int


@contextmanager
def service(
    url: str, keys: Sequence[str], models: Sequence[str], log: int | IO[bytes] = subprocess.DEVNULL, **more: str
) -> Iterator[Service]:
    """The service as a user would start it, but for the clients' limits, a token for ``/v1`` and ``more`` settings."""
    port = free_port()
    settings = {
        "GROQ_API_KEYS": ",".join(keys),
        "GROQ_BASE_URL": url,
        "GROQ_MODELS": ",".join(models),
        "CLIENT_LIMITS": "",
        "CHECK_KEYS": "0",
        "ACCESS_TOKENS": TOKEN,
        "GUNICORN_CMD_ARGS": f"--bind 127.0.0.1:{port}",
        "PYTHON_DOTENV_DISABLED": "1",
    } | more
    began = time.monotonic()
    with running([sys.executable, "-m", "gunicorn"], ROOT, settings, log) as process:
        _wait_for(port, began)
        took = time.monotonic() - began
        (worker,) = workers_of(process)
        yield Service(port, worker, took, process)


@contextmanager
def running(
    command: Sequence[str], where: Path, settings: Mapping[str, str], log: int | IO[bytes] = subprocess.DEVNULL
) -> Iterator[int]:
    """A server in a process of its own, whose number it yields; it is told to end, and killed if it does not."""
    env = {"PATH": os.environ["PATH"], **settings}
    process = subprocess.Popen(command, cwd=where, env=env, stdout=log, stderr=log)
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(ENDS_IN)
        except subprocess.TimeoutExpired:
            process.kill()


@contextmanager
def services(count: int, *settings: Any, **more: Any) -> Iterator[list[Service]]:
    """So many with the same settings, ``service``'s, each on a port of its own, as if each were on another machine."""
    with ExitStack() as started:
        yield [started.enter_context(service(*settings, **more)) for _ in range(count)]


class RedisServer:
    """A real Redis on this machine, empty, which keeps nothing. Close it."""

    def __init__(self, port: int = 0) -> None:
        """``port``: any that is free, if 0. Raises ``FileNotFoundError`` if there is none on this machine."""
        self.port = port or free_port()
        self.url = redis_url(self.port)
        self.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> None:
        port = str(self.port)
        command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        if not any("Ready to accept connections" in line for line in self._process.stdout):
            raise SystemExit("redis-server does not start")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        self._process.send_signal(signal.SIGSTOP)
        yield
        self._process.send_signal(signal.SIGCONT)

    @contextmanager
    def killed(self) -> Iterator[None]:
        """In the end there is an empty one on the same port."""
        self.close()
        yield
        self.start()


def redis_url(port: int) -> str:
    return f"redis://127.0.0.1:{port}"


def cpu(pid: int) -> float:
    """Seconds of processor that a process has used."""
    return time.clock_gettime(~pid << 3 | 2)  # Linux' name for another process' clock; /proc counts hundredths


def pss(pid: int) -> float:
    """Megabytes that are a process's own, with its share of what it shares."""
    (size,) = re.findall(r"^Pss: +(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(size) * 1024 / 1e6


def workers_of(master: int) -> list[int]:
    """The processes of a service's workers, oldest first: one, but for the moments of a reload."""
    return [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, began: float) -> None:
    while time.monotonic() < began + STARTS_IN:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.02)
    raise SystemExit("The service does not start; does `make run`?")


def enhance(port: int, prompt: str) -> tuple[int, int, str]:
    """Ask for one enhancement; return its status, ``Retry-After`` and error, 0 and "" if there is none."""
    return _post(port, "/enhance", {"prompt": prompt}, {})


def complete(port: int, model: str, prompt: str, most: int) -> tuple[int, int, str]:
    """Ask for one chat completion of so many tokens at the most; return the same."""
    chat = {"model": model, "messages": [{"role": "user", "content": prompt}], "max_completion_tokens": most}
    return _post(port, "/v1/chat/completions", chat, {"Authorization": f"Bearer {TOKEN}"})


def _post(port: int, path: str, data: Mapping[str, object], headers: Mapping[str, str]) -> tuple[int, int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", path, json.dumps(data), {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        body = json.loads(response.read())
        return response.status, int(response.headers.get("Retry-After", 0)), str(body.get("error", ""))
    finally:
        connection.close()


def health(port: int) -> float:
    """Seconds that ``/health`` takes."""
    began = time.perf_counter()
    urlopen(f"http://127.0.0.1:{port}/health", timeout=30).close()
    return time.perf_counter() - began
