"""The log's line for each refused request: what, after how long and why, never who."""

import logging
import re
import threading
import time
from collections.abc import Callable
from urllib.parse import quote, unquote

PER_SECOND = 5.0  # lines; a flood of requests is none of the log
SHOWN = 100  # characters of a path

_SECRET = re.compile(r"(gsk|org)_\w+", re.IGNORECASE)


class Refusals:
    """Logs refused requests, a few a second, and how many were left out. Safe to share between threads."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._clock = log, clock
        self._lock = threading.Lock()
        self._room, self._since, self._left_out = PER_SECOND, clock(), 0

    def tell(self, status: int, request: str, reason: str, seconds: float) -> None:
        """Log one, with method and path as ``shown`` makes them: an error of ours warns, its caller's own informs."""
        level = logging.WARNING if status >= 500 else logging.INFO
        if self._log.isEnabledFor(level) and (left_out := self._admit()) is not None:
            more = f" (and {left_out} more)" if left_out else ""
            what = f"{status} {request}".rstrip()
            self._log.log(level, "⛔ %s after %.2f s: %s%s", what, seconds, _masked(reason), more)

    def _admit(self) -> int | None:
        """How many were left out since the last line, or ``None``: this one is left out too."""
        with self._lock:
            now = self._clock()
            self._room = min(self._room + (now - self._since) * PER_SECOND, PER_SECOND)
            self._since = now
            if self._room < 1:
                self._left_out += 1
                return None
            self._room -= 1
            left_out, self._left_out = self._left_out, 0
            return left_out


def shown(method: str, path: str) -> str:
    """Both, printable and without secrets, the path without its query and cut."""
    return f"{_printable(method)} {_printable(path.partition('?')[0])}"


def _printable(text: str) -> str:
    whole = quote(_masked(unquote(text)), safe="/:*@")
    return whole if len(whole) <= SHOWN else f"{whole[:SHOWN]}…"


def _masked(text: str) -> str:
    return _SECRET.sub(r"\1_***", text)
