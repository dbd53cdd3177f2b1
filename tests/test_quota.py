"""Lanes and bookings: what is left, who waits for it, and that no schedule takes more than there is."""

import random
import threading
from collections.abc import Iterator

import pytest
from conftest import Clock, Pools
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from keypool import KeyPool, NoKeyReady, Turn
from promptlord.pool.quota import RPD, RPM, TPM, Allowance, Bucket, Lane

MODEL = ["m"]


def full(tokens: float = 8000, requests: float = 1000, *, used: float = 0) -> dict[str, Allowance]:
    """Headers that say ``used`` tokens of the minute are gone."""
    return {TPM: Allowance(tokens, used * 60 / tokens), RPD: Allowance(requests, 0)}


def known(pool: KeyPool, told: dict[str, Allowance]) -> None:
    """Let each key's lane hear ``told`` once."""
    for _ in range(len(pool)):
        pool.learn(pool.take(MODEL), told)


def started(pool: KeyPool, turns: list[Turn]) -> list[Turn]:
    return [turn for turn in turns if pool.due_in(turn) == 0]


# Buckets


def test_a_bucket_refills_to_the_instant(clock: Clock) -> None:
    lane = Lane(buckets={TPM: Bucket(8000, 60)})
    lane.charge(8000, clock.now)

    assert lane.ready_at(1000) == pytest.approx(clock.now + 7.5)
    assert lane.buckets[TPM].left(clock.now + 7.5) == pytest.approx(1000)
    assert lane.ready_at(8000) == pytest.approx(clock.now + 60)


def test_requests_per_minute_are_counted_here(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock, per_minute=30)
    for _ in range(30):
        pool.take(MODEL)

    with pytest.raises(NoKeyReady) as error:
        pool.take(MODEL)
    assert error.value.ready_in == pytest.approx(2)

    clock.advance(2.001)
    pool.take(MODEL)


def test_headers_say_what_is_left(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    pool.learn(pool.take(MODEL, 1000), full(used=7500))

    assert pool.ready_in(MODEL, 500) == pytest.approx(0)
    assert pool.ready_in(MODEL, 1000) == pytest.approx(500 * 60 / 8000)


def test_requests_in_flight_count_before_headers_know_of_them(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    known(pool, full())
    first, second = pool.take(MODEL, 3000), pool.take(MODEL, 3000)

    assert pool.ready_in(MODEL, 3000) > 0

    pool.learn(first, full(used=3000))  # said when the second had not arrived yet
    assert pool.ready_in(MODEL, 2000) == pytest.approx(0)
    assert pool.ready_in(MODEL, 3000) == pytest.approx(1000 * 60 / 8000)

    pool.learn(second, full(used=4000))  # a part of the reserve was given back
    assert pool.ready_in(MODEL, 4000) == pytest.approx(0)


def test_old_headers_that_arrive_late_change_nothing(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    known(pool, full())
    slow, fast = pool.take(MODEL, 1000), pool.take(MODEL, 1000)

    pool.learn(fast, full(used=7000))
    pool.learn(slow, full(used=1000))

    assert pool.ready_in(MODEL, 1000) == pytest.approx(0)
    assert pool.ready_in(MODEL, 1001) > 0


def test_silence_changes_nothing(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    pool.learn(pool.take(MODEL, 100), full(used=8000))

    before = pool.ready_in(MODEL, 1000)
    pool.learn(pool.take(["other"], 100), {})

    assert pool.ready_in(MODEL, 1000) == before


@pytest.mark.parametrize("lie", [Allowance(1, 60), Allowance(8000, 60), Allowance(1e12, 60), Allowance(0.001, 0)])
def test_no_lie_blocks_a_lane_for_longer_than_the_bucket_takes_to_fill(
    pool_of: Pools, lie: Allowance, clock: Clock
) -> None:
    pool = pool_of(1, clock)
    pool.learn(pool.take(MODEL, 500), {TPM: lie})

    assert pool.ready_in(MODEL, 500) <= 60
    clock.advance(60.001)
    pool.take(MODEL, 500)


def test_what_was_refused_is_given_back(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock, per_minute=1)
    known(pool, {})
    clock.advance(60)
    turn = pool.take(MODEL, 500)
    assert pool.ready_in(MODEL) == pytest.approx(60)

    pool.refund(turn)

    assert pool.ready_in(MODEL) == 0


def test_what_headers_have_put_right_is_not_given_back_twice(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    known(pool, full())
    turn = pool.take(MODEL, 4000)

    pool.learn(turn, full(used=8000))
    pool.refund(turn)

    assert pool.ready_in(MODEL, 4000) == pytest.approx(30)


def test_the_word_of_a_refusal_wins_over_what_was_believed(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock, per_minute=30)
    pool.limit(pool.take(MODEL), 2.0, RPM)

    clock.advance(2.001)
    pool.take(MODEL)
    assert pool.ready_in(MODEL) == pytest.approx(2, abs=0.01)  # one slot came back, not thirty


def test_a_refusal_gives_nothing_back(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    known(pool, full())
    turn, _ = pool.take(MODEL, 1000), pool.take(MODEL, 7000)  # the second is still under way

    pool.limit(turn, 0.5, TPM)

    assert pool.ready_in(MODEL, 1000) == pytest.approx(7.5)


def test_no_slot_is_taken_too_early_when_the_first_request_was_long_on_its_way(clock: Clock) -> None:
    pool = KeyPool(["gsk_1"], 60, 30, clock, lag=0.25)
    groqs = Bucket(30, 60, full_at=clock.now + 0.2)  # where the first, on a new connection, arrives 0.2 s later

    for _ in range(60):
        turn = pool.take(MODEL, patience=3)
        clock.advance(pool.due_in(turn))
        pool.due_in(turn)
        assert groqs.left(clock.now) >= 1 - 1e-9
        groqs.full_at = max(groqs.full_at, clock.now) + 2


# Turns


def test_a_turn_passes_over_a_lane_that_could_not_admit_the_request(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(2, clock)
    pool.learn(pool.take(MODEL), full(used=7600))
    pool.learn(pool.take(MODEL), full())

    assert [pool.take(MODEL, 500).key.number for _ in range(2)] == [2, 2]
    assert pool.take(MODEL, 300).key.number == 1


def test_the_second_model_serves_before_anybody_waits(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    pool.learn(pool.take(MODEL), full(used=8000))

    assert pool.take(["m", "spare"], 500, patience=10).model == "spare"


def test_idle_lanes_are_forgotten_before_their_number_grows_without_end(clock: Clock) -> None:
    pool = KeyPool(["gsk_1"], per_minute=30, clock=clock)
    for number in range(5000):
        pool.take([f"model-{number}"])
        clock.advance(3)

    assert len(pool.state.lanes) <= 1001


# Bookings


def test_bookings_are_served_in_order_when_their_slots_are_due(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock, per_minute=30)
    for _ in range(30):
        pool.take(MODEL)
    booked = [pool.take(MODEL, patience=10) for _ in range(5)]

    assert [round(pool.due_in(turn), 6) for turn in booked] == [2, 4, 6, 8, 10]
    with pytest.raises(NoKeyReady) as error:
        pool.take(MODEL, patience=10)
    assert error.value.ready_in == pytest.approx(12)

    for count in range(1, 6):
        clock.advance(2.0001)
        assert started(pool, booked) == booked[:count]


def test_one_whose_slot_is_due_need_not_wait_for_the_thread_ahead_of_it(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock, per_minute=30)
    for _ in range(30):
        pool.take(MODEL)
    first, second = pool.take(MODEL, patience=10), pool.take(MODEL, patience=10)
    clock.advance(4.0001)

    assert started(pool, [second, first]) == [second, first]


def test_nobody_overtakes_one_who_waits(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    pool.learn(pool.take(MODEL), full(used=7000))
    large = pool.take(MODEL, 2000, patience=10)

    small = pool.take(MODEL, 500, patience=20)

    assert pool.due_in(large) == pytest.approx(7.5)
    assert pool.due_in(small) == pytest.approx(11.25)


def test_those_behind_one_who_leaves_move_up(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock, per_minute=30)
    for _ in range(30):
        pool.take(MODEL)
    first, second = pool.take(MODEL, patience=10), pool.take(MODEL, patience=10)

    pool.leave(first)
    pool.leave(first)

    assert pool.due_in(second) == pytest.approx(2)


def test_the_earliest_lane_is_booked(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(3, clock)
    for used in (8000, 7900, 8000):
        pool.learn(pool.take(MODEL), full(used=used))

    assert pool.take(MODEL, 500, patience=10).key.number == 2


def test_a_booking_on_a_lane_that_cools_waits_for_it(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock, per_minute=1)
    first = pool.take(MODEL)
    booked = pool.take(MODEL, patience=60)

    pool.limit(first, 90)

    assert pool.due_in(booked) == pytest.approx(90)


def test_no_booking_is_lost_among_threads() -> None:
    pool = KeyPool(["gsk_1", "gsk_2"], per_minute=6000)  # a slot each 10 ms
    for _ in range(12000):
        try:
            pool.take(MODEL)
        except NoKeyReady:
            break
    barrier, served = threading.Barrier(32), []

    def client(seed: int) -> None:
        dice = random.Random(seed)
        barrier.wait()
        turn = pool.take(MODEL, patience=60)
        if dice.random() < 0.2:
            pool.leave(turn)
            return
        while due := pool.due_in(turn):
            threading.Event().wait(min(due, 0.05))
        served.append(seed)

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(served) == sum(random.Random(seed).random() >= 0.2 for seed in range(32))
    assert not any(lane.queue for lane in pool.state.lanes.values())


# Shared organizations


def test_keys_of_one_organization_share_its_lanes_once_it_is_named(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(3, clock)
    one, two = pool.take(MODEL), pool.take(MODEL)

    assert pool.learn(one, {}, "org_x") is None
    shared = pool.learn(two, {}, "org_x")

    assert shared is not None
    assert (shared.name, [key.label for key in shared.keys]) == ("A", ["#1", "#2"])
    assert pool.learn(two, {}, "org_x") is None  # said once

    pool.limit(one, 60)
    assert [pool.take(MODEL).key.number for _ in range(2)] == [3, 3]
    assert pool.health()["activeKeys"] == 1


def test_what_both_have_used_is_added_when_lanes_prove_to_be_one(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(2, clock, per_minute=4)
    one, two, *_ = [pool.take(MODEL) for _ in range(4)]

    pool.learn(one, {}, "org_x")
    pool.learn(two, {}, "org_x")

    assert pool.ready_in(MODEL) == pytest.approx(15)


def test_what_was_taken_before_the_keys_joined_is_not_given_back(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(2, clock, per_minute=2)
    early, two = pool.take(MODEL), pool.take(MODEL)
    pool.learn(two, {}, "org_x")
    pool.learn(early, {}, "org_x")

    pool.refund(early)  # of what by then has become the other's too

    assert pool.ready_in(MODEL) == pytest.approx(30)


def test_organizations_have_names_beyond_the_alphabet(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(56, clock)
    for number in range(56):
        shared = pool.learn(pool.take(MODEL), {}, f"org_{number // 2}")

    assert shared is not None
    assert shared.name == "BB"
    assert len(set(pool.state.names.values())) == 28


def test_of_headers_from_before_the_keys_joined_only_bad_news_is_believed(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(2, clock)
    known(pool, full())
    early, one, two = pool.take(MODEL, 100), pool.take(MODEL, 100), pool.take(MODEL, 100)
    pool.learn(one, full(used=7000), "org_x")
    pool.learn(two, {}, "org_x")

    pool.learn(early, full(used=100))
    assert pool.ready_in(MODEL, 2000) > 0

    pool.learn(early, full(used=8000))
    assert pool.ready_in(MODEL, 500) > 0


def test_a_booking_goes_along_when_its_key_joins_an_organization(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(2, clock, per_minute=1)
    one, two = pool.take(MODEL), pool.take(MODEL)
    booked = [pool.take(MODEL, patience=60) for _ in range(2)]

    pool.learn(one, {}, "org_x")
    pool.learn(two, {}, "org_x")

    assert [round(pool.due_in(turn)) for turn in booked] == [60, 120]


# No schedule breaks the rules


class Schedule(RuleBasedStateMachine):
    """Turns, answers, refusals and time in any order, held against what Groq would count."""

    refused_rightly = True
    LIMITS = ((RPM, 5, 60.0), (TPM, 4000, 60.0), (RPD, 40, 86400.0))

    @initialize(keys=st.integers(1, 3))
    def start(self, keys: int) -> None:
        self.clock = Clock()
        self.pool = KeyPool([f"gsk_{number}" for number in range(keys)], per_minute=5, clock=self.clock)
        self.truth = {key: {name: Bucket(limit, period) for name, limit, period in self.LIMITS} for key in range(1, 4)}
        self.cools_until = dict.fromkeys(range(1, 4), 0.0)
        self.booked: list[Turn] = []
        self.flying: list[tuple[Turn, dict[str, Allowance]]] = []
        for _ in range(keys):  # what Groq's limits are is not known before the first answer
            self.begin(self.pool.take(MODEL, 100))
            self.answer(0)

    def begin(self, turn: Turn) -> None:
        now, number = self.clock.now, turn.key.number
        assert self.cools_until[number] <= now, "a cooling lane was called"
        told = {}
        for name, bucket in self.truth[number].items():
            bucket.full_at = max(bucket.full_at, now) + bucket.refill(turn.need if name == TPM else 1)
            assert bucket.left(now) >= -1e-6 * bucket.limit, f"{name} exceeded"
            if name != RPM:
                told[name] = Allowance(bucket.limit, bucket.full_at - now)
        self.flying.append((turn, told))

    @rule(need=st.integers(1, 4000), patience=st.floats(0, 30))
    def arrive(self, need: int, patience: float) -> None:
        try:
            turn = self.pool.take(MODEL, need, patience=patience)
        except NoKeyReady as error:
            self.refused_rightly = error.ready_in > patience
            return
        if turn.booked:
            assert self.pool.due_in(turn) <= patience
            self.booked.append(turn)
        else:
            self.begin(turn)

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def poll(self) -> None:
        for turn in list(self.booked):
            if not self.pool.due_in(turn):
                self.booked.remove(turn)
                self.begin(turn)

    @precondition(lambda self: self.booked)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.pool.leave(self.booked.pop(data.draw(st.integers(0, len(self.booked) - 1))))

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        self.answer(data.draw(st.integers(0, len(self.flying) - 1)))

    def answer(self, place: int) -> None:
        turn, told = self.flying.pop(place)
        self.pool.learn(turn, told)
        self.pool.succeed(turn)

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), seconds=st.floats(0.1, 90), dimension=st.sampled_from(["", RPM, TPM, "tokens per day"]))
    def refuse(self, data: st.DataObject, seconds: float, dimension: str) -> None:
        turn, _ = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        number = turn.key.number
        self.pool.limit(turn, seconds, dimension)
        self.cools_until[number] = max(self.cools_until[number], self.clock.now + seconds)

    @invariant()
    def only_those_are_refused_who_would_wait_too_long(self) -> None:
        assert self.refused_rightly

    @invariant()
    def no_booking_is_lost(self) -> None:
        if hasattr(self, "pool"):
            assert sum(len(lane.queue) for lane in self.pool.state.lanes.values()) == len(self.booked)

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        self.flying.clear()
        for _ in range(200):
            self.poll()
            self.clock.advance(3000)
        assert not self.booked, "a booking never came"


TestSchedule = Schedule.TestCase
TestSchedule.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() <= before
