"""Who may come in: how many calls may be in flight, how many waiting, and who was told to come back. A bulkhead."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from promptlord.errors import Exhausted, NoKeyReady

BULK_SHARE = 0.75  # of what may be in flight; the rest is for presses, however many streams there are
WAITING_SHARE = 0.75  # of what may be in flight; the rest is for who could be served at once
REMEMBERED = 10_000  # who were turned away, at the most
MEMORY = 120.0  # seconds for which one is remembered after it may come back


class Admission:
    """Bounds what a process takes on. Safe to share between threads."""

    def __init__(self, in_flight: int, clock: Callable[[], float] = time.monotonic) -> None:
        """``in_flight``: requests at a time, waiting ones included."""
        self._most = in_flight
        self._most_bulk = max(1, int(in_flight * BULK_SHARE))
        self._most_waiting = max(1, int(in_flight * WAITING_SHARE))
        self._clock = clock
        self._lock = threading.Lock()
        self._in_flight = self._bulk = self._waiting = 0
        self._turned_away: OrderedDict[bytes, float] = OrderedDict()  # when each may come back

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
    def wait(self, ready_in: float) -> Iterator[None]:
        """Count one that waits. Raises ``NoKeyReady`` with ``ready_in`` where too many do."""
        with self._lock:
            if self._waiting >= self._most_waiting:
                raise NoKeyReady(ready_in)
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1

    def turn_away(self, fingerprint: bytes, ready_in: float) -> None:
        """Remember whom we told to come back in so many seconds; of too many, the first are forgotten."""
        with self._lock:
            now = self._clock()
            self._turned_away[fingerprint] = now + ready_in
            self._turned_away.move_to_end(fingerprint)
            while self._turned_away:
                first = next(iter(self._turned_away))
                if len(self._turned_away) <= REMEMBERED and self._turned_away[first] + MEMORY >= now:
                    break
                del self._turned_away[first]

    def returns(self, fingerprint: Callable[[], bytes]) -> bool:
        """Whether this request was turned away, and has come back when it was told to; it is forgotten then.

        The fingerprint is taken only where somebody is remembered: a body may have megabytes.
        """
        if not self._turned_away:
            return False
        known = fingerprint()
        with self._lock:
            at = self._turned_away.get(known)
            if at is None or at > (now := self._clock()):
                return False
            del self._turned_away[known]
            return now <= at + MEMORY

    def _leave(self, bulk: bool) -> None:
        with self._lock:
            self._in_flight -= 1
            self._bulk -= bulk
