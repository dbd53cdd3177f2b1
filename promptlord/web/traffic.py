"""What this process has answered, asked of Groq and spent: plain numbers, of which Prometheus is told when it asks."""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from flask import Flask, Response, g, request

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0)  # seconds; a request's time ends there
UNMATCHED = "unmatched"  # stands for whatever paths there are not: clients choose them
OTHER = "other"  # stands for models that clients choose


@dataclass(slots=True)
class Durations:
    """How long requests have taken: how many fell into each bucket, the last of which has no bound, and their sum."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0  # seconds

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds


class Totals(NamedTuple):
    """All that was counted, at one instant."""

    responses: Mapping[tuple[str, int], int]  # by route and status
    durations: Mapping[str, Durations]  # by route
    attempts: Mapping[tuple[str, str], int]  # by key and fault
    tokens: Mapping[str, int]  # by model


class Traffic:
    """Counts what passes. Safe to share between threads."""

    def __init__(self, models: Collection[str] = ()) -> None:
        """``models``: those that are counted by their names."""
        self._lock = threading.Lock()
        self._responses: Counter[tuple[str, int]] = Counter()
        self._durations: dict[str, Durations] = {}
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._tokens = dict.fromkeys((*models, OTHER), 0)

    def answered(self, route: str, status: int, seconds: float) -> None:
        with self._lock:
            self._responses[route, status] += 1
            if route not in self._durations:
                self._durations[route] = Durations()
            self._durations[route].add(seconds)

    def attempted(self, label: str, fault: str) -> None:
        with self._lock:
            self._attempts[label, fault] += 1

    def spent(self, model: str, tokens: int) -> None:
        with self._lock:
            self._tokens[model if model in self._tokens else OTHER] += tokens

    def totals(self) -> Totals:
        """A copy of all that was counted."""
        with self._lock:
            durations = {route: Durations(had.counts[:], had.total) for route, had in self._durations.items()}
            return Totals(dict(self._responses), durations, dict(self._attempts), dict(self._tokens))


def watch(app: Flask, traffic: Traffic, clock: Callable[[], float]) -> None:
    """Count each request of the app, and note in ``g.began`` when it did.

    Before all other hooks: the first to begin is the last to see the response.
    """

    @app.before_request
    def begin() -> None:
        g.began = clock()

    @app.after_request
    def end(response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else UNMATCHED
        traffic.answered(route, response.status_code, clock() - g.began)
        return response
