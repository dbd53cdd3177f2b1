"""The pool of keys: leave to make one call, whose turn it is, and the account of what became of it."""

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from promptlord.errors import Cause, NoKeyReady
from promptlord.pool import ledger, promises, turns
from promptlord.pool.books import Books, Rules
from promptlord.pool.memory import MemoryStorage
from promptlord.pool.quota import FREE_PLAN, RPM, TPM, Cooling
from promptlord.pool.state import (
    NO_NEWS,
    NO_TRACE,
    Decision,
    Demand,
    Key,
    KeyView,
    News,
    Outcome,
    Promise,
    Reservation,
    Scope,
    Snapshot,
)
from promptlord.pool.turns import Tried

T = TypeVar("T")


class Storage(Protocol):
    """Where the state is kept: in this process, or where many share it."""

    def decide(self, decision: Decision[T], *, wait: bool = True) -> T:
        """Return what ``decision`` makes of the state and changes in it, as if nobody else were there.

        Without ``wait``, as far as is known here at once; it is made again where others turn out to have been faster.
        """

    def look(self, question: Decision[T]) -> T:
        """Answer a question, which changes nothing, from what is known here."""


class KeyPool:
    """Hands out keys in turn, passing over those that can't serve now. Safe to share between threads."""

    def __init__(
        self,
        secrets: Sequence[str],
        cooldown: float = 60.0,
        per_minute: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        storage: Storage | None = None,
        *,
        timeout: float = 60.0,
    ) -> None:
        """See ``Rules`` for the numbers. ``clock`` counts seconds where no ``storage`` does, which has its own."""
        keys = tuple(Key(number, secret) for number, secret in enumerate(secrets, 1))
        self._rules = Rules(keys, cooldown, per_minute, timeout)
        self.storage = storage or MemoryStorage(clock)

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
        return self._look(lambda books: turns.due_in(books, reservation))

    def start(self, reservation: Reservation) -> bool:
        """Put a booked call in flight if it is due; return whether it is in flight now."""
        if reservation.booked:
            now = self._decide(lambda books: turns.start(books, reservation))
            reservation.number, reservation.booked, reservation.at = now.number, now.booked, now.at
        return not reservation.booked

    def settle(self, reservation: Reservation, outcome: Outcome = NO_TRACE) -> News:
        """End a reservation, booked or in flight, with all that its answer told; once is enough.

        As it is by default, the call leaves no trace: it was refused, never sent, or given up.
        """
        if reservation.settled:
            return NO_NEWS
        reservation.settled = True
        bad = outcome.cools is not Scope.NOTHING or outcome.retires or bool(outcome.blamed)  # others must know at once
        return self._decide(lambda books: ledger.settle(books, reservation, outcome), wait=bad)

    def unserved(self, cause: Cause, reason: str, *, press: bool) -> None:
        """Remember a request that was not served, and why; those that are served settle their reservation."""
        self._decide(lambda books: ledger.unserved(books, cause, reason, press=press), wait=False)

    def most(self, models: Sequence[str]) -> float:
        """Tokens that a request for one of these models can take at once; infinite while Groq has not told."""
        return self._look(lambda books: _most(books, models))

    def begin_check(self, apart: float) -> bool:
        """Whether Groq may be asked about the keys now: not if it was in the last ``apart`` seconds."""

        def decision(books: Books) -> bool:
            checked_at = books.state.checked_at
            allowed = not checked_at or books.now >= checked_at + apart
            if allowed:
                books.head().checked_at = books.now
            return allowed

        return self._decide(decision)

    def learn(self, key: Key, model: str, outcome: Outcome, finding: str) -> News:
        """Believe what Groq says when it is asked about a key, and of the model; ``finding``: in our words."""
        return self._decide(lambda books: ledger.learn(books, key, model, outcome, finding))

    def strangers(self, model: str, tokens: int) -> list[Key]:
        """The keys whose organization is not known, unless so many tokens of the model may be asked for at once."""
        return self._look(lambda books: _strangers(books, model, tokens))

    def ready_in(self, demand: Demand) -> float:
        """Seconds until what is demanded would be served; 0 if it would now."""
        return self._look(lambda books: turns.ready_in(books, demand))

    def turn_away(self, fingerprint: bytes, ready_in: float, apart: float = 0.0, *, roomier: bool = False) -> float:
        """Remember a request that is told to come back; return in how many seconds. See ``promises``."""
        name = fingerprint.hex()
        return self.storage.decide(
            lambda state, now: promises.turn_away(state, now, name, ready_in, apart, roomier=roomier)
        )

    def returns(self, fingerprint: Callable[[], bytes]) -> Promise | None:
        """The promise given to this request if it comes back when it was told to; it is forgotten then.

        The fingerprint is taken only where somebody is remembered: a body may have megabytes.
        """
        if not self.storage.look(lambda state, now: any(state.promises.values())):
            return None
        name = fingerprint().hex()
        return self.storage.decide(lambda state, now: promises.returns(state, now, name), wait=False)

    def health(self, models: Sequence[str]) -> dict[str, Any]:
        """What ``GET /health`` shows; healthy while a lane of one of ``models`` is not cooling."""
        return self._look(lambda books: _health(books, models))

    def snapshot(self) -> Snapshot:
        """A copy of what may be shown: no key and no organization's id is in it."""
        return self._look(_snapshot)

    def _decide(self, decision: Callable[[Books], T], *, wait: bool = True) -> T:
        return self.storage.decide(lambda state, now: decision(Books(self._rules, state, now)), wait=wait)

    def _look(self, question: Callable[[Books], T]) -> T:
        return self.storage.look(lambda state, now: question(Books(self._rules, state, now)))


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


def _most(books: Books, models: Sequence[str]) -> float:
    owners = {record.owner for record in map(books.see, books.rules.keys) if not record.refused}
    lanes = (books.state.lanes.get((owner, model)) for owner in owners for model in models)
    buckets = [lane.buckets.get(TPM) if lane else None for lane in lanes]
    return max((bucket.limit if bucket and not bucket.presumed else math.inf for bucket in buckets), default=math.inf)


def _strangers(books: Books, model: str, tokens: int) -> list[Key]:
    def known(key: Key) -> bool:
        bucket = books.see_lane(key, model).buckets.get(TPM)
        return books.see(key).owner != key.id or (bucket is not None and bucket.limit >= tokens)

    return [key for key in books.rules.keys if not known(key)]


def _snapshot(books: Books) -> Snapshot:
    now, state, rules = books.now, books.state, books.rules
    names = state.names | {key.id: key.label for key in rules.keys}
    calls = sum((Counter(lane.calls) for lane in state.lanes.values()), Counter())
    keys = [
        KeyView(
            key.label,
            names.get(record.owner, "?"),
            calls[key.id],
            record.failures,
            replace(record.cooling),
            record.proved,
            record.refused,
            record.finding,
        )
        for key, record in ((key, books.see(key)) for key in rules.keys)
    ]
    lanes = {(names.get(owner, "?"), model): lane.seen(now) for (owner, model), lane in state.lanes.items()}
    per_minute = FREE_PLAN[RPM] if rules.per_minute is None else rules.per_minute
    hours = {number: replace(hour) for number, hour in state.hours.items()}
    return Snapshot(now, now - state.started_at, per_minute, keys, lanes, hours, state.checked_at)
