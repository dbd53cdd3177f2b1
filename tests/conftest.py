"""What the tests share: a clock that only moves when told, the simulated Groq over real HTTP, and real servers."""

import os

# Before app.py is imported: a developer's own settings are none of the tests' business.
os.environ["PYTHON_DOTENV_DISABLED"] = "1"
for name in (
    "GROQ_API_KEYS",
    "GROQ_API_KEY",
    "GROQ_BASE_URL",
    "REDIS_URL",
    "WEB_CONCURRENCY",
    "GUNICORN_CMD_ARGS",
    "PORT",
):
    os.environ.pop(name, None)
os.environ["LOG_LEVEL"] = "CRITICAL"  # the app that this import makes has no keys, and need not say so

import functools
import logging
import random
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis
import requests
from flask.testing import FlaskClient
from groqsim import GroqSim
from real_redis import RealRedis
from rig import workers_of
from werkzeug.test import TestResponse

from app import create_app
from keypool import KeyPool
from promptlord.config import Config
from promptlord.pool.memory import MemoryStorage
from promptlord.pool.quota import Allowance
from promptlord.pool.redis import RedisStorage
from promptlord.pool.state import Decision, Demand, Outcome, Reservation, Scope

del os.environ["LOG_LEVEL"]
logging.getLogger("promptlord").setLevel(logging.NOTSET)
T = TypeVar("T")
Pools = Callable[..., KeyPool]
Shared = Callable[..., RedisStorage]
ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
PROCFILE = shlex.split((ROOT / "Procfile").read_text().removeprefix("web: "))
LIVE = {
    "start",
    "server",
    "upstream",
    "chromium",
    "redis_url",
    "shared",
    "redis_server",
    "store",
    "program",
    "small_soak",
    "subprocess",
    "promtool",
    "load_in_process",
}
KEYS = {"gsk_one": "org_one", "gsk_two": "org_two", "gsk_three": "org_three"}

# Each app and each SDK's client reads all of certifi's authorities, which takes longer than most tests.
ssl.create_default_context = functools.cache(ssl.create_default_context)  # type: ignore[assignment]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Spare the quick tests the second that playwright and the SDKs take to import."""
    quick = config.getoption("markexpr") == "not live"
    return True if quick and collection_path.name in ("test_browser.py", "test_sdk.py") else None


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Mark what uses another process, by the fixtures and helpers that it names; it goes first, since it waits."""
    for item in items:
        if LIVE.intersection((*item.fixturenames, *item.function.__code__.co_names)):
            item.add_marker("live")
    items.sort(key=lambda item: item.get_closest_marker("live") is None)


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def follow(self, told: float, asked: float, heard: float) -> float:
        """Let Redis' time be this clock's."""
        return 0.0


class InStep(RedisStorage):
    """Waits until the others can know what it decides, and hears of them before it looks: there is no other time."""

    def decide(self, decision: Decision[T], *, wait: bool = True) -> T:
        return super().decide(decision)

    def look(self, question: Decision[T]) -> T:
        super().decide(lambda state, now: None)
        return super().look(question)


def take(
    pool: KeyPool, tokens: int = 0, models: Sequence[str] = ("m",), *, bulk: bool = False, **how: Any
) -> Reservation:
    """Reserve a call, or a slot within ``max_wait`` seconds."""
    return pool.reserve(Demand(models, tokens, bulk), **how)


def served(told: Mapping[str, Allowance] | None = None, **more: Any) -> Outcome:
    """A good answer, whose headers say this."""
    return Outcome(admitted=True, served=True, allowances=told or {}, **more)


def limited(seconds: float = 0.0, dimension: str = "", **more: Any) -> Outcome:
    """A refusal for a limit, for so many seconds."""
    return Outcome(cools=Scope.LANE, seconds=seconds, limited=True, dimension=dimension, reason="limit", **more)


def failed(reason: str = "revoked", **more: Any) -> Outcome:
    """What is the key's own fault."""
    return Outcome(cools=Scope.KEY, reason=reason, **more)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    """What a test has begun, and has to end."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def sim() -> Iterator[GroqSim]:
    """A Groq with three keys of three organizations."""
    with GroqSim(KEYS) as sim:
        yield sim


@pytest.fixture
def serve(sim: GroqSim, clock: Clock, ends: ExitStack) -> Callable[..., FlaskClient]:
    """Start the service in this process, on the simulated Groq and the test's clock; settings by ``Config``'s names."""

    def start(**settings: Any) -> FlaskClient:
        ours: dict[str, Any] = {"keys": tuple(KEYS), "base_url": sim.url, "client_limits": "", "max_wait": 0.0}
        app = create_app(Config(**ours | settings), clock)
        if isinstance(storage := app.extensions["promptlord"].pool.storage, RedisStorage):
            ends.enter_context(closing(storage))
        client = app.test_client()
        ask = client.open

        def ask_and_close(*args: Any, **kwargs: Any) -> TestResponse:
            response = ask(*args, **kwargs)
            ends.callback(response.close)  # as a server does, whatever becomes of it
            return response

        client.open = ask_and_close  # type: ignore[method-assign]
        return client

    return start


def free_port() -> str:
    """One that nobody else is given meanwhile, as those are that the system chooses: tests run side by side."""
    for port in random.sample(range(15_000, 30_000), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return str(port)
    raise AssertionError("no port is free")


@contextmanager
def redis_server() -> Iterator[RealRedis]:
    """A real one on a free port."""
    if not shutil.which("redis-server"):
        assert "CI" not in os.environ, "CI must install redis-server"
        pytest.skip("there is no redis-server here")
    with closing(RealRedis(int(free_port()))) as server:
        yield server


@pytest.fixture
def store() -> Iterator[RealRedis]:
    """A Redis of the test's own."""
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    with redis_server() as server:
        yield server.url


@pytest.fixture(scope="session")
def promtool() -> str:
    """Prometheus' own judge of what it is told."""
    if not (found := shutil.which("promtool")):
        assert "CI" not in os.environ, "CI must install prometheus, for its promtool"
        pytest.skip("there is no promtool here")
    return found


@pytest.fixture
def shared(redis_url: str, clock: Clock, ends: ExitStack) -> Shared:
    """Make the storage of one process more that shares an empty Redis, or what listens on ``url`` for it."""
    redis.Redis.from_url(redis_url).flushall()

    def make(kind: type[RedisStorage] = RedisStorage, url: str = redis_url) -> RedisStorage:
        return ends.enter_context(closing(kind(url, clock)))

    return make


@pytest.fixture(params=["alone", pytest.param("shared", marks=pytest.mark.live)])
def pool_of(request: pytest.FixtureRequest) -> Pools:
    """Make a pool of so many keys, on this clock; once in memory and once in Redis, for both keep the same promises."""

    def make(count: int, clock: Clock, per_minute: int | None = 0, cooldown: float = 60.0) -> KeyPool:
        storage = MemoryStorage(clock) if request.param == "alone" else request.getfixturevalue("shared")()
        return KeyPool([f"gsk_{number}" for number in range(1, count + 1)], cooldown, per_minute, storage=storage)

    return make


class Server:
    """A process that serves; what it writes goes to one file."""

    def __init__(self, command: list[str], log: Path, cwd: Path, **env: str) -> None:
        self._log = log
        self.began = time.monotonic()
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [BIN / command[0], *command[1:]], cwd=cwd, env=environment(**env), stdout=file, stderr=file
            )

    @functools.cached_property
    def port(self) -> int:
        """Once it listens."""
        return int(self.wait_for(r"(?:Listening at:|Running on) https?://[\d.]+:(\d+)")[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        return self._log.read_text()

    def wait_for(self, pattern: str) -> re.Match[str]:
        for _ in poll():
            if found := re.search(pattern, self.output):
                return found
            assert self.process.poll() is None, self.output
        raise AssertionError(f"no {pattern!r} in {self.output}")

    def health(self, timeout: float = 20) -> requests.Response:
        return requests.get(f"{self.url}/health", timeout=timeout)

    def enhance(self, prompt: str = "write a poem about rain", timeout: float = 20) -> requests.Response:
        return requests.post(f"{self.url}/enhance", json={"prompt": prompt}, timeout=timeout)

    def workers(self) -> list[int]:
        return workers_of(self.process.pid)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it, and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=35)

    def signal(self, number: int) -> None:
        """Signal the process and its workers."""
        for pid in [self.process.pid, *self.workers()]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        self.signal(signal.SIGSTOP)
        yield
        self.signal(signal.SIGCONT)

    def end(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
            self.process.wait()


def environment(**env: str) -> dict[str, str]:
    return {
        "PATH": f"{BIN}:{os.defpath}",
        "PYTHON_DOTENV_DISABLED": "1",
        "PORT": "0",
        "CLIENT_LIMITS": "",
        "CHECK_KEYS": "0",
    } | env


def both(reason: str) -> pytest.MarkDecorator:
    """Run it with our worker, and with gunicorn's own, which fails for this reason; once it does not, it fails too."""
    fails = pytest.mark.xfail(strict=True, reason=reason)
    own = pytest.param(("--worker-class", "gthread"), id="gunicorn's", marks=fails)
    return pytest.mark.parametrize("worker", [pytest.param((), id="ours"), own])


def seconds_of(call: Callable[[], requests.Response]) -> tuple[float, requests.Response]:
    began = time.monotonic()
    response = call()
    return time.monotonic() - began, response


def poll(seconds: float = 20, every: float = 0.01) -> Iterator[None]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(every)


@contextmanager
def starting(sim: GroqSim, logs: Path) -> Iterator[Callable[..., Server]]:
    """Start the service on the simulated Groq, with further settings by their variables' names; in the end, end all."""
    servers: list[Server] = []

    def start(command: list[str] = PROCFILE, cwd: Path = ROOT, **env: str) -> Server:
        env = {"GROQ_BASE_URL": sim.url, "GROQ_API_KEYS": ",".join(KEYS)} | env
        servers.append(Server(command, logs / f"{len(servers)}.log", cwd, **env))
        assert servers[-1].port
        return servers[-1]

    try:
        yield start
    finally:
        for server in servers:
            server.end()


@pytest.fixture
def start(sim: GroqSim, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    with starting(sim, tmp_path) as start:
        yield start
