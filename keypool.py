"""Whose turn it is, who is cooling, how much is left: plain state, a lock and a clock."""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lane import RPM, Allowance, Booking, Bucket, Cooling, Lane

LONGEST_COOLDOWN = 3600.0  # seconds; where doubling ends
MANY_LANES = 1000  # beyond which idle ones are forgotten: the models' names are the clients' to choose


@dataclass(frozen=True)
class Key:
    """One Groq API key. Its ``label`` is all that is ever shown."""

    number: int
    secret: str = field(repr=False, compare=False)

    @property
    def label(self) -> str:
        return f"#{self.number}"


@dataclass
class Turn:
    """Leave to make one call with this key for this model; while ``booked``, only once ``due_in`` says 0."""

    key: Key
    model: str
    need: int
    booked: Booking | None = None
    owner: str = field(default="", repr=False)  # whose lane was charged
    sent: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Shared:
    """Keys of one organization, by the name we give it (``A``): the id is never shown."""

    name: str
    keys: Sequence[Key]


class NoKeyReady(Exception):
    """No key may be called now, nor soon enough; one will be in ``ready_in`` seconds."""

    def __init__(self, ready_in: float) -> None:
        super().__init__(f"no key is ready for {ready_in:.1f} s")
        self.ready_in = ready_in


class KeyPool:
    """Hands out keys in turn, passing over those that can't serve now. Safe to share between threads."""

    def __init__(
        self,
        secrets: Sequence[str],
        cooldown: float = 60.0,
        per_minute: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``cooldown``: seconds a failed key rests where Groq names no time; ``per_minute``: requests a lane admits."""
        self._keys = tuple(Key(number, secret) for number, secret in enumerate(secrets, 1))
        self._cooldown = cooldown
        self._per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._turn = 0
        self._bookings = 0
        self._fails = dict.fromkeys(self._keys, 0)
        self._cooling = {key: Cooling() for key in self._keys}
        self._owners = {key: key.label for key in self._keys}  # its organization, once that is known
        self._names: dict[str, str] = {}  # what an organization is called where its id must not be shown
        self._lanes: dict[tuple[str, str], Lane] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def take(
        self,
        models: Sequence[str],
        need: int = 0,
        *,
        after: Key | None = None,
        without: Collection[tuple[Key, str]] = (),
        patience: float = 0.0,
    ) -> Turn:
        """Take the next turn, for the first of ``models`` that a key is ready for; else book the earliest.

        ``need``: tokens. ``after``: the key that failed the same request; the search goes on behind it, and the
        rotation stays. ``without``: what is not to be tried again. ``patience``: seconds that a booking may take.
        A booked turn must be waited for (``due_in``) or left (``leave``). Raises ``NoKeyReady``.
        """
        with self._lock:
            now = self._clock()
            earliest: tuple[float, Turn] | None = None
            for key, model in self._candidates(models, after, without):
                ready_at = self._ready_at(key, model, need)
                if earliest is None or ready_at < earliest[0]:
                    earliest = ready_at, Turn(key, model, need)
                if ready_at <= now:
                    break
            if earliest is None:
                raise NoKeyReady(0.0)
            ready_at, turn = earliest
            if ready_at - now > patience:
                raise NoKeyReady(ready_at - now)
            if after is None:
                self._turn = turn.key.number
            if ready_at <= now:
                self._start(turn, now)
            else:
                self._book(turn)
            return turn

    def due_in(self, turn: Turn) -> float:
        """Seconds until a booked turn's slot, as known now; 0 starts it."""
        with self._lock:
            if not turn.booked:
                return 0.0
            now = self._clock()
            lane = self._lane(turn.key, turn.model)
            place = lane.queue.index(turn.booked)
            ready_at = self._ready_at(turn.key, turn.model, turn.need, place)
            if ready_at > now:
                return ready_at - now
            del lane.queue[place]
            self._start(turn, now)
            return 0.0

    def leave(self, turn: Turn) -> None:
        """Give up a turn that is still booked; those behind it move up."""
        with self._lock:
            if turn.booked:
                self._lane(turn.key, turn.model).queue.remove(turn.booked)
                turn.booked = None

    def learn(self, turn: Turn, told: Mapping[str, Allowance], organization: str | None = None) -> "Shared | None":
        """Believe what an answer says of the lane's buckets, and whose the key is.

        Returns what is news: that several keys share this organization.
        """
        with self._lock:
            shared = self._join(turn.key, organization) if organization else None
            lane = self._lane(turn.key, turn.model)
            lane.learn(told, turn.sent if self._owners[turn.key] == turn.owner else None, self._clock())
            return shared

    def succeed(self, turn: Turn) -> None:
        """The key has proved itself: nothing counts against it any more, but a cooldown that runs goes on."""
        with self._lock:
            self._fails[turn.key] = 0
            self._cooling[turn.key].streak = 0
            self._lane(turn.key, turn.model).streak = 0

    def refund(self, turn: Turn) -> None:
        """Give back what the turn took: Groq did not serve it."""
        with self._lock:
            if self._owners[turn.key] == turn.owner:
                self._lane(turn.key, turn.model).refund(turn.need, turn.sent)

    def limit(self, turn: Turn, seconds: float | None, dimension: str = "") -> int:
        """Rest the turn's lane for ``seconds``, else for the usual cooldown; return the key's failures in a row."""
        with self._lock:
            seconds = seconds or self._cooldown
            lane = self._lane(turn.key, turn.model)
            lane.refuse(dimension, turn.need, seconds, self._clock())
            return self._rest(turn.key, lane, seconds, f"{dimension} used up" if dimension else "limit reached")

    def fail(self, turn: Turn, reason: str, *, lane: bool = False, grows: bool = True) -> int:
        """Rest the key for the usual cooldown; return its failures since its last success.

        ``lane``: only for the turn's model. ``grows``: twice as long with each failure in a row, up to an hour.
        """
        with self._lock:
            resting = self._lane(turn.key, turn.model) if lane else self._cooling[turn.key]
            seconds = self._cooldown
            if grows:
                seconds = max(seconds, min(seconds * 2.0 ** min(resting.streak, 16), LONGEST_COOLDOWN))
                resting.streak += 1
            return self._rest(turn.key, resting, seconds, reason)

    def ready_in(self, models: Sequence[str], need: int = 0) -> float:
        """Seconds until a key is ready for one of ``models``; 0 if one is."""
        with self._lock:
            now = self._clock()
            ready = (self._ready_at(key, model, need) for key, model in self._candidates(models))
            return max(0.0, min(ready, default=now) - now)

    def health(self) -> dict[str, object]:
        """What ``GET /health`` shows."""
        with self._lock:
            now = self._clock()
            owners = {owner for (owner, _), lane in self._lanes.items() if lane.until > now}
            cooling = {key for key in self._keys if self._cooling[key].until > now or self._owners[key] in owners}
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

    def _candidates(
        self, models: Sequence[str], after: Key | None = None, without: Collection[tuple[Key, str]] = ()
    ) -> Iterator[tuple[Key, str]]:
        start = self._turn if after is None else after.number
        for model in models:
            for step in range(len(self._keys)):
                key = self._keys[(start + step) % len(self._keys)]
                if (key, model) not in without:
                    yield key, model

    def _ready_at(self, key: Key, model: str, need: int, ahead: int | None = None) -> float:
        until = self._cooling[key].until
        lane = self._lanes.get((self._owners[key], model))
        return max(until, lane.ready_at(need, ahead)) if lane else until

    def _lane(self, key: Key, model: str) -> Lane:
        name = self._owners[key], model
        if name not in self._lanes:
            if len(self._lanes) >= MANY_LANES:
                now = self._clock()
                self._lanes = {name: lane for name, lane in self._lanes.items() if not lane.idle(now)}
            self._lanes[name] = Lane(buckets={RPM: Bucket(self._per_minute, 60.0)} if self._per_minute else {})
        return self._lanes[name]

    def _start(self, turn: Turn, now: float) -> None:
        turn.booked, turn.owner = None, self._owners[turn.key]
        turn.sent = self._lane(turn.key, turn.model).charge(turn.need, now)

    def _book(self, turn: Turn) -> None:
        self._bookings += 1
        turn.booked = Booking(self._bookings, turn.need)
        self._lane(turn.key, turn.model).queue.append(turn.booked)

    def _rest(self, key: Key, resting: Cooling, seconds: float, reason: str) -> int:
        until = self._clock() + seconds
        if until > resting.until:
            resting.until, resting.reason = until, reason
        self._fails[key] += 1
        return self._fails[key]

    def _join(self, key: Key, organization: str) -> "Shared | None":
        """Note whose ``key`` is; its lanes become the organization's."""
        if self._owners[key] != key.label:
            return None
        self._owners[key] = organization
        for owner, model in [place for place in self._lanes if place[0] == key.label]:
            lane = self._lanes.pop((owner, model))
            self._lane(key, model).merge(lane, self._clock())
        count = len(self._names)
        name = self._names.setdefault(organization, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[count % 26] * (count // 26 + 1))
        mates = [mate for mate, owner in self._owners.items() if owner == organization]
        return Shared(name, mates) if len(mates) > 1 else None
