"""What the routes work with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flask import current_app

from promptlord.config import Config
from promptlord.groq.attempts import Call, Upstream
from promptlord.groq.deadline import Client
from promptlord.pool.state import Demand, Snapshot
from promptlord.web.traffic import Traffic


class Pool(Protocol):
    """What is told of the pool; see ``KeyPool``, which is one."""

    def ready_in(self, demand: Demand) -> float: ...

    def health(self, models: Sequence[str]) -> dict[str, Any]: ...

    def snapshot(self) -> Snapshot: ...


@dataclass(frozen=True)
class Service:
    """``enhance`` is the upstream's ``fetch``, for each client as often as its limits allow."""

    config: Config
    pool: Pool
    upstream: Upstream
    enhance: Callable[[Call[str], Client | None], str]
    traffic: Traffic


def service() -> Service:
    """The service of the app that serves this request."""
    found: Service = current_app.extensions["promptlord"]
    return found
