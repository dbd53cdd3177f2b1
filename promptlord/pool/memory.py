"""What a pool keeps in this process: a lock makes each decision atomic."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from promptlord.pool.clients import Limit, Used, Windows
from promptlord.pool.state import Decision, State

T = TypeVar("T")


class MemoryStorage:
    """Keeps what one process has for itself."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._state = State(clock())
        self._windows = Windows()
        self._lock = threading.Lock()

    def decide(self, decision: Decision[T], *, wait: bool = True) -> T:
        """Return what ``decision`` makes of the state, which it may change; nobody else does meanwhile."""
        with self._lock:
            self._state.changed.clear()
            return decision(self._state, self._clock())

    def look(self, question: Decision[T]) -> T:
        """The same of one that changes nothing."""
        return self.decide(question)

    def count(self, client: str, limits: Sequence[Limit]) -> list[Used]:
        """Count a client's call; see ``Windows``."""
        with self._lock:
            return self._windows.count(client, limits, self._clock())
