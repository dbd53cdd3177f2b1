"""Several real servers on a Redis that fails, or in which something else stands: every request goes on."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from statistics import median

import pytest
import requests
from conftest import KEYS, Server, poll, seconds_of
from groqsim import GroqSim
from real_redis import RealRedis, half_right, spoil
from several import (
    FREELY,
    NO_LIMITS,
    SOON,
    SURELY,
    TOGETHER,
    assert_no_fault,
    assert_shared,
    assert_turns_are_taken,
    heard,
    keys_of,
    meet_a_limit,
    press,
    pressed,
    warnings,
)

Start = Callable[..., Server]
Harm = Callable[[RealRedis], AbstractContextManager[None]]
HARMS = [RealRedis.frozen, RealRedis.killed, RealRedis.emptied, RealRedis.read_only, RealRedis.full]
whatever_becomes_of_redis = pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)


@pytest.fixture
def sim() -> Iterator[GroqSim]:
    with GroqSim(KEYS, NO_LIMITS, latency=0.02) as sim:
        yield sim


@pytest.fixture
def two(start: Start, store: RealRedis) -> tuple[Server, Server]:
    """Each has served once for each key."""
    one, other = (start(REDIS_URL=store.url, CLIENT_LIMITS="100000 per minute", **FREELY) for _ in range(2))
    for server in (one, other) * 3:
        press(server)
    return one, other


# What is no state


GARBAGE = ["x", "", '{"keys":[],"lanes":[]}', "[" * 9999, '{"turn": null}', None]


def test_garbage_is_ignored_written_anew_and_warned_of_once(
    two: tuple[Server, Server], store: RealRedis, sim: GroqSim
) -> None:
    for garbage in GARBAGE:
        before, damages = [warnings(server) for server in two], 0
        for name in spoil(store, garbage):
            damages += 1
            for server in two * 2:
                met = heard(server, "whatever is kept")
                assert (met.status, met.seconds < SURELY) == (200, True), (name, garbage, met.seconds)
        assert damages, "nothing is kept"
        assert_turns_are_taken(sim, *two, within=SURELY)
        more = [warnings(server) - count for server, count in zip(two, before, strict=True)]
        assert 1 <= max(more) <= damages, (garbage, more, damages)

    assert_shared(sim, *two)
    assert_no_fault(*two)


@pytest.mark.parametrize("garbage", ["x", None])
def test_garbage_that_was_there_before_is_ignored_too(
    start: Start, two: tuple[Server, Server], store: RealRedis, sim: GroqSim, garbage: str | None
) -> None:
    for server in two:
        server.end()
    damages = [*spoil(store, garbage)]

    late = start(REDIS_URL=store.url, **FREELY), start(REDIS_URL=store.url, **FREELY)

    for server in late * 2:
        met = heard(server, "whatever is kept")
        assert (met.status, met.seconds < SURELY) == (200, True), met.seconds
    assert_shared(sim, *late, within=SURELY)
    assert 1 <= sum(map(warnings, late)) <= 2 * len(damages)
    assert_no_fault(*late)


def test_a_state_that_is_only_half_right_troubles_nobody(
    two: tuple[Server, Server], store: RealRedis, sim: GroqSim
) -> None:
    with store.client() as client:
        for name in sorted(client.scan_iter("promptlord:*")):
            values = {b"": client.get(name)} if (kind := client.type(name)) == b"string" else {}
            values |= client.hgetall(name) if kind == b"hash" else {}
            for field, value in values.items():
                for number, wrong in enumerate(half_right(value)):
                    client.hset(name, field, wrong) if field else client.set(name, wrong)
                    for server in two:
                        met = heard(server, f"half right ({number})")
                        assert (met.status, met.seconds < SURELY) == (200, True), (name, field, wrong)

    assert_shared(sim, *two, within=SURELY)
    assert_no_fault(*two)


# Redis fails


@whatever_becomes_of_redis
def test_requests_go_on(start: Start, two: tuple[Server, Server], store: RealRedis, sim: GroqSim, harm: Harm) -> None:
    alone = start(**FREELY)  # which says what the machine does at such a time
    press(alone)
    with pressed([*two, alone], clients=10, pause=0.4) as met:
        time.sleep(0.7)
        with harm(store):
            checks = [[seconds_of(server.health)[0] for server in (*two, alone)] for _ in poll(3, every=0.1)]
        time.sleep(0.5)

    slowest, usual = (max(each.seconds for each in met if (each.server is alone) is so) for so in (False, True))
    looks, usual_looks = [check for one, other, _ in checks for check in (one, other)], [check[2] for check in checks]
    print(f"{slowest:.2f} s at most; /health {median(looks):.3f}, {max(looks):.3f} s at most")
    print(f"alone: {usual:.2f} s at most; /health {median(usual_looks):.3f}, {max(usual_looks):.3f} s at most")
    assert_no_fault(*two)
    assert Counter(each.status for each in met) == {200: len(met)}
    assert len(met) > 100
    assert slowest < SOON + usual
    assert median(looks) < 0.05 + median(usual_looks)
    assert max(looks) < 0.5 + max(usual_looks)
    assert_shared(sim, *two)


@whatever_becomes_of_redis
def test_what_one_is_told_meanwhile_it_keeps_and_tells_afterwards(
    two: tuple[Server, Server], store: RealRedis, sim: GroqSim, harm: Harm
) -> None:
    one, other = two
    with harm(store):
        press(other)
        meet_a_limit(sim, one, "gsk_two")
        sim.forget()

    for _ in poll(TOGETHER, every=0.2):
        press(other, "other")  # the first to write
        press(one, "one")
        if other.health().json()["activeKeys"] == 2:
            break
    else:
        raise AssertionError("it is not told")
    for server in two * 3:
        press(server, "one or other")
    assert "gsk_two" not in keys_of(sim, "one")
    assert len(keys_of(sim, "one")) >= 7


@pytest.mark.parametrize("harm", [RealRedis.emptied, RealRedis.killed], ids=lambda harm: harm.__name__)
def test_one_that_knows_nothing_undoes_nothing(
    start: Start, two: tuple[Server, Server], store: RealRedis, sim: GroqSim, harm: Harm
) -> None:
    meet_a_limit(sim, two[0], "gsk_two")
    with harm(store):
        pass
    new = start(REDIS_URL=store.url, **FREELY)
    press(new)  # the first to write
    sim.forget()

    for _ in poll(TOGETHER, every=0.2):
        press(two[0], "knows")
        press(new, "new")
        if new.health().json()["activeKeys"] == 2:
            break
    else:
        raise AssertionError("it is not told")
    for server in (two[0], new) * 3:
        press(server, "knows")
    assert "gsk_two" not in keys_of(sim, "knows")


def test_what_is_known_is_told_at_once_while_redis_is_silent(two: tuple[Server, Server], store: RealRedis) -> None:
    met: dict[str, list[float]] = {"/health": [], "/ready": [], "/status": []}
    with pressed(two[:1], clients=4), store.frozen():
        for _ in poll(3, every=0.05):
            for path, times in met.items():
                took, response = seconds_of(lambda: requests.get(two[0].url + path, timeout=20))  # noqa: B023
                assert response.status_code == 200
                times.append(took)

    for path, times in met.items():
        print(f"{path}: {median(times):.3f} s, {max(times):.3f} s at most")
        assert median(times) < 0.05
        assert max(times) < 0.4, path  # in which Redis is waited for


@pytest.mark.parametrize("seconds", [0.1, 0.4, 3.0])
def test_a_redis_far_away_costs_a_little_time_or_none(
    start: Start, store: RealRedis, sim: GroqSim, seconds: float
) -> None:
    with store.away(seconds) as url:
        server = start(REDIS_URL=url, **FREELY)
        for _ in KEYS:
            press(server)
        with ThreadPoolExecutor(12) as crowd:
            calls = [crowd.submit(heard, server, f"far ({number})") for number in range(12)]
            checks = [seconds_of(server.health)[0] for _ in range(10)]
        met = [call.result() for call in calls]

    print(f"{max(each.seconds for each in met):.2f} s at most; /health {median(checks):.3f}, {max(checks):.3f} at most")
    assert {each.status for each in met} == {200}
    assert max(each.seconds for each in met) < SOON
    assert median(checks) < 0.05
