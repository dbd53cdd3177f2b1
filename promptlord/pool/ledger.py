"""What became of a call: the account of a reservation is settled in one step, with all that its answer told. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from promptlord.errors import Cause
from promptlord.pool.books import MANY, Books
from promptlord.pool.quota import LAG, Cooling, Lane
from promptlord.pool.state import NO_NEWS, Key, KeyRecord, News, Outcome, Reservation, Scope, Shared, digest, next_name

LONGEST_COOLDOWN = 3600.0  # seconds; where doubling ends
RETIREMENT = 600.0  # seconds for which a model that nobody serves is passed over


def settle(books: Books, reservation: Reservation, outcome: Outcome) -> News:
    """End a reservation; see ``KeyPool.settle``."""
    key, now = reservation.key, books.now
    books.lane(key, reservation.model).land(reservation.number)
    shared = _join(books, key, outcome.organization) if outcome.organization else None
    lane = books.lane(key, reservation.model)
    at = min(now, reservation.at + LAG)  # when Groq admitted or refused the call, and stamped its headers
    if outcome.allowances:
        lane.learn(outcome.allowances, reservation.number, at, now)
    for name, limit in outcome.limits.items():
        lane.size(name, limit, reservation.number)
    if outcome.admitted:
        lane.consume(reservation.number, outcome.tokens or reservation.tokens, at, now)
    if outcome.served:
        _credit(books, reservation, lane)
        return News(_blame(books, key, outcome.blamed), shared) if outcome.blamed or shared else NO_NEWS
    if outcome.lacks:
        lane.lacks = key.id
    retired = outcome.retires or (outcome.lacks and _nobody_serves(books, reservation.model))
    known = retired and _retire(books, reservation.model)
    fails = outcome.cools is not Scope.NOTHING and not retired
    marked = [(key, _punish(books, reservation, lane, outcome))] if fails else []
    return News(marked, shared, retired, known)


def learn(books: Books, key: Key, model: str, outcome: Outcome, finding: str) -> News:
    """Note what Groq says when it is asked about a key: it is no request's, so nothing is counted for it."""
    record = books.record(key)
    record.finding = finding
    if outcome.served:
        record.proved = True
        _end_outage(books)
    if outcome.served and (record.fails or record.refused):
        record.fails, record.refused, record.cooling = 0, None, Cooling()
    asked = Reservation(key, model, 0, bulk=True, latest=0.0, number=books.next_number(), at=books.now)
    return settle(books, asked, replace(outcome, served=False))


def _end_outage(books: Books) -> None:
    """Groq answers: what failed before says nothing of the next request."""
    for number, hour in books.state.hours.items():
        if hour.row:
            books.state.changed.add(("hour", str(number)))
            hour.row = 0


def unserved(books: Books, cause: Cause, reason: str, *, press: bool) -> None:
    """Note a request that was not served, and why: we refused it, or it failed."""
    hour = books.hour()
    if cause in (Cause.BUSY, Cause.REQUEST, Cause.UNCONFIGURED):
        hour.refused += press
        return
    hour.failed += press
    hour.failed_at, hour.cause, hour.reason = books.now, cause, reason
    hour.row += cause is not Cause.KEYS  # what keys meet is known of each, and says nothing of the others


def _credit(books: Books, reservation: Reservation, lane: Lane) -> None:
    """The key has proved itself: nothing counts against it any more, but a cooldown that runs goes on."""
    hour, lane.streak = books.hour(), 0
    hour.served, hour.served_at, hour.row = hour.served + (not reservation.bulk), books.now, 0
    record = books.see(reservation.key)
    if record.fails or record.cooling.streak or record.refused or not record.proved:
        record = books.record(reservation.key)
        record.fails, record.cooling.streak, record.proved, record.refused = 0, 0, True, None
    lane.serves, lane.lacks = True, ""
    if reservation.model in books.state.retired:
        del books.head().retired[reservation.model]


def _blame(books: Books, served: Key, earlier: Sequence[Reservation]) -> list[tuple[Key, int]]:
    """Those that failed a request that another key then served are to blame, and not Groq."""
    blamed = dict.fromkeys(reservation.key for reservation in earlier if reservation.key != served)
    for key in blamed:
        books.record(key).cooling.cool(books.now + books.rules.cooldown, "failed where another key succeeded")
    return [(key, _fail(books.record(key))) for key in blamed]


def _punish(books: Books, reservation: Reservation, lane: Lane, outcome: Outcome) -> int:
    """Let what failed cool; return the key's failures since its last success."""
    record = books.record(reservation.key)
    record.refused, record.proved = outcome.refusal or record.refused, record.proved or outcome.limited
    cooling: Cooling = lane if outcome.cools is Scope.LANE else record.cooling
    seconds = outcome.seconds or books.rules.cooldown
    if not outcome.limited:
        if reservation.at >= cooling.until or not cooling.streak:  # not one of several at once
            cooling.streak += 1
        seconds = max(seconds, min(seconds * 2.0 ** min(cooling.streak - 1, 16), LONGEST_COOLDOWN))
    if outcome.dimension and outcome.dimension not in outcome.allowances:
        lane.refuse(outcome.dimension, reservation.tokens, books.now + seconds, books.now)
    cooling.cool(books.now + seconds, outcome.reason, limited=outcome.limited, dimension=outcome.dimension)
    return _fail(record)


def _fail(record: KeyRecord) -> int:
    record.failures += 1
    record.fails += 1
    return record.fails


def _nobody_serves(books: Books, model: str) -> bool:
    """Whether every organization that was asked for the model lacks it: two at least, or all there are."""
    asked = [lane for (_, name), lane in books.state.lanes.items() if name == model and (lane.serves or lane.lacks)]
    return all(lane.lacks for lane in asked) and len(asked) >= min(2, len(books.owners()))


def _retire(books: Books, model: str) -> bool:
    """Pass the model over for a while; return whether it was already. No key is to blame, nor was one before."""
    retired, now = books.head().retired, books.now
    known = retired.get(model, 0.0) > now
    for over in [name for name, until in retired.items() if until <= now]:
        del retired[over]
    if len(retired) >= MANY:
        del retired[min(retired, key=lambda name: retired[name])]
    retired[model] = now + RETIREMENT
    for (owner, name), lane in books.state.lanes.items():
        if name == model and lane.lacks and lane.streak and not lane.limited:
            lane = books.lane_of(owner, model)
            lane.until, lane.streak = 0.0, 0
            for key in books.rules.keys:
                if key.id == lane.lacks:
                    record = books.record(key)
                    record.fails = max(0, record.fails - 1)
    return known


def _join(books: Books, key: Key, organization: str) -> Shared | None:
    """Note whose ``key`` is; its lanes become the organization's. Return what is news: that several keys share it."""
    state, own, organization = books.state, key.id, digest(organization)
    if books.see(key).owner != own:
        return None
    books.record(key).owner = organization
    for owner, model in [name for name in state.lanes if name[0] == own]:
        lane = books.take_lane(owner, model)
        if (organization, model) in state.lanes:
            books.lane_of(organization, model).merge(lane, books.now)
        else:
            books.put_lane(organization, model, lane)
    name = books.head().names.setdefault(organization, next_name(state.names))
    mates = books.owners()[organization]
    return Shared(name, mates) if len(mates) > 1 else None
