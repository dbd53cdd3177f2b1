"""What /status and the page show of the pool, and what browsers are told about them."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import KEYS, Clock, failed, served
from flask.testing import FlaskClient
from groqsim import GroqSim, Limits, Trouble

from app import create_app
from keypool import KeyPool
from promptlord.config import Config
from promptlord.errors import Cause
from promptlord.groq.policy import Fault, Verdict
from promptlord.pool.quota import RPD, RPM, TPD, TPM, Allowance
from promptlord.pool.state import Demand, Outcome, Refusal, Reservation
from promptlord.web.access import OPEN_ENDPOINTS
from promptlord.web.headline import spell
from promptlord.web.report import USUAL, report

MODELS = ("m1", "m2")
WALL = 1_796_000_000.0
FULL = {TPM: Allowance(8000, 0), RPD: Allowance(1000, 0)}
Serve = Callable[..., FlaskClient]


class Pool(KeyPool):
    """A pool with few keys, described as the page would."""

    def __init__(self, clock: Clock, keys: int = 1, per_minute: int = 30) -> None:
        super().__init__([f"gsk_secret{number}" for number in range(keys)], 60, per_minute, clock)

    def ask(self, tokens: int = 0, models: Sequence[str] = MODELS, max_wait: float = 0.0) -> Reservation:
        return self.reserve(Demand(models, tokens), max_wait=max_wait)

    def report(self) -> dict[str, Any]:
        return report(self.snapshot(), MODELS, 10.0, WALL)

    def key(self, number: int = 1) -> dict[str, Any]:
        return dict(self.report()["keys"][number - 1])

    def bucket(self, name: str, model: str = "m1") -> dict[str, Any]:
        buckets = next(entry["buckets"] for entry in self.report()["models"] if entry["name"] == model)
        return dict(next(entry for entry in buckets if entry["name"] == name))


def refused(seconds: float, name: str) -> Outcome:
    return Verdict(Fault.LIMIT, "Rate limit exceeded", seconds, dimension=name).outcome({})


def test_a_key_that_cools_says_why_and_when_it_is_back(clock: Clock) -> None:
    pool = Pool(clock)
    pool.settle(pool.ask(), failed("Invalid API key"))
    clock.advance(34)

    assert pool.key()["state"] == "cooling"
    assert pool.key()["pauses"] == [
        {"model": "", "reason": "Invalid API key", "then": "tried again in", "seconds": 26.0}
    ]

    clock.advance(26)
    assert pool.key()["state"] == "unknown"
    assert pool.key()["pauses"] == []

    pool.settle(pool.ask(), served())
    assert pool.key()["state"] == "ready"


def test_a_key_whose_limit_is_used_up_for_one_model_is_partly_ready(clock: Clock) -> None:
    pool = Pool(clock)
    pool.settle(pool.ask(), refused(26, TPM))

    assert pool.key()["state"] == "partly ready"
    assert pool.key()["pauses"] == [
        {"model": "m1", "reason": "tokens per minute used up", "then": "back in", "seconds": 26.0}
    ]

    pool.settle(pool.ask(), refused(13, TPM))
    assert pool.key()["state"] == "cooling"
    assert pool.report()["readyIn"] == 13


def test_a_key_with_no_room_left_is_used_up_without_any_refusal(clock: Clock) -> None:
    pool = Pool(clock, per_minute=1)
    for _ in MODELS:
        pool.settle(pool.ask(), served())

    assert pool.key()["state"] == "used up"
    assert {(pause["reason"], pause["seconds"]) for pause in pool.key()["pauses"]} == {
        ("requests per minute used up", 60)
    }


def test_requests_failures_and_waits_are_counted_since_the_start(clock: Clock) -> None:
    pool = Pool(clock, keys=2, per_minute=1)
    for _ in range(4):
        pool.settle(pool.ask(), served())
    clock.advance(7)
    pool.ask(max_wait=60)
    pool.settle(pool.ask(max_wait=120), failed("failed"))

    report = pool.report()
    assert (report["requests"], report["failures"], report["waiting"], report["uptime"]) == (4, 1, 1, 7)
    assert [key["requests"] for key in report["keys"]] == [2, 2]


def test_what_is_left_adds_up_and_what_is_unknown_is_believed_to_be_as_large(clock: Clock) -> None:
    pool = Pool(clock, keys=3)
    assert pool.bucket(RPM) == {
        "name": RPM,
        "left": 90,
        "limit": 90,
        "level": "good",
        "text": "90 of 90 left",
    }
    assert (pool.bucket(TPM)["left"], pool.bucket(TPM)["level"]) == (None, "unknown")
    assert pool.bucket(TPM)["text"] == "known after the first answer"

    pool.settle(pool.ask(500), served({TPM: Allowance(8000, 15), RPD: Allowance(1000, 86.4)}))
    assert pool.bucket(TPM)["text"] == "22,000 of 24,000 left"
    assert pool.bucket(TPM, "m2")["text"] == "24,000 of 24,000 left"
    assert pool.bucket(RPD)["text"] == "2,999 of 3,000 left"

    clock.advance(15)
    assert pool.bucket(TPM)["left"] == 24000


def test_the_days_tokens_are_shown_where_a_refusal_has_told_them_and_nowhere_else(clock: Clock) -> None:
    pool = Pool(clock, keys=2)
    pool.settle(pool.ask(500), Outcome(allowances={TPD: Allowance(200_000, 43_200)}))

    assert pool.bucket(TPD)["text"] == "100,000 of 200,000 left, and of 1 more unknown"
    assert pool.bucket(TPD, "m2")["text"] == "known once Groq refuses for it; 400,000 on the free plan"


@pytest.mark.parametrize(("full_in", "level"), [(0, "good"), (44, "good"), (46, "low"), (53, "low"), (55, "empty")])
def test_what_runs_low_is_told(full_in: float, level: str, clock: Clock) -> None:
    pool = Pool(clock)
    pool.settle(pool.ask(), served({TPM: Allowance(8000, full_in)}))

    assert pool.bucket(TPM)["level"] == level


def test_a_key_that_cools_has_nothing_left(clock: Clock) -> None:
    pool = Pool(clock, keys=2)
    pool.settle(pool.ask(), failed("Invalid API key"))

    assert pool.bucket(RPM)["text"] == "30 of 60 left"


def test_a_key_that_groq_refuses_adds_nothing_and_promises_nothing(clock: Clock) -> None:
    pool = Pool(clock, keys=2)
    pool.settle(pool.ask(), failed("Invalid API key", refusal=Refusal.REVOKED))

    for _ in range(2):
        assert pool.bucket(RPM)["text"] == "30 of 30 left"
        assert pool.key()["state"] == "refused"
        assert pool.key()["readyIn"] is None
        assert pool.key()["pauses"] == [{"model": "", "reason": "Invalid API key", "then": "", "seconds": None}]
        clock.advance(61)  # it may be tried again, yet nothing says that it will be any better


def test_where_no_request_is_counted_a_days_tokens_can_still_be_told(clock: Clock) -> None:
    pool = Pool(clock, per_minute=0)
    pool.settle(pool.ask(models=["m1"]), Outcome(admitted=True, served=True, allowances={TPD: Allowance(200_000, 0)}))

    assert pool.report()["status"] == "working"


def test_without_a_valid_key_there_is_nothing_left_to_show(clock: Clock) -> None:
    pool = Pool(clock)
    pool.settle(pool.ask(), failed(refusal=Refusal.REVOKED))

    assert pool.report()["models"] == []


def test_a_refused_key_lends_its_organization_nothing(clock: Clock) -> None:
    pool = Pool(clock, keys=2)
    for reservation in (pool.ask(), pool.ask()):
        pool.settle(reservation, served(FULL, organization="org_one"))
    assert pool.report()["nextMinute"] > 0

    pool.settle(pool.ask(), failed(refusal=Refusal.REVOKED))
    clock.advance(61)  # that one is tried again, and the other one cools
    pool.settle(pool.ask(), failed("failed where another key succeeded"))
    assert pool.report()["nextMinute"] == 0


def test_the_last_24_hours_are_told_by_the_hour(clock: Clock) -> None:
    pool = Pool(clock)
    pool.settle(pool.ask(), served())
    clock.advance(3600)
    pool.unserved(Cause.GROQ, "Groq answered 500", press=True)
    pool.unserved(Cause.BUSY, "no key is ready", press=True)
    pool.unserved(Cause.REQUEST, "no JSON", press=True)

    def counts() -> list[tuple[int, int, int]]:
        return [(hour["enhancements"], hour["refusals"], hour["failures"]) for hour in pool.report()["hours"]]

    assert counts() == [(0, 0, 0)] * 22 + [(1, 0, 0), (0, 2, 1)]
    clock.advance(22 * 3600)
    pool.settle(pool.ask(), served())
    assert counts() == [(1, 0, 0), (0, 2, 1)] + [(0, 0, 0)] * 21 + [(1, 0, 0)]
    clock.advance(2 * 3600)
    pool.settle(pool.ask(), served())
    assert counts() == [(0, 0, 0)] * 21 + [(1, 0, 0), (0, 0, 0), (1, 0, 0)]
    assert len(pool.snapshot().hours) == 2  # the others are forgotten


def test_a_key_that_meets_a_limit_is_one_that_groq_knows(clock: Clock) -> None:
    pool = Pool(clock)
    assert pool.key()["state"] == "unknown"

    pool.settle(pool.ask(), refused(5, TPM))
    clock.advance(6)
    assert pool.key()["state"] == "ready"


def test_v1_counts_for_whether_it_works_and_not_as_enhancements(clock: Clock) -> None:
    pool = Pool(clock)
    pool.settle(pool.reserve(Demand(MODELS, 0, bulk=True)), served())

    assert pool.report()["status"] == "working"
    assert sum(hour["enhancements"] for hour in pool.report()["hours"]) == 0


def test_the_forecast_counts_what_is_left_and_what_refills(clock: Clock) -> None:
    pool = Pool(clock)
    assert pool.report()["nextMinute"] is None

    tokens = 10.0 * USUAL
    empty = {TPM: Allowance(tokens, 60), RPD: Allowance(1000, 0)}
    for model in MODELS:
        pool.settle(pool.ask(models=[model]), served(empty))
    assert pool.report()["nextMinute"] == 20

    waiting = [pool.ask(USUAL, max_wait=60) for _ in range(3)]
    assert pool.report()["nextMinute"] == 17
    for reservation in waiting:
        pool.settle(reservation)

    pool.settle(pool.ask(), refused(30, RPM))
    assert pool.report()["nextMinute"] == 10 + 10

    pool.settle(pool.ask(), failed("Invalid API key"))
    assert pool.report()["nextMinute"] == 0
    clock.advance(59)
    assert pool.report()["nextMinute"] == 0  # it may well be refused again


def test_keys_of_one_organization_are_told_by_a_letter(clock: Clock) -> None:
    pool = Pool(clock, keys=3)
    first, second = pool.ask(), pool.ask()
    for reservation in (first, second):
        pool.settle(reservation, Outcome(organization="org_verysecret", allowances=FULL))

    report = pool.report()
    assert [key["organization"] for key in report["keys"]] == ["A", "A", ""]
    assert report["shared"] == "Keys #1 and #2 are of one organization (A) and share its limits."
    assert pool.bucket(RPM)["limit"] == 60
    assert "secret" not in json.dumps(report)


def test_other_models_are_shown_once_groq_has_told_their_limits(clock: Clock) -> None:
    pool = Pool(clock)
    reservation = pool.ask(models=["whisper"])
    assert [model["name"] for model in pool.report()["models"]] == ["m1", "m2"]

    pool.settle(reservation, served(FULL))
    assert [model["name"] for model in pool.report()["models"]] == ["m1", "m2", "whisper"]


def test_a_snapshot_stays_as_it_was(clock: Clock) -> None:
    pool = Pool(clock)
    pool.settle(pool.ask(), served(FULL))
    before = pool.snapshot()
    told = report(before, MODELS, 10.0, WALL)

    pool.settle(pool.ask(4000), served({TPM: Allowance(100, 60)}))
    pool.settle(pool.ask(), failed("failed"))

    assert report(before, MODELS, 10.0, WALL) == told


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (26, "26 s"),
        (59.5, "1 min"),
        (65, "1 min 5 s"),
        (3600, "1 h"),
        (10920, "3 h 2 min"),
        (97200, "1 d 3 h"),
    ],
)
def test_durations_are_spelt(seconds: float, words: str) -> None:
    assert spell(seconds) == words


# Over HTTP


def test_status_is_json_and_never_cached(serve: Serve) -> None:
    response = serve().get("/status")

    assert response.status_code == 200
    assert response.get_json()["headline"] == "Not tried yet"
    assert response.headers["Cache-Control"] == "no-store"


def test_ready_says_whether_an_enhancement_would_be_served_soon(sim: GroqSim, serve: Serve, clock: Clock) -> None:
    client = serve(max_wait=10.0)
    assert (client.get("/ready").status_code, client.get("/ready").json) == (200, {"status": "ready"})

    sim.order(Trouble.rate_limit(30), times=None)
    for _ in range(2):
        client.post("/enhance", json={"prompt": "write a poem"})

    unready = client.get("/ready")
    assert (unready.status_code, unready.headers["Retry-After"]) == (503, "30")
    assert unready.get_json()["error"]
    clock.advance(20)
    assert client.get("/ready").status_code == 200


def test_without_keys_it_is_not_ready(serve: Serve) -> None:
    assert serve(keys=()).get("/ready").status_code == 503


def test_the_page_says_without_javascript_what_status_says(sim: GroqSim, serve: Serve) -> None:
    sim.order(Trouble.named("rate_limit", retry_after=26, dimension="TPM"), key="gsk_one")
    client = serve()
    client.post("/enhance", json={"prompt": "write a poem"})

    page = " ".join(re.sub(r"<[^>]*>", "", client.get("/").text).split())
    assert "tokens per minute used up, back in 26 s" in page
    assert "#1 partly ready organization A" in page
    assert client.get("/").headers["Cache-Control"] == "no-store"


def test_without_keys_the_page_says_what_to_do(serve: Serve) -> None:
    client = serve(keys=())
    page = client.get("/")

    assert page.status_code == 200
    assert page.text.count("<li>") == 3
    assert "GROQ_API_KEYS" in page.text
    assert client.get("/status").get_json()["status"] == "unconfigured"


def test_no_key_and_no_organization_is_shown(sim: GroqSim, serve: Serve) -> None:
    sim.limits = Limits(rpm=1)
    client = serve(per_minute=0)
    for _ in range(8):
        client.post("/enhance", json={"prompt": "write a poem"})

    shown = client.get("/").text + client.get("/status").text
    assert "used up" in shown
    for secret in (*KEYS, *KEYS.values(), "gsk_", "org_"):
        assert secret not in shown


@pytest.mark.parametrize(
    "path", ["/", "/status", "/health", "/ready", "/favicon.ico", "/static/status.css", "/static/status.js"]
)
def test_the_page_is_open_to_all_and_not_counted(path: str, serve: Serve) -> None:
    client = serve(client_limits="1 per minute")

    for _ in range(3):
        response = client.get(path, headers={"Origin": "https://elsewhere.example"}, buffered=True)
        assert response.status_code == 200
        assert "Access-Control-Allow-Origin" not in response.headers
    assert client.post("/enhance", json={"prompt": "write a poem"}).status_code == 200


def test_no_other_endpoint_is_open_to_foreign_pages(serve: Serve) -> None:
    client = serve()
    endpoints = {rule.endpoint for rule in client.application.url_map.iter_rules()}

    assert endpoints >= OPEN_ENDPOINTS
    for path in ("/nowhere", "/enhance"):
        assert client.get(path, headers={"Origin": "https://elsewhere.example"}).status_code == 403


@pytest.mark.parametrize("path", ["/", "/status", "/health", "/nowhere", "/static/status.js", "/enhance"])
def test_every_response_carries_the_security_headers(path: str, serve: Serve) -> None:
    headers = serve().get(path, buffered=True).headers

    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["form-action"] == "'self'"  # the page's one button
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"


def test_nothing_is_loaded_from_elsewhere_and_nothing_is_inline(serve: Serve) -> None:
    client = serve()
    page = client.get("/").text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)

    assert {"/static/status.css", "/static/status.js", "/static/favicon.svg"} <= {*loaded}
    assert all(client.get(path, buffered=True).status_code == 200 for path in loaded)
    assert not re.search(r"style=|<style|\son\w+=|<script(?! src)", page)
    files = "".join(path.read_text() for path in Path(client.application.static_folder or "").iterdir())
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|innerHTML", files)


def test_a_models_name_is_escaped(sim: GroqSim, clock: Clock) -> None:
    config = Config(keys=tuple(KEYS), base_url=sim.url, models=("<script>alert(1)</script>",))

    assert "<script>alert" not in create_app(config, clock).test_client().get("/").text
