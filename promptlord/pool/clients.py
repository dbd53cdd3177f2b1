"""How often each client has called: windows of time that begin with its first call. Whoever keeps them locks them."""

from collections.abc import Sequence
from typing import NamedTuple

MANY = 10_000  # windows, beyond which those that have ended are forgotten; if few have, once there are twice as many


class Limit(NamedTuple):
    """So many calls in so many seconds."""

    calls: int
    seconds: int


class Used(NamedTuple):
    """Calls in a window, the last one included, and the seconds until it ends."""

    calls: int
    left: float


class Windows:
    """Counts the calls of clients in this process."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, int], tuple[int, float]] = {}  # calls and end, by client and seconds
        self._most = MANY

    def count(self, client: str, limits: Sequence[Limit], now: float) -> list[Used]:
        """Count a call against each limit until it breaks one, whose window is the last that is returned."""
        used: list[Used] = []
        for limit in limits:
            calls, end = self._windows.get((client, limit.seconds), (0, 0.0))
            used.append(Used(calls + 1, end - now) if end > now else Used(1, float(limit.seconds)))
            if used[-1].calls > limit.calls:
                break
        self.learn(client, limits, used, now)
        return used

    def learn(self, client: str, limits: Sequence[Limit], used: Sequence[Used], now: float) -> None:
        """Believe what has been counted for all processes."""
        if len(self._windows) >= self._most:
            self._windows = {name: window for name, window in self._windows.items() if window[1] > now}
            self._most = max(MANY, 2 * len(self._windows))
        for limit, (calls, left) in zip(limits, used, strict=False):
            self._windows[client, limit.seconds] = calls, now + left
