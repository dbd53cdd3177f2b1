"""Who may come in: how many calls may be in flight, and how many waiting. A bulkhead."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from promptlord.errors import Exhausted, NoKeyReady

BULK_SHARE = 0.75  # of what may be in flight; the rest is for presses, however many streams there are
WAITING_SHARE = 0.75  # of what may be in flight; the rest is for who could be served at once
BULK_WAITING_SHARE = 0.5  # likewise; so bulk requests never take every place to wait in


class Admission:
    """Bounds what a process takes on. Safe to share between threads."""

    def __init__(self, in_flight: int) -> None:
        """``in_flight``: requests at a time, waiting ones included."""
        self._most = in_flight
        self._most_bulk = max(1, int(in_flight * BULK_SHARE))
        self._most_waiting = max(1, int(in_flight * WAITING_SHARE))
        self._most_bulk_waiting = max(1, int(in_flight * BULK_WAITING_SHARE))
        self._lock = threading.Lock()
        self._in_flight = self._bulk = self._waiting = 0

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @contextmanager
    def enter(self, *, bulk: bool) -> Iterator[ExitStack]:
        """Take one in until the stack that it yields is closed. Raises ``Exhausted``."""
        with self._lock:
            if self._in_flight >= self._most or (bulk and self._bulk >= self._most_bulk):
                raise Exhausted("Too many requests are under way", ready_in=1.0)
            self._in_flight += 1
            self._bulk += bulk
        with ExitStack() as inside:
            inside.callback(self._leave, bulk)
            yield inside

    @contextmanager
    def wait(self, ready_in: float, *, bulk: bool) -> Iterator[None]:
        """Count one that waits. Raises ``NoKeyReady`` with ``ready_in`` where too many do."""
        with self._lock:
            if self._waiting >= (self._most_bulk_waiting if bulk else self._most_waiting):
                raise NoKeyReady(ready_in)
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1

    def _leave(self, bulk: bool) -> None:
        with self._lock:
            self._in_flight -= 1
            self._bulk -= bulk
