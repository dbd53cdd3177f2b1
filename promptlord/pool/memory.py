"""The pool's state in this process: a lock makes each decision atomic."""

import threading
from collections.abc import Callable
from typing import TypeVar

from promptlord.pool.state import State

T = TypeVar("T")


class MemoryStorage:
    """Keeps the state of a pool that one process has for itself."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._lock = threading.Lock()

    def decide(self, decision: Callable[[State], T]) -> T:
        """Return what ``decision`` makes of the state, which it may change; nobody else does meanwhile."""
        with self._lock:
            return decision(self._state)
