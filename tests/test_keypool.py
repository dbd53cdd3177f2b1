"""Turns and cooldowns: whose turn it is, who is passed over, when a key comes back."""

import math
import random
import threading
import time
from collections import Counter

import pytest
from conftest import Clock, Pools, failed, limited, served, take

from keypool import KeyPool
from promptlord.errors import NoKeyReady
from promptlord.pool.quota import TPM, Allowance
from promptlord.pool.state import NO_TRACE, Demand, Key, Outcome, Refusal, Scope

MODEL = ["m"]
NOT_FOUND = Outcome(cools=Scope.LANE, reason="Model not found", lacks=True)


def turns(pool: KeyPool, count: int) -> list[int]:
    return [take(pool).key.number for _ in range(count)]


def ready(pool: KeyPool) -> set[int]:
    """The keys that would be called now, by failover alone, which leaves the rotation where it is."""
    found: dict[int, tuple[Key, str]] = {}
    start = pool._rules.keys[-1]
    for _ in range(len(pool)):
        try:
            reservation = take(pool, after=start, tried=[*found.values()])
        except NoKeyReady:
            break
        found[reservation.key.number] = reservation.key, "m"
    return set(found)


def fail_counts(pool: KeyPool) -> dict[int, int]:
    return {entry["keyIndex"]: entry["failCount"] for entry in pool.health(MODEL)["failedKeys"]}


@pytest.mark.parametrize("count", [1, 3, 5, 10, 15])
def test_keys_take_turns_from_the_first(pool_of: Pools, count: int, clock: Clock) -> None:
    pool = pool_of(count, clock)

    assert turns(pool, 2 * count + 1) == [*range(1, count + 1), *range(1, count + 1), 1]


def test_failover_tries_the_following_keys_and_leaves_the_turn(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(3, clock)
    first = take(pool)
    pool.settle(first, limited())

    second = take(pool, after=first.key)
    pool.settle(second, served())

    assert (first.key.number, second.key.number) == (1, 2)
    assert turns(pool, 4) == [2, 3, 2, 3]

    clock.advance(60)
    assert turns(pool, 4) == [1, 2, 3, 1]


def test_a_key_returns_the_moment_its_cooldown_ends(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(3, clock)
    pool.settle(take(pool), limited(26.67))

    clock.advance(26.66)
    assert ready(pool) == {2, 3}

    clock.advance(0.01)
    assert ready(pool) == {1, 2, 3}


def test_a_shorter_cooldown_never_shortens_a_longer_one(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    one, other = take(pool), take(pool)

    pool.settle(one, limited(100))
    pool.settle(other, limited(1))

    clock.advance(99)
    with pytest.raises(NoKeyReady) as error:
        take(pool)
    assert error.value.ready_in == pytest.approx(1)


@pytest.mark.parametrize("fault", [failed(), Outcome(cools=Scope.LANE, reason="blocked")])
def test_what_failed_rests_twice_as_long_each_time_up_to_an_hour(pool_of: Pools, fault: Outcome, clock: Clock) -> None:
    pool = pool_of(1, clock)
    rests = []
    for _ in range(8):
        pool.settle(take(pool), fault)
        rests.append(pool.ready_in(Demand(MODEL)))
        clock.advance(rests[-1])

    assert rests == [60, 120, 240, 480, 960, 1920, 3600, 3600]

    pool.settle(take(pool), served())
    pool.settle(take(pool), fault)
    assert pool.ready_in(Demand(MODEL)) == 60


def test_several_failures_at_once_are_one_in_a_row(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    for reservation in [take(pool) for _ in range(10)]:
        pool.settle(reservation, failed())

    assert pool.ready_in(Demand(MODEL)) == 60
    assert fail_counts(pool) == {1: 10}


def test_a_key_may_fail_for_years(clock: Clock) -> None:
    pool = KeyPool(["gsk_1"], clock=clock)
    for _ in range(2000):
        pool.settle(take(pool), failed())
        clock.advance(3600)

    assert ready(pool) == {1}


def test_a_lane_that_cools_leaves_the_keys_other_models_alone(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    pool.settle(take(pool), limited(60))

    assert take(pool, models=["m", "other"]).model == "other"


def test_a_key_that_fails_rests_for_every_model(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    pool.settle(take(pool), failed())

    with pytest.raises(NoKeyReady) as error:
        take(pool, models=["m", "other"])
    assert error.value.ready_in == 60


def test_a_success_clears_the_count_but_not_a_cooldown_that_runs(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    early, late = take(pool), take(pool)
    pool.settle(early, limited(60))

    pool.settle(late, served())

    assert fail_counts(pool) == {1: 0}  # listed still, for it cools
    assert pool.ready_in(Demand(MODEL)) == 60


def test_who_failed_what_another_key_serves_pays_once_and_not_the_one_that_served(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(3, clock)
    one, two, again = take(pool), take(pool), take(pool, models=["other"], after=pool._rules.keys[2])
    for reservation in (one, again, two):
        pool.settle(reservation)

    news = pool.settle(take(pool), served(blamed=[one, again, two]))

    assert [(key.label, fails) for key, fails in news.marked] == [("#1", 1), ("#2", 1)]
    assert ready(pool) == {3}


def test_what_is_settled_twice_is_settled_once(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    reservation = take(pool)

    assert len(pool.settle(reservation, limited(5)).marked) == 1
    assert pool.settle(reservation, limited(500)).marked == ()

    assert pool.ready_in(Demand(MODEL)) == pytest.approx(5)


# Models that are not there


def test_an_organization_that_lacks_a_model_is_passed_over_for_that_model_alone(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(3, clock)
    pool.settle(take(pool), served())
    news = pool.settle(take(pool), NOT_FOUND)

    assert not news.retired
    assert fail_counts(pool) == {2: 1}
    assert turns(pool, 4) == [3, 1, 3, 1]
    assert take(pool, models=["other"], after=pool._rules.keys[0]).key.number == 2


def test_a_model_that_every_organization_asked_lacks_is_passed_over_for_ten_minutes(
    pool_of: Pools, clock: Clock
) -> None:
    pool = pool_of(3, clock)
    assert not pool.settle(take(pool, models=["m", "spare"]), NOT_FOUND).retired
    news = pool.settle(take(pool, models=["m", "spare"]), NOT_FOUND)
    assert (news.retired, news.known, news.marked) == (True, False, [])
    assert fail_counts(pool) == {}  # the first one, too, is not to blame

    clock.advance(599)
    assert [take(pool, models=["m", "spare"]).model for _ in range(3)] == ["spare"] * 3

    clock.advance(1)
    assert take(pool, models=["m", "spare"]).model == "m"


def test_the_only_organization_decides_alone(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)

    assert pool.settle(take(pool), NOT_FOUND).retired


def test_a_decommissioned_model_is_passed_over_at_once_and_no_key_is_to_blame(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(3, clock)
    pool.settle(take(pool), served())

    news = pool.settle(take(pool), Outcome(retires=True))

    assert news.retired
    assert pool.health(MODEL)["activeKeys"] == 3
    assert take(pool, models=["m", "spare"]).model == "spare"
    assert take(pool, models=["m"]).model == "m"  # where none is left, one may be back
    assert pool.settle(take(pool), Outcome(retires=True)).known


def test_a_model_that_serves_again_is_back(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    pool.settle(take(pool), NOT_FOUND)

    pool.settle(take(pool), served())

    assert take(pool, models=["m", "spare"]).model == "m"


def test_a_limit_that_runs_is_not_lifted_when_the_model_is_passed_over(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(2, clock)
    one, two, again = (take(pool) for _ in range(3))
    pool.settle(one, NOT_FOUND)
    pool.settle(again, limited(1000))

    assert pool.settle(two, NOT_FOUND).retired

    assert {take(pool).key.number for _ in range(3)} == {2}


def test_when_all_have_been_tried_it_is_told_when_one_will_be_ready(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    reservation = take(pool)
    pool.settle(reservation, failed())

    with pytest.raises(NoKeyReady) as error:
        take(pool, tried=[(reservation.key, "m")])
    assert error.value.ready_in == 60


# /health


def test_health_counts_failures_until_a_success(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(2, clock)
    first, *others = (take(pool, after=pool._rules.keys[1]) for _ in range(3))
    marks = [pool.settle(reservation, limited(5)).marked for reservation in others]
    assert [fails for ((_, fails),) in marks] == [1, 2]

    clock.advance(5)
    assert pool.health(MODEL) == {
        "status": "healthy",
        "totalKeys": 2,
        "activeKeys": 2,
        "failedKeys": [{"keyIndex": 1, "failCount": 2, "inCooldown": False}],
    }

    pool.settle(first, served())
    assert pool.health(MODEL)["failedKeys"] == []


def test_health_is_exhausted_only_when_no_model_of_ours_can_be_served(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(2, clock)
    for _ in range(2):
        pool.settle(take(pool), limited(60))

    health = pool.health(["m", "other"])
    assert (health["status"], health["activeKeys"]) == ("healthy", 0)
    assert all(entry["inCooldown"] for entry in health["failedKeys"])
    assert pool.health(["m"])["status"] == "exhausted"


def test_health_is_unconfigured_without_keys(pool_of: Pools, clock: Clock) -> None:
    expected = {"status": "unconfigured", "totalKeys": 0, "activeKeys": 0, "failedKeys": []}

    assert pool_of(0, clock).health(MODEL) == expected


def test_questions_change_nothing(clock: Clock) -> None:
    pool = KeyPool(["gsk_1", "gsk_2"], per_minute=1, clock=clock)
    fresh = pool.storage.look(lambda state, now: repr(state))
    pool.ready_in(Demand(MODEL)), pool.health(MODEL), pool.snapshot()
    assert pool.storage.look(lambda state, now: repr(state)) == fresh
    pool.settle(take(pool), limited(5))
    take(pool)
    booked = take(pool, max_wait=100)
    before = pool.storage.look(lambda state, now: repr(state))

    clock.advance(100)
    pool.due_in(booked), pool.ready_in(Demand(["m", "new"], 9)), pool.health(["m", "new"]), pool.snapshot()

    assert pool.storage.look(lambda state, now: repr(state)) == before


def test_no_secret_shows(pool_of: Pools, clock: Clock) -> None:
    reservation = take(pool_of(1, clock))

    assert "gsk_" not in f"{reservation!r} {reservation.key!r} {reservation.key} {reservation.key.label}"


class Turnstile:
    """A clock that notices two threads reading it at once; the pool reads it inside its lock."""

    def __init__(self) -> None:
        self._free = threading.Lock()
        self.overlaps = 0

    def __call__(self) -> float:
        if not self._free.acquire(blocking=False):
            self.overlaps += 1
            return 0.0
        time.sleep(0)  # yields, does not wait
        self._free.release()
        return 0.0


def test_thirty_two_threads_never_take_the_same_turn_nor_a_cooling_key() -> None:
    turnstile = Turnstile()
    pool = KeyPool([f"gsk_{number}" for number in range(8)], per_minute=0, clock=turnstile)
    pool.settle(take(pool), limited(60))
    barrier, taken = threading.Barrier(32), []

    def hammer(seed: int) -> None:
        dice = random.Random(seed)
        barrier.wait()
        for _ in range(70):
            reservation = take(pool)
            taken.append(reservation.key.number)
            pool.settle(reservation, served() if dice.random() < 0.5 else NO_TRACE)

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert turnstile.overlaps == 0
    assert Counter(taken) == dict.fromkeys(range(2, 9), 320)


def test_how_much_a_request_may_take_is_known_once_groq_has_told_it_for_all_keys_that_work(clock: Clock) -> None:
    pool = KeyPool(["gsk_1", "gsk_2", "gsk_3"], clock=clock)
    small, large = {TPM: Allowance(8000, 1.0)}, {TPM: Allowance(250_000, 1.0)}

    pool.settle(take(pool), served(small))
    assert pool.most(["m"]) == math.inf

    pool.settle(take(pool), served(large))
    pool.settle(take(pool), failed(refusal=Refusal.REVOKED))
    assert pool.most(["m"]) == 250_000
    assert pool.most(["m", "another"]) == math.inf


def test_how_much_a_request_may_take_is_unknown_while_no_key_works(clock: Clock) -> None:
    pool = KeyPool(["gsk_1"], clock=clock)
    reservation = take(pool)
    assert pool.most(["m"]) == math.inf  # what is presumed is not known

    pool.settle(reservation, failed(refusal=Refusal.REVOKED))
    assert pool.most(["m"]) == math.inf
