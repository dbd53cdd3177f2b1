"""What the tests share: a clock that only moves when told, and the simulated Groq over real HTTP."""

import os

# Before app.py is imported: a developer's own settings are none of the tests' business.
os.environ["PYTHON_DOTENV_DISABLED"] = "1"
for name in ("GROQ_API_KEYS", "GROQ_BASE_URL", "REDIS_URL", "WEB_CONCURRENCY", "GUNICORN_CMD_ARGS", "PORT"):
    os.environ.pop(name, None)

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import redis
from flask.testing import FlaskClient
from groqsim import GroqSim

from app import create_app
from config import Config
from keypool import KeyPool
from sharing import SharedLock

Pools = Callable[..., KeyPool]
KEYS = {"gsk_one": "org_one", "gsk_two": "org_two", "gsk_three": "org_three"}


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sim() -> Iterator[GroqSim]:
    """A Groq with three keys of three organizations."""
    with GroqSim(KEYS) as sim:
        yield sim


@pytest.fixture
def serve(sim: GroqSim, clock: Clock) -> Callable[..., FlaskClient]:
    """Start the service in this process, on the simulated Groq and the test's clock; settings by ``Config``'s names."""

    def start(**settings: object) -> FlaskClient:
        settings = {"keys": tuple(KEYS), "base_url": sim.url, "client_limits": "", "max_wait": 0.0} | settings
        return create_app(Config(**settings), clock).test_client()

    return start


@contextmanager
def redis_server() -> Iterator[tuple[str, Callable[[], None]]]:
    """A real one on a free port: its address, and how to end it."""
    if not (program := shutil.which("redis-server")):
        assert "CI" not in os.environ, "CI must install redis-server"
        pytest.skip("there is no redis-server here")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    options = ["--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with subprocess.Popen([program, *options], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert any("Ready to accept connections" in line for line in server.stdout), "redis-server does not start"
            yield f"redis://127.0.0.1:{port}", lambda: (server.kill(), server.wait())
        finally:
            server.kill()


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    with redis_server() as (url, _):
        yield url


@pytest.fixture(params=["alone", "shared"])
def pool_of(request: pytest.FixtureRequest) -> Pools:
    """Make a pool of so many keys, on this clock; once in memory and once in Redis, for both keep the same promises."""
    share = None
    if request.param == "shared":
        url = request.getfixturevalue("redis_url")
        redis.Redis.from_url(url).flushall()
        share = partial(SharedLock, url=url)

    def make(count: int, clock: Clock, per_minute: int = 0, cooldown: float = 60.0) -> KeyPool:
        secrets = [f"gsk_{number}" for number in range(1, count + 1)]
        return KeyPool(secrets, cooldown, per_minute, clock, share)

    return make
