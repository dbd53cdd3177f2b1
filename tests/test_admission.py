"""Who may come in, and who may wait."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from promptlord.errors import Exhausted, NoKeyReady
from promptlord.groq.admission import Admission


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


def test_waiting_bulk_requests_leave_places_to_wait_in_for_presses(inside: ExitStack) -> None:
    door = Admission(4)
    for _ in range(2):
        inside.enter_context(door.wait(0.0, bulk=True))

    with pytest.raises(NoKeyReady), door.wait(0.0, bulk=True):
        pass
    inside.enter_context(door.wait(0.0, bulk=False))
