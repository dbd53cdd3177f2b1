"""Whose turn it is, who is cooling, how much is left: plain state, a lock and a clock."""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from promptlord.pool.quota import RPM, Allowance, Booking, Bucket, Cooling, Lane
from promptlord.pool.state import Key, KeyState, Snapshot, Standing, State

LONGEST_COOLDOWN = 3600.0  # seconds; where doubling ends
GRACE = 5.0  # seconds after which a booking that never came counts as left: its machine may have died
MANY_LANES = 1000  # beyond which idle ones are forgotten: the models' names are the clients' to choose


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
        share: "Callable[[KeyPool], AbstractContextManager[object]] | None" = None,
        *,
        lag: float = 0.0,
    ) -> None:
        """``cooldown``: seconds a failed key rests where Groq names no time; ``per_minute``: requests a lane admits.

        ``lag``: seconds that a request may take until Groq counts it. ``share``: makes a lock for this pool that also
        brings its ``state`` up to date; else it is this process's own.
        """
        self._keys = tuple(Key(number, secret) for number, secret in enumerate(secrets, 1))
        self._cooldown = cooldown
        self._per_minute = per_minute
        self._lag = lag
        self.clock = clock
        self._ids = {key: key.id for key in self._keys}
        self.state = State(clock())
        self.adopt(self.state)
        self._lock = share(self) if share else threading.Lock()

    def adopt(self, state: State) -> None:
        """Go on with this state, whoever wrote it; the keys it does not know are new."""
        for key_id in self._ids.values():
            state.keys.setdefault(key_id, Standing(owner=key_id))
        self.state = state

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
            now = self.clock()
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
                self.state.turn = turn.key.number
            if ready_at <= now:
                self._start(turn, now)
            else:
                self._book(turn, now + patience + GRACE)
            return turn

    def due_in(self, turn: Turn) -> float:
        """Seconds until a booked turn's slot, as known now; 0 starts it."""
        with self._lock:
            if not turn.booked:
                return 0.0
            now = self.clock()
            lane = self._lane(turn.key, turn.model)
            if turn.booked not in lane.queue:  # forgotten, as by a Redis that was emptied
                lane.queue.append(turn.booked)
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
            queue = self._lane(turn.key, turn.model).queue
            if turn.booked in queue:
                queue.remove(turn.booked)
            turn.booked = None

    def learn(self, turn: Turn, told: Mapping[str, Allowance], organization: str | None = None) -> "Shared | None":
        """Believe what an answer says of the lane's buckets, and whose the key is.

        Returns what is news: that several keys share this organization.
        """
        with self._lock:
            shared = self._join(turn.key, organization) if organization else None
            lane = self._lane(turn.key, turn.model)
            lane.learn(told, turn.sent if self._key(turn.key).owner == turn.owner else None, self.clock())
            return shared

    def succeed(self, turn: Turn) -> None:
        """The key has proved itself: nothing counts against it any more, but a cooldown that runs goes on."""
        with self._lock:
            self._key(turn.key).fails = self._key(turn.key).cooling.streak = 0
            self._lane(turn.key, turn.model).streak = 0

    def refund(self, turn: Turn) -> None:
        """Give back what the turn took: Groq did not serve it."""
        with self._lock:
            if self._key(turn.key).owner == turn.owner:
                self._lane(turn.key, turn.model).refund(turn.need, turn.sent)

    def limit(self, turn: Turn, seconds: float | None, dimension: str = "") -> int:
        """Rest the turn's lane for ``seconds``, else for the usual cooldown; return the key's failures in a row."""
        with self._lock:
            seconds = seconds or self._cooldown
            lane = self._lane(turn.key, turn.model)
            lane.refuse(dimension, turn.need, seconds, self.clock())
            return self._rest(turn.key, lane, seconds, f"{dimension} used up" if dimension else "limit reached")

    def fail(self, turn: Turn, reason: str, *, lane: bool = False, grows: bool = True) -> int:
        """Rest the key for the usual cooldown; return its failures since its last success.

        ``lane``: only for the turn's model. ``grows``: twice as long with each failure in a row, up to an hour.
        """
        with self._lock:
            resting = self._lane(turn.key, turn.model) if lane else self._key(turn.key).cooling
            seconds = self._cooldown
            if grows:
                seconds = max(seconds, min(seconds * 2.0 ** min(resting.streak, 16), LONGEST_COOLDOWN))
                resting.streak += 1
            return self._rest(turn.key, resting, seconds, reason)

    def ready_in(self, models: Sequence[str], need: int = 0) -> float:
        """Seconds until a key is ready for one of ``models``; 0 if one is."""
        with self._lock:
            now = self.clock()
            ready = (self._ready_at(key, model, need) for key, model in self._candidates(models))
            return max(0.0, min(ready, default=now) - now)

    def health(self) -> dict[str, object]:
        """What ``GET /health`` shows."""
        with self._lock:
            now = self.clock()
            owners = {owner for (owner, _), lane in self.state.lanes.items() if lane.until > now}
            keys = [(key, self._key(key)) for key in self._keys]
            cooling = {key for key, known in keys if known.cooling.until > now or known.owner in owners}
            failed = [(key, known.fails) for key, known in keys if known.fails]
        active = len(self._keys) - len(cooling)
        return {
            "status": "healthy" if active else "exhausted" if self._keys else "unconfigured",
            "totalKeys": len(self._keys),
            "activeKeys": active,
            "failedKeys": [
                {"keyIndex": key.number, "failCount": fails, "inCooldown": key in cooling} for key, fails in failed
            ],
        }

    def snapshot(self) -> Snapshot:
        """A copy of what may be shown: no key and no organization's id is in it."""
        with self._lock:
            now = self.clock()
            names = self.state.names | {self._ids[key]: key.label for key in self._keys}
            keys = []
            for key in self._keys:
                known = self._key(key)
                shown = names[known.owner], known.requests, known.failures, replace(known.cooling)
                keys.append(KeyState(key.label, *shown))
            lanes = {(names.get(owner, "?"), model): lane.copy() for (owner, model), lane in self.state.lanes.items()}
            return Snapshot(now, now - self.state.started_at, self._per_minute, keys, lanes)

    def _candidates(
        self, models: Sequence[str], after: Key | None = None, without: Collection[tuple[Key, str]] = ()
    ) -> Iterator[tuple[Key, str]]:
        start = self.state.turn if after is None else after.number
        for model in models:
            for step in range(len(self._keys)):
                key = self._keys[(start + step) % len(self._keys)]
                if (key, model) not in without:
                    yield key, model

    def _key(self, key: Key) -> Standing:
        return self.state.keys[self._ids[key]]

    def _ready_at(self, key: Key, model: str, need: int, ahead: int | None = None) -> float:
        known = self._key(key)
        lane = self.state.lanes.get((known.owner, model))
        return max(known.cooling.until, lane.ready_at(need, ahead)) if lane else known.cooling.until

    def _lane(self, key: Key, model: str) -> Lane:
        name, lanes = (self._key(key).owner, model), self.state.lanes
        if name not in lanes:
            if len(lanes) >= MANY_LANES:
                now = self.clock()
                for idle in [name for name, lane in lanes.items() if lane.idle(now)]:
                    del lanes[idle]
            counted = Bucket(self._per_minute, 60.0, lag=self._lag)
            lanes[name] = Lane(buckets={RPM: counted} if self._per_minute else {})
        return lanes[name]

    def _start(self, turn: Turn, now: float) -> None:
        known = self._key(turn.key)
        known.requests += 1
        turn.booked, turn.owner = None, known.owner
        turn.sent = self._lane(turn.key, turn.model).charge(turn.need, now)

    def _book(self, turn: Turn, expires: float) -> None:
        self.state.bookings += 1
        turn.booked = Booking(self.state.bookings, turn.need, expires)
        self._lane(turn.key, turn.model).queue.append(turn.booked)

    def _rest(self, key: Key, resting: Cooling, seconds: float, reason: str) -> int:
        until = self.clock() + seconds
        if until > resting.until:
            resting.until, resting.reason = until, reason
        known = self._key(key)
        known.failures += 1
        known.fails += 1
        return known.fails

    def _join(self, key: Key, organization: str) -> "Shared | None":
        """Note whose ``key`` is; its lanes become the organization's."""
        known, own, state = self._key(key), self._ids[key], self.state
        if known.owner != own:
            return None
        known.owner = organization
        for place in [place for place in state.lanes if place[0] == own]:
            lane = state.lanes.pop(place)
            self._lane(key, place[1]).merge(lane, self.clock())
        count = len(state.names)
        name = state.names.setdefault(organization, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[count % 26] * (count // 26 + 1))
        mates = [mate for mate in self._keys if self._key(mate).owner == organization]
        return Shared(name, mates) if len(mates) > 1 else None
