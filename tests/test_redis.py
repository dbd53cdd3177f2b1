"""One pool in several processes: what one learns the others know, and none needs Redis to go on."""

import logging
from functools import partial

import pytest
import redis
from conftest import Clock, redis_server

from keypool import KeyPool, NoKeyReady
from promptlord.pool.quota import TPM, Allowance
from promptlord.pool.redis import NAME, SharedLock

MODEL = ["m"]
SECRETS = ["gsk_one", "gsk_two", "gsk_three"]


@pytest.fixture
def url(redis_url: str) -> str:
    redis.Redis.from_url(redis_url).flushall()
    return redis_url


def sharing(url: str, clock: Clock, secrets: list[str] = SECRETS, per_minute: int = 0) -> KeyPool:
    return KeyPool(secrets, 60, per_minute, clock, partial(SharedLock, url=url))


def test_processes_take_turns_together(url: str, clock: Clock) -> None:
    one, other = sharing(url, clock), sharing(url, clock)

    assert [pool.take(MODEL).key.number for pool in (one, other, one, other)] == [1, 2, 3, 1]


def test_a_key_that_cools_in_one_is_not_called_by_the_other(url: str, clock: Clock) -> None:
    one, other = sharing(url, clock), sharing(url, clock)
    one.limit(one.take(MODEL), 60)

    assert [other.take(MODEL).key.number for _ in range(3)] == [2, 3, 2]
    assert other.health() == one.health()
    assert other.health()["failedKeys"] == [{"keyIndex": 1, "failCount": 1, "inCooldown": True}]


def test_what_one_takes_is_gone_for_the_other(url: str, clock: Clock) -> None:
    one, other = sharing(url, clock, SECRETS[:1]), sharing(url, clock, SECRETS[:1])
    one.learn(one.take(MODEL), {TPM: Allowance(8000, 0)})
    one.take(MODEL, 7000)

    assert other.ready_in(MODEL, 2000) == pytest.approx(7.5)


def test_bookings_are_one_queue(url: str, clock: Clock) -> None:
    one, other = (sharing(url, clock, SECRETS[:1], per_minute=1) for _ in range(2))
    one.take(MODEL)
    first, second = one.take(MODEL, patience=200), other.take(MODEL, patience=200)

    assert (one.due_in(first), other.due_in(second)) == (60, 120)


def test_a_key_is_known_by_itself_and_not_by_its_place(url: str, clock: Clock) -> None:
    one, other = sharing(url, clock), sharing(url, clock, SECRETS[::-1])
    one.limit(one.take(MODEL), 60)

    assert [entry["keyIndex"] for entry in other.health()["failedKeys"]] == [3]


def test_bookings_of_a_process_that_died_expire(url: str, clock: Clock) -> None:
    one, other = (sharing(url, clock, SECRETS[:1], per_minute=1) for _ in range(2))
    one.take(MODEL)
    one.take(MODEL, patience=70)

    clock.advance(80)

    assert other.take(MODEL).booked is None


def test_no_secret_and_nothing_unreadable_is_kept(url: str, clock: Clock) -> None:
    sharing(url, clock).take(MODEL)

    assert b"gsk_" not in redis.Redis.from_url(url).get(NAME)


@pytest.mark.parametrize("garbage", ["", "{}", "null", "[1]", '{"started_at": 0, "keys": {"x": 1}, "lanes": []}'])
def test_a_state_that_another_version_wrote_is_written_anew(url: str, clock: Clock, garbage: str) -> None:
    redis.Redis.from_url(url).set(NAME, garbage)
    one, other = sharing(url, clock), sharing(url, clock)

    assert [one.take(MODEL).key.number, other.take(MODEL).key.number] == [1, 2]


def test_a_booking_survives_a_redis_that_was_emptied(url: str, clock: Clock) -> None:
    pool = sharing(url, clock, SECRETS[:1], per_minute=1)
    pool.take(MODEL)
    booked = pool.take(MODEL, patience=100)
    redis.Redis.from_url(url).flushall()
    sharing(url, clock, SECRETS[:1], per_minute=1).take(MODEL)  # which knows nothing of it, and writes so

    assert pool.due_in(booked) == pytest.approx(60)
    pool.leave(booked)
    pool.leave(booked)


def test_without_redis_each_goes_on_with_what_it_knows(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with redis_server() as (url, end):
        pool = sharing(url, clock, SECRETS[:2])
        pool.limit(pool.take(MODEL), 60)
        end()

        assert [pool.take(MODEL).key.number for _ in range(3)] == [2, 2, 2]
        pool.limit(pool.take(MODEL), 60)
        with pytest.raises(NoKeyReady):
            pool.take(MODEL)

    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1, "said once, not with each turn"
