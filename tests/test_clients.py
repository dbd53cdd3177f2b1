"""How often a client has called: counted alike in one process and for many."""

from typing import Any

import pytest
import redis
from conftest import Clock, Shared

from promptlord.pool.clients import MANY, Limit, Windows
from promptlord.pool.memory import MemoryStorage
from promptlord.pool.redis import RedisStorage

FEW, MORE = Limit(1, 2), Limit(3, 60)


@pytest.fixture(params=["alone", pytest.param("shared", marks=pytest.mark.live)])
def storage(request: pytest.FixtureRequest, clock: Clock) -> MemoryStorage | RedisStorage:
    if request.param == "alone":
        return MemoryStorage(clock)
    shared: Shared = request.getfixturevalue("shared")
    return shared()


def test_a_call_is_counted_in_every_window_until_it_breaks_a_limit(storage: MemoryStorage | RedisStorage) -> None:
    assert [used.calls for used in storage.count("a", [FEW, MORE])] == [1, 1]
    assert [used.calls for used in storage.count("a", [FEW, MORE])] == [2]  # not counted against the longer one
    assert [used.calls for used in storage.count("b", [MORE])] == [1]
    assert [used.calls for used in storage.count("a", [MORE])] == [2]


def test_a_window_ends_that_many_seconds_after_its_first_call(storage: MemoryStorage | RedisStorage) -> None:
    storage.count("a", [MORE])

    ((_, left),) = storage.count("a", [MORE])
    assert left == pytest.approx(60, abs=1)


def test_the_next_window_begins_with_the_next_call(clock: Clock) -> None:
    storage = MemoryStorage(clock)
    storage.count("a", [FEW])
    clock.advance(2)

    assert storage.count("a", [FEW]) == [(1, 2.0)]


def test_windows_that_have_ended_are_forgotten_where_there_are_many(clock: Clock) -> None:
    windows = Windows()
    for number in range(2 * MANY):
        windows.count(f"{number}", [FEW], clock.now)
        clock.advance(0.001)

    assert len(windows._windows) <= MANY


@pytest.mark.live
def test_processes_count_together(redis_url: str, shared: Shared) -> None:
    one, other = shared(), shared()

    assert [storage.count("a", [MORE])[0].calls for storage in (one, other, one)] == [1, 2, 3]
    (name,) = redis.Redis.from_url(redis_url).scan_iter("promptlord:calls:*")
    assert not name.endswith(b":a"), "an address is nobody's business"


@pytest.mark.live
def test_a_count_that_somebody_else_has_spoilt_begins_anew(redis_url: str, shared: Shared) -> None:
    storage = shared()
    store: Any = redis.Redis.from_url(redis_url)
    storage.count("a", [MORE])
    (name,) = store.scan_iter("promptlord:calls:*")
    store.delete(name)
    store.rpush(name, "x")

    assert storage.count("a", [MORE])[0].calls == 1
    assert 0 < store.pttl(name) <= 60_000
