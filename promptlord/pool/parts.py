"""A state's parts as text, so that machines can share them: each is small, and changes by itself. Pure.

Instants are whole microseconds there, rounded up: others must not call a cooling key too early. JSON, because a person
can read it: msgpack is a third shorter and 3 µs faster.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from promptlord.errors import Cause
from promptlord.pool.quota import PERIODS, Booking, Bucket, Cooling, Flight, Lane
from promptlord.pool.state import Hour, KeyRecord, Part, Presses, Promise, Refusal, State

_BUCKETS = tuple(PERIODS)  # in the order in which they are written
_HEAD = ("turn", "number", "started_at", "promised", "names", "retired", "presses", "checked_at")
_encoder = json.JSONEncoder(separators=(",", ":"), check_circular=False)


class Malformed(ValueError):
    """A text that this release has not written."""


def encode(state: State, part: Part) -> bytes | None:
    """The part as text; ``None``: there is none."""
    found = value(state, part)
    return None if found is None else _encoder.encode(_WRITERS[part[0]](found)).encode()


def name(part: Part) -> bytes:
    """The part's name in Redis. Clients choose the models' names, which may hold what is no text."""
    return " ".join(part).encode("utf-8", "surrogatepass")


def named(name: bytes) -> Part | None:
    """The part of this name; ``None``: this release has none such."""
    with suppress(UnicodeDecodeError):
        kind, *rest = name.decode("utf-8", "surrogatepass").split(" ", 2)
        if len(rest) == _DEPTHS.get(kind) and (kind != "hour" or rest[0].isdecimal()):
            return (kind, *rest)
    return None


def decode(part: Part, text: bytes) -> Any:
    """What a part's text says. Raises ``Malformed``."""
    try:
        return _READERS[part[0]](json.loads(text))
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise Malformed(part[0]) from error


def value(state: State, part: Part) -> Any:
    """What a part is: of the head, the state itself; ``None``: there is none."""
    match part:
        case ("key", key):
            return state.keys.get(key)
        case ("lane", owner, model):
            return state.lanes.get((owner, model))
        case ("promises", shelf):
            return state.promises.get(shelf)
        case ("hour", hour):
            return state.hours.get(int(hour))
    return state


def place(state: State, part: Part, found: Any) -> None:
    """Let a part be what was decoded; ``None``: as in a new state."""
    kind, *rest = part
    if kind == "head":
        head = found or State(state.started_at)
        for each in _HEAD:
            setattr(state, each, getattr(head, each))
        return
    where: Any = {"key": state.keys, "lane": state.lanes, "promises": state.promises, "hour": state.hours}[kind]
    index = (rest[0], rest[1]) if kind == "lane" else int(rest[0]) if kind == "hour" else rest[0]
    if found is None:
        where.pop(index, None)
    else:
        where[index] = found


def _out(instant: float) -> int:
    micros = round(instant * 1e6)
    return micros if _in(micros) >= instant else micros + 1


def _in(instant: Any) -> float:
    return int(instant) / 1e6


def _head_out(state: State) -> list[Any]:
    presses, retired = state.presses, {model: _out(until) for model, until in state.retired.items()}
    of_late = [[*presses.models], presses.count, presses.tokens, _out(presses.at)]
    instants = [_out(state.started_at), _out(state.promised), _out(state.checked_at)]
    return [state.turn, state.number, *instants, state.names, retired, of_late]


def _head_in(value: Any) -> State:
    turn, number, started_at, promised, checked_at, names, retired, (models, count, tokens, at) = value
    return State(
        _in(started_at),
        int(turn),
        int(number),
        {str(owner): str(name) for owner, name in names.items()},
        {str(model): _in(until) for model, until in retired.items()},
        Presses([str(model) for model in models], float(count), float(tokens), _in(at)),
        _in(promised),
        _in(checked_at),
    )


def _cooling_out(cooling: Cooling) -> list[Any]:
    return [_out(cooling.until), cooling.streak, cooling.reason, cooling.limited, cooling.dimension]


def _key_out(record: KeyRecord) -> list[Any]:
    refused = record.refused.value if record.refused else ""
    known = [record.proved, refused, record.finding]
    return [record.owner, record.fails, record.failures, *_cooling_out(record.cooling), *known]


def _key_in(value: Any) -> KeyRecord:
    owner, fails, failures, *cooling, proved, refused, finding = value
    refusal = Refusal(refused) if refused else None
    cools = Cooling(*_cooling_in(cooling))
    return KeyRecord(str(owner), int(fails), int(failures), cools, bool(proved), refusal, str(finding))


def _cooling_in(value: Sequence[Any]) -> tuple[float, int, str, bool, str]:
    until, streak, reason, limited, dimension = value
    return _in(until), int(streak), str(reason), bool(limited), str(dimension)


def _lane_out(lane: Lane) -> list[Any]:
    buckets = [
        bucket and [bucket.limit, _out(bucket.full_at), bucket.reconciled, bucket.presumed]
        for bucket in map(lane.buckets.get, _BUCKETS)
    ]
    flights = [[each.number, each.tokens, _out(each.at), _out(each.expires)] for each in lane.flights]
    queue = [[each.number, each.tokens, each.bulk, _out(each.latest), _out(each.expires)] for each in lane.queue]
    return [*_cooling_out(lane), lane.serves, lane.lacks, buckets, flights, queue, lane.calls]


def _lane_in(value: Any) -> Lane:
    *cooling, serves, lacks, buckets, flights, queue, calls = value
    return Lane(
        *_cooling_in(cooling),
        {name: _bucket_in(name, *each) for name, each in zip(_BUCKETS, buckets, strict=True) if each},
        [Flight(int(number), int(tokens), _in(at), _in(expires)) for number, tokens, at, expires in flights],
        [Booking(int(n), int(tokens), bool(bulk), _in(latest), _in(end)) for n, tokens, bulk, latest, end in queue],
        bool(serves),
        str(lacks),
        {str(key): int(count) for key, count in calls.items()},
    )


def _bucket_in(name: str, limit: Any, full_at: Any, reconciled: Any, presumed: Any) -> Bucket:
    if not 0 < limit < 1e15:
        raise ValueError("no limit")
    return Bucket(float(limit), PERIODS[name], _in(full_at), int(reconciled), bool(presumed))


def _promises_in(value: Any) -> dict[str, Promise]:
    return {str(name): Promise(_in(at), bool(roomier)) for name, (at, roomier) in value.items()}


def _promises_out(shelf: dict[str, Promise]) -> dict[str, list[Any]]:
    return {name: [_out(at), roomier] for name, (at, roomier) in shelf.items()}


def _hour_out(hour: Hour) -> list[Any]:
    last = [_out(hour.served_at), _out(hour.failed_at), hour.cause.name, hour.reason, hour.row]
    return [hour.served, hour.refused, hour.failed, *last]


def _hour_in(value: Any) -> Hour:
    served, refused, failed, served_at, failed_at, cause, reason, row = value
    counts = int(served), int(refused), int(failed)
    return Hour(*counts, _in(served_at), _in(failed_at), Cause[cause], str(reason), int(row))


_READERS: dict[str, Callable[[Any], Any]] = {
    "head": _head_in, "key": _key_in, "lane": _lane_in, "promises": _promises_in,
    "hour": _hour_in,
}  # fmt: skip
_WRITERS: dict[str, Callable[[Any], Any]] = {
    "head": _head_out, "key": _key_out, "lane": _lane_out, "promises": _promises_out,
    "hour": _hour_out,
}  # fmt: skip
_DEPTHS = {"head": 0, "key": 1, "lane": 2, "promises": 1, "hour": 1}  # words of a name, the kind aside
