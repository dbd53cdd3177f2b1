"""The lane: what one organization may do with one model. Buckets that refill, calls in flight, a queue. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

RPM = "requests per minute"  # named as in the sentences of Groq's refusals
TPM = "tokens per minute"
RPD = "requests per day"
TPD = "tokens per day"
PERIODS = {RPM: 60.0, TPM: 60.0, RPD: 86400.0, TPD: 86400.0}  # seconds
TOKENS = {TPM, TPD}  # the others count requests

FREE_PLAN = {RPM: 30, TPM: 8000, RPD: 1000, TPD: 200_000}  # for each organization and model
LAG = 0.25  # seconds that a call may take to reach Groq, the first one's handshakes included, from far away
OVERESTIMATE = 2  # times the true tokens that an estimate may be


class Room(NamedTuple):
    """What a bulk request leaves in each bucket of a lane for presses to come."""

    requests: float = 0.0
    tokens: float = 0.0


NO_ROOM = Room()


@dataclass(slots=True)
class Bucket:
    """Up to ``limit`` units, refilled from empty to full in ``period`` seconds.

    ``full_at`` is GCRA's theoretical arrival time: when it would be full again, were nothing in flight. What was
    reserved up to number ``reconciled`` is counted in it, for an answer has told so. ``presumed``: nobody has said
    that there is such a limit; it is the free plan's.
    """

    limit: float
    period: float
    full_at: float = 0.0
    reconciled: int = 0
    presumed: bool = False

    def refill(self, units: float) -> float:
        """Seconds that it takes to refill so many units."""
        return units * self.period / self.limit

    def left(self, now: float) -> float:
        """Units that can be taken at once; below zero while overdrawn."""
        return self.limit * (1 - max(0.0, self.full_at - now) / self.period)

    def believe(self, full_at: float, number: int) -> None:
        """Take the word of an answer: it counts what was reserved up to ``number``. Of an old one only bad news."""
        if number > self.reconciled:
            self.full_at, self.reconciled = full_at, number
        else:
            self.full_at = max(self.full_at, full_at)


class Allowance(NamedTuple):
    """What an answer says of a bucket: its limit, and in how many seconds it would be full again."""

    limit: float
    full_in: float


@dataclass(slots=True)
class Flight:
    """A call in flight since the instant ``at``; lost with its thread or machine if not settled by ``expires``."""

    number: int
    tokens: int
    at: float
    expires: float


@dataclass(slots=True)
class Booking:
    """A request that waits for its slot. ``latest``: the instant by which it was promised one."""

    number: int
    tokens: int
    bulk: bool
    latest: float
    expires: float


@dataclass
class Cooling:
    """Until when something is out of rotation, why, and how many failures of its own it has had in a row.

    ``limited``: only by a limit of Groq's, so that it will be back then; else it will be tried again. ``dimension``:
    the bucket that this limit is of, if it was told.
    """

    until: float = 0.0
    streak: int = 0
    reason: str = ""
    limited: bool = False
    dimension: str = ""

    def cool(self, until: float, reason: str, *, limited: bool = False, dimension: str = "") -> None:
        """Keep it out of rotation; never shortens a longer cooldown."""
        if until > self.until:
            self.until, self.reason, self.limited, self.dimension = until, reason, limited, dimension

    def follow(self, other: "Cooling") -> None:
        """Cool as long as another one does."""
        self.cool(other.until, other.reason, limited=other.limited, dimension=other.dimension)
        self.streak = max(self.streak, other.streak)


def units(name: str, tokens: int, limit: float) -> float:
    """What a request of so many tokens takes from the bucket ``name``.

    One that hardly fits waits for a full bucket, and Groq decides: tokens are estimated. One that can't fit, however
    it was estimated, will be refused and cost nothing.
    """
    if name not in TOKENS:
        return min(1.0, limit)
    return min(tokens, limit) if tokens <= OVERESTIMATE * limit else 0.0


def _fits_at(since: float, full_at: float, period: float) -> float:
    """From when a bucket holds all that would make it full at ``full_at``, if it refills since the instant ``since``.

    What fits at that instant has fitted before, for the bucket was full until then.
    """
    return full_at - period if full_at - period > since else 0.0


@dataclass
class Lane(Cooling):
    """One organization, one model. ``serves``: it has answered.

    ``lacks``: the id of the key that was told last that there is no such model, empty if none was. ``calls``: since the
    start, by the keys' ids.
    """

    buckets: dict[str, Bucket] = field(default_factory=dict)
    flights: list[Flight] = field(default_factory=list)  # in the order of their numbers
    queue: list[Booking] = field(default_factory=list)
    serves: bool = False
    lacks: str = ""
    calls: dict[str, int] = field(default_factory=dict)

    def ready_at(self, now: float, tokens: int, ahead: Sequence["Booking"] = (), room: Room = NO_ROOM) -> float:
        """The instant from which a request of so many tokens fits, behind what is in flight and ``ahead`` of it."""
        ready = self.until
        for name, bucket in self.buckets.items():
            limit = bucket.limit
            needed = units(name, tokens, limit)
            if needed and room is not NO_ROOM:
                needed = min(needed + (room.tokens if name in TOKENS else room.requests), limit)
            for booking in ahead:
                if booking.expires > now:
                    needed += units(name, booking.tokens, limit)
            since, full_at = self._with_flights(name, now) if self.flights else (0.0, bucket.full_at)
            ready = max(ready, _fits_at(since, full_at + bucket.refill(needed), bucket.period))
        return ready

    def slot(self, tokens: int) -> float:
        """Seconds in which it refills what such a request takes."""
        return max(
            (bucket.refill(units(name, tokens, bucket.limit)) for name, bucket in self.buckets.items()), default=0.0
        )

    def slots(self, now: float, line: Sequence["Booking"]) -> list[float]:
        """The instants from which those in a line fit, one behind the other."""
        slots = [self.until] * len(line)
        for name, bucket in self.buckets.items():
            since, full_at = self._with_flights(name, now)
            for place, booking in enumerate(line):
                if booking.expires > now:
                    full_at += bucket.refill(units(name, booking.tokens, bucket.limit))
                slots[place] = max(slots[place], _fits_at(since, full_at, bucket.period))
        return slots

    def due_at(self, now: float, place: int, room: Room) -> float:
        """When the one at this place of the queue may start. A bulk request leaves room, if all keep their slots."""
        slots, booking = self.slots(now, self.queue), self.queue[place]
        if not booking.bulk or room is NO_ROOM:
            return slots[place]
        to_spare = min(other.latest - slot for other, slot in zip(self.queue[place:], slots[place:], strict=True))
        with_room = self.ready_at(now, booking.tokens, self.queue[:place], room)
        return max(slots[place], min(with_room, slots[place] + to_spare))

    def _with_flights(self, name: str, now: float) -> tuple[float, float]:
        """Since when a bucket refills, and when it would be full, with all in flight that no answer has told of."""
        bucket = self.buckets[name]
        since, full_at = 0.0, bucket.full_at
        for flight in self.flights:
            if flight.number > bucket.reconciled and flight.expires > now:
                if full_at < flight.at + LAG:  # it was full when this call came, which may be later than we think
                    since = full_at = flight.at + LAG
                full_at += bucket.refill(units(name, flight.tokens, bucket.limit))
        return since, full_at

    def place(self, now: float, tokens: int, bulk: bool) -> int:
        """Where in the queue a request belongs: presses go before bulk requests, if no promise is broken by it."""
        place = len(self.queue)
        if bulk or not place or not self.queue[-1].bulk:
            return place
        later = self.slots(now, [Booking(0, tokens, False, math.inf, math.inf), *self.queue])
        while place and self.queue[place - 1].bulk and later[place] <= self.queue[place - 1].latest:
            place -= 1
        return place

    def land(self, number: int) -> None:
        """End a flight or a booking, without a trace."""
        for place, flight in enumerate(self.flights):
            if flight.number == number:
                del self.flights[place]
                return
        self.queue = [booking for booking in self.queue if booking.number != number]

    def sweep(self, now: float) -> None:
        """Forget what was lost with its thread or machine."""
        self.flights = [flight for flight in self.flights if flight.expires > now]
        self.queue = [booking for booking in self.queue if booking.expires > now]

    def consume(self, number: int, tokens: int, at: float, now: float) -> None:
        """Count a call that Groq admitted at that instant, in the buckets of which its answer does not tell.

        Tokens a minute that no answer tells of are not presumed any longer.
        """
        if TPM in self.buckets and self.buckets[TPM].presumed:
            del self.buckets[TPM]
        for name, bucket in self.buckets.items():
            if number > bucket.reconciled:
                spent = bucket.refill(units(name, tokens, bucket.limit))
                bucket.full_at = min(max(bucket.full_at, at) + spent, now + bucket.period)

    def learn(self, told: Mapping[str, Allowance], number: int, at: float, now: float) -> None:
        """Believe what the answer to reservation ``number`` says of the buckets as they were at the instant ``at``."""
        for name, (limit, full_in) in told.items():
            bucket = self.size(name, limit, number)
            bucket.believe(min(at + full_in, now + bucket.period), number)

    def size(self, name: str, limit: float, number: int) -> Bucket:
        """Believe that the bucket has this limit, as the answer to reservation ``number`` says; return the bucket."""
        bucket = self.buckets.setdefault(name, Bucket(limit, PERIODS[name]))
        if number > bucket.reconciled:
            bucket.limit, bucket.presumed = limit, False
        counted = self.buckets.get(RPM)
        if counted and counted.presumed and limit > FREE_PLAN[name]:  # a paid plan
            del self.buckets[RPM]
        return bucket

    def refuse(self, name: str, tokens: int, until: float, now: float) -> None:
        """Believe a refusal without numbers: the bucket has no room for such a request until then."""
        if bucket := self.buckets.get(name):
            spent = bucket.refill(units(name, tokens, bucket.limit))
            bucket.full_at = max(bucket.full_at, min(until - spent, now) + bucket.period)

    def merge(self, other: "Lane", now: float) -> None:
        """Take over what another lane knows, now that both prove to be one; the worse news wins."""
        self.follow(other)
        for name in {*self.buckets, *other.buckets}:
            ours, theirs = self.buckets.get(name), other.buckets.get(name)
            if not ours or not theirs:  # where one knows that there is no such limit, it is not presumed
                if (known := ours or theirs) and not known.presumed:
                    self.buckets[name] = known
                else:
                    self.buckets.pop(name, None)
            elif ours.presumed != theirs.presumed:
                self.buckets[name] = theirs if ours.presumed else ours
            elif ours.reconciled or theirs.reconciled:
                ours.full_at = max(ours.full_at, theirs.full_at)
                ours.reconciled = max(ours.reconciled, theirs.reconciled)
            else:  # counted here, for each apart: together they have used both
                both = max(ours.full_at, now) + max(0.0, theirs.full_at - now)
                ours.full_at = min(both, now + ours.period)
        self.flights = sorted(self.flights + other.flights, key=lambda flight: flight.number)
        self.queue = sorted(self.queue + other.queue, key=lambda booking: (booking.bulk, booking.number))
        self.serves, self.lacks = self.serves or other.serves, self.lacks or other.lacks
        self.calls = {key: self.calls.get(key, 0) + other.calls.get(key, 0) for key in self.calls | other.calls}

    def shift(self, seconds: float) -> None:
        """Tell all instants by a clock that is so many seconds ahead of the one before."""
        self.until += seconds
        for bucket in self.buckets.values():
            bucket.full_at += seconds
        for flight in self.flights:
            flight.at, flight.expires = flight.at + seconds, flight.expires + seconds
        for booking in self.queue:
            booking.latest, booking.expires = booking.latest + seconds, booking.expires + seconds

    def busy_until(self) -> float:
        """When there will be nothing left to remember of it but what it serves."""
        if self.flights or self.queue:
            return math.inf
        return max([self.until, *(bucket.full_at for bucket in self.buckets.values())])

    def seen(self, now: float) -> "Lane":
        """A copy for whoever looks on, in whose buckets all that is in flight is counted."""
        seen = replace(self, buckets={}, flights=[], queue=self.queue[:])
        for name, bucket in self.buckets.items():
            if bucket.presumed and name != RPM:
                continue  # it is not known yet
            since, full_at = self._with_flights(name, now)
            seen.buckets[name] = replace(bucket, full_at=full_at - max(0.0, since - now))
        return seen
