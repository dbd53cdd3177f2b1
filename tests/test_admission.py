"""Who may come in, who may wait, and who is known again when they come back."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from conftest import Clock

from promptlord.errors import Exhausted, NoKeyReady
from promptlord.groq.admission import MEMORY, REMEMBERED, SPREAD, Admission


@pytest.fixture
def inside() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_no_more_come_in_than_may_be_in_flight_until_one_has_left(inside: ExitStack) -> None:
    door = Admission(4)
    first = inside.enter_context(door.enter(bulk=False))
    for _ in range(3):
        inside.enter_context(door.enter(bulk=False))

    with pytest.raises(Exhausted) as error, door.enter(bulk=False):
        pass
    assert error.value.ready_in == 1

    first.close()
    inside.enter_context(door.enter(bulk=False))


def test_bulk_requests_leave_places_for_presses(inside: ExitStack) -> None:
    door = Admission(4)
    for _ in range(3):
        inside.enter_context(door.enter(bulk=True))

    with pytest.raises(Exhausted), door.enter(bulk=True):
        pass
    inside.enter_context(door.enter(bulk=False))


def test_a_place_that_is_kept_for_an_answer_is_left_when_that_is_closed(inside: ExitStack) -> None:
    door = Admission(1)
    with door.enter(bulk=True) as place:
        answer = place.pop_all()

    with pytest.raises(Exhausted), door.enter(bulk=True):
        pass
    answer.close()
    inside.enter_context(door.enter(bulk=True))


def test_those_who_wait_leave_room_for_those_who_could_be_served_at_once(inside: ExitStack) -> None:
    door = Admission(4)
    for _ in range(3):
        inside.enter_context(door.wait(0.0, bulk=False))

    with pytest.raises(NoKeyReady) as error, door.wait(7.0, bulk=False):
        pass
    assert error.value.ready_in == 7


def test_who_was_promises_is_known_once_when_they_come_back(clock: Clock) -> None:
    door = Admission(1, clock)
    door.turn_away(b"mine", 5)

    assert not door.returns(lambda: b"mine")  # too early
    clock.advance(5)
    assert not door.returns(lambda: b"another's")
    assert door.returns(lambda: b"mine")
    assert not door.returns(lambda: b"mine")


def test_one_slot_is_not_promised_twice(clock: Clock) -> None:
    door = Admission(1, clock)

    told = [door.turn_away(name, 10, apart=2) for name in (b"a", b"b", b"c", b"b")]

    assert told == [10, 12, 14, 12]
    for number in range(1000):  # who hammers does not put others off for ever
        door.turn_away(b"%d" % number, 10, apart=2)
    assert door.turn_away(b"d", 10, apart=2) == 10 + SPREAD
    clock.advance(60)
    assert door.turn_away(b"e", 1, apart=2) == 1


def test_waiting_bulk_requests_leave_places_to_wait_in_for_presses(inside: ExitStack) -> None:
    door = Admission(4)
    for _ in range(2):
        inside.enter_context(door.wait(0.0, bulk=True))

    with pytest.raises(NoKeyReady), door.wait(0.0, bulk=True):
        pass
    inside.enter_context(door.wait(0.0, bulk=False))


def test_who_comes_back_much_too_late_is_forgotten(clock: Clock) -> None:
    door = Admission(1, clock)
    door.turn_away(b"mine", 5)
    clock.advance(5 + MEMORY + 0.1)

    assert not door.returns(lambda: b"mine")


def test_the_memory_is_bounded_in_size_and_time(clock: Clock) -> None:
    door = Admission(1, clock)
    for number in range(2 * REMEMBERED):
        door.turn_away(b"%d" % number, 5)
    assert len(door._promises) == REMEMBERED

    clock.advance(5 + MEMORY + 0.1)
    door.turn_away(b"the last", 5)
    assert len(door._promises) == 1


def test_nobody_is_looked_up_where_nobody_was_promises(clock: Clock) -> None:
    def fingerprint() -> bytes:
        raise AssertionError("a body of megabytes was read for nothing")

    assert not Admission(1, clock).returns(fingerprint)
