"""Attempts over real HTTP: which key is asked next, who pays, what the client is told, how long it takes."""

import json
import logging
import random
import threading
from contextlib import closing
from typing import Any

import pytest
from conftest import KEYS, Clock
from groqsim import GroqSim, Limits, Trouble

from keypool import KeyPool
from promptlord import errors
from promptlord.groq.admission import Admission
from promptlord.groq.attempts import Upstream
from promptlord.groq.transport import Transport
from promptlord.pool.state import Demand
from promptlord.web.enhance import MORE_ROOM, Enhancement
from promptlord.web.openai import PassThrough

MODELS = ("openai/gpt-oss-20b", "openai/gpt-oss-120b")
JSON = {"Content-Type": "application/json"}
LONGEST = "ж" * 5000  # for which there is not three times the room
NUMBERS = {secret: number for number, secret in enumerate(KEYS, 1)}


class Leaver:
    """A client that has hung up."""

    def fileno(self) -> int:
        return -1

    def disconnected(self) -> bool:
        return True


class Service:
    """A pool and its upstream on the test's clock, on which waiting takes no time."""

    def __init__(
        self, sim: GroqSim, clock: Clock, keys: int = 3, per_minute: int = 0, in_flight: int = 60, **settings: Any
    ) -> None:
        limits: dict[str, Any] = {"max_attempts": 3, "timeout": 1000.0, "max_wait": 0.0} | settings
        self.sim = sim
        self.pool = KeyPool(list(sim.keys)[:keys], 60, per_minute, clock)
        admission = Admission(in_flight)
        self.upstream = Upstream(
            self.pool, Transport(sim.url, 10), admission, clock=clock, sleep=clock.advance, **limits
        )

    def fetch(self, prompt: str = "a prompt", models: tuple[str, ...] = MODELS[:1], **kwargs: Any) -> str:
        return self.upstream.fetch(Enhancement.of(prompt, models), **kwargs)

    def stream(self) -> int:
        """Begin a stream of ``/v1``, and leave it; return its status."""
        body = json.dumps({"model": MODELS[0], "stream": True, "messages": [{"role": "user", "content": "hello"}]})
        call = PassThrough("POST", Enhancement.path, JSON, Demand(MODELS[:1], 100, bulk=True), body.encode())
        with closing(self.upstream.fetch(call)) as answer:
            return answer.status

    def asked(self) -> list[int]:
        """The keys of the calls that reached Groq since the last look."""
        numbers = [NUMBERS[call.key] for call in self.sim.calls]
        self.sim.forget()
        return numbers

    def failed(self) -> dict[int, int]:
        return {entry["keyIndex"]: entry["failCount"] for entry in self.pool.health(MODELS)["failedKeys"]}


@pytest.fixture
def service(sim: GroqSim, clock: Clock) -> Service:
    return Service(sim, clock)


def test_the_rotation_of_the_readme(service: Service, clock: Clock) -> None:
    service.sim.order(Trouble.named("rate_limit", retry_after=60), key="gsk_one")
    asked = []
    for _ in range(5):
        service.fetch()
        asked.append(service.asked())
    assert asked == [[1, 2], [2], [3], [2], [3]]

    clock.advance(60)
    service.fetch()
    assert service.asked() == [1]


def test_a_fresh_start_begins_with_the_first_key(service: Service) -> None:
    for _ in range(5):
        service.fetch()

    assert service.asked() == [1, 2, 3, 1, 2]


ANOTHER_KEY_HELPS = [
    Trouble.named("rate_limit", retry_after=2),
    Trouble.named("organization_restricted"),
    Trouble.named("blocked_api_access"),
    Trouble.named("spend_limit_reached"),
    Trouble.named("invalid_api_key"),
    Trouble.named("model_permission_blocked_org"),
    Trouble.named("capacity_exceeded"),
    Trouble.named("over_capacity"),
    Trouble.named("bad_gateway_html"),
    Trouble.named("empty"),
    Trouble.status(500),
    Trouble.reset(),
    Trouble.close(),
    Trouble.truncate(),
    Trouble.garbage(),
    Trouble.content(""),
    Trouble.content("**Enhanced prompt:**"),
]


@pytest.mark.parametrize("fault", ANOTHER_KEY_HELPS)
def test_the_next_key_answers_and_the_failed_one_pays(service: Service, fault: Trouble) -> None:
    service.sim.order(fault, key="gsk_one")

    assert service.fetch()
    assert service.asked() == [1, 2]
    assert service.failed() == {1: 1}


def test_one_that_meets_less_trouble_than_it_has_attempts_is_served(clock: Clock) -> None:
    more = [Trouble.named(name) for name in ("model_not_found", "length", "hangup")]
    dice = random.Random(7)
    with GroqSim({f"gsk_{number}": f"org_{number}" for number in range(10)}, clock=clock) as sim:
        service = Service(sim, clock, keys=10)
        service.fetch()
        for _ in range(150):
            clock.advance(3600)  # after which no key is cooling any more
            for trouble in dice.choices(ANOTHER_KEY_HELPS + more, k=dice.randrange(3)):
                sim.order(trouble)

            if dice.random() < 0.5:
                assert service.fetch(dice.choice(["short", LONGEST]), MODELS[: dice.randint(1, 2)])
            else:
                assert service.stream() == 200
            sim.clear()


@pytest.mark.parametrize(
    "name", ["json_validate_failed", "context_length_exceeded", "access_denied", "cloudflare_1010"]
)
def test_what_no_key_could_mend_is_answered_at_once(service: Service, name: str) -> None:
    service.sim.order(Trouble.named(name), key="gsk_one")

    with pytest.raises(errors.Unavailable):
        service.fetch()
    assert service.asked() == [1]
    assert service.failed() == {}


@pytest.mark.parametrize("fault", [Trouble.named("over_capacity"), Trouble.reset(), Trouble.garbage()])
def test_groqs_own_trouble_never_empties_the_pool(service: Service, fault: Trouble) -> None:
    service.sim.order(fault, times=None)
    for _ in range(4):
        with pytest.raises(errors.Unavailable):
            service.fetch()
    assert service.failed() == {}

    service.sim.clear()
    assert service.fetch()


def test_an_outage_costs_no_allowance(sim: GroqSim, clock: Clock) -> None:
    service = Service(sim, clock, per_minute=2)
    sim.order(Trouble.named("over_capacity"), times=None)
    for _ in range(20):
        with pytest.raises(errors.Unavailable):
            service.fetch()

    sim.clear()
    assert service.fetch()


def test_a_key_that_serves_with_another_model_does_not_pay(sim: GroqSim, clock: Clock) -> None:
    service = Service(sim, clock, keys=1)
    sim.order(Trouble.named("over_capacity"), model=MODELS[0], times=None)

    assert service.fetch(models=MODELS)
    assert service.failed() == {}


def test_what_did_not_reach_groq_costs_no_allowance(sim: GroqSim, clock: Clock) -> None:
    service = Service(sim, clock, per_minute=1)
    sim.refuse()
    for _ in range(5):
        with pytest.raises(errors.Unavailable, match="unreachable"):
            service.fetch()

    sim.accept()
    assert service.fetch()


def test_groq_unreachable_is_said_and_nobody_pays(service: Service) -> None:
    service.sim.refuse()
    with pytest.raises(errors.Unavailable, match="unreachable"):
        service.fetch()
    assert service.failed() == {}

    service.sim.accept()
    assert service.fetch()


def test_at_most_three_attempts(service: Service) -> None:
    service.sim.order(Trouble.named("invalid_api_key"), times=None)

    with pytest.raises(errors.Exhausted) as error:
        service.fetch()
    assert service.asked() == [1, 2, 3]
    assert error.value.ready_in == pytest.approx(60)

    with pytest.raises(errors.Exhausted):
        service.fetch()
    assert service.asked() == []  # a key that is cooling is never called


def test_one_key_is_asked_once(sim: GroqSim, clock: Clock) -> None:
    service = Service(sim, clock, keys=1)
    sim.order(Trouble.named("over_capacity"), times=None)

    with pytest.raises(errors.Unavailable):
        service.fetch()
    assert service.asked() == [1]


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 3, 1)])
def test_groqs_trouble_is_told_rather_than_a_revoked_key_whichever_came_last(
    sim: GroqSim, clock: Clock, order: tuple[int, ...]
) -> None:
    service = Service(sim, clock)
    for number, trouble in zip(order, ("over_capacity", "internal_error", "invalid_api_key"), strict=True):
        sim.order(Trouble.named(trouble), key=list(KEYS)[number - 1])

    with pytest.raises(errors.Unavailable, match="Groq has trouble"):
        service.fetch()
    assert service.asked() == [1, 2, 3]


def test_groqs_trouble_is_told_though_no_key_is_left_to_try(sim: GroqSim, clock: Clock) -> None:
    service = Service(sim, clock, keys=2)
    sim.order(Trouble.named("over_capacity"), key="gsk_one")
    sim.order(Trouble.named("invalid_api_key"), key="gsk_two")

    with pytest.raises(errors.Unavailable, match="Groq has trouble"):
        service.fetch()


@pytest.mark.parametrize(
    ("name", "error"), [("request_too_large", errors.TooLarge), ("bad_request", errors.Unavailable)]
)
def test_what_ends_a_request_is_told_whatever_came_before(service: Service, name: str, error: type[Exception]) -> None:
    service.sim.order(Trouble.named("internal_error"))
    service.sim.order(Trouble.named(name), times=None)

    with pytest.raises(error) as raised:
        service.fetch()
    assert "Groq has trouble" not in str(raised.value)
    assert service.failed() == {}


@pytest.mark.live
def test_silence_is_not_tried_again(sim: GroqSim) -> None:
    pool = KeyPool(list(KEYS), 60)
    service = Upstream(pool, Transport(sim.url, 10), Admission(9), max_attempts=3, timeout=0.3, max_wait=0)
    sim.order(Trouble.stall(5))

    with pytest.raises(errors.DeadlineExceeded):
        service.fetch(Enhancement.of("a prompt", MODELS))
    assert len(sim.calls) == 1
    assert pool.health(MODELS)["failedKeys"] == []


def test_a_connection_that_was_just_closed_costs_nobody_anything(service: Service) -> None:
    service.sim.order(Trouble.hangup(), key="gsk_one")
    service.fetch()

    service.fetch()

    assert service.asked() == [1, 2]
    assert service.failed() == {}


def test_a_model_that_every_organization_asked_lacks_is_replaced_with_one_warning(
    sim: GroqSim, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    sim.order(Trouble.named("model_not_found"), model=MODELS[0], times=None)

    for _ in range(3):
        assert service.fetch(models=MODELS)

    assert [call.model for call in sim.calls] == [*MODELS[:1] * 2, *MODELS[1:] * 3]
    assert len([record for record in caplog.records if "GROQ_MODELS" in record.message]) == 1
    assert service.failed() == {}


def test_when_every_model_is_gone_the_setting_is_named_and_all_are_tried_again(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    service.sim.order(Trouble.named("model_decommissioned"), times=None)

    for _ in range(2):
        with pytest.raises(errors.Unavailable, match="does not serve"):
            service.fetch(models=MODELS)
    assert len([record for record in caplog.records if "Take it out of GROQ_MODELS" in record.message]) == 2

    service.sim.clear()
    assert service.fetch(models=MODELS)


def test_a_completion_cut_off_is_asked_for_with_more_room_and_nobody_pays(service: Service) -> None:
    service.sim.order(Trouble.length("You are an"))

    assert service.fetch()
    first, second = (call.reserve for call in service.sim.calls)
    assert second == MORE_ROOM * first
    assert service.failed() == {}


@pytest.mark.parametrize("prompt", ["short", LONGEST])
def test_one_cut_off_with_the_most_room_goes_on_with_the_next_key_and_the_failed_one_pays(
    service: Service, prompt: str
) -> None:
    service.sim.order(Trouble.length("You are an"), times=2)

    assert service.fetch(prompt)
    assert service.asked() == [1, 2, 3]
    assert service.failed() == {2: 1}


@pytest.mark.parametrize("prompt", ["short", LONGEST])
@pytest.mark.parametrize("fault", [Trouble.length("You are an"), Trouble.content("")])
def test_a_completion_cut_off_or_empty_to_the_last_attempt_is_no_answer_and_nobody_pays(
    service: Service, fault: Trouble, prompt: str
) -> None:
    service.sim.order(fault, times=None)

    with pytest.raises(errors.Unavailable):
        service.fetch(prompt)
    assert service.asked() == [1, 2, 3]
    assert service.failed() == {}


def test_the_only_key_goes_on_with_another_model_when_cut_off_again(sim: GroqSim, clock: Clock) -> None:
    service = Service(sim, clock, keys=1)
    sim.order(Trouble.length("You are an"), times=2)

    assert service.fetch(models=MODELS)
    assert [call.model for call in sim.calls] == [MODELS[0], MODELS[0], MODELS[1]]


def test_the_only_key_is_not_asked_again_with_the_same_room(sim: GroqSim, clock: Clock) -> None:
    service = Service(sim, clock, keys=1)
    sim.order(Trouble.length("You are an"), times=None)

    with pytest.raises(errors.Unavailable, match="cut off"):
        service.fetch()
    assert service.asked() == [1, 1]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_what_was_mended_is_told_only_if_nothing_came_after(sim: GroqSim, clock: Clock, count: int) -> None:
    service = Service(sim, clock, max_attempts=count)
    sim.order(Trouble.length("You are an"), key="gsk_one", times=None)
    sim.order(Trouble.named("invalid_api_key"), times=None)

    with pytest.raises(errors.Unavailable if count == 1 else errors.Exhausted):
        service.fetch()
    assert service.asked() == [1, 2, 3][:count]


def test_more_room_for_a_long_prompt_still_fits_into_a_minutes_tokens() -> None:
    roomier = Enhancement.of("ж" * 2500, MODELS).roomier()

    assert roomier is not None
    assert roomier.demand.tokens <= 8000


@pytest.mark.parametrize("keys", [1, 2])
def test_one_cut_off_for_whose_second_call_there_is_no_room_is_told_when_there_will_be(clock: Clock, keys: int) -> None:
    with GroqSim(KEYS, Limits(tpm=1000), clock=clock) as sim:
        service = Service(sim, clock, keys=keys)
        sim.order(Trouble.length("You are an"), key=[*KEYS][keys - 1])
        sim.order(Trouble.named("internal_error"))

        with pytest.raises(errors.Exhausted) as error:
            service.fetch()

        assert len(service.asked()) == keys
        assert 0 < error.value.ready_in <= 60


def test_one_cut_off_that_comes_back_asks_for_more_room_at_once(clock: Clock) -> None:
    with GroqSim(KEYS, Limits(tpm=1400), clock=clock) as sim:
        service = Service(sim, clock, keys=1)
        sim.order(Trouble.length("You are an"), times=1)
        with pytest.raises(errors.Exhausted) as error:
            service.fetch()
        clock.advance(error.value.ready_in)

        assert service.fetch()

        first, second = (call.reserve for call in sim.calls)
        assert second == MORE_ROOM * first


def test_a_request_too_large_is_sent_once_more_with_a_smaller_reserve(clock: Clock) -> None:
    with GroqSim(KEYS, limits=Limits(tpm=2600)) as sim:
        service = Service(sim, clock)

        assert service.fetch("words of six letters " * 200)

        assert [call.status for call in sim.calls] == [413, 200]
        assert service.failed() == {}


def test_one_that_can_not_fit_is_refused_with_a_clear_error(clock: Clock) -> None:
    with GroqSim(KEYS, limits=Limits(tpm=500)) as sim:
        service = Service(sim, clock)

        with pytest.raises(errors.TooLarge):
            service.fetch("words of six letters " * 200)
        assert [call.status for call in sim.calls] == [413]
        assert service.failed() == {}


def test_the_logs_lines_are_exact_and_give_nothing_away(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    service.sim.order(Trouble.named("rate_limit", retry_after=2), key="gsk_one")
    answer = service.fetch("my secret prompt")

    assert [record.getMessage() for record in caplog.records if record.name == "promptlord"] == [
        "❌ Groq API Error (Key #1): Rate limit exceeded on requests per minute",
        "⚠️  API Key #1 marked as failed (fail count: 1)",
        "✅ Request successful with API Key #2",
    ]
    for secret in (*KEYS, *KEYS.values(), "my secret prompt", answer):
        assert secret not in caplog.text


# Waiting


def test_a_request_waits_for_its_slot_and_is_served(sim: GroqSim, clock: Clock) -> None:
    service = Service(sim, clock, keys=1, per_minute=1, max_wait=60)
    service.fetch()
    before = clock.now

    assert service.fetch()

    assert clock.now - before == pytest.approx(60, abs=0.01)


def test_one_that_would_wait_too_long_is_refused_at_once_with_the_truth(sim: GroqSim, clock: Clock) -> None:
    service = Service(sim, clock, keys=1, per_minute=1, max_wait=59)
    service.fetch()
    before = clock.now

    with pytest.raises(errors.Exhausted) as error:
        service.fetch()
    assert clock.now == before
    assert error.value.ready_in == pytest.approx(60)

    clock.advance(error.value.ready_in + 0.001)
    assert service.fetch()


def test_one_that_comes_back_when_told_is_served_though_others_came_meanwhile(sim: GroqSim, clock: Clock) -> None:
    service = Service(sim, clock, keys=1, per_minute=1, max_wait=59)
    service.fetch()
    with pytest.raises(errors.Exhausted) as error:
        service.fetch("mine")
    clock.advance(error.value.ready_in)
    service.fetch("another's")

    assert service.fetch("mine")

    with pytest.raises(errors.Exhausted):
        service.fetch("mine")  # as any other, from now on


def test_who_comes_back_is_served_in_time_or_told_at_once(sim: GroqSim, clock: Clock) -> None:
    service = Service(sim, clock, keys=1, per_minute=2, timeout=30, max_wait=10)
    service.fetch("1"), service.fetch("2")
    with pytest.raises(errors.Exhausted) as error:
        service.fetch("mine")
    clock.advance(error.value.ready_in)
    service.fetch("another's")
    before = clock.now

    with pytest.raises(errors.Exhausted):  # its slot is 30 s away: too late for a call
        service.fetch("mine")
    assert clock.now == before


def test_one_that_comes_back_too_early_is_as_any_other(sim: GroqSim, clock: Clock) -> None:
    service = Service(sim, clock, keys=1, per_minute=1, max_wait=10)
    service.fetch()

    for _ in range(2):
        with pytest.raises(errors.Exhausted):
            service.fetch("mine")
        clock.advance(30)


def test_after_a_refusal_the_only_key_is_waited_for(sim: GroqSim, clock: Clock) -> None:
    service = Service(sim, clock, keys=1, max_wait=10)
    sim.order(Trouble.named("rate_limit", retry_after=2))

    assert service.fetch()
    assert service.asked() == [1, 1]


def test_a_client_that_leaves_gives_its_booking_back(sim: GroqSim, clock: Clock) -> None:
    service = Service(sim, clock, keys=1, per_minute=1, max_wait=60)
    service.fetch()

    with pytest.raises(errors.ClientDisconnected):
        service.fetch(client=Leaver())

    assert service.pool.ready_in(Demand(MODELS[:1])) == pytest.approx(60, abs=1)
    assert len(service.asked()) == 1


def test_one_whose_slot_moves_out_of_reach_is_told(sim: GroqSim, clock: Clock) -> None:
    service = Service(sim, clock, keys=1, per_minute=1, max_wait=60)
    service.fetch()

    def spoil(seconds: float) -> None:
        clock.advance(seconds)
        (lane,) = service.pool.storage.look(lambda state, now: state.lanes.values())
        lane.cool(clock.now + 600, "")

    service.upstream._sleep = spoil

    with pytest.raises(errors.Exhausted) as error:
        service.fetch()
    assert error.value.ready_in == pytest.approx(600, abs=1)


def test_the_second_model_is_used_before_anybody_waits(sim: GroqSim, clock: Clock) -> None:
    service = Service(sim, clock, keys=1, per_minute=1, max_wait=60)

    for _ in range(2):
        service.fetch(models=MODELS)

    assert [call.model for call in sim.calls] == list(MODELS)


def occupied(service: Service, clock: Clock, count: int, hold: threading.Event) -> list[threading.Thread]:
    """Have ``count`` requests wait for their slots until ``hold`` is set."""
    waiting = threading.Semaphore(0)

    def sleep(seconds: float) -> None:
        waiting.release()
        hold.wait()
        clock.advance(seconds)

    service.upstream._sleep = sleep
    threads = [threading.Thread(target=service.fetch, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
        assert waiting.acquire(timeout=10)
    return threads


def test_those_who_wait_leave_room_for_those_who_could_be_served_at_once(sim: GroqSim, clock: Clock) -> None:
    service = Service(sim, clock, keys=1, per_minute=1, max_wait=600, in_flight=4)
    service.fetch()
    hold = threading.Event()
    threads = occupied(service, clock, 3, hold)

    with pytest.raises(errors.Exhausted) as error:
        service.fetch()
    assert error.value.ready_in == pytest.approx(240, abs=1)
    assert service.fetch(models=MODELS[1:])

    hold.set()
    for thread in threads:
        thread.join()


def test_more_than_the_threads_can_bear_are_refused_at_once(sim: GroqSim, clock: Clock) -> None:
    service = Service(sim, clock, keys=1, per_minute=1, max_wait=600, in_flight=1)
    service.fetch()
    hold = threading.Event()
    threads = occupied(service, clock, 1, hold)

    with pytest.raises(errors.Exhausted, match="Too many"):
        service.fetch()

    hold.set()
    for thread in threads:
        thread.join()
