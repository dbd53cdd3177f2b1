"""Lanes and bookings: what is left, who waits for it, and that no schedule takes more than there is."""

import random
import threading
from contextlib import ExitStack
from typing import TypeVar

import pytest
import redis
from conftest import Clock, InStep, Pools, failed, limited, served, take
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from keypool import KeyPool
from promptlord.errors import NoKeyReady
from promptlord.pool import parts
from promptlord.pool.books import MANY
from promptlord.pool.memory import MemoryStorage
from promptlord.pool.quota import LAG, RPD, RPM, TPD, TPM, Allowance, Bucket, Lane
from promptlord.pool.state import Decision, Demand, Outcome, Reservation, State

MODEL = ["m"]
T = TypeVar("T")
FREE = {TPM: Allowance(8000, 0), RPD: Allowance(1000, 0)}
PAID = {TPM: Allowance(250_000, 0), RPD: Allowance(500_000, 0)}


def full(tokens: float = 8000, requests: float = 1000, *, used: float = 0) -> dict[str, Allowance]:
    """Headers that say ``used`` tokens of the minute are gone."""
    return {TPM: Allowance(tokens, used * 60 / tokens), RPD: Allowance(requests, 0)}


def known(pool: KeyPool, told: dict[str, Allowance]) -> None:
    """Let each key's lane hear ``told`` once."""
    for _ in range(len(pool)):
        pool.settle(take(pool), served(told))


def started(pool: KeyPool, reservations: list[Reservation]) -> list[Reservation]:
    return [reservation for reservation in reservations if pool.start(reservation)]


def state_of(pool: KeyPool) -> State:
    return pool.storage.look(lambda state, now: state)


def lane_of(pool: KeyPool) -> Lane:
    (lane,) = state_of(pool).lanes.values()
    return lane


# Buckets


def test_a_bucket_refills_to_the_instant(clock: Clock) -> None:
    bucket = Bucket(8000, 60)
    bucket.full_at = clock.now + 60
    lane = Lane(buckets={TPM: bucket})

    assert lane.ready_at(clock.now, 1000) == pytest.approx(clock.now + 7.5)
    assert bucket.left(clock.now + 7.5) == pytest.approx(1000)
    assert lane.ready_at(clock.now, 8000) == pytest.approx(clock.now + 60)


def test_requests_per_minute_are_counted_here(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock, per_minute=30)
    for _ in range(30):
        pool.settle(take(pool), served())

    with pytest.raises(NoKeyReady) as error:
        take(pool)
    assert error.value.ready_in == pytest.approx(2)

    clock.advance(2.001)
    take(pool)


def test_headers_say_what_is_left(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    pool.settle(take(pool, 1000), served(full(used=7500)))

    assert pool.ready_in(Demand(MODEL, 500)) == pytest.approx(0)
    assert pool.ready_in(Demand(MODEL, 1000)) == pytest.approx(500 * 60 / 8000)


def test_what_is_in_flight_counts_until_an_answer_has_counted_it(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    known(pool, full())
    first, second = take(pool, 3000), take(pool, 3000)

    assert pool.ready_in(Demand(MODEL, 3000)) > 0

    pool.settle(first, served(full(used=3000)))  # said when the second had not arrived yet
    assert pool.ready_in(Demand(MODEL, 3000)) == pytest.approx(1000 * 60 / 8000, abs=LAG)

    pool.settle(second, served(full(used=4000)))  # a part of the reserve was given back
    assert pool.ready_in(Demand(MODEL, 4000)) == pytest.approx(0)


def test_an_answer_that_was_long_on_its_way_is_as_old_as_its_call(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    slow = take(pool, 1000)
    clock.advance(30)

    pool.settle(slow, served(full(used=8000)))  # when it was admitted; half of it has come back since

    assert pool.ready_in(Demand(MODEL, 3900)) == pytest.approx(0)
    assert pool.ready_in(Demand(MODEL, 4100)) > 0


def test_of_an_older_answer_only_bad_news_is_believed(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    known(pool, full())
    slow, slower, fast = take(pool, 100), take(pool, 100), take(pool, 100)

    pool.settle(fast, served(full(used=7000)))
    pool.settle(slow, served(full(used=1000)))
    assert pool.ready_in(Demand(MODEL, 1000)) == pytest.approx(0)
    assert pool.ready_in(Demand(MODEL, 1001)) > 0

    pool.settle(slower, served(full(used=8000)))
    assert pool.ready_in(Demand(MODEL, 1000)) == pytest.approx(7.5)


def test_an_answer_that_says_nothing_changes_nothing(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    pool.settle(take(pool, 100), served(full(used=8000)))

    before = pool.ready_in(Demand(MODEL, 1000))
    pool.settle(take(pool, 100, ["other"]), served())

    assert pool.ready_in(Demand(MODEL, 1000)) == before


@pytest.mark.parametrize("lie", [Allowance(1, 60), Allowance(8000, 60), Allowance(1e12, 60), Allowance(0.001, 0)])
@pytest.mark.parametrize("name", [TPM, TPD, RPD])
def test_no_lie_blocks_a_lane_for_longer_than_the_bucket_takes_to_fill(
    pool_of: Pools, name: str, lie: Allowance, clock: Clock
) -> None:
    pool = pool_of(1, clock)
    pool.settle(take(pool, 500), served({name: lie}))

    assert pool.ready_in(Demand(MODEL, 500)) <= (86400 if name == RPD else 60)


@pytest.mark.parametrize("tokens", [10**12, 1_000_000, 0, -5, 16_001])
def test_no_number_that_a_client_names_is_felt_by_others(pool_of: Pools, tokens: int, clock: Clock) -> None:
    pool = pool_of(1, clock)
    known(pool, full())
    slow, huge = take(pool, 600), take(pool, tokens, bulk=True)
    pool.settle(slow, served(full(used=600)))

    assert pool.ready_in(Demand(MODEL, 600)) == 0  # while it is in flight, for Groq will refuse it

    pool.settle(huge)
    assert pool.ready_in(Demand(MODEL, 7400)) == pytest.approx(0)


def test_one_that_hardly_fits_waits_for_a_full_bucket_and_groq_decides(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    pool.settle(take(pool, 600), served(full(used=4000)))

    assert pool.ready_in(Demand(MODEL, 9000)) == pytest.approx(30)


def test_what_was_refused_leaves_no_trace(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock, per_minute=1)
    known(pool, {TPM: Allowance(1000, 0)})
    clock.advance(60)
    reservation = take(pool, 1000)
    assert pool.ready_in(Demand(MODEL)) > 0

    pool.settle(reservation)

    assert pool.ready_in(Demand(MODEL, 1000)) == 0


def test_what_is_lost_with_its_thread_is_counted_until_it_expires(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    known(pool, {RPD: Allowance(1, 0)})
    lost = take(pool)

    assert pool.ready_in(Demand(MODEL)) == pytest.approx(86400 + LAG)
    clock.advance(66)
    assert pool.ready_in(Demand(MODEL)) == 0
    take(pool)
    pool.settle(lost, served())  # it was not, after all


def test_a_refusal_gives_nothing_back(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    known(pool, full())
    refused, _ = take(pool, 1000), take(pool, 7000)  # the second is still in flight

    pool.settle(refused, limited(0.5, TPM))

    assert pool.ready_in(Demand(MODEL, 1000)) == pytest.approx(0.5 + 52.5)


def test_a_refusal_without_numbers_is_believed_all_the_same(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock, per_minute=30)
    pool.settle(take(pool), limited(2.0, RPM))

    clock.advance(2.001)
    pool.settle(take(pool), served())
    assert pool.ready_in(Demand(MODEL)) == pytest.approx(2, abs=LAG)  # one slot came back, not thirty


def test_no_slot_is_taken_too_early_when_the_first_request_was_long_on_its_way(clock: Clock) -> None:
    pool = KeyPool(["gsk_1"], 60, 30, clock)
    late, arrivals = 0.2, []  # the first ones, on new connections, arrive so much later

    for number in range(60):
        reservation = take(pool, max_wait=3)
        clock.advance(pool.due_in(reservation))
        assert pool.start(reservation)
        arrivals.append(clock.now + (late if number < 30 else 0.0))

    groqs = Bucket(30, 60)
    for arrival in sorted(arrivals):
        assert groqs.left(arrival) >= 1 - 1e-9
        groqs.full_at = max(groqs.full_at, arrival) + 2


def test_an_older_answer_does_not_change_the_limit_either(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    older, newer = take(pool), take(pool)

    pool.settle(newer, served(PAID))
    pool.settle(older, served(FREE))

    assert pool.ready_in(Demand(MODEL, 100_000)) == 0


# Four buckets


def test_the_days_tokens_are_learnt_from_their_refusal_and_counted_down(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    known(pool, FREE)
    told = {TPD: Allowance(200_000, 199_000 / 200_000 * 86400)}
    pool.settle(take(pool, 1500), limited(216, TPD, allowances=told))
    clock.advance(216)

    pool.settle(take(pool, 1500), served(FREE))

    assert pool.ready_in(Demand(MODEL, 640)) == pytest.approx(640 * 86400 / 200_000, rel=0.01)


@pytest.mark.parametrize(("told", "ready_in"), [(FREE, 2), (PAID, 0), ({RPD: Allowance(1000, 0)}, 2), ({}, 2)])
def test_thirty_a_minute_are_presumed_while_the_headers_show_the_free_plan(
    pool_of: Pools, told: dict[str, Allowance], ready_in: float, clock: Clock
) -> None:
    pool = pool_of(1, clock, per_minute=None)
    for _ in range(30):
        pool.settle(take(pool), served(told))

    assert pool.ready_in(Demand(MODEL)) == pytest.approx(ready_in)


def test_what_groq_has_counted_is_counted_and_not_what_was_estimated(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    told = {TPD: Allowance(200_000, 86400)}
    pool.settle(take(pool, 700), limited(1, TPD, allowances=told))
    clock.advance(700 * 86400 / 200_000)

    pool.settle(take(pool, 700), served(tokens=600))

    assert pool.ready_in(Demand(MODEL, 100)) == pytest.approx(0, abs=1)


def test_what_the_operator_says_of_requests_a_minute_is_kept_to_on_any_plan(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock, per_minute=2)
    for _ in range(2):
        pool.settle(take(pool), served(PAID))

    assert pool.ready_in(Demand(MODEL)) == pytest.approx(30)


def test_the_true_requests_a_minute_are_learnt_from_their_refusal(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock, per_minute=None)
    known(pool, PAID)
    pool.settle(take(pool), limited(0.06, RPM, allowances={RPM: Allowance(1000, 60)}))
    clock.advance(0.061)

    pool.settle(take(pool), served(PAID))

    assert lane_of(pool).buckets[RPM].limit == 1000
    assert pool.ready_in(Demand(MODEL)) == pytest.approx(0.06, abs=0.002)


# Turns


def test_a_turn_passes_over_a_lane_that_could_not_admit_the_request(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(2, clock)
    pool.settle(take(pool), served(full(used=7600)))
    pool.settle(take(pool), served(full()))

    assert [take(pool, 500).key.number for _ in range(2)] == [2, 2]
    assert take(pool, 300).key.number == 1


def test_the_second_model_serves_before_anybody_waits(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    pool.settle(take(pool), served(full(used=8000)))

    assert take(pool, 500, ["m", "spare"], max_wait=10).model == "spare"


def test_idle_lanes_are_forgotten_before_their_number_grows_without_end(clock: Clock) -> None:
    pool = KeyPool(["gsk_1"], per_minute=30, clock=clock)
    ours = take(pool)
    for number in range(3 * MANY):
        reservation = take(pool, models=[f"model-{number}"])
        pool.settle(reservation, Outcome(lacks=True) if number % 2 else limited(5))
        clock.advance(0.01)

    assert len(state_of(pool).lanes) <= MANY
    assert len(state_of(pool).retired) <= MANY
    assert lane_of_model(pool, "m").flights[0].number == ours.number


def lane_of_model(pool: KeyPool, model: str) -> Lane:
    (lane,) = (lane for (_, name), lane in state_of(pool).lanes.items() if name == model)
    return lane


# Bookings


def used_up(pool: KeyPool, *, bulk: bool = False) -> None:
    """Take all that the requests a minute admit."""
    while not pool.ready_in(Demand(MODEL)):
        pool.settle(take(pool, bulk=bulk), served())


def test_bookings_are_served_in_order_when_their_slots_are_due(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock, per_minute=30)
    used_up(pool)
    booked = [take(pool, max_wait=10) for _ in range(5)]

    assert [pool.due_in(reservation) for reservation in booked] == pytest.approx([2, 4, 6, 8, 10])
    with pytest.raises(NoKeyReady) as error:
        take(pool, max_wait=10)
    assert error.value.ready_in == pytest.approx(12)

    for count in range(1, 6):
        clock.advance(2.0001)
        assert started(pool, booked) == booked[:count]


def test_one_whose_slot_is_due_need_not_wait_for_the_thread_ahead_of_it(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock, per_minute=30)
    used_up(pool)
    first, second = take(pool, max_wait=10), take(pool, max_wait=10)
    clock.advance(4.0001)

    assert started(pool, [second, first]) == [second, first]


def test_nobody_overtakes_one_who_waits(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    pool.settle(take(pool), served(full(used=7000)))
    large = take(pool, 2000, max_wait=10)

    small = take(pool, 500, max_wait=20)

    assert pool.due_in(large) == pytest.approx(7.5)
    assert pool.due_in(small) == pytest.approx(11.25)


def test_those_behind_one_who_leaves_move_up(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock, per_minute=30)
    used_up(pool)
    first, second = take(pool, max_wait=10), take(pool, max_wait=10)

    pool.settle(first)

    assert pool.due_in(second) == pytest.approx(2)


def test_the_earliest_lane_is_booked(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(3, clock)
    for used in (8000, 7900, 8000):
        pool.settle(take(pool), served(full(used=used)))

    assert take(pool, 500, max_wait=10).key.number == 2


def test_a_booking_on_a_lane_that_cools_waits_for_it(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock, per_minute=1)
    first = take(pool)
    booked = take(pool, max_wait=61)

    pool.settle(first, limited(90))

    assert pool.due_in(booked) == pytest.approx(90)


def test_a_booking_whose_machine_died_expires(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock, per_minute=1)
    used_up(pool)
    take(pool, max_wait=60)

    clock.advance(66)

    assert not take(pool).booked


def test_no_booking_is_lost_among_threads() -> None:
    pool = KeyPool(["gsk_1", "gsk_2"], per_minute=6000)  # a slot each 10 ms
    used_up(pool)
    barrier, done = threading.Barrier(32), []

    def client(seed: int) -> None:
        dice = random.Random(seed)
        barrier.wait()
        reservation = take(pool, max_wait=60)
        if dice.random() < 0.2:
            pool.settle(reservation)
            return
        while not pool.start(reservation):
            threading.Event().wait(min(pool.due_in(reservation), 0.05))
        pool.settle(reservation, served())
        done.append(seed)

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(done) == sum(random.Random(seed).random() >= 0.2 for seed in range(32))
    assert not any(lane.queue or lane.flights for lane in state_of(pool).lanes.values())


# Two classes


def test_a_press_goes_before_bulk_requests_that_have_not_started(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock, per_minute=30)
    used_up(pool, bulk=True)
    bulk = [take(pool, bulk=True, max_wait=20, put_off=30) for _ in range(2)]

    press = take(pool, max_wait=10)

    assert pool.due_in(press) == pytest.approx(2)
    clock.advance(2.0001)
    assert started(pool, [*bulk, press]) == [press]


def test_no_promise_already_given_is_broken_for_a_press(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock, per_minute=30)
    used_up(pool, bulk=True)
    bulk = [take(pool, bulk=True, max_wait=8, put_off=put_off) for put_off in (0, 0, 12, 30)]

    presses = [take(pool, max_wait=30) for _ in range(4)]

    order: list[Reservation] = []
    while len(order) < 8:
        clock.advance(0.1)
        for reservation in started(pool, [each for each in [*presses, *bulk] if each.booked]):
            assert clock.now <= reservation.latest + 1e-6
            order.append(reservation)
    assert order[0] in presses
    assert order[-1] is bulk[-1]


def test_bulk_requests_leave_room_for_as_many_presses_as_came_of_late(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    known(pool, full())
    clock.advance(600)
    for _ in range(12):  # in a minute: three in a quarter of it
        pool.settle(take(pool, 600), served(full()))
        clock.advance(5)

    pool.settle(take(pool, 100), served(full(used=6500)))
    assert pool.ready_in(Demand(MODEL, 600)) == 0
    with pytest.raises(NoKeyReady):
        take(pool, 100, bulk=True)

    clock.advance(600)  # nobody presses any more
    pool.settle(take(pool, 100, bulk=True), served(full(used=7900)))
    assert take(pool, 100, bulk=True)


def test_room_is_left_only_for_the_models_of_presses(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(1, clock)
    pool.settle(take(pool, 100, ["whisper"], bulk=True), served(full(used=7900)))
    pool.settle(take(pool, 600), served(full(used=7900)))

    assert take(pool, 100, ["whisper"], bulk=True)
    with pytest.raises(NoKeyReady):
        take(pool, 100, bulk=True)


# Shared organizations


def test_keys_of_one_organization_share_its_lanes_once_it_is_named(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(3, clock)
    one, two = take(pool), take(pool)
    another = take(pool, after=pool._rules.keys[0])

    assert pool.settle(one, Outcome(organization="org_x")).shared is None
    shared = pool.settle(two, limited(60, organization="org_x")).shared

    assert shared is not None
    assert (shared.name, [key.label for key in shared.keys]) == ("A", ["#1", "#2"])
    assert pool.settle(another, Outcome(organization="org_x")).shared is None  # said once
    assert [take(pool).key.number for _ in range(2)] == [3, 3]
    assert pool.health(MODEL)["activeKeys"] == 1


def test_what_both_have_used_is_added_when_lanes_prove_to_be_one(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(2, clock, per_minute=4)
    one, two, *rest = [take(pool) for _ in range(4)]
    for reservation in rest:
        pool.settle(reservation, served())

    pool.settle(one, Outcome(admitted=True, organization="org_x"))
    pool.settle(two, Outcome(admitted=True, organization="org_x"))

    assert pool.ready_in(Demand(MODEL)) == pytest.approx(15, abs=2 * LAG)


def test_who_waits_goes_on_waiting_when_its_key_joins_an_organization(pool_of: Pools, clock: Clock) -> None:
    pool = pool_of(2, clock, per_minute=1)
    one, two = take(pool), take(pool)
    booked = [take(pool, max_wait=61) for _ in range(2)]

    pool.settle(one, Outcome(admitted=True, organization="org_x"))
    pool.settle(two, Outcome(admitted=True, organization="org_x"))

    assert [round(pool.due_in(reservation)) for reservation in booked] == [60, 120]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_what_one_key_knows_of_the_plan_the_other_does_not_presume(order: tuple[int, int], clock: Clock) -> None:
    pool = KeyPool(["gsk_1", "gsk_2"], clock=clock)
    reservations = [take(pool), take(pool)]
    outcomes = [served(PAID, organization="org_x"), Outcome(admitted=False, organization="org_x")]
    for _ in range(29):
        take(pool, after=pool._rules.keys[0])  # in flight, with the second key

    for place in order:
        pool.settle(reservations[place], outcomes[place])

    assert RPM not in lane_of(pool).buckets
    assert pool.ready_in(Demand(MODEL)) == 0


def test_a_press_stays_before_bulk_requests_when_their_keys_join(clock: Clock) -> None:
    pool = KeyPool(["gsk_1", "gsk_2"], per_minute=1, clock=clock)
    one, two = take(pool), take(pool)
    first, second = pool._rules.keys
    bulk = take(pool, tried=[(second, "m")], bulk=True, max_wait=100, put_off=200)
    press = take(pool, tried=[(first, "m")], max_wait=100)

    pool.settle(one, Outcome(admitted=True, organization="org_x"))
    pool.settle(two, Outcome(admitted=True, organization="org_x"))

    assert pool.due_in(press) < pool.due_in(bulk)


def test_organizations_have_names_beyond_the_alphabet(clock: Clock) -> None:
    pool = KeyPool([f"gsk_{number}" for number in range(56)], clock=clock)
    for number in range(56):
        shared = pool.settle(take(pool), Outcome(organization=f"org_{number // 2}")).shared

    assert shared is not None
    assert shared.name == "BB"
    assert len(set(state_of(pool).names.values())) == 28


# No schedule breaks the rules


class Watched(MemoryStorage):
    """Sees that whatever a decision changes it says: what is not said would never reach another process."""

    def decide(self, decision: Decision[T], *, wait: bool = True) -> T:
        def watched(state: State, now: float) -> T:
            before = {part: parts.encode(state, part) for part in state.parts()}
            result = decision(state, now)
            changed = {part for part in before.keys() | state.parts() if parts.encode(state, part) != before.get(part)}
            assert changed <= state.changed
            return result

        return super().decide(watched, wait=wait)


class Schedule(RuleBasedStateMachine):
    """Reservations, answers, refusals, losses and time in any order, held against what Groq would count."""

    LIMITS = ((RPM, 5, 60.0), (TPM, 4000, 60.0), (RPD, 40, 86400.0), (TPD, 30_000, 86400.0))
    TOLD = (TPM, RPD)  # in headers
    TIMEOUT, SLICE = 40, 0.01  # seconds
    refused_rightly = True

    def pools(self, secrets: list[str]) -> list[KeyPool]:
        return [KeyPool(secrets, 60, 5, storage=Watched(self.clock), timeout=self.TIMEOUT)]

    @initialize(keys=st.integers(1, 3))
    def begin(self, keys: int) -> None:
        self.clock = Clock()
        self.all = self.pools([f"gsk_{number}" for number in range(keys)])
        self.turn = 0
        self.truth = {key: {name: Bucket(limit, period) for name, limit, period in self.LIMITS} for key in range(1, 4)}
        self.cools_until = dict.fromkeys(range(1, 4), 0.0)
        self.undisturbed = True
        self.booked: list[Reservation] = []
        self.flying: list[tuple[Reservation, dict[str, Allowance]]] = []
        for _ in range(keys):  # what Groq's limits are is not known before the first answers
            self.send(take(self.pool, 100))
            self.succeed_at(0, {TPD: Allowance(30_000, self.truth[1][TPD].full_at - self.clock.now)})

    @property
    def pool(self) -> KeyPool:
        """One process after the other."""
        self.turn += 1
        return self.all[self.turn % len(self.all)]

    def send(self, reservation: Reservation) -> None:
        """It reaches Groq, who counts it."""
        now, number, told = self.clock.now, reservation.key.number, {}
        for name, bucket in self.truth[number].items():
            bucket.full_at = max(bucket.full_at, now)
            bucket.full_at += bucket.refill(reservation.tokens if name in (TPM, TPD) else 1)
            assert bucket.left(now) >= -1e-6 * bucket.limit, f"{name} exceeded"
            if name in self.TOLD:
                told[name] = Allowance(bucket.limit, bucket.full_at - now)
        self.flying.append((reservation, told))

    def fly(self, reservation: Reservation, fate: str) -> None:
        assert self.cools_until[reservation.key.number] <= self.clock.now, "a cooling lane was called"
        if fate == "sent":
            self.send(reservation)
        elif fate == "unsent":
            self.pool.settle(reservation)
        # else lost with its thread

    @rule(
        tokens=st.integers(1, 4000),
        bulk=st.booleans(),
        max_wait=st.floats(0, 30),
        fate=st.sampled_from(["sent", "sent", "unsent", "lost"]),
    )
    def arrive(self, tokens: int, bulk: bool, max_wait: float, fate: str) -> None:
        try:
            reservation = take(self.pool, tokens, bulk=bulk, max_wait=max_wait, put_off=40 if bulk else 0)
        except NoKeyReady as error:
            self.refused_rightly = error.ready_in > max_wait
            return
        if reservation.booked:
            self.booked.append(reservation)
        else:
            self.fly(reservation, fate)

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        until = self.clock.now + seconds
        while self.clock.now < until:
            # Who waits looks often, so that no slot is missed; a call ends in time, or it would count as lost.
            due = [self.pool.due_in(reservation) for reservation in self.booked]
            ends = [reservation.at + self.TIMEOUT - self.clock.now for reservation, _ in self.flying]
            self.clock.advance(max(self.SLICE, min([until - self.clock.now, *due, *ends])))
            for reservation, _ in self.flying[:]:
                if reservation.at + self.TIMEOUT <= self.clock.now:
                    self.succeed_at([each for each, _ in self.flying].index(reservation), {})
            self.look("sent")

    @rule(fate=st.sampled_from(["sent", "unsent", "lost"]))
    def look(self, fate: str) -> None:
        for reservation in list(self.booked):
            if self.clock.now > reservation.latest + 1 and not self.undisturbed:
                self.booked.remove(reservation)  # who waits gives up then, and it would expire
                self.pool.settle(reservation)
            elif self.pool.start(reservation):
                if self.undisturbed:
                    assert self.clock.now <= reservation.latest + self.SLICE, "a promise was broken"
                self.booked.remove(reservation)
                self.fly(reservation, fate)

    @precondition(lambda self: self.booked)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.pool.settle(self.booked.pop(data.draw(st.integers(0, len(self.booked) - 1))))

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        self.succeed_at(data.draw(st.integers(0, len(self.flying) - 1)), {})

    def succeed_at(self, place: int, more: dict[str, Allowance]) -> None:
        reservation, told = self.flying.pop(place)
        self.pool.settle(reservation, served(told | more))

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), seconds=st.floats(0.1, 90), dimension=st.sampled_from(["", RPM, TPM, TPD]))
    def refuse(self, data: st.DataObject, seconds: float, dimension: str) -> None:
        reservation, _ = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        number = reservation.key.number
        self.pool.settle(reservation, limited(seconds, dimension, admitted=True))  # counted above
        self.cools_until[number] = max(self.cools_until[number], self.clock.now + seconds)
        self.undisturbed = False

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        reservation, _ = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        self.pool.settle(reservation, failed(admitted=True))
        number = reservation.key.number
        self.cools_until[number] = max(self.cools_until[number], self.clock.now + 60)
        self.undisturbed = False

    @invariant()
    def no_booking_is_lost_and_no_bucket_is_beyond_its_size(self) -> None:
        if not hasattr(self, "all"):
            return
        lanes = state_of(self.pool).lanes.values()
        assert self.refused_rightly
        assert {booking.number for lane in lanes for booking in lane.queue} >= {each.number for each in self.booked}
        for lane in lanes:
            for bucket in lane.buckets.values():
                assert bucket.full_at <= self.clock.now + bucket.period + 1e-6

    def teardown(self) -> None:
        if not hasattr(self, "all"):
            return
        with ExitStack() as ends:
            for pool in self.all:
                ends.callback(getattr(pool.storage, "close", list))
            self.end()

    def end(self) -> None:
        self.undisturbed = False
        for reservation, _ in self.flying:
            self.pool.settle(reservation)
        self.flying.clear()
        self.look("unsent")
        self.clock.advance(100)
        self.look("unsent")
        assert not self.booked, "a booking never came"
        flights = [flight for lane in state_of(self.pool).lanes.values() for flight in lane.flights]
        assert all(flight.expires < self.clock.now for flight in flights)


class SharedSchedule(Schedule):
    """The same with two processes on one Redis."""

    url = ""

    def pools(self, secrets: list[str]) -> list[KeyPool]:
        redis.Redis.from_url(self.url).flushall()
        shared = [InStep(self.url, self.clock) for _ in range(2)]
        return [KeyPool(secrets, per_minute=5, storage=storage, timeout=self.TIMEOUT) for storage in shared]


TestSchedule = pytest.mark.live(Schedule.TestCase)
TestSchedule.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


class TestSharedSchedule(SharedSchedule.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(max_examples=8, stateful_step_count=20, deadline=None)

    @pytest.fixture(autouse=True)
    def _redis(self, redis_url: str) -> None:
        SharedSchedule.url = redis_url
