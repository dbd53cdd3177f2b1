"""A state's parts as text: what is written is read again, and what nobody here has written does no harm."""

import json
from typing import Any

import pytest
from conftest import Clock
from hypothesis import example, given
from hypothesis import strategies as st

from promptlord.errors import Cause
from promptlord.pool import parts
from promptlord.pool.quota import PERIODS, Booking, Bucket, Cooling, Flight, Lane
from promptlord.pool.state import HEAD, Hour, KeyRecord, Part, Presses, Promise, Refusal, State

INSTANTS = st.integers(0, 2**50).map(lambda micros: micros / 1e6)
WHOLE, WORDS = st.integers(0, 2**52), st.text(max_size=9)
LANES = st.builds(
    Lane,
    INSTANTS,
    WHOLE,
    WORDS,
    st.booleans(),
    WORDS,
    st.dictionaries(st.sampled_from([*PERIODS]), st.just(None)).flatmap(
        lambda names: st.fixed_dictionaries(
            {
                name: st.builds(Bucket, st.floats(1, 1e9), st.just(PERIODS[name]), INSTANTS, WHOLE, st.booleans())
                for name in names
            }
        )
    ),
    st.lists(st.builds(Flight, WHOLE, WHOLE, INSTANTS, INSTANTS), max_size=3),
    st.lists(st.builds(Booking, WHOLE, WHOLE, st.booleans(), INSTANTS, INSTANTS), max_size=3),
    st.booleans(),
    WORDS,
    st.dictionaries(WORDS, WHOLE, max_size=2),
)
COOLINGS = st.builds(Cooling, INSTANTS, WHOLE, WORDS, st.booleans(), WORDS)
REFUSALS = st.one_of(st.none(), st.sampled_from(Refusal))
RECORDS = st.builds(KeyRecord, WORDS, WHOLE, WHOLE, COOLINGS, st.booleans(), REFUSALS, WORDS)
HOURS = st.builds(Hour, WHOLE, WHOLE, WHOLE, INSTANTS, INSTANTS, st.sampled_from(Cause), WORDS, WHOLE)
SHELVES = st.dictionaries(WORDS, st.builds(Promise, INSTANTS, st.booleans()), max_size=3)
PRESSES = st.builds(Presses, st.lists(WORDS, max_size=2), st.floats(0, 1e6), st.floats(0, 1e9), INSTANTS)
STATES = st.builds(
    State,
    INSTANTS,
    WHOLE,
    WHOLE,
    st.dictionaries(WORDS, WORDS, max_size=2),
    st.dictionaries(WORDS, INSTANTS, max_size=2),
    PRESSES,
    INSTANTS,
    INSTANTS,
    st.dictionaries(st.just("key"), RECORDS),
    st.dictionaries(st.tuples(st.just("owner"), WORDS), LANES, max_size=2),
    st.dictionaries(st.just("0f"), SHELVES),
    st.dictionaries(st.integers(0, 10**6), HOURS, max_size=3),
)
TEXTS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=9), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=20,
)


def texts(state: State) -> dict[Part, bytes | None]:
    return {part: parts.encode(state, part) for part in state.parts()}


@given(STATES)
def test_what_is_written_is_read_again(state: State) -> None:
    again = State(0.0)
    for part, text in texts(state).items():
        assert text is not None
        parts.place(again, part, parts.decode(part, text))

    assert again == state
    assert texts(again) == texts(state)


@given(st.floats(-1e9, 4e9))
@example(1086.955819071428)
def test_nobody_reads_an_instant_that_is_earlier(instant: float) -> None:
    lane = Lane(until=instant)
    text = parts.encode(State(0.0, lanes={("o", "m"): lane}), ("lane", "o", "m"))

    again = parts.decode(("lane", "o", "m"), text or b"").until
    assert instant <= again < instant + 2e-6
    assert parts._out(again) == parts._out(instant)


@given(st.sampled_from([HEAD, ("key", "k"), ("lane", "o", "m"), ("promises", "00"), ("hour", "7")]), TEXTS)
def test_what_another_wrote_is_read_or_refused(part: Part, value: Any) -> None:
    try:
        found = parts.decode(part, parts._encoder.encode(value).encode())
    except parts.Malformed:
        return
    state = State(0.0)
    parts.place(state, part, found)
    assert parts.encode(state, part)


@pytest.mark.parametrize("text", [b"", b"x", b"null", b"[" * 9999, b"{}", b'{"keys":[],"lanes":[]}', b"\xff", b"[0]"])
@pytest.mark.parametrize("part", [HEAD, ("key", "k"), ("lane", "o", "m")])
def test_garbage_is_malformed(part: Part, text: bytes) -> None:
    with pytest.raises(parts.Malformed):
        parts.decode(part, text)


@pytest.mark.parametrize("limit", [0, -1, "NaN", "Infinity", 1e999])
def test_a_bucket_that_nothing_could_fill_is_malformed(limit: object) -> None:
    text = f'[0,0,"",false,"",true,"",[[{limit},0,0,false],null,null,null],[],[],{{}}]'

    with pytest.raises(parts.Malformed):
        parts.decode(("lane", "o", "m"), text.encode())


@pytest.mark.parametrize("model", ["m", "", "a b  c", "\udc80\ud800", "模型", "\n", "lane"])
def test_a_models_name_may_be_anything(model: str) -> None:
    assert parts.named(parts.name(("lane", "owner", model))) == ("lane", "owner", model)


@pytest.mark.parametrize(
    "name", [b"", b"version", b"lane", b"lane x", b"key", b"keys x", b"head x", b"hour x", b"hour", b"\xff \xff"]
)
def test_other_names_are_no_parts(name: bytes) -> None:
    assert parts.named(name) is None


@given(STATES)
def test_a_part_that_is_there_no_more_leaves_a_state_as_new(state: State) -> None:
    for part in state.parts():
        parts.place(state, part, None)

    assert state == State(state.started_at)


@given(STATES, st.integers(-(10**6), 10**6))
def test_a_state_is_moved_to_another_clock_and_back(state: State, seconds: int) -> None:
    before = texts(state)
    state.shift(seconds)
    state.shift(-seconds)

    for part, text in texts(state).items():
        assert near(json.loads(text or b""), json.loads(before[part] or b""))


def test_hours_are_those_of_the_clock_that_is_followed() -> None:
    state = State(0.0, hours={2: Hour(served=1, served_at=7300.0)}, changed={("hour", "2")}, checked_at=7000.0)
    state.shift(3600 * 500_000.0)

    assert state.hours == {500_002: Hour(served=1, served_at=7300.0 + 3600 * 500_000, failed_at=0.0)}
    assert state.changed == {("hour", "500002")}
    assert state.checked_at == 7000 + 3600 * 500_000


def near(one: Any, other: Any) -> bool:
    """Whether two texts say the same, but for a microsecond that rounding up has added."""
    match one:
        case list():
            return len(one) == len(other) and all(map(near, one, other))
        case dict():
            return one.keys() == other.keys() and all(near(one[name], other[name]) for name in one)
        case int():
            return one - other in (0, 1)
    return bool(one == other)


def test_a_part_is_small(clock: Clock) -> None:
    lane = Lane(buckets={name: Bucket(8000, period, 1.7e9, 10**15) for name, period in PERIODS.items()}, serves=True)
    lane.flights = [Flight(1_764_000_000_000_000 + number, 600, 1.7e9, 1.7e9) for number in range(3)]
    state = State(clock.now, lanes={("0123456789abcdef", "openai/gpt-oss-20b"): lane})

    (text,) = (parts.encode(state, part) for part in state.parts() if part[0] == "lane")
    assert text
    assert len(text) < 450
