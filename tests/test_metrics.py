"""What Prometheus is told: the numbers, whose they are, that its own tool accepts them, and that they cost little."""

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import KEYS, ROOT, Clock, Server, environment, failed, limited, poll, served, take
from flask.testing import FlaskClient
from groqsim import MODELS, GroqSim, Trouble
from prometheus_client.parser import text_string_to_metric_families
from real_redis import RealRedis
from v1_client import MODEL, TOKEN

from promptlord.errors import ClientDisconnected
from promptlord.pool.quota import RPD, RPM, TPD, TPM, Allowance
from promptlord.web.client import Connection
from promptlord.web.enhance import Enhancement
from promptlord.web.traffic import BUCKETS, Traffic

Serve = Callable[..., FlaskClient]
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Write about cats"}]}
PROMPT = "Write about dogs"
ODD = 'odd "quoted" \\ name\nof two lines'


class Told(dict[tuple[str, ...], float]):
    """What a scrape tells: values by the series' name and its labels' values, in the order of the labels' names."""

    def __init__(self, text: str) -> None:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self[sample.name, *(value for _, value in sorted(sample.labels.items()))] = sample.value

    def of(self, name: str) -> dict[tuple[str, ...], float]:
        """Those of this name that are not zero, by their labels' values."""
        return {(*labels,): value for (series, *labels), value in self.items() if series == name and value}


def scrape(client: FlaskClient) -> Told:
    return Told(client.get("/metrics", headers=AUTHORIZED).text)


def enhance(client: FlaskClient, prompt: str = PROMPT, **options: Any) -> int:
    return client.post("/enhance", json={"prompt": prompt}, **options).status_code


def chat(client: FlaskClient, **more: Any) -> int:
    """One of ``/v1``, read to its end."""
    response = client.post("/v1/chat/completions", json=CHAT | more, headers=AUTHORIZED)
    with suppress(ConnectionResetError):
        response.get_data()
    response.close()
    return response.status_code


# Requests


def test_requests_are_counted_by_route_and_status(serve: Serve) -> None:
    client = serve(access_tokens=(TOKEN,))
    codes = [enhance(client), enhance(client), enhance(client, "x"), chat(client), chat(client, stream=True)]
    codes += [client.get(path).status_code for path in ("/nowhere", "/elsewhere", "/enhance", "/v1/files")]
    codes += [enhance(client, headers={"Origin": "https://elsewhere.example"})]

    assert codes == [200, 200, 400, 200, 200, 404, 404, 405, 401, 403]
    assert scrape(client).of("promptlord_requests_total") == {
        ("/enhance", "200"): 2,
        ("/enhance", "400"): 1,
        ("/enhance", "403"): 1,
        ("/v1/<path:path>", "200"): 2,
        ("/v1/<path:path>", "401"): 1,
        ("unmatched", "404"): 2,
        ("unmatched", "405"): 1,
    }


def test_a_request_falls_into_the_bucket_that_ends_at_its_time_or_later(serve: Serve) -> None:
    client = serve()
    for seconds in (0.005, 0.0051, 25.0, 25.1):
        client.application.extensions["promptlord"].traffic.answered("/r", 200, seconds)

    told = scrape(client).of("promptlord_request_duration_seconds_bucket")
    by_bound = {bound: value for (bound, route), value in told.items() if route == "/r"}
    assert by_bound == {str(bound): 2.0 for bound in BUCKETS} | {"0.005": 1, "25.0": 3, "+Inf": 4}
    assert scrape(client)["promptlord_request_duration_seconds_sum", "/r"] == pytest.approx(50.1101)


def test_a_stream_is_counted_when_its_headers_are_ready(serve: Serve, sim: GroqSim) -> None:
    sim.chunk_pause = 0.02
    client = serve(access_tokens=(TOKEN,))
    began = time.perf_counter()
    chat(client, stream=True)
    took = time.perf_counter() - began

    assert scrape(client)["promptlord_request_duration_seconds_sum", "/v1/<path:path>"] < took - 2 * sim.chunk_pause


class Yielding(float):
    """Seconds that let other threads in while they are added."""

    def __radd__(self, other: float) -> float:
        time.sleep(0)  # yields, does not wait
        return float(other) + float(self)


def test_no_count_is_lost_between_threads() -> None:
    traffic, barrier = Traffic(), threading.Barrier(8)

    def count() -> None:
        barrier.wait()
        for _ in range(200):
            traffic.answered("/r", 200, Yielding(0.5))

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert traffic.totals().responses == {("/r", 200): 1600}
    assert traffic.totals().durations["/r"].total == 800


# Groq


@pytest.mark.parametrize(
    ("trouble", "fault"),
    [
        (Trouble.rate_limit(7.5), "limit"),
        (Trouble.named("invalid_api_key"), "key"),
        (Trouble.named("model_permission_blocked_org"), "key_for_model"),
        (Trouble.named("model_not_found"), "lacking"),
        (Trouble.named("model_decommissioned"), "model"),
        (Trouble.named("bad_request"), "request"),
        (Trouble.named("request_too_large"), "size"),
        (Trouble.named("access_denied"), "network"),
        (Trouble.status(500), "groq"),
        (Trouble.garbage(), "groq"),
        (Trouble.reset(), "groq"),
        (Trouble.truncate(), "groq"),
        (Trouble.length(), "cut_off"),
        (Trouble.stall(5), "timeout"),
    ],
)
def test_each_attempt_is_counted_once_by_whose_fault_it_was(
    serve: Serve, sim: GroqSim, trouble: Trouble, fault: str
) -> None:
    sim.order(trouble)
    client = serve(models=MODELS[:1], max_attempts=1, request_timeout=0.3 if fault == "timeout" else 25.0)
    enhance(client)

    assert scrape(client).of("promptlord_upstream_attempts_total") == {(fault, "#1"): 1}


def test_attempts_are_counted_by_key_and_so_are_failures(serve: Serve, sim: GroqSim) -> None:
    sim.order(Trouble.rate_limit(60), key="gsk_one")
    client = serve(models=MODELS[:1])
    for _ in range(3):
        assert enhance(client) == 200

    told = scrape(client)
    assert told.of("promptlord_upstream_attempts_total") == {("limit", "#1"): 1, ("none", "#2"): 2, ("none", "#3"): 1}
    assert told.of("promptlord_key_requests_total") == {("#1",): 1, ("#2",): 2, ("#3",): 1}
    assert told.of("promptlord_key_failures_total") == {("#1",): 1}


def test_a_fault_that_is_passed_on_to_the_client_counts_once_too(serve: Serve, sim: GroqSim) -> None:
    sim.order(Trouble.named("bad_request"))
    client = serve(access_tokens=(TOKEN,))

    assert chat(client) == 400
    assert scrape(client).of("promptlord_upstream_attempts_total") == {("request", "#1"): 1}


def test_an_answer_that_is_cut_off_with_all_the_room_there_is_counts_as_such(serve: Serve, sim: GroqSim) -> None:
    sim.order(Trouble.length(), times=2)
    client = serve(max_attempts=2, models=MODELS[:1])
    enhance(client)

    assert scrape(client).of("promptlord_upstream_attempts_total") == {("cut_off", "#1"): 1, ("cut_off", "#2"): 1}


def test_a_client_that_hangs_up_meanwhile_is_nobodys_fault(serve: Serve, sim: GroqSim) -> None:
    ours, theirs = socket.socketpair()
    sim.order(Trouble.stall(5))
    sim.reply = lambda request: theirs.close() or ""  # type: ignore[func-returns-value]
    client = serve()
    with ours, pytest.raises(ClientDisconnected):
        client.application.extensions["promptlord"].upstream.fetch(Enhancement.of(PROMPT, MODELS), Connection(ours))

    assert scrape(client).of("promptlord_upstream_attempts_total") == {("disconnected", "#1"): 1}


def test_requests_are_in_flight_until_their_answer_is_closed(serve: Serve) -> None:
    client = serve(access_tokens=(TOKEN,))
    response = client.post("/v1/chat/completions", json=CHAT | {"stream": True}, headers=AUTHORIZED)
    assert scrape(client)["promptlord_requests_in_flight",] == 1

    response.close()
    assert scrape(client)["promptlord_requests_in_flight",] == 0


def test_every_fault_of_every_key_is_told_from_the_start_so_that_the_first_one_shows(serve: Serve) -> None:
    told = scrape(serve())

    assert {told["promptlord_upstream_attempts_total", "groq", label] for label in ("#1", "#2", "#3")} == {0}
    assert told["promptlord_tokens_total", MODELS[0]] == 0


def test_tokens_are_those_that_groq_counts(serve: Serve, sim: GroqSim) -> None:
    client = serve(models=MODELS[:1])
    enhance(client)
    enhance(client)

    assert scrape(client).of("promptlord_tokens_total") == {(MODELS[0],): sum(call.tokens for call in sim.calls)}


def test_models_that_clients_choose_are_counted_together(serve: Serve, sim: GroqSim) -> None:
    sim.models = (*MODELS, "a", "b")
    client = serve(access_tokens=(TOKEN,))
    for model in ("a", "b"):
        assert chat(client, model=model) == 200

    assert scrape(client).of("promptlord_tokens_total").keys() == {("other",)}


# The pool


def test_what_each_lane_has_left_is_told_with_its_limit(serve: Serve, clock: Clock) -> None:
    client = serve(keys=("gsk_one",), models=("m",))
    pool = client.application.extensions["promptlord"].pool
    pool.settle(take(pool), served({TPM: Allowance(8000, 15), RPD: Allowance(1000, 0)}))

    told = scrape(client)
    assert told.of("promptlord_lane_limit") == {(RPM, "m", "#1"): 30, (TPM, "m", "#1"): 8000, (RPD, "m", "#1"): 1000}
    assert told["promptlord_lane_left", TPM, "m", "#1"] == 6000
    assert told["promptlord_lane_left", RPM, "m", "#1"] == 29

    clock.advance(15)
    assert scrape(client)["promptlord_lane_left", TPM, "m", "#1"] == 8000


def test_what_a_refusal_has_told_is_told_of_the_organization_by_the_name_we_give_it(serve: Serve, clock: Clock) -> None:
    client = serve(models=("m",))
    pool = client.application.extensions["promptlord"].pool
    used_up = {TPD: Allowance(200_000, 86_400)}
    pool.settle(take(pool), limited(90, TPD, organization="org_one", allowances=used_up))
    clock.advance(30)

    told = scrape(client)
    assert told["promptlord_key_info", "#1", "A"] == 1
    assert told["promptlord_key_info", "#2", "#2"] == 1
    assert told["promptlord_lane_cooldown_seconds", "m", "A"] == 60
    assert told["promptlord_lane_left", TPD, "m", "A"] == pytest.approx(200_000 * 30 / 86_400)
    assert told.of("promptlord_key_cooldown_seconds") == {}


def test_a_key_that_cools_says_for_how_long_and_those_that_wait_are_counted(serve: Serve, clock: Clock) -> None:
    client = serve(keys=("gsk_one",), per_minute=1)
    pool = client.application.extensions["promptlord"].pool
    pool.settle(take(pool), failed())
    clock.advance(20)
    take(pool, max_wait=60)

    told = scrape(client)
    assert told["promptlord_keys",] == 1
    assert told["promptlord_key_cooldown_seconds", "#1"] == 40
    assert told["promptlord_waiting_requests",] == 1

    clock.advance(50)
    assert scrape(client)["promptlord_key_cooldown_seconds", "#1"] == 0


def test_names_that_clients_try_make_no_series(serve: Serve) -> None:
    client = serve(access_tokens=(TOKEN,), models=MODELS[:1])
    assert {chat(client, model=f"tried-{number}") for number in range(5)} == {404}
    assert chat(client, model=MODELS[1]) == 200

    text = client.get("/metrics", headers=AUTHORIZED).text
    assert "tried" not in text
    assert {model for _, model, _ in Told(text).of("promptlord_lane_limit")} == {MODELS[1]}


# How it is told


def test_it_is_told_in_the_format_that_is_asked_for(serve: Serve) -> None:
    client, plain = serve(), "text/plain; version=0.0.4; charset=utf-8"

    def kind(accept: str) -> str | None:
        return client.get("/metrics", headers={"Accept": accept}).headers["Content-Type"]

    assert kind("") == kind("*/*") == kind("text/html") == plain
    assert "openmetrics-text; version=1.0.0;" in (kind("application/openmetrics-text; version=1.0.0") or "")
    assert client.get("/metrics", headers={"Accept": "application/openmetrics-text"}).text.endswith("# EOF\n")


@pytest.mark.parametrize("version", ["x", "1.", "", "1.x", "9" * 5000, "1.0.0.0.0", '"1.0.0"', "-1"])
def test_a_version_that_is_none_is_passed_over(serve: Serve, version: str) -> None:
    for kind in ("text/plain", "application/openmetrics-text"):
        assert serve().get("/metrics", headers={"Accept": f"{kind}; version={version}"}).status_code == 200


def test_it_is_compressed_for_who_accepts_that_and_head_has_no_body(serve: Serve) -> None:
    client = serve()
    zipped = client.get("/metrics", headers={"Accept-Encoding": "gzip"})
    head = client.head("/metrics")

    assert zipped.headers["Content-Encoding"] == "gzip"
    assert zipped.content_length == len(zipped.data) < len(client.get("/metrics").data) / 3
    assert {"Accept", "Accept-Encoding", "Origin"} <= {*zipped.vary}
    assert (head.status_code, head.mimetype, head.data) == (200, "text/plain", b"")


def test_a_models_name_is_escaped(serve: Serve) -> None:
    assert scrape(serve(models=(ODD,)))["promptlord_tokens_total", ODD] == 0


def test_a_web_page_from_elsewhere_may_not_read_it(serve: Serve) -> None:
    assert serve().get("/metrics", headers={"Origin": "https://elsewhere.example"}).status_code == 403


# Live


@pytest.fixture
def traffic(serve: Serve, sim: GroqSim, clock: Clock) -> FlaskClient:
    """The service after traffic of all kinds, while a key cools."""
    client = serve(access_tokens=(TOKEN,), models=(*MODELS, ODD))
    used_up, refused = Trouble.rate_limit(90, "TPD"), Trouble.named("invalid_api_key")
    for trouble in (used_up, Trouble.status(500), Trouble.reset(), Trouble.length(), refused):
        sim.order(trouble)
        assert enhance(client) == 200
        clock.advance(0 if trouble is refused else 60)
    assert chat(client, stream=True) == 200
    assert chat(client, model="secret-model") == 404
    assert client.get("/nowhere").status_code == 404
    return client


def test_promtool_finds_nothing_to_complain_of(traffic: FlaskClient, promtool: str) -> None:
    text = traffic.get("/metrics", headers=AUTHORIZED).text
    found = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)

    assert (found.stdout, found.stderr, found.returncode) == ("", "", 0)


def test_no_key_organization_or_prompt_is_told(traffic: FlaskClient) -> None:
    for kind in ("text/plain", "application/openmetrics-text"):
        text = traffic.get("/metrics", headers={"Accept": kind, **AUTHORIZED}).text
        assert 'organization="A"' in text
        for secret in (*KEYS, *KEYS.values(), PROMPT, CHAT["messages"][0]["content"], "secret", TOKEN):  # type: ignore[index]
            assert secret not in text


SCRIPT = """
import sys
from app import create_app
from promptlord.config import Config
client = create_app(Config(keys=("gsk_one",), base_url=sys.argv[1], client_limits="")).test_client()
assert client.post("/enhance", json={"prompt": "Write about cats"}).status_code == 200
assert client.get("/status").status_code == 200
before = "prometheus_client" in sys.modules
assert client.get("/metrics").status_code == 200
print(before, "prometheus_client" in sys.modules)
"""


def test_the_library_is_imported_only_when_somebody_asks(sim: GroqSim) -> None:
    command = [sys.executable, "-c", SCRIPT, sim.url]
    ran = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)

    assert ran.stdout.split() == ["False", "True"], ran.stderr


def test_where_several_processes_answer_each_tells_its_own_counts_as_such(
    start: Callable[..., Server], store: RealRedis
) -> None:
    server = start(REDIS_URL=store.url, WEB_CONCURRENCY="2")
    seen: dict[str, str] = {}
    for _ in poll():
        text = requests.get(f"{server.url}/metrics", timeout=20).text
        seen |= dict.fromkeys(re.findall(r'worker="(\d+)"', text), text)
        if len(seen) == 2:
            break

    assert {*map(int, seen)} == {*server.workers()}
    for text in seen.values():
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        shared = {line.partition("{")[0].partition(" ")[0] for line in lines if 'worker="' not in line}
        assert shared
        assert all(re.match("promptlord_(key|lane|waiting)", name) for name in shared)


# The dashboard

PANELS = json.loads((ROOT / "docs/grafana.json").read_text(encoding="utf-8"))["panels"]
QUERIES = [target["expr"] for panel in PANELS for target in panel.get("targets", ())]


def test_every_metric_of_the_dashboard_exists(traffic: FlaskClient) -> None:
    asked = {name for query in QUERIES for name in re.findall(r"\b(?:promptlord|process)_\w+", query)}

    assert len(asked) > 8
    assert asked <= {name for name, *_ in scrape(traffic)}


def test_every_label_of_the_dashboard_exists(traffic: FlaskClient) -> None:
    labels = {*re.findall(r'(\w+)="', traffic.get("/metrics", headers=AUTHORIZED).text)} | {"instance", "job"}
    asked = {
        name for query in QUERIES for names in re.findall(r"\bby \(([^)]*)\)", query) for name in names.split(", ")
    }
    asked |= {name for query in QUERIES for name in re.findall(r"[{,]\s*(\w+)(?:=|!)", query)}

    assert "fault" in asked
    assert asked <= labels


def test_promtool_can_read_every_query_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": re.sub(r"\$\w+", "5m", query.replace('"$', '"'))}
        for number, query in enumerate(QUERIES)
    ]
    (tmp_path / "rules.json").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    found = subprocess.run([promtool, "check", "rules", tmp_path / "rules.json"], capture_output=True, text=True)

    assert found.returncode == 0, found.stdout + found.stderr


def test_the_panels_have_ids_titles_and_places_of_their_own() -> None:
    taken = [
        (x, y)
        for at in (panel["gridPos"] for panel in PANELS)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]

    assert len(set(taken)) == len(taken)
    assert all(x < 24 for x, _ in taken)
    for what in ("id", "title"):
        assert len({panel[what] for panel in PANELS}) == len(PANELS)
    assert all(panel["fieldConfig"]["defaults"]["unit"] for panel in PANELS)


def test_where_there_are_tokens_a_scrape_needs_one(serve: Callable[..., FlaskClient]) -> None:
    client = serve(access_tokens=(TOKEN,))

    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers=AUTHORIZED).status_code == 200
