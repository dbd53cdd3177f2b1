"""The pool of keys: leave to make one call, whose turn it is, and the account of what became of it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from promptlord.errors import NoKeyReady
from promptlord.pool import ledger, turns
from promptlord.pool.books import Books, Rules
from promptlord.pool.memory import MemoryStorage
from promptlord.pool.quota import FREE_PLAN, RPM, Cooling
from promptlord.pool.state import NO_TRACE, Demand, Key, KeyView, News, Outcome, Reservation, Snapshot, State
from promptlord.pool.turns import Tried

T = TypeVar("T")


class Storage(Protocol):
    """Where the state is kept: in this process, or where many share it."""

    def decide(self, decision: Callable[[State], T]) -> T:
        """Return what ``decision`` makes of the state and changes in it, as if nobody else were there."""


class KeyPool:
    """Hands out keys in turn, passing over those that can't serve now. Safe to share between threads."""

    def __init__(
        self,
        secrets: Sequence[str],
        cooldown: float = 60.0,
        per_minute: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        storage: Callable[[State], Storage] = MemoryStorage,
        *,
        timeout: float = 60.0,
    ) -> None:
        """See ``Rules`` for the numbers; ``clock`` counts seconds, ``storage`` makes what keeps the state."""
        keys = tuple(Key(number, secret) for number, secret in enumerate(secrets, 1))
        self._rules = Rules(keys, cooldown, per_minute, timeout)
        self._clock = clock
        self._storage = storage(State(clock()))

    def __len__(self) -> int:
        return len(self._rules.keys)

    def reserve(
        self,
        demand: Demand,
        *,
        after: Key | None = None,
        tried: Tried = (),
        max_wait: float = 0.0,
        put_off: float = 0.0,
    ) -> Reservation:
        """Take the next turn, for the first of the models that has a lane ready; else book the earliest slot.

        ``after``: the key that failed the same request; the search goes on behind it, and the rotation stays.
        ``tried``: what is not to be asked again. ``max_wait``: seconds that the slot may be away; ``put_off``: those
        that a bulk request's may become when presses come between. Settle the reservation, whatever happens; a booked
        one must be started first. Raises ``NoKeyReady``.
        """

        def decision(books: Books) -> Reservation | NoKeyReady:
            latest = books.now + max(max_wait, put_off)
            return turns.reserve(books, demand, after, tried, max_wait, latest)

        given = self._decide(decision)
        if isinstance(given, NoKeyReady):
            raise given
        return given

    def due_in(self, reservation: Reservation) -> float:
        """Seconds until a booked reservation may be started, as known now; 0 if it may, or has been."""
        return self._decide(lambda books: turns.due_in(books, reservation))

    def start(self, reservation: Reservation) -> bool:
        """Put a booked call in flight if it is due; return whether it is in flight now."""
        return self._decide(lambda books: turns.start(books, reservation))

    def settle(self, reservation: Reservation, outcome: Outcome = NO_TRACE) -> News:
        """End a reservation, booked or in flight, with all that its answer told; once is enough.

        As it is by default, the call leaves no trace: it was refused, never sent, or given up.
        """
        return self._decide(lambda books: ledger.settle(books, reservation, outcome))

    def ready_in(self, demand: Demand) -> float:
        """Seconds until what is demanded would be served; 0 if it would now."""
        return self._decide(lambda books: turns.ready_in(books, demand))

    def health(self, models: Sequence[str]) -> dict[str, Any]:
        """What ``GET /health`` shows; healthy while a lane of one of ``models`` is not cooling."""
        return self._decide(lambda books: _health(books, models))

    def snapshot(self) -> Snapshot:
        """A copy of what may be shown: no key and no organization's id is in it."""
        return self._decide(_snapshot)

    def _decide(self, decision: Callable[[Books], T]) -> T:
        # The clock is read once, inside the storage's lock, so that one instant decides.
        return self._storage.decide(lambda state: decision(Books(self._rules, state, self._clock())))


def _health(books: Books, models: Sequence[str]) -> dict[str, Any]:
    now, lanes = books.now, books.state.lanes
    owners = {owner for (owner, _), lane in lanes.items() if lane.until > now}
    records = [(key, books.see(key)) for key in books.rules.keys]
    cooling = {key for key, record in records if record.cooling.until > now or record.owner in owners}
    able = any(
        record.cooling.until <= now
        and any(lanes.get((record.owner, model), Cooling()).until <= now for model in models)
        for _, record in records
    )
    return {
        "status": "healthy" if able else "exhausted" if records else "unconfigured",
        "totalKeys": len(records),
        "activeKeys": len(records) - len(cooling),
        "failedKeys": [
            {"keyIndex": key.number, "failCount": record.fails, "inCooldown": key in cooling}
            for key, record in records
            if record.fails or key in cooling
        ],
    }


def _snapshot(books: Books) -> Snapshot:
    now, state, rules = books.now, books.state, books.rules
    names = state.names | {key.id: key.label for key in rules.keys}
    keys = [
        KeyView(key.label, names[record.owner], record.requests, record.failures, replace(record.cooling))
        for key, record in ((key, books.see(key)) for key in rules.keys)
    ]
    lanes = {(names.get(owner, "?"), model): lane.seen(now) for (owner, model), lane in state.lanes.items()}
    per_minute = FREE_PLAN[RPM] if rules.per_minute is None else rules.per_minute
    return Snapshot(now, now - state.started_at, per_minute, keys, lanes)
