"""What the routes work with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flask import current_app

from promptlord.config import Config
from promptlord.errors import Cause
from promptlord.groq.attempts import Call, Upstream
from promptlord.groq.deadline import Client
from promptlord.pool.state import Snapshot
from promptlord.web.traffic import Traffic


class Pool(Protocol):
    """What is told of the pool; see ``KeyPool``, which is one."""

    def health(self, models: Sequence[str]) -> dict[str, Any]: ...

    def unserved(self, cause: Cause, reason: str, *, press: bool) -> None: ...

    def snapshot(self) -> Snapshot: ...

    def most(self, models: Sequence[str]) -> float: ...


@dataclass(frozen=True)
class Service:
    """``enhance`` is the upstream's ``fetch``, for each client as often as its limits allow.

    ``check`` asks Groq about each key; false if it was asked a moment ago.
    """

    config: Config
    pool: Pool
    upstream: Upstream
    enhance: Callable[[Call[str], Client | None], str]
    traffic: Traffic
    check: Callable[[], bool]


def service() -> Service:
    """The service of the app that serves this request."""
    found: Service = current_app.extensions["promptlord"]
    return found
