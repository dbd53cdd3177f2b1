"""What one learnt alone and what the others did meanwhile: the worse news wins, and nothing counts twice."""

from copy import deepcopy
from dataclasses import replace

import pytest

from promptlord.errors import Cause
from promptlord.pool.quota import RPM, TPM, Booking, Bucket, Flight, Lane
from promptlord.pool.reunion import reunite
from promptlord.pool.state import HEAD, Hour, KeyRecord, Presses, Promise, Refusal, State

LANE = ("lane", "owner", "m")
NOW = 1000.0


def lane(*numbers: int, **more: object) -> Lane:
    found = Lane(flights=[Flight(number, 100, NOW, NOW + 30) for number in numbers])
    for name, value in more.items():
        setattr(found, name, value)
    return found


def both(base: Lane, mine: Lane, theirs: Lane) -> Lane:
    found = reunite(LANE, deepcopy(base), deepcopy(mine), deepcopy(theirs), NOW)
    assert isinstance(found, Lane)
    return found


def test_a_flight_that_either_has_ended_is_not_begun_again() -> None:
    found = both(lane(1, 2, 3), lane(2, 3, 4), lane(1, 3, 5))

    assert [flight.number for flight in found.flights] == [3, 4, 5]


def test_presses_stay_before_bulk_bookings() -> None:
    press, bulk = Booking(9, 1, False, NOW, NOW + 9), Booking(1, 1, True, NOW, NOW + 9)

    assert both(lane(), lane(queue=[press]), lane(queue=[bulk])).queue == [press, bulk]


@pytest.mark.parametrize(("mine", "theirs"), [(1060.0, 1020.0), (1020.0, 1060.0)])
def test_the_longer_cooldown_is_kept(mine: float, theirs: float) -> None:
    assert both(lane(), lane(until=mine), lane(until=theirs)).until == 1060


def bucketed(full_at: float, reconciled: int = 0, limit: float = 30, name: str = RPM, presumed: bool = False) -> Lane:
    return lane(buckets={name: Bucket(limit, 60, full_at, reconciled, presumed)})


@pytest.mark.parametrize(
    ("base", "mine", "theirs", "together"),
    [
        (0, 1010, 1005, 1015),  # it was full when they parted
        (1004, 1010, 1005, 1011),  # six seconds of it were there before
        (1004, 1004, 1005, 1005),
        (1050, 1060, 1060, 1060),  # never more than it holds
    ],
)
def test_what_both_counted_is_added_once(base: float, mine: float, theirs: float, together: float) -> None:
    found = both(bucketed(base), bucketed(mine), bucketed(theirs))

    assert found.buckets[RPM].full_at == pytest.approx(together)


def test_what_groq_told_both_is_not_added() -> None:
    found = both(bucketed(1000, 1), bucketed(1010, 3, 40), bucketed(1005, 2))

    assert found.buckets[RPM] == Bucket(40, 60, 1010, 3)


def test_without_what_both_began_from_the_worse_news_wins() -> None:
    found = reunite(LANE, None, bucketed(1010), bucketed(1005), NOW)

    assert found.buckets[RPM].full_at == 1010


def test_a_limit_that_one_knows_not_to_be_there_is_not_presumed() -> None:
    presumed = bucketed(0, name=TPM, presumed=True)

    assert both(presumed, lane(), presumed).buckets == {}
    assert both(presumed, presumed, lane()).buckets == {}


def test_a_limit_that_one_has_learnt_is_known() -> None:
    assert TPM in both(lane(), bucketed(1000, 1, name=TPM), lane()).buckets
    assert TPM in both(lane(), lane(), bucketed(1000, 1, name=TPM)).buckets


def test_a_keys_failures_are_added_and_its_organization_stays_known() -> None:
    base, mine, theirs = KeyRecord("k", 0, 1), KeyRecord("org", 2, 3), KeyRecord("k", 1, 2)

    assert reunite(("key", "k"), base, mine, theirs, NOW) == KeyRecord("org", 2, 4)


def test_calls_are_added_once() -> None:
    one, other = lane(calls={"a": 5, "b": 1}), lane(calls={"a": 4, "c": 7})

    assert both(lane(calls={"a": 3}), one, other).calls == {"a": 6, "b": 1, "c": 7}
    assert reunite(LANE, None, deepcopy(one), deepcopy(other), NOW).calls == {"a": 5, "b": 1, "c": 7}


def test_organizations_keep_names_of_their_own() -> None:
    mine = State(5.0, 1, 7, {"x": "A", "y": "B"}, {"m": 9.0}, Presses(["m"], 3.0))
    theirs = State(6.0, 2, 6, {"z": "A", "x": "B"}, {"m": 8.0, "n": 1.0}, Presses(["m"], 2.0))

    found = reunite(HEAD, None, mine, theirs, NOW)

    assert (found.started_at, found.turn, found.number) == (5.0, 2, 7)
    assert found.names == {"z": "A", "x": "B", "y": "C"}
    assert found.retired == {"m": 9.0, "n": 1.0}
    assert found.presses.count == 3


def test_promises_of_both_are_kept() -> None:
    found = reunite(("promises", "00"), {}, {"a": Promise(1, False)}, {"b": Promise(2, True)}, NOW)

    assert found.keys() == {"a", "b"}


@pytest.mark.parametrize(("mine", "theirs"), [("", "a"), ("a", ""), ("", "")])
def test_a_promise_that_either_has_kept_is_not_given_again(mine: str, theirs: str) -> None:
    base, one, other = ({name: Promise(1, False) for name in names} for names in ("a", mine, theirs))

    assert reunite(("promises", "00"), base, one, other, NOW) == {}


def test_what_one_has_forgotten_stays_forgotten_unless_the_other_has_changed_it() -> None:
    assert reunite(LANE, lane(), None, lane(), NOW) is None
    assert reunite(LANE, lane(), None, lane(1), NOW) == lane(1)
    assert reunite(LANE, lane(), lane(1), None, NOW) == lane(1)


def test_what_became_of_requests_is_counted_once_and_the_last_word_holds() -> None:
    base = Hour(served=5, refused=1, failed=1, served_at=900.0, failed_at=890.0)
    mine = replace(base, served=7, served_at=920.0)
    theirs = replace(base, failed=4, failed_at=930.0, cause=Cause.NETWORK, reason="refused", row=3)

    for one, other in ((mine, theirs), (theirs, mine)):
        found = reunite(("hour", "0"), base, replace(one), replace(other), NOW)
        assert found == Hour(7, 1, 4, 920.0, 930.0, Cause.NETWORK, "refused", 3)


def test_a_success_of_either_ends_the_failures_of_both() -> None:
    base = Hour(failed=2, failed_at=890.0, row=2)
    mine = replace(base, served=1, served_at=920.0, row=0)

    assert reunite(("hour", "0"), base, mine, replace(base), NOW).row == 0


@pytest.mark.parametrize("mine_knows", [True, False])
def test_whoever_has_heard_more_of_a_key_is_believed(mine_knows: bool) -> None:
    base = KeyRecord("k", refused=Refusal.REVOKED, finding="revoked")
    news = replace(base, refused=None, finding="works", proved=True)
    one, other = (news, base) if mine_knows else (base, news)

    found = reunite(("key", "k"), base, deepcopy(one), deepcopy(other), NOW)
    assert (found.refused, found.finding, found.proved) == (None, "works", True)
