"""What a pool remembers, what it is asked and told, and what of it may be shown: plain data."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple, TypeVar

from promptlord.errors import Cause
from promptlord.pool.quota import NO_ROOM, Allowance, Cooling, Lane, Room

T = TypeVar("T")

FADES = 60.0  # seconds in which the memory of presses fades to a third
HOUR = 3600.0  # seconds
AHEAD = 15.0  # seconds of presses, at the rate of late, that bulk requests leave room for
FADED = 0.1  # presses; when no more are remembered, no room is left for any


def digest(secret: str) -> str:
    """What stands for a key or an organization in a state that machines share."""
    return hashlib.sha256(secret.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Key:
    """One Groq API key. Its ``label`` is all that is ever shown."""

    number: int
    secret: str = field(repr=False, compare=False)
    id: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", digest(self.secret))

    def __hash__(self) -> int:
        return self.number

    @property
    def label(self) -> str:
        return f"#{self.number}"


# What is asked


@dataclass(frozen=True)
class Demand:
    """What a request needs: so many tokens of the first of ``models`` that has room. ``bulk``: presses go first."""

    models: Sequence[str]
    tokens: int = 0
    bulk: bool = False


@dataclass(slots=True)
class Reservation:
    """Leave to make one call with this key for this model. While ``booked``, only once ``start`` says so.

    ``latest``: the instant by which a booked one was promised its slot. ``at``: when it was started.
    """

    key: Key
    model: str
    tokens: int
    bulk: bool
    latest: float
    number: int = 0
    booked: bool = False
    at: float = 0.0
    settled: bool = False


# What is told


class Refusal(Enum):
    """Why Groq refuses a key, whatever is asked with it: nothing but its owner can mend that."""

    REVOKED = "revoked"
    RESTRICTED = "restricted"
    SPENT = "spent"


class Scope(Enum):
    """What cools."""

    NOTHING = auto()
    LANE = auto()  # the organization's, for this model
    KEY = auto()  # for every model


@dataclass(frozen=True)
class Outcome:
    """What a reservation is settled with. As it stands by default, the call leaves no trace in the accounts."""

    admitted: bool = False  # Groq has counted it
    tokens: int = 0  # that Groq has counted for it, if that is known better than by estimate
    served: bool = False  # with an answer that could be used: the key has proved itself
    cools: Scope = Scope.NOTHING
    seconds: float = 0.0  # to cool; 0: the usual cooldown
    limited: bool = False  # by a limit of Groq's: it will be back then; else it cools longer with each failure in a row
    reason: str = ""
    refusal: Refusal | None = None  # of the key
    dimension: str = ""  # the bucket that refused
    lacks: bool = False  # there is no such model, at least not for this organization
    retires: bool = False  # there is no such model any more, for anybody
    organization: str = field(default="", repr=False)
    allowances: Mapping[str, Allowance] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)  # of buckets of whose level nothing is told
    blamed: Sequence[Reservation] = ()  # failed the same request before, with what looked like Groq's own trouble


NO_TRACE = Outcome()  # refused, never sent, or given up


@dataclass(frozen=True)
class Shared:
    """Keys of one organization, by the name we give it (``A``): the id is never shown."""

    name: str
    keys: Sequence[Key]


@dataclass(frozen=True)
class News:
    """What followed from an outcome: failures that keys now have in a row, keys that prove to share an organization.

    ``retired``: nobody serves the model, so it is passed over; ``known``: as it was before.
    """

    marked: Sequence[tuple[Key, int]] = ()
    shared: Shared | None = None
    retired: bool = False
    known: bool = False


NO_NEWS = News()


# What is remembered


@dataclass
class KeyRecord:
    """What is known of a key. ``owner``: its organization, its own id until that is known.

    ``proved``: Groq has accepted it; ``refused``: not since. ``finding``: what Groq said when it was asked about the
    key, in our words.
    """

    owner: str
    fails: int = 0  # since its last success
    failures: int = 0  # since the start
    cooling: Cooling = field(default_factory=Cooling)
    proved: bool = False
    refused: Refusal | None = None
    finding: str = ""


@dataclass
class Hour:
    """What became of the requests of an hour. The counts are of presses; the rest is of ``/v1`` too.

    Instants are 0 where there was none.
    """

    served: int = 0
    refused: int = 0  # by us
    failed: int = 0
    served_at: float = 0.0  # the last one
    failed_at: float = 0.0  # the last one,
    cause: Cause = Cause.GROQ  # and why
    reason: str = ""
    row: int = 0  # failures since the last success


@dataclass
class Presses:
    """What the extension has needed of late: counts that fade, as of the instant ``at``."""

    models: Sequence[str] = ()
    count: float = 0.0
    tokens: float = 0.0
    at: float = 0.0

    def add(self, demand: Demand, now: float) -> None:
        fade = math.exp((self.at - now) / FADES)
        self.models, self.at = demand.models, now
        self.count, self.tokens = self.count * fade + 1, self.tokens * fade + demand.tokens

    def room(self, model: str, lanes: int, now: float) -> Room:
        """What a bulk request has to leave in a lane, which is one of so many that presses may use."""
        count = self.count * math.exp((self.at - now) / FADES)
        if model not in self.models or count < FADED:
            return NO_ROOM
        requests = math.ceil(count * AHEAD / FADES / lanes)
        return Room(requests, requests * self.tokens / self.count)


class Promise(NamedTuple):
    """When one who was turned away may come back. ``roomier``: its answer was cut off, for it needs more room."""

    at: float
    roomier: bool


def next_name(names: Mapping[str, str]) -> str:
    """The first name that no organization has: ``A`` … ``Z``, ``AA``, ``BB`` …"""
    count = len(names)
    while (name := "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[count % 26] * (count // 26 + 1)) in names.values():
        count += 1
    return name


Part = tuple[str, ...]  # of a state: what it is, and whose

HEAD: Part = ("head",)


@dataclass
class State:
    """All that a pool remembers: plain data, in parts, so that it can be shared. Instants are the clock's.

    ``changed``: the parts that decisions have changed; whoever keeps the state empties it.
    """

    # The head
    started_at: float
    turn: int = 0  # place of the key whose turn it is
    number: int = 0  # of the last reservation
    names: dict[str, str] = field(default_factory=dict)  # of organizations, where their ids must not be shown
    retired: dict[str, float] = field(default_factory=dict)  # models that are passed over, and until when
    presses: Presses = field(default_factory=Presses)
    promised: float = 0.0  # the last slot that was promised to one who was turned away
    checked_at: float = 0.0  # when Groq was last asked about the keys; 0: never
    # Parts of their own
    keys: dict[str, KeyRecord] = field(default_factory=dict)  # by id
    lanes: dict[tuple[str, str], Lane] = field(default_factory=dict)  # by owner and model
    promises: dict[str, dict[str, Promise]] = field(default_factory=dict)  # by the first letters of the fingerprint
    hours: dict[int, Hour] = field(default_factory=dict)  # by the clock's hour
    changed: set[Part] = field(default_factory=set, repr=False, compare=False)

    def parts(self) -> set[Part]:
        keys, lanes = {("key", name) for name in self.keys}, {("lane", *name) for name in self.lanes}
        shelves, hours = {("promises", shelf) for shelf in self.promises}, {("hour", str(hour)) for hour in self.hours}
        return {HEAD} | keys | lanes | shelves | hours

    def shift(self, seconds: float) -> None:
        """Tell all instants by a clock that is so many seconds ahead of the one before."""
        self.started_at += seconds
        self.promised += seconds
        self.checked_at = _moved(self.checked_at, seconds)
        self.presses.at += seconds
        self.retired = {model: until + seconds for model, until in self.retired.items()}
        for record in self.keys.values():
            record.cooling.until += seconds
        for lane in self.lanes.values():
            lane.shift(seconds)
        for shelf in self.promises.values():
            shelf.update({name: Promise(at + seconds, roomier) for name, (at, roomier) in shelf.items()})
        self._shift_hours(seconds)

    def _shift_hours(self, seconds: float) -> None:
        hours, ahead = self.hours, round(seconds / HOUR)
        self.hours = {}
        for number, hour in hours.items():
            hour.served_at, hour.failed_at = _moved(hour.served_at, seconds), _moved(hour.failed_at, seconds)
            self.hours[number + ahead] = hour
        if ahead:
            self.changed = {part for part in self.changed if part[0] != "hour"}
            self.changed |= {("hour", str(number)) for number in self.hours}


def _moved(instant: float, seconds: float) -> float:
    """The same by another clock; 0 stays, which is never."""
    return instant + seconds if instant else 0.0


# What is decided of it, at an instant: it may be made several times, and the last one counts
Decision = Callable[[State, float], T]


# What may be shown


@dataclass(frozen=True)
class KeyView:
    """A key as it is shown. ``owner``: the name of its organization (``A``), its own label until that is known."""

    label: str
    owner: str
    requests: int  # sent to Groq since the start
    failures: int
    cooling: Cooling
    proved: bool
    refused: Refusal | None
    finding: str


@dataclass(frozen=True)
class Snapshot:
    """The pool at the instant ``now``, ``uptime`` seconds after its start; lanes are by owner and model.

    ``hours``: by the clock's hour. ``checked_at``: when Groq was last asked about the keys, 0 if it never was.
    """

    now: float
    uptime: float
    per_minute: int
    keys: Sequence[KeyView]
    lanes: Mapping[tuple[str, str], Lane]
    hours: Mapping[int, Hour] = field(default_factory=dict)
    checked_at: float = 0.0
