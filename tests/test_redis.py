"""One pool in several processes: what one learns the others know, and none needs Redis to go on."""

import logging
from functools import partial

import pytest
import redis
from conftest import Clock, limited, redis_server, served, take

from keypool import KeyPool
from promptlord.errors import NoKeyReady
from promptlord.pool.quota import LAG, TPM, Allowance
from promptlord.pool.redis import NAME, RedisStorage
from promptlord.pool.state import Demand

MODEL = ["m"]
SECRETS = ["gsk_one", "gsk_two", "gsk_three"]


@pytest.fixture
def url(redis_url: str) -> str:
    redis.Redis.from_url(redis_url).flushall()
    return redis_url


def sharing(url: str, clock: Clock, secrets: list[str] = SECRETS, per_minute: int = 0) -> KeyPool:
    return KeyPool(secrets, 60, per_minute, clock, partial(RedisStorage, url=url))


def test_processes_take_turns_together(url: str, clock: Clock) -> None:
    one, other = sharing(url, clock), sharing(url, clock)

    assert [take(pool).key.number for pool in (one, other, one, other)] == [1, 2, 3, 1]


def test_a_key_that_cools_in_one_is_not_called_by_the_other(url: str, clock: Clock) -> None:
    one, other = sharing(url, clock), sharing(url, clock)
    one.settle(take(one), limited(60))

    assert [take(other).key.number for _ in range(3)] == [2, 3, 2]
    assert other.health(MODEL) == one.health(MODEL)
    assert other.health(MODEL)["failedKeys"] == [{"keyIndex": 1, "failCount": 1, "inCooldown": True}]


def test_what_one_has_in_flight_is_gone_for_the_other(url: str, clock: Clock) -> None:
    one, other = sharing(url, clock, SECRETS[:1]), sharing(url, clock, SECRETS[:1])
    one.settle(take(one), served({TPM: Allowance(8000, 0)}))
    take(one, 7000)

    assert other.ready_in(Demand(MODEL, 2000)) == pytest.approx(7.5 + LAG)


def test_bookings_are_one_queue(url: str, clock: Clock) -> None:
    one, other = (sharing(url, clock, SECRETS[:1], per_minute=1) for _ in range(2))
    one.settle(take(one), served())
    first, second = take(one, max_wait=200), take(other, max_wait=200)

    assert (one.due_in(first), other.due_in(second)) == (60, 120)


def test_a_key_is_known_by_itself_and_not_by_its_place(url: str, clock: Clock) -> None:
    one, other = sharing(url, clock), sharing(url, clock, SECRETS[::-1])
    one.settle(take(one), limited(60))

    assert [entry["keyIndex"] for entry in other.health(MODEL)["failedKeys"]] == [3]


def test_bookings_of_a_process_that_died_expire(url: str, clock: Clock) -> None:
    one, other = (sharing(url, clock, SECRETS[:1], per_minute=1) for _ in range(2))
    one.settle(take(one), served())
    take(one, max_wait=70)

    clock.advance(80)

    assert not take(other).booked


def test_no_secret_is_kept(url: str, clock: Clock) -> None:
    take(sharing(url, clock))

    assert "gsk_" not in str(redis.Redis.from_url(url).get(NAME))


@pytest.mark.parametrize("garbage", ["", "{}", "null", "[1]", "[" * 9999, '{"keys": {"x": 1}, "lanes": []}'])
def test_a_state_that_another_version_wrote_is_written_anew(url: str, clock: Clock, garbage: str) -> None:
    redis.Redis.from_url(url).set(NAME, garbage)
    one, other = sharing(url, clock), sharing(url, clock)

    assert [take(one).key.number, take(other).key.number] == [1, 2]


def test_a_booking_survives_a_redis_that_was_emptied(url: str, clock: Clock) -> None:
    pool = sharing(url, clock, SECRETS[:1], per_minute=1)
    pool.settle(take(pool), served())
    booked = take(pool, max_wait=100)
    redis.Redis.from_url(url).flushall()
    other = sharing(url, clock, SECRETS[:1], per_minute=1)  # which knows nothing of it, and writes so
    other.settle(take(other), served())

    assert pool.due_in(booked) == pytest.approx(60)
    assert not pool.start(booked)
    assert other.ready_in(Demand(MODEL)) == pytest.approx(120)
    pool.settle(booked)
    assert other.ready_in(Demand(MODEL)) == pytest.approx(60)


def test_without_redis_each_goes_on_with_what_it_knows(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with redis_server() as (url, end):
        pool = sharing(url, clock, SECRETS[:2])
        pool.settle(take(pool), limited(60))
        end()

        assert [take(pool).key.number for _ in range(3)] == [2, 2, 2]
        pool.settle(take(pool), limited(60))
        with pytest.raises(NoKeyReady):
            take(pool)

    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1, "said once, not with each turn"
