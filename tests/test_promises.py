"""Who was told to come back, and is known again when they do."""

import random

from conftest import Clock, Pools

from promptlord.pool.promises import MEMORY, REMEMBERED, SHELVES, SPREAD, turn_away
from promptlord.pool.state import State


def test_who_was_promised_is_known_once_when_they_come_back(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    pool.turn_away(b"mine", 5)

    assert not pool.returns(lambda: b"mine")  # too early
    clock.advance(5)
    assert not pool.returns(lambda: b"another's")
    assert pool.returns(lambda: b"mine")
    assert not pool.returns(lambda: b"mine")


def test_one_slot_is_not_promised_twice(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)

    told = [pool.turn_away(name, 10, apart=2) for name in (b"a", b"b", b"c", b"b")]

    assert told == [10, 12, 14, 12]
    for number in range(1000):  # who hammers does not put others off for ever
        pool.turn_away(b"%d" % number, 10, apart=2)
    assert pool.turn_away(b"d", 10, apart=2) == 10 + SPREAD
    clock.advance(60)
    assert pool.turn_away(b"e", 1, apart=2) == 1


def test_who_comes_back_much_too_late_is_forgotten(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    pool.turn_away(b"mine", 5)
    clock.advance(5 + MEMORY + 0.1)

    assert not pool.returns(lambda: b"mine")


def test_the_memory_is_bounded_in_size_and_time(clock: Clock) -> None:
    state, dice = State(clock.now), random.Random(1)
    for _ in range(3 * REMEMBERED):
        turn_away(state, clock.now, dice.randbytes(16).hex(), 5)
    assert sum(map(len, state.promises.values())) == REMEMBERED // SHELVES * SHELVES

    clock.advance(5 + MEMORY + 0.1)
    for _ in range(3000):
        turn_away(state, clock.now, dice.randbytes(16).hex(), 5)
    assert sum(map(len, state.promises.values())) == 3000


def test_nobody_is_looked_up_where_nobody_was_promised(pool_of: Pools, clock: Clock) -> None:
    def fingerprint() -> bytes:
        raise AssertionError("a body of megabytes was read for nothing")

    assert not pool_of(1, clock).returns(fingerprint)
