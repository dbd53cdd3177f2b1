"""Whose turn it is: which key and model a request gets, at once or booked for a slot. Pure."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from promptlord.errors import NoKeyReady
from promptlord.pool.books import Books
from promptlord.pool.quota import NO_ROOM, Booking, Flight, Lane, Room
from promptlord.pool.state import Demand, Key, Reservation

GRACE = 5.0  # seconds after which a reservation that nobody settled counts as lost with its thread or machine

Candidate = tuple[Key, str]
Tried = Collection[Candidate]


def reserve(
    books: Books, demand: Demand, after: Key | None, tried: Tried, max_wait: float, latest: float
) -> Reservation | NoKeyReady:
    """Put a call in flight, or book it for the earliest slot; see ``KeyPool.reserve``."""
    state, now = books.state, books.now
    if after is None and not demand.bulk:
        books.head().presses.add(demand, now)
    rooms = _rooms(books, demand)
    first = state.turn if after is None else after.number
    ready_at, candidate = now, _ready(books, demand, _candidates(books, demand.models, first, tried), rooms)
    if candidate is None:
        ready_at, candidate = _earliest(books, demand, _candidates(books, demand.models, first, tried), rooms)
    if candidate is None:  # all were tried
        return NoKeyReady(ready_in(books, demand), _apart(books, demand))
    if ready_at - now > max_wait:
        return NoKeyReady(ready_at - now, _apart(books, demand))
    key, model = candidate
    if after is None:
        books.head().turn = key.number
    reservation = Reservation(key, model, demand.tokens, demand.bulk, latest)
    return _put_in_flight(books, reservation) if ready_at <= now else _book(books, reservation)


def ready_in(books: Books, demand: Demand) -> float:
    """Seconds until the first of the models' lanes can serve; 0 if one can."""
    ready_at, _ = _earliest(books, demand, _candidates(books, demand.models, 0, ()), _rooms(books, demand))
    return max(0.0, ready_at - books.now)


def due_in(books: Books, reservation: Reservation) -> float:
    """Seconds until a booked reservation may be started; 0 if it may, or has been."""
    if not reservation.booked:
        return 0.0
    lane = books.see_lane(reservation.key, reservation.model)
    room = _room(books, reservation.model) if reservation.bulk else NO_ROOM
    for place, booking in enumerate(lane.queue):
        if booking.number == reservation.number:
            due_at = lane.due_at(books.now, place, room)
            break
    else:  # it was forgotten, as by a Redis that was emptied
        due_at = lane.ready_at(books.now, reservation.tokens, lane.queue)
    return max(0.0, max(due_at, books.see(reservation.key).cooling.until) - books.now)


def start(books: Books, reservation: Reservation) -> Reservation:
    """Put a booked call in flight if it is due; return the reservation as it is then."""
    lane = books.see_lane(reservation.key, reservation.model)
    if not due_in(books, reservation):
        books.lane(reservation.key, reservation.model).land(reservation.number)
        return _put_in_flight(books, replace(reservation))
    if all(booking.number != reservation.number for booking in lane.queue):
        return _book(books, replace(reservation))  # once more, for it was forgotten
    return reservation


def _candidates(books: Books, models: Sequence[str], start: int, tried: Tried) -> Iterator[Candidate]:
    """Keys and models in the order in which they are to be asked; without retired models, if there are others."""
    if retired := books.state.retired:
        models = [model for model in models if retired.get(model, 0.0) <= books.now] or models
    keys = books.rules.keys[start:] + books.rules.keys[:start]
    for model in models:
        for key in keys:
            if not tried or (key, model) not in tried:
                yield key, model


def _ready(books: Books, demand: Demand, candidates: Iterable[Candidate], rooms: dict[str, Room]) -> Candidate | None:
    """The first that can serve now. All that is cooling is passed over quickly: there may be a thousand keys."""
    records, lanes, now = books.state.keys, books.state.lanes, books.now
    for key, model in candidates:
        record = records.get(key.id)
        if record and record.cooling.until > now:
            continue
        lane = lanes.get((record.owner if record else key.id, model))
        if lane is None or (lane.until <= now and _ready_at(lane, demand, rooms.get(model, NO_ROOM), now) <= now):
            return key, model
    return None


def _earliest(
    books: Books, demand: Demand, candidates: Iterable[Candidate], rooms: dict[str, Room]
) -> tuple[float, Candidate | None]:
    """The one that will be able to serve first, and the instant."""
    earliest: tuple[float, Candidate | None] = books.now, None
    for key, model in candidates:
        record = books.see(key)
        ready_at, lane = record.cooling.until, books.state.lanes.get((record.owner, model))
        if lane:
            ready_at = max(ready_at, _ready_at(lane, demand, rooms.get(model, NO_ROOM), books.now))
        if earliest[1] is None or ready_at < earliest[0]:
            earliest = ready_at, (key, model)
    return earliest


def _ready_at(lane: Lane, demand: Demand, room: Room, now: float) -> float:
    """When the lane will have room for a request that joins its queue now."""
    ahead = lane.queue[: lane.place(now, demand.tokens, demand.bulk)] if lane.queue else ()
    return lane.ready_at(now, demand.tokens, ahead, room)


def _apart(books: Books, demand: Demand) -> float:
    """Seconds between the slots for such requests, when all lanes are used up."""
    lanes = [
        lane for (_, model), lane in books.state.lanes.items() if model in demand.models and lane.until <= books.now
    ]
    return min((lane.slot(demand.tokens) for lane in lanes), default=0.0) / max(1, len(lanes))


def _rooms(books: Books, demand: Demand) -> dict[str, Room]:
    return {model: _room(books, model) for model in demand.models} if demand.bulk else {}


def _room(books: Books, model: str) -> Room:
    """What a bulk request leaves in each lane of this model."""
    presses = books.state.presses
    lanes = len(books.owners()) * len(presses.models)
    return presses.room(model, lanes, books.now)


def _put_in_flight(books: Books, reservation: Reservation) -> Reservation:
    """Begin the call of a new reservation. What others lost with their threads is swept up on the way."""
    now, lane, number = books.now, books.lane(reservation.key, reservation.model), books.next_number()
    if lane.flights or lane.queue:
        lane.sweep(now)
    lane.flights.append(Flight(number, reservation.tokens, now, now + books.rules.timeout + GRACE))
    lane.calls[reservation.key.id] = lane.calls.get(reservation.key.id, 0) + 1
    reservation.number, reservation.booked, reservation.at = number, False, now
    return reservation


def _book(books: Books, reservation: Reservation) -> Reservation:
    lane, latest, number = books.lane(reservation.key, reservation.model), reservation.latest, books.next_number()
    place = lane.place(books.now, reservation.tokens, reservation.bulk)
    lane.queue.insert(place, Booking(number, reservation.tokens, reservation.bulk, latest, latest + GRACE))
    reservation.number, reservation.booked = number, True
    return reservation
