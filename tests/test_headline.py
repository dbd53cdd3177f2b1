"""What the operator is told: each state in which somebody found the page untrue, on the page and everywhere else."""

import logging
import re
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from conftest import KEYS, Clock, failed, limited, served
from flask.testing import FlaskClient
from groqsim import GroqSim, Limits, Trouble
from test_status import MODELS, WALL, Pool

from app import create_app
from promptlord.config import Config
from promptlord.errors import Cause
from promptlord.pool.quota import TPD, TPM
from promptlord.pool.state import Refusal
from promptlord.web.report import report

Serve = Callable[..., FlaskClient]
ONE = ("gsk_one",)
AUTHORIZED = {"Authorization": "Bearer t"}
DOWN = Trouble.status(503)


class Told(NamedTuple):
    """What each of those who tell says."""

    page: str
    status: dict[str, Any]
    health: str
    ready: int
    retry_after: int  # 0: unsaid

    @classmethod
    def by(cls, client: FlaskClient) -> "Told":
        ready = client.get("/ready")
        page = " ".join(re.sub(r"<[^>]*>", " ", client.get("/").text).split())
        after = ready.headers.get("Retry-After")
        health = client.get("/health").get_json()["status"]
        return cls(page, client.get("/status").get_json(), health, ready.status_code, int(after or 0))


def press(client: FlaskClient) -> int:
    return client.post("/enhance", json={"prompt": "write a poem"}).status_code


# The table: over the whole service


def test_before_anything_was_tried_nobody_knows(serve: Serve) -> None:
    told = Told.by(serve(keys=("your_key_here",)))

    assert told.status["status"] == "untried"
    assert told.status["headline"] == "Not tried yet"
    assert told.status["keys"][0]["state"] == "unknown"
    assert "Not tried yet" in told.page
    assert (told.health, told.ready) == ("healthy", 200)


def test_a_wrong_key_is_never_promised_to_come_back(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    client = serve(keys=("your_key_here",))
    assert press(client) == 503
    told = Told.by(client)

    assert told.status["status"] == "failing"
    assert told.status["headline"] == "Not working: no key is valid"
    assert told.status["advice"]["link"] == "https://console.groq.com/keys"
    assert told.status["keys"][0]["state"] == "refused"
    assert told.status["backIn"] is None
    assert "Not working: no key is valid" in told.page
    assert "back in" not in told.page
    assert "again in" not in told.page
    assert (told.health, told.ready) == ("exhausted", 503)
    assert re.search(r"⛔ 503 POST /enhance .*Invalid API key: create a new one", caplog.text)


def test_an_outage_of_groq_is_told_and_counted(sim: GroqSim, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    sim.order(DOWN, times=None)
    client = serve()
    assert [press(client) for _ in range(10)] == [502] * 10
    told = Told.by(client)

    assert told.status["headline"] == "Not working: Groq does not answer"
    assert told.status["lastError"]["reason"] == "Groq answered 503"
    assert told.status["hours"][-1]["failures"] == 10
    assert "Not working: Groq does not answer" in told.page
    assert "Groq answered 503" in told.page
    assert told.ready == 503
    assert caplog.text.count("⛔ 502 POST /enhance") == 5  # a few a second


def test_a_days_tokens_that_are_used_up_say_when_the_first_come_back(sim: GroqSim, serve: Serve, clock: Clock) -> None:
    client = serve(keys=ONE, models=MODELS)
    sim.models = MODELS
    sim.order(Trouble.named("rate_limit", retry_after=10_380, dimension="TPD"), times=None)
    press(client)
    told = Told.by(client)

    assert told.status["headline"] == "Not working: the day's tokens are used up"
    assert told.status["backIn"] == pytest.approx(10_380, abs=1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", told.status["backAt"])
    assert "in 2 h 53 min" in told.page
    assert (told.health, told.ready, told.retry_after) == ("exhausted", 503, 10_380)
    day = next(bucket for bucket in told.status["models"][0]["buckets"] if bucket["name"] == TPD)
    assert "left" in day


def test_a_model_that_rests_leaves_the_other_to_serve(sim: GroqSim, serve: Serve) -> None:
    sim.limits = Limits()
    client = serve()
    for key in KEYS:
        sim.order(Trouble.named("rate_limit", retry_after=600, dimension="TPM"), key=key)
    assert [press(client) for _ in range(2)] == [503, 200]  # three attempts, and each key has refused
    told = Told.by(client)

    assert told.status["status"] == "impaired"
    assert told.status["headline"] == "Working, but only with openai/gpt-oss-120b"
    assert "openai/gpt-oss-20b rests for 10 min: tokens per minute used up." in told.page
    assert (told.health, told.ready) == ("healthy", 200)


def test_one_revoked_key_of_three_calls_for_action(sim: GroqSim, serve: Serve) -> None:
    sim.order(Trouble.named("invalid_api_key"), key="gsk_two", times=None)
    client = serve()
    assert [press(client) for _ in range(3)] == [200] * 3
    told = Told.by(client)

    assert told.status["status"] == "impaired"
    assert told.status["headline"] == "Working, but key #2 was refused by Groq: replace it"
    assert told.status["keys"][1]["state"] == "refused"
    assert told.status["headline"] in told.page
    assert (told.health, told.ready) == ("healthy", 200)


def test_each_refused_request_leaves_a_line_and_is_counted(
    serve: Serve, sim: GroqSim, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client = serve(client_limits="1 per 2 seconds;2 per day")
    foreign = {"Origin": "https://elsewhere.example"}
    asked = [client.post("/enhance", json={"prompt": "write a poem"}, headers=foreign).status_code]
    for wait in (0, 0, 3, 3):
        clock.advance(wait)
        asked.append(press(client))
        sim.order(Trouble.named("rate_limit", retry_after=50), times=None)

    assert asked == [403, 200, 429, 503, 402]
    lines = re.findall(r"⛔ (\d+) POST /enhance after 0.00 s: \S.*", caplog.text)
    assert lines == ["403", "429", "503", "402"]
    assert client.get("/status").get_json()["hours"][-1]["refusals"] == 4


def test_the_button_tells_what_groq_says_of_each_key(sim: GroqSim, serve: Serve) -> None:
    sim.order(Trouble.named("invalid_api_key"), key="gsk_three", times=None)
    client = serve()
    assert client.post("/check").status_code == 303
    told = Told.by(client)

    assert [key["state"] for key in told.status["keys"]] == ["ready", "ready", "refused"]
    assert [key["finding"] for key in told.status["keys"]] == ["works", "works", "revoked (401): create a new one"]
    assert told.status["headline"] == "Not tried yet, but key #3 was refused by Groq: replace it"
    assert told.status["checked"] == 0


def test_the_check_teaches_organizations_and_limits_before_the_first_press() -> None:
    with GroqSim({"gsk_one": "org_a", "gsk_two": "org_a", "gsk_three": "org_b"}, Limits(tpm=12_000)) as sim:
        client = create_app(Config(keys=tuple(KEYS), base_url=sim.url)).test_client()
        client.post("/check")
        told = client.get("/status").get_json()
        charged = [call.status for call in sim.calls if call.method == "POST"]

    assert [key["organization"] for key in told["keys"]] == ["A", "A", "B"]
    assert next(b for b in told["models"][0]["buckets"] if b["name"] == TPM)["text"] == "24,000 of 24,000 left"
    assert told["nextMinute"] > 0
    assert charged == [413] * 3


def test_a_check_that_finds_no_fault_leaves_one_thing_to_do(serve: Serve) -> None:
    client = serve()
    asked = client.get("/status").get_json()["advice"]["text"]
    client.post("/check")
    told = client.get("/status").get_json()

    assert asked.startswith("Ask Groq about each key")
    assert (told["status"], told["headline"]) == ("untried", "Not tried yet")
    assert told["advice"]["text"].startswith("Groq accepts every key")
    assert told["advice"]["command"].startswith("curl http://localhost/enhance ")


def test_the_button_asks_once_in_ten_seconds_and_knows_whom_it_has_asked(
    sim: GroqSim, serve: Serve, clock: Clock
) -> None:
    client = serve()
    for wait in (0, 9, 1):
        clock.advance(wait)
        client.post("/check")

    assert sorted(call.path.rpartition("/")[2] for call in sim.calls) == ["completions"] * 3 + ["models"] * 6


def test_who_has_a_paid_plan_is_asked_for_many_tokens_once(clock: Clock) -> None:
    with GroqSim(KEYS, Limits(1000, 250_000, 500_000, None)) as sim:
        client = create_app(Config(keys=tuple(KEYS), base_url=sim.url), clock).test_client()
        for _ in range(2):
            client.post("/check")
            clock.advance(10)

        assert [call.status for call in sim.calls if call.method == "POST"] == [200] * 3
        assert sum(call.method == "GET" for call in sim.calls) == 6


@pytest.mark.parametrize("fault", ["rate_limit", "bad_gateway_html", "cloudflare_1010", "reset", "garbage"])
def test_a_check_that_says_nothing_of_the_key_changes_nothing(fault: str, sim: GroqSim, serve: Serve) -> None:
    sim.order(Trouble.named(fault), times=3)
    client = serve()
    client.post("/check")

    assert client.get("/health").get_json()["activeKeys"] == 3
    assert client.get("/health").get_json()["failedKeys"] == []
    assert client.get("/status").get_json()["status"] == "untried"


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://elsewhere.example"}])
def test_no_other_page_presses_the_button(headers: dict[str, str], sim: GroqSim, serve: Serve) -> None:
    assert serve().post("/check", headers=headers).status_code == 403
    assert sim.calls == []


def test_a_key_that_works_again_is_called_at_once(sim: GroqSim, serve: Serve) -> None:
    client = serve(keys=ONE)
    sim.order(Trouble.named("invalid_api_key"))
    assert press(client) == 503

    client.post("/check")
    assert press(client) == 200


def test_an_outage_is_noticed_by_v1_too_but_not_by_who_asks_for_another_model(sim: GroqSim, serve: Serve) -> None:
    client = serve(access_tokens=("t",), max_attempts=1)

    def ask(model: str) -> dict[str, Any]:
        chat = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
        client.post("/v1/chat/completions", json=chat, headers=AUTHORIZED)
        return dict(client.get("/status", headers=AUTHORIZED).get_json())

    assert ask("nobody-has-it")["status"] == "untried"
    sim.order(DOWN, times=None)
    told = ask("openai/gpt-oss-20b")
    assert told["headline"] == "Not working: Groq does not answer"
    assert told["hours"][-1]["failures"] == 0  # of the button


def test_who_hangs_up_is_neither_refused_nor_failed(serve: Serve) -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    client = serve()
    response = client.post("/enhance", json={"prompt": "hello"}, environ_overrides={"gunicorn.socket": ours})
    ours.close()

    assert response.status_code == 499
    last = client.get("/status").get_json()["hours"][-1]
    assert (last["enhancements"], last["refusals"], last["failures"]) == (0, 0, 0)


# What decides


def story(pool: Pool) -> tuple[str, str]:
    told = report(pool.snapshot(), MODELS, 10.0, WALL)
    return told["status"], told["headline"]


def test_a_single_failure_among_successes_is_no_outage(clock: Clock) -> None:
    pool = Pool(clock)
    pool.settle(pool.ask(), served())
    assert story(pool) == ("working", "Working")

    pool.unserved(Cause.GROQ, "Groq answered 500", press=True)
    assert story(pool) == ("impaired", "Working, but the last request failed")
    for _ in range(2):
        pool.unserved(Cause.GROQ, "Groq answered 500", press=True)
    assert story(pool) == ("failing", "Not working: Groq does not answer")

    pool.settle(pool.ask(), served())
    assert story(pool) == ("working", "Working")


def test_an_old_outage_says_nothing_of_now(clock: Clock) -> None:
    pool = Pool(clock)
    pool.unserved(Cause.NETWORK, "refused", press=True)
    assert story(pool) == ("failing", "Not working: Groq refuses this server's network")

    clock.advance(601)
    assert story(pool) == ("impaired", "It did not work when last tried")


@pytest.mark.parametrize("cause", [Cause.BUSY, Cause.REQUEST])
def test_what_the_client_can_mend_is_no_outage(cause: Cause, clock: Clock) -> None:
    pool = Pool(clock)
    pool.settle(pool.ask(), served())
    for _ in range(5):
        pool.unserved(cause, "why", press=True)

    assert story(pool) == ("working", "Working")


def test_failures_of_an_hour_that_is_over_still_count(clock: Clock) -> None:
    clock.now = 3599.0
    pool = Pool(clock)
    pool.settle(pool.ask(), served())
    pool.unserved(Cause.GROQ, "why", press=True)
    clock.advance(2)
    for _ in range(2):
        pool.unserved(Cause.GROQ, "why", press=True)

    assert story(pool)[0] == "failing"


def test_a_minutes_tokens_that_are_used_up_are_no_failure(clock: Clock) -> None:
    pool = Pool(clock, per_minute=1)
    for model in MODELS:
        pool.settle(pool.ask(models=[model]), served())

    assert story(pool) == ("impaired", "Busy: no key has room now")


def test_a_short_rest_of_the_first_model_is_no_news(clock: Clock) -> None:
    pool = Pool(clock)
    pool.settle(pool.ask(), served())
    pool.settle(pool.ask(models=["m1"]), limited(9, TPM))
    assert story(pool) == ("working", "Working")

    pool.settle(pool.ask(models=["m1"], max_wait=9), limited(11, TPM))
    assert story(pool) == ("impaired", "Working, but only with m2")


def test_keys_that_are_refused_say_nothing_of_the_others(clock: Clock) -> None:
    pool = Pool(clock, keys=2)
    pool.settle(pool.ask(), failed(refusal=Refusal.REVOKED))
    pool.unserved(Cause.KEYS, "Invalid API key", press=True)
    assert story(pool) == ("impaired", "Not tried yet, but key #1 was refused by Groq: replace it")

    for model in MODELS:
        pool.settle(pool.ask(models=[model]), limited(90, TPM))
    told = report(pool.snapshot(), MODELS, 10.0, WALL)
    assert told["headline"] == "Busy: no key has room now"
    assert told["notes"] == ["Also: key #1 was refused by Groq: replace it."]


def test_a_check_that_groq_answers_ends_an_outage(sim: GroqSim, serve: Serve) -> None:
    client = serve()
    sim.order(DOWN, times=3)
    assert press(client) == 502
    assert client.get("/ready").status_code == 503

    client.post("/check")
    assert client.get("/ready").status_code == 200
    assert client.get("/status").get_json()["lastError"]["reason"] == "Groq answered 503"


def test_all_that_is_wrong_is_told(clock: Clock) -> None:
    pool = Pool(clock, keys=4)
    for _ in range(3):
        pool.settle(pool.ask(), failed(refusal=Refusal.RESTRICTED))
    pool.settle(pool.ask(), served())
    pool.settle(pool.ask(models=["m1"]), limited(90, TPM))

    told = report(pool.snapshot(), MODELS, 10.0, WALL)
    assert told["headline"] == "Working, but keys #1, #2 and #3 were refused by Groq: replace them"
    assert told["notes"] == ["m1 rests for 1 min 30 s: limit.", "Also: only with m2."]


def test_a_refused_key_stays_refused_when_its_cooldown_is_over(clock: Clock) -> None:
    pool = Pool(clock)
    pool.settle(pool.ask(), failed(refusal=Refusal.REVOKED))
    clock.advance(10_000)
    assert story(pool) == ("failing", "Not working: no key is valid")

    pool.settle(pool.ask(), served())
    assert story(pool) == ("working", "Working")
