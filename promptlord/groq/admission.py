"""Who may come in: how many calls may be in flight, how many waiting, and who was told to come back. A bulkhead."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from promptlord.errors import Exhausted, NoKeyReady

BULK_SHARE = 0.75  # of what may be in flight; the rest is for presses, however many streams there are
WAITING_SHARE = 0.75  # of what may be in flight; the rest is for who could be served at once
BULK_WAITING_SHARE = 0.5  # likewise; so bulk requests never take every place to wait in
REMEMBERED = 10_000  # who were turned away, at the most
MEMORY = 120.0  # seconds for which one is remembered after it may come back
SPREAD = 30.0  # seconds by which one may be told to come back later, for the sake of those told before
LONGEST = 3600.0  # seconds; who is told to come back later is not remembered


class Promise(NamedTuple):
    """When one who was turned away may come back. ``roomier``: its answer was cut off, for it needs more room."""

    at: float
    roomier: bool


class Admission:
    """Bounds what a process takes on. Safe to share between threads."""

    def __init__(self, in_flight: int, clock: Callable[[], float] = time.monotonic) -> None:
        """``in_flight``: requests at a time, waiting ones included."""
        self._most = in_flight
        self._most_bulk = max(1, int(in_flight * BULK_SHARE))
        self._most_waiting = max(1, int(in_flight * WAITING_SHARE))
        self._most_bulk_waiting = max(1, int(in_flight * BULK_WAITING_SHARE))
        self._clock = clock
        self._lock = threading.Lock()
        self._in_flight = self._bulk = self._waiting = 0
        self._promises: OrderedDict[bytes, Promise] = OrderedDict()  # by fingerprint
        self._last_promised = 0.0

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

    def turn_away(self, fingerprint: bytes, ready_in: float, apart: float = 0.0, *, roomier: bool = False) -> float:
        """Remember whom we tell to come back; return in how many seconds.

        That is ``ready_in``, or as long after the last one that was told as slots are ``apart``: one slot is not
        promised twice, unless very many are turned away. Of too many, the first are forgotten.
        """
        with self._lock:
            now, known = self._clock(), self._promises.pop(fingerprint, None)
            if known and known.at > now:
                at = max(known.at, now + ready_in)
            else:
                at = now + ready_in
                at = min(max(at, self._last_promised + apart), at + SPREAD)
            if apart:
                self._last_promised = max(self._last_promised, at)
            if at - now <= LONGEST:
                self._promises[fingerprint] = Promise(at, roomier)
            while self._promises:
                first = next(iter(self._promises))
                if len(self._promises) <= REMEMBERED and self._promises[first].at + MEMORY >= now:
                    break
                del self._promises[first]
            return at - now

    def returns(self, fingerprint: Callable[[], bytes]) -> Promise | None:
        """The promise given to this request if it comes back when it was told to; it is forgotten then.

        The fingerprint is taken only where somebody is remembered: a body may have megabytes.
        """
        if not self._promises:
            return None
        known = fingerprint()
        with self._lock:
            promise, now = self._promises.get(known), self._clock()
            if not promise or promise.at > now:
                return None
            del self._promises[known]
            return promise if now <= promise.at + MEMORY else None

    def _leave(self, bulk: bool) -> None:
        with self._lock:
            self._in_flight -= 1
            self._bulk -= bulk
