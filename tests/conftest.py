"""What the tests share: a clock that only moves when told, and the simulated Groq over real HTTP."""

import os

# Before app.py is imported: a developer's own settings are none of the tests' business.
os.environ["PYTHON_DOTENV_DISABLED"] = "1"
for name in ("GROQ_API_KEYS", "GROQ_BASE_URL", "REDIS_URL", "WEB_CONCURRENCY", "GUNICORN_CMD_ARGS", "PORT"):
    os.environ.pop(name, None)

from collections.abc import Callable, Iterator

import pytest
from flask.testing import FlaskClient
from groqsim import GroqSim

from app import create_app
from config import Config

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
