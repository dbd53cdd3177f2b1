"""Turns and cooldowns: whose turn it is, who is passed over, when a key comes back."""

import random
import threading
import time
from collections import Counter

import pytest
from conftest import Clock, Pools

from keypool import KeyPool, NoKeyReady, Turn

MODEL = ["m"]


def turns(pool: KeyPool, count: int) -> list[int]:
    return [pool.take(MODEL).key.number for _ in range(count)]


def ready(pool: KeyPool) -> set[int]:
    """The keys that would be called now, by failover alone, which leaves the rotation where it is."""
    found: dict[int, Turn] = {}
    start = pool._keys[-1]
    for _ in range(len(pool)):
        try:
            turn = pool.take(MODEL, after=start, without={(turn.key, "m") for turn in found.values()})
        except NoKeyReady:
            break
        found[turn.key.number] = turn
    return set(found)


@pytest.mark.parametrize("count", [1, 3, 5, 10, 15])
def test_keys_take_turns_from_the_first(pool_of: Pools, count: int, clock: Clock) -> None:
    pool = pool_of(count, clock)

    assert turns(pool, 2 * count + 1) == [*range(1, count + 1), *range(1, count + 1), 1]


def test_failover_tries_the_following_keys_and_leaves_the_turn(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(3, clock)
    first = pool.take(MODEL)
    pool.limit(first, None)

    second = pool.take(MODEL, after=first.key)
    pool.succeed(second)

    assert (first.key.number, second.key.number) == (1, 2)
    assert turns(pool, 4) == [2, 3, 2, 3]

    clock.advance(60)
    assert turns(pool, 4) == [1, 2, 3, 1]


def test_a_key_returns_the_moment_its_cooldown_ends(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(3, clock)
    pool.limit(pool.take(MODEL), 26.67)

    clock.advance(26.66)
    assert ready(pool) == {2, 3}

    clock.advance(0.01)
    assert ready(pool) == {1, 2, 3}


def test_a_shorter_cooldown_never_shortens_a_longer_one(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    turn = pool.take(MODEL)

    pool.limit(turn, 100)
    pool.limit(turn, 1)

    clock.advance(99)
    with pytest.raises(NoKeyReady) as error:
        pool.take(MODEL)
    assert error.value.ready_in == pytest.approx(1)


def test_a_bad_key_rests_twice_as_long_each_time_up_to_an_hour(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    rests = []
    for _ in range(8):
        turn = pool.take(MODEL)
        pool.fail(turn, "revoked")
        rests.append(pool.ready_in(MODEL))
        clock.advance(rests[-1])

    assert rests == [60, 120, 240, 480, 960, 1920, 3600, 3600]

    pool.succeed(pool.take(MODEL))
    pool.fail(pool.take(MODEL), "revoked")
    assert pool.ready_in(MODEL) == 60


def test_a_key_may_fail_for_years(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    for _ in range(2000):
        pool.fail(pool.take(MODEL), "revoked")
        clock.advance(3600)

    assert ready(pool) == {1}


def test_a_lane_that_cools_leaves_the_keys_other_models_alone(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    pool.limit(pool.take(["m"]), 60)

    assert pool.take(["m", "other"]).model == "other"
    assert pool.health()["failedKeys"] == [{"keyIndex": 1, "failCount": 1, "inCooldown": True}]


def test_a_key_that_fails_rests_for_every_model(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    pool.fail(pool.take(["m"]), "revoked")

    with pytest.raises(NoKeyReady) as error:
        pool.take(["m", "other"])
    assert error.value.ready_in == 60


def test_a_success_clears_the_count_but_not_a_cooldown_that_runs(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(2, clock)
    early, late = pool.take(MODEL), pool.take(["other"])
    late.key = early.key
    pool.limit(early, 60)

    pool.succeed(late)

    assert pool.health()["failedKeys"] == []
    assert pool.health()["activeKeys"] == 1


def test_health_counts_failures_until_a_success(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(2, clock)
    turn = pool.take(MODEL)
    assert [pool.limit(turn, 5), pool.limit(turn, 5)] == [1, 2]

    clock.advance(5)
    assert pool.health() == {
        "status": "healthy",
        "totalKeys": 2,
        "activeKeys": 2,
        "failedKeys": [{"keyIndex": 1, "failCount": 2, "inCooldown": False}],
    }

    pool.succeed(turn)
    assert pool.health()["failedKeys"] == []


def test_health_is_exhausted_when_all_cool_and_unconfigured_without_keys(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(2, clock)
    for _ in range(2):
        pool.limit(pool.take(MODEL), 60)

    assert pool.health()["status"] == "exhausted"
    assert pool_of(0, clock).health() == {
        "status": "unconfigured",
        "totalKeys": 0,
        "activeKeys": 0,
        "failedKeys": [],
    }


def test_no_secret_shows(pool_of: Pools, clock: Clock) -> None:
    turn = pool_of(1, clock).take(MODEL)

    assert "gsk_" not in f"{turn!r} {turn.key!r} {turn.key} {turn.key.label}"


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
    pool = KeyPool([f"gsk_{number}" for number in range(8)], clock=turnstile)
    pool.limit(pool.take(MODEL), 60)
    barrier, taken = threading.Barrier(32), []

    def hammer(seed: int) -> None:
        dice = random.Random(seed)
        barrier.wait()
        for _ in range(70):
            turn = pool.take(MODEL)
            taken.append(turn.key.number)
            if dice.random() < 0.5:
                pool.succeed(turn)

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert turnstile.overlaps == 0
    assert Counter(taken) == dict.fromkeys(range(2, 9), 320)
