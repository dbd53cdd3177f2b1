"""Whose turn it is, and who is cooling: plain state, a lock and a clock."""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

LONGEST_COOLDOWN = 3600.0  # seconds; where doubling ends


@dataclass(frozen=True)
class Key:
    """One Groq API key. Its ``label`` is all that is ever shown."""

    number: int
    secret: str = field(repr=False, compare=False)

    @property
    def label(self) -> str:
        return f"#{self.number}"


@dataclass(frozen=True)
class Turn:
    """Leave to make one call: with this key, for this model."""

    key: Key
    model: str


@dataclass
class Cooling:
    """Until when something is out of rotation, and how many failures of its own it has had in a row."""

    ready_at: float = 0.0
    streak: int = 0


class NoKeyReady(Exception):
    """No key may be called now; one will be in ``ready_in`` seconds."""

    def __init__(self, ready_in: float) -> None:
        super().__init__(f"no key is ready for {ready_in:.1f} s")
        self.ready_in = ready_in


class KeyPool:
    """Hands out keys in turn, passing over those that are cooling. Safe to share between threads."""

    def __init__(
        self, secrets: Sequence[str], cooldown: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``cooldown``: seconds a failed key rests where Groq names no time."""
        self._keys = tuple(Key(number, secret) for number, secret in enumerate(secrets, 1))
        self._cooldown = cooldown
        self._clock = clock
        self._lock = threading.Lock()
        self._turn = 0
        self._fails = dict.fromkeys(self._keys, 0)
        self._cooling = {key: Cooling() for key in self._keys}
        self._lanes: dict[tuple[Key, str], Cooling] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def take(self, models: Sequence[str], after: Turn | None = None, without: Collection[Turn] = ()) -> Turn:
        """Take the next turn, for the first of ``models`` that a key is ready for.

        ``after``: the turn of the same request that failed; the search goes on behind it, and the rotation stays.
        ``without``: turns not to be given again. Raises ``NoKeyReady``.
        """
        with self._lock:
            now = self._clock()
            for model in models:
                for key in self._from(self._turn if after is None else after.key.number):
                    turn = Turn(key, model)
                    if self._ready_at(turn) <= now and turn not in without:
                        if after is None:
                            self._turn = key.number
                        return turn
            raise NoKeyReady(self._ready_in(models, now))

    def succeed(self, turn: Turn) -> None:
        """The key has proved itself: nothing counts against it any more, but a cooldown that runs goes on."""
        with self._lock:
            self._fails[turn.key] = 0
            self._cooling[turn.key].streak = 0
            if lane := self._lanes.get((turn.key, turn.model)):
                lane.streak = 0

    def fail(self, turn: Turn, *, lane: bool, seconds: float | None = None, grows: bool = False) -> int:
        """Rest the key for ``seconds``, else for the usual cooldown; return its failures since its last success.

        ``lane``: only for the turn's model. ``grows``: twice as long with each failure in a row, up to an hour.
        Never shortens a cooldown that runs.
        """
        with self._lock:
            resting = self._lanes.setdefault((turn.key, turn.model), Cooling()) if lane else self._cooling[turn.key]
            if grows:
                seconds = min(self._cooldown * 2.0 ** min(resting.streak, 16), max(self._cooldown, LONGEST_COOLDOWN))
                resting.streak += 1
            resting.ready_at = max(resting.ready_at, self._clock() + (seconds or self._cooldown))
            self._fails[turn.key] += 1
            return self._fails[turn.key]

    def ready_in(self, models: Sequence[str]) -> float:
        """Seconds until a key is ready for one of ``models``; 0 if one is."""
        with self._lock:
            return self._ready_in(models, self._clock())

    def health(self) -> dict[str, object]:
        """What ``GET /health`` shows."""
        with self._lock:
            now = self._clock()
            cooling = {key for key, state in self._cooling.items() if state.ready_at > now}
            cooling |= {key for (key, _), lane in self._lanes.items() if lane.ready_at > now}
            failed = [(key, fails) for key, fails in self._fails.items() if fails]
        active = len(self._keys) - len(cooling)
        return {
            "status": "healthy" if active else "exhausted" if self._keys else "unconfigured",
            "totalKeys": len(self._keys),
            "activeKeys": active,
            "failedKeys": [
                {"keyIndex": key.number, "failCount": fails, "inCooldown": key in cooling} for key, fails in failed
            ],
        }

    def _from(self, start: int) -> Iterator[Key]:
        for step in range(len(self._keys)):
            yield self._keys[(start + step) % len(self._keys)]

    def _ready_at(self, turn: Turn) -> float:
        ready_at = self._cooling[turn.key].ready_at
        lane = self._lanes.get((turn.key, turn.model))
        return max(ready_at, lane.ready_at) if lane else ready_at

    def _ready_in(self, models: Sequence[str], now: float) -> float:
        ready = (self._ready_at(Turn(key, model)) for key in self._keys for model in models)
        return max(0.0, min(ready, default=now) - now)
