"""One pool in several processes: what one learns the others know, and none needs Redis to go on."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from conftest import Clock, InStep, Shared, failed, limited, poll, redis_server, served, take
from faraway import Faraway, faraway

from keypool import KeyPool
from promptlord.errors import NoKeyReady
from promptlord.pool.quota import LAG, TPM, Allowance
from promptlord.pool.redis import RedisStorage, RedisTime
from promptlord.pool.replica import EMPTIED
from promptlord.pool.script import LONGEST, NAME
from promptlord.pool.state import HEAD, Demand, Reservation, State

MODEL = ["m"]
SECRETS = ["gsk_one", "gsk_two", "gsk_three"]
Processes = Callable[..., KeyPool]


@pytest.fixture
def process(shared: Shared) -> Processes:
    """Make the pool of one process more."""

    def make(secrets: list[str] = SECRETS, per_minute: int = 0, **how: Any) -> KeyPool:
        return KeyPool(secrets, 60, per_minute, storage=shared(**{"kind": InStep} | how))

    return make


@pytest.fixture
def store(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def way(redis_url: str) -> Iterator[tuple[Faraway, str]]:
    """To Redis, on which things can be held up; and its address."""
    with faraway(urlsplit(redis_url).port or 0, 0.0) as way:
        yield way, f"redis://127.0.0.1:{way.port}"


def cooling(pool: KeyPool) -> list[int]:
    return [entry["keyIndex"] for entry in pool.health(MODEL)["failedKeys"] if entry["inCooldown"]]


def flights(pool: KeyPool) -> int:
    return pool.storage.look(lambda state, now: sum(len(lane.flights) for lane in state.lanes.values()))


def turns(*pools: KeyPool) -> list[int]:
    return [take(pool).key.number for pool in pools]


def soon(holds: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    assert any(holds() for _ in poll(5)), "it does not come about"


# Together


def test_processes_take_turns_together(process: Processes) -> None:
    one, other = process(), process()

    assert turns(one, other, one, other) == [1, 2, 3, 1]


def test_a_key_that_cools_in_one_is_not_called_by_the_other(process: Processes) -> None:
    one, other = process(), process()
    one.settle(take(one), limited(60))

    assert turns(other, other, other) == [2, 3, 2]
    assert other.health(MODEL) == one.health(MODEL)
    assert other.health(MODEL)["failedKeys"] == [{"keyIndex": 1, "failCount": 1, "inCooldown": True}]


def test_what_one_has_in_flight_is_gone_for_the_other(process: Processes) -> None:
    one, other = process(SECRETS[:1]), process(SECRETS[:1])
    one.settle(take(one), served({TPM: Allowance(8000, 0)}))
    take(one, 7000)

    assert other.ready_in(Demand(MODEL, 2000)) == pytest.approx(7.5 + LAG)


def test_bookings_are_one_queue(process: Processes) -> None:
    one, other = process(SECRETS[:1], 1), process(SECRETS[:1], 1)
    one.settle(take(one), served())
    first, second = take(one, max_wait=200), take(other, max_wait=200)

    assert (one.due_in(first), other.due_in(second)) == (60, 120)


def test_a_key_is_known_by_itself_and_not_by_its_place(process: Processes) -> None:
    one, other = process(), process(SECRETS[::-1])
    one.settle(take(one), limited(60))

    assert cooling(other) == [3]


def test_who_was_told_to_come_back_by_one_is_known_to_the_other_once(process: Processes, clock: Clock) -> None:
    one, other = process(), process()
    assert one.turn_away(b"mine", 5, apart=2) == 5
    assert other.turn_away(b"theirs", 5, apart=2) == 7
    clock.advance(5)

    assert other.returns(lambda: b"mine")
    assert not one.returns(lambda: b"mine")


def test_keys_that_prove_to_share_an_organization_do_so_for_all(process: Processes) -> None:
    one, other = process(), process()
    one.settle(take(one), served(organization="org_x"))
    other.settle(take(other), limited(60, organization="org_x"))

    assert cooling(one) == [1, 2]
    assert len(one.snapshot().lanes) == 1
    assert one.snapshot() == other.snapshot()


def test_a_lane_that_one_has_forgotten_is_forgotten_by_all(process: Processes) -> None:
    one, other = process(SECRETS[:1]), process(SECRETS[:1])
    one.settle(take(one), served())
    other.settle(take(other), served(organization="org_x"))  # whose lane it is then
    one.storage.decide(lambda state, now: None)

    assert one.storage.look(lambda state, now: len(state.lanes)) == 1
    assert process(SECRETS[:1]).storage.look(lambda state, now: len(state.lanes)) == 1


def test_bookings_of_a_process_that_died_expire(process: Processes, clock: Clock) -> None:
    one, other = process(SECRETS[:1], 1), process(SECRETS[:1], 1)
    one.settle(take(one), served())
    take(one, max_wait=70)

    clock.advance(80)

    assert not take(other).booked


def test_what_many_decide_at_once_is_decided_one_after_the_other(process: Processes) -> None:
    pools = [process(kind=RedisStorage, per_minute=30) for _ in range(4)]
    barrier = threading.Barrier(32)

    def client(number: int) -> list[Reservation]:
        barrier.wait()
        return [take(pools[number % 4], max_wait=1000) for _ in range(5)]

    with ThreadPoolExecutor(32) as crowd:
        taken = [each for reservations in crowd.map(client, range(32)) for each in reservations]

    assert len({each.number for each in taken}) == 160
    assert sum(not each.booked for each in taken) == 90, "what three keys have for a minute"
    assert {sum(each.key.number == number for each in taken) for number in (1, 2, 3)} <= {53, 54}


def test_what_is_settled_is_known_to_the_next_even_if_the_process_ends_at_once(process: Processes) -> None:
    one, other = process(kind=RedisStorage), process()
    one.settle(take(one), limited(60))
    one.storage.close()  # type: ignore[attr-defined]

    assert cooling(other) == [1]


def test_who_is_only_looked_at_hears_the_news(process: Processes) -> None:
    one, other = process(), process(kind=RedisStorage)
    one.settle(take(one), limited(60))

    soon(lambda: cooling(other) == [1])


def test_no_secret_is_kept(process: Processes, store: Any) -> None:
    pool = process()
    pool.settle(take(pool), limited(60, organization="org_secret"))

    kept = f"{list(store.scan_iter())} {store.hgetall(NAME)}"
    assert "gsk_" not in kept
    assert "org_secret" not in kept


def test_the_state_of_a_hundred_keys_is_small(process: Processes, store: Any) -> None:
    pool = process([f"gsk_{number}" for number in range(100)])
    for _ in range(200):
        pool.settle(take(pool), served({TPM: Allowance(250_000, 1)}))

    assert sum(len(name) + len(text) for name, text in store.hgetall(NAME).items()) < 100 * 500
    assert 0 < store.ttl(NAME) <= 2 * 86400


def test_a_process_makes_no_thread_and_no_connection_before_it_decides(redis_url: str) -> None:
    before = set(threading.enumerate())
    RedisStorage("redis://127.0.0.1:1")

    assert set(threading.enumerate()) <= before


def test_processes_that_were_forked_from_one_are_told_apart(shared: Shared, store: Any) -> None:
    storage = shared()

    def change(state: State, now: float) -> None:
        state.turn += 1
        state.changed.add(HEAD)

    if not (child := os.fork()):
        storage.decide(change)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    storage.decide(change)

    assert len(store.keys(f"{NAME}:????????")) == 2


# Whose time it is


def test_redis_tells_the_time_whatever_the_wall_clock_says(redis_url: str, store: Any) -> None:
    storage = RedisStorage(redis_url)
    storage.decide(lambda state, now: None)
    seconds, micros = store.time()

    assert storage.decide(lambda state, now: now) == pytest.approx(seconds + micros / 1e6, abs=0.5)
    storage.close()


def test_what_was_learnt_before_redis_was_heard_is_told_by_its_time(
    redis_url: str, store: Any, way: tuple[Faraway, str]
) -> None:
    line, url = way
    store.flushall()
    line.fall_silent()
    with closing(RedisStorage(url)) as early, closing(RedisStorage(redis_url)) as other:
        alone, later = (KeyPool(SECRETS[:1], per_minute=0, storage=storage) for storage in (early, other))
        alone.settle(take(alone), limited(60))
        line.go_on()

        soon(lambda: cooling(later) == [1])
        assert later.ready_in(Demand(MODEL)) == pytest.approx(60, abs=10)
        assert alone.ready_in(Demand(MODEL)) == pytest.approx(60, abs=10)


def test_the_time_stays_as_it_is_while_it_can_be_true() -> None:
    now = RedisTime()
    began = time.monotonic()
    assert now.follow(5000 + began, began, began + 0.2) == pytest.approx(4999.8)

    assert now.follow(5000 + began + 1, began + 1, began + 1.5) == 0, "it may have been told at any instant between"
    assert now.follow(5000 + began + 2, began + 2, began + 2.1) == pytest.approx(0.1)
    assert now() == pytest.approx(4999.9 + time.monotonic(), abs=0.01)


# When it does not hold


def test_a_late_write_of_a_process_that_stood_still_is_decided_again(
    process: Processes, way: tuple[Faraway, str]
) -> None:
    line, url = way
    frozen, other = process(kind=RedisStorage, url=url), process()
    reservation = take(frozen)
    line.fall_silent()
    frozen.settle(reservation, served())
    other.settle(take(other, after=other._rules.keys[2]), limited(60))
    line.go_on()

    soon(lambda: cooling(frozen) == [1])
    assert cooling(other) == [1]
    assert other.snapshot().keys[0].requests == 2


def test_a_process_that_dies_between_reading_and_writing_leaves_no_trace(
    process: Processes, way: tuple[Faraway, str]
) -> None:
    line, url = way
    dying, other = process(kind=RedisStorage, url=url), process()
    take(other)
    dying.health(MODEL)
    line.fall_silent()
    with ThreadPoolExecutor(1) as crew:
        crew.submit(take, dying).result()  # alone: Redis never hears of it

    assert turns(other, other, other) == [2, 3, 1]


def test_one_that_comes_back_is_together_again_though_others_go_on_deciding(
    process: Processes, way: tuple[Faraway, str]
) -> None:
    line, url = way
    pool, over = process(kind=RedisStorage, url=url), threading.Event()
    take(pool)

    def go_on() -> None:
        while not over.is_set():
            pool.settle(take(pool), served())

    with ThreadPoolExecutor(4) as crew:
        busy = [crew.submit(go_on) for _ in range(4)]
        line.fall_silent()
        soon(lambda: pool.storage._alone)  # type: ignore[attr-defined]
        line.go_on()
        soon(lambda: not pool.storage._alone)  # type: ignore[attr-defined]
        over.set()
    for each in busy:
        each.result()


def test_a_redis_that_falls_silent_is_waited_for_once(process: Processes, way: tuple[Faraway, str]) -> None:
    line, url = way
    pool = process(kind=RedisStorage, url=url)
    take(pool)
    line.fall_silent()
    began = time.monotonic()

    with ThreadPoolExecutor(20) as crew:
        taken = [*crew.map(lambda _: take(pool).key.number, range(20))]
    for _ in range(20):
        pool.settle(take(pool), served())
        pool.health(MODEL)

    assert set(taken) == {1, 2, 3}
    assert time.monotonic() - began < LONGEST + 0.5


def test_what_one_learns_alone_the_others_hear_when_it_is_back(
    process: Processes, way: tuple[Faraway, str], caplog: pytest.LogCaptureFixture
) -> None:
    line, url = way
    alone, other = process(kind=RedisStorage, url=url, per_minute=30), process(per_minute=30)
    for pool in (alone, other):
        pool.settle(take(pool), served())
    line.fall_silent()
    with caplog.at_level(logging.INFO):
        alone.settle(take(alone, after=alone._rules.keys[2]), limited(60))
        other.settle(take(other, after=other._rules.keys[0]), failed())
        line.go_on()
        soon(lambda: cooling(alone) == cooling(other) == [1, 2])
        soon(lambda: len(caplog.records) == 2)

    assert [key.requests for key in other.snapshot().keys] == [2, 2, 0]
    told = [record.message for record in caplog.records]
    assert told[0].startswith("⚠️  Redis does not answer (")
    assert told[1] == "✅ Redis answers again: the pool is shared"


def test_what_redis_accepted_unheard_is_not_counted_twice(process: Processes, way: tuple[Faraway, str]) -> None:
    line, url = way
    pool, other = process(SECRETS[:1], 30, kind=RedisStorage, url=url), process(SECRETS[:1], 30)
    pool.settle(take(pool), served())
    pool.storage.decide(lambda state, now: None)  # which has it accepted
    line.fall_silent()
    pool.settle(take(pool), served())
    line.go_on()

    soon(lambda: other.snapshot().keys[0].requests > 1 and not flights(other))
    take(other)
    assert flights(other) == 1
    assert other.snapshot().keys[0].requests == 3


@pytest.mark.parametrize("joins", [0, 1])
def test_what_is_learnt_of_a_key_while_it_joins_elsewhere_is_its_organizations(
    process: Processes, way: tuple[Faraway, str], joins: int
) -> None:
    line, url = way
    pools = [process(SECRETS[:1], kind=RedisStorage, url=url), process(SECRETS[:1])]
    for pool in pools:
        pool.settle(take(pool), served())
    lasting = take(pools[1])
    pools[0].storage.decide(lambda state, now: None)
    line.fall_silent()
    taken, more = [take(pool) for pool in pools], [take(pool) for pool in pools]
    pools[joins].settle(taken[joins], served(organization="org_x"))
    pools[1 - joins].settle(taken[1 - joins], limited(60))
    line.go_on()

    soon(lambda: cooling(pools[0]) == cooling(pools[1]) == [1])
    assert [len(pool.snapshot().lanes) for pool in pools] == [1, 1]
    for pool, reservation in zip(pools, more, strict=True):
        pool.settle(reservation)
    soon(lambda: flights(pools[1]) == 1)
    pools[1].settle(lasting)
    assert flights(pools[1]) == 0


def test_a_booking_survives_a_redis_that_was_emptied(process: Processes, store: Any) -> None:
    pool = process(SECRETS[:1], 1)
    pool.settle(take(pool), served())
    booked = take(pool, max_wait=100)
    store.flushall()
    other = process(SECRETS[:1], 1)  # which knows nothing of it, and writes so
    other.settle(take(other), served())

    assert pool.due_in(booked) == pytest.approx(60)
    assert not pool.start(booked)
    soon(lambda: other.ready_in(Demand(MODEL)) == pytest.approx(120))
    pool.settle(booked)
    assert other.ready_in(Demand(MODEL)) == pytest.approx(60)


def test_what_is_known_is_told_again_to_a_redis_that_was_emptied(
    process: Processes, store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = process(), process()
    one.settle(take(one), limited(60))
    assert cooling(other) == [1]
    store.flushall()
    take(one)

    soon(lambda: store.hlen(NAME) > 3)
    soon(lambda: [cooling(pool) for pool in (one, other)] == [[1], [1]])
    assert {record.message for record in caplog.records} == {EMPTIED}


GARBAGE = ["", "{}", "null", "[1]", "[" * 9999, '{"keys":[],"lanes":[]}', '{"turn":null}']


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("name", [NAME, f"{NAME}:changed"])
def test_what_another_version_wrote_is_written_anew(
    process: Processes, store: Any, garbage: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = process(), process()
    take(one), take(other)
    store.set(name, garbage)
    caplog.clear()

    take(one)
    soon(lambda: store.type(NAME) == b"hash")
    soon(
        lambda: (
            [take(one).key.number, take(other).key.number, take(one).key.number] in ([1, 2, 3], [2, 3, 1], [3, 1, 2])
        )
    )
    assert len([record for record in caplog.records if "written anew" in record.message]) == 1


@pytest.mark.parametrize("garbage", [garbage for garbage in GARBAGE if garbage])
def test_fields_that_another_version_wrote_are_as_good_as_none(
    process: Processes, store: Any, garbage: str, caplog: pytest.LogCaptureFixture
) -> None:
    one = process()
    one.settle(take(one), limited(60))
    for name in store.hkeys(NAME):
        if name not in (b"version", b"epoch", b"compacted"):
            store.hset(NAME, name, garbage)
    store.hset(NAME, "what", garbage)
    store.zadd(f"{NAME}:changed", {"what": 1, "lane x": 2})

    other = process()  # which has to read all of it
    assert turns(other, other, other) == [1, 2, 3]
    assert turns(one, one, one) == [1, 2, 3]
    soon(lambda: len([record for record in caplog.records if "written anew" in record.message]) == 1)


def test_organizations_whose_names_were_spoilt_are_shown_without(process: Processes, store: Any) -> None:
    one = process()
    one.settle(take(one), served(organization="org_x"))
    store.hset(NAME, "head", "garbage")

    assert [key.owner for key in process().snapshot().keys] == ["?", "#2", "#3"]


def test_calls_are_not_counted_twice_when_several_tell_an_emptied_redis(process: Processes, store: Any) -> None:
    one, other = process(), process()
    one.settle(take(one), failed())
    cooling(other)
    store.flushall()
    cooling(one), cooling(other)

    soon(lambda: store.hlen(NAME) > 3)
    soon(lambda: not (one.storage._alone or other.storage._alone))  # type: ignore[attr-defined]
    assert [[key.requests for key in pool.snapshot().keys] for pool in (one, other)] == [[1, 0, 0]] * 2


def test_what_is_known_is_told_again_to_a_redis_that_is_behind(process: Processes, store: Any) -> None:
    one, other = process(), process()
    take(one), take(other)
    behind = {name: store.dump(name) for name in (NAME, f"{NAME}:changed")}
    one.settle(take(one), limited(60))
    assert cooling(other) == [3]
    for name, text in behind.items():  # as of a replica that has taken over
        store.restore(name, 0, text, replace=True)

    take(other)
    soon(lambda: cooling(process()) == [3])
    soon(lambda: cooling(one) == cooling(other) == [3])


def test_who_died_before_it_could_come_next_is_waited_for_a_moment(process: Processes, store: Any) -> None:
    pool = process()
    take(pool)
    until = time.time() + 0.1  # by the clock of this machine, which is Redis' too
    store.hset(NAME, mapping={"lease_holder": "one that died", "lease_until": f"{until * 1e6:.0f}"})

    take(pool)

    assert until <= time.time() < until + 0.1
    assert not pool.storage._alone  # type: ignore[attr-defined]


def test_nobody_comes_next_for_long_though_redis_clock_was_set_back(process: Processes, store: Any) -> None:
    pool = process()
    take(pool)
    store.hset(NAME, mapping={"lease_holder": "one that died", "lease_until": f"{(time.time() + 3600) * 1e6:.0f}"})

    take(pool)

    assert not pool.storage._alone  # type: ignore[attr-defined]
    assert not store.hexists(NAME, "lease_holder")


def test_without_redis_each_goes_on_with_what_it_knows(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with redis_server() as server:
        pool = KeyPool(SECRETS[:2], per_minute=0, storage=InStep(server.url, clock))
        pool.settle(take(pool), limited(60))
        server.close()

        assert turns(pool, pool, pool) == [2, 2, 2]
        pool.settle(take(pool), limited(60))
        with pytest.raises(NoKeyReady):
            take(pool)
        pool.storage.close()  # type: ignore[attr-defined]

    soon(lambda: len(caplog.records) > 0)
    assert len(caplog.records) == 1, "said once, not with each turn"
