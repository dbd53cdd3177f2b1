"""What one process learnt alone, and what the others did meanwhile, made one: the worse news wins. Pure.

``base`` is what both began from: with it, what one has ended is not begun again by the other's memory of it.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from promptlord.pool.quota import Booking, Bucket, Flight, Lane
from promptlord.pool.state import Hour, KeyRecord, Part, State, next_name

Entry = TypeVar("Entry", Flight, Booking)


def reunite(part: Part, base: Any, mine: Any, theirs: Any, now: float) -> Any:
    """A part of a state, of which each may be ``None`` where there is none. ``theirs`` becomes what is returned."""
    if mine is None:  # forgotten
        return None if theirs == base else theirs
    if theirs is None:  # forgotten, or never known there
        return mine
    match part[0]:
        case "head":
            _heads(mine, theirs)
        case "key":
            _keys(part[1], base or theirs, mine, theirs)
        case "lane":
            _lanes(base or Lane(calls=theirs.calls), mine, theirs, now)
        case "hour":
            _hours(base or Hour(), mine, theirs)
        case _:
            over = (base or {}).keys() - (mine.keys() & theirs.keys())
            both = mine | theirs
            theirs.clear()
            theirs.update({name: promise for name, promise in both.items() if name not in over})
    return theirs


def join(state: State, base: Callable[[Part], Any], now: float) -> None:
    """Let lanes of keys whose organization only one of them had learnt be the organization's."""
    for own, model in [*state.lanes]:
        record = state.keys.get(own)
        if record and record.owner != own:
            part, joined = ("lane", own, model), (record.owner, model)
            lane = state.lanes.pop((own, model))
            state.lanes[joined] = reunite(part, base(part), lane, state.lanes.get(joined), now)
            state.changed |= {part, ("lane", *joined)}


def _heads(mine: State, theirs: State) -> None:
    theirs.number, theirs.promised = max(theirs.number, mine.number), max(theirs.promised, mine.promised)
    theirs.started_at = min(theirs.started_at, mine.started_at)
    for owner in mine.names:
        theirs.names.setdefault(owner, next_name(theirs.names))
    for model, until in mine.retired.items():
        theirs.retired[model] = max(until, theirs.retired.get(model, 0.0))
    theirs.presses = max(theirs.presses, mine.presses, key=lambda presses: presses.count)
    theirs.checked_at = max(theirs.checked_at, mine.checked_at)


def _keys(own: str, base: KeyRecord, mine: KeyRecord, theirs: KeyRecord) -> None:
    theirs.cooling.follow(mine.cooling)
    if theirs.owner == own:
        theirs.owner = mine.owner
    theirs.fails = max(theirs.fails, mine.fails)
    theirs.failures += max(0, mine.failures - base.failures)
    theirs.proved = theirs.proved or mine.proved
    theirs.refused = mine.refused if mine.refused != base.refused else theirs.refused
    theirs.finding = mine.finding if mine.finding != base.finding else theirs.finding


def _lanes(base: Lane, mine: Lane, theirs: Lane, now: float) -> None:
    theirs.follow(mine)
    for name in {*mine.buckets, *theirs.buckets}:
        one, other = mine.buckets.get(name), theirs.buckets.get(name)
        if one and other:
            _buckets(base.buckets.get(name), one, other, now)
        elif (known := one or other) and (known.presumed or name in base.buckets):
            theirs.buckets.pop(name, None)  # the other one has learnt that there is no such limit
        elif known:
            theirs.buckets[name] = known
    theirs.flights = sorted(_entries(base.flights, mine.flights, theirs.flights), key=lambda each: each.number)
    theirs.queue = sorted(_entries(base.queue, mine.queue, theirs.queue), key=lambda each: (each.bulk, each.number))
    theirs.serves, theirs.lacks = theirs.serves or mine.serves, theirs.lacks or mine.lacks
    more = {key: max(0, count - base.calls.get(key, 0)) for key, count in mine.calls.items()}
    theirs.calls = {key: theirs.calls.get(key, 0) + more.get(key, 0) for key in theirs.calls | more}


def _hours(base: Hour, mine: Hour, theirs: Hour) -> None:
    """Counts add up; of the last request the later word holds."""
    for count in ("served", "refused", "failed"):
        more = max(0, getattr(mine, count) - getattr(base, count))
        setattr(theirs, count, getattr(theirs, count) + more)
    if mine.failed_at > theirs.failed_at:
        theirs.failed_at, theirs.cause, theirs.reason = mine.failed_at, mine.cause, mine.reason
    theirs.served_at = max(theirs.served_at, mine.served_at)
    theirs.row = max(theirs.row, mine.row) if theirs.failed_at > theirs.served_at else 0


def _buckets(base: Bucket | None, mine: Bucket, theirs: Bucket, now: float) -> None:
    """Where Groq tells the level it has told both; where it is counted here, each has counted its own."""
    if mine.presumed < theirs.presumed or (mine.presumed == theirs.presumed and mine.reconciled > theirs.reconciled):
        theirs.limit, theirs.presumed = mine.limit, mine.presumed
    counted = not (mine.reconciled or theirs.reconciled)
    theirs.reconciled = max(theirs.reconciled, mine.reconciled)
    if counted and base:
        added = max(0.0, mine.full_at - max(base.full_at, now))
        theirs.full_at = min(max(theirs.full_at, now) + added, now + theirs.period)
    else:
        theirs.full_at = max(theirs.full_at, mine.full_at)


def _entries(base: Sequence[Entry], mine: Sequence[Entry], theirs: Sequence[Entry]) -> list[Entry]:
    """All but those that one of them has ended since."""
    before, here, there = ({each.number: each for each in entries} for entries in (base, mine, theirs))
    ended = before.keys() - (here.keys() & there.keys())
    return [each for number, each in (here | there).items() if number not in ended]
