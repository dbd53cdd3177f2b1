"""The log's line for each refused request: one, why in words, and nothing of who called or what they sent."""

import logging
import re
import socket
from collections.abc import Callable
from typing import Any

import pytest
from conftest import KEYS, Clock
from flask.testing import FlaskClient
from groqsim import GroqSim, Trouble
from v1_client import CHAT, TOKEN

from promptlord.refusals import SHOWN, shown
from promptlord.web.body import BODY_MAX

Serve = Callable[..., FlaskClient]
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def client(serve: Serve) -> FlaskClient:
    client = serve(access_tokens=(TOKEN,), client_limits="1 per 2 seconds;2 per minute")
    client.application.add_url_rule("/broken", view_func=lambda: str(1 / 0))
    return client


def enhance(client: FlaskClient, **more: Any) -> int:
    return client.post("/enhance", json={"prompt": "Write about cats"}, **more).status_code


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("⛔")]


# One line for each


@pytest.mark.parametrize(
    ("method", "path", "options", "line"),
    [
        ("POST", "/enhance", {"json": []}, "400 POST /enhance after 0.00 s: Request body must be a JSON object"),
        ("POST", "/enhance", {"json": {"prompt": " "}}, "400 .*: Prompt cannot be empty or whitespace only"),
        ("GET", "/v1/models", {}, "401 GET /v1/models .*: Wrong or missing access token.*"),
        ("POST", "/enhance", {"headers": {"Origin": "https://a.example"}}, "403 .*: This web page's origin .*"),
        ("GET", "/nothing", {}, "404 GET /nothing .*: Not Found"),
        ("GET", "/v1/files", {"headers": BEARER}, "404 GET /v1/files .*: Not Found"),
        ("GET", "/enhance", {}, "405 GET /enhance .*: Method Not Allowed"),
        ("POST", "/enhance", {"json": "x" * BODY_MAX}, "413 .*: The request's body is too large"),
        ("POST", "/enhance", {"data": b"{}"}, "415 .*: Send the body as JSON.*"),
        ("GET", "/broken", {}, "500 GET /broken .*: Internal Server Error"),
    ],
)
def test_what_is_refused_here_leaves_one_line(
    client: FlaskClient, caplog: pytest.LogCaptureFixture, method: str, path: str, options: dict[str, Any], line: str
) -> None:
    status = client.open(path, method=method, **options).status_code

    (logged,) = lines(caplog)
    assert logged.startswith(f"⛔ {status} ")
    assert re.fullmatch(f"⛔ {line}", logged)


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (Trouble.rate_limit(33.2, "TPM"), "503 .*: Rate limit exceeded on tokens per minute: ready in 34 s"),
        (Trouble.named("invalid_api_key"), "503 .*: Invalid API key: create a new one in the Groq console"),
        (Trouble.named("request_too_large"), "413 .*: The prompt is too long for the model: shorten it"),
        (Trouble.named("access_denied"), "502 .*: Groq refuses this server's network address or user agent.*"),
        (Trouble.named("over_capacity"), "502 .*: Groq answered 503"),
        (Trouble.reset(), "502 .*: Groq is unreachable"),
        (Trouble.content(""), "502 .*: Unusable answer: empty"),
        pytest.param(Trouble.stall(10), "504 .*: Groq did not answer in time", marks=pytest.mark.live),
    ],
)
def test_what_fails_at_groq_leaves_one_line_in_the_operators_words(
    serve: Serve, sim: GroqSim, caplog: pytest.LogCaptureFixture, fault: Trouble, line: str
) -> None:
    client = serve(models=("openai/gpt-oss-20b",), request_timeout=0.5 if line.startswith("504") else 25.0)
    sim.order(fault, times=None)

    enhance(client)

    (logged,) = lines(caplog)
    assert re.fullmatch(f"⛔ {line}", logged)


def test_a_request_that_no_key_is_ready_for_says_when_one_will_be(
    serve: Serve, sim: GroqSim, caplog: pytest.LogCaptureFixture
) -> None:
    client = serve(models=("openai/gpt-oss-20b",))
    sim.order(Trouble.rate_limit(34), times=3)

    assert [enhance(client), enhance(client)] == [503, 503]

    assert lines(caplog)[1].endswith(": No key is ready: the first is ready in 34 s")


def test_a_client_that_has_hung_up_leaves_one_line(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = socket.socketpair()
    theirs.close()

    with ours:
        assert enhance(serve(), environ_overrides={"werkzeug.socket": ours}) == 499

    assert lines(caplog) == ["⛔ 499 POST /enhance after 0.00 s: The client has disconnected"]


def test_who_calls_too_often_is_told_apart(client: FlaskClient, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    assert [enhance(client), enhance(client)] == [200, 429]
    clock.advance(2)
    assert enhance(client) == 200
    clock.advance(3)
    assert enhance(client) == 402

    assert lines(caplog) == [
        "⛔ 429 POST /enhance after 0.00 s: This client calls too fast: 2 s left",
        "⛔ 402 POST /enhance after 0.00 s: This client has used up its limit: 55 s left",
    ]


@pytest.mark.parametrize(
    ("trouble", "times", "line"),
    [
        (Trouble.status(400), 1, "400 .*: Passed on from Groq"),
        (Trouble.status(500, {"error": {"message": "my own words"}}), 3, "500 .*: Groq answered 500"),
    ],
)
def test_an_answer_of_groqs_that_is_passed_on_leaves_one_line(
    client: FlaskClient, sim: GroqSim, caplog: pytest.LogCaptureFixture, trouble: Trouble, times: int, line: str
) -> None:
    sim.order(trouble, times=times)

    client.post("/v1/chat/completions", json=CHAT, headers=BEARER, buffered=True)

    (logged,) = lines(caplog)
    assert re.fullmatch(f"⛔ {line}", logged)


def test_without_keys_it_says_so(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    assert enhance(serve(keys=())) == 503

    assert lines(caplog) == ["⛔ 503 POST /enhance after 0.00 s: No Groq API key is configured"]


def test_what_is_answered_leaves_none(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    client = serve(access_tokens=(TOKEN,))

    assert enhance(client) == 200
    assert client.post("/enhance", json={"prompt": "ping"}).status_code == 200
    assert client.post("/v1/chat/completions", json=CHAT, headers=BEARER, buffered=True).status_code == 200
    for path in ("/health", "/ready", "/favicon.ico", "/static/status.css"):
        assert client.get(path, buffered=True).status_code == 200

    assert lines(caplog) == []


def test_the_line_says_how_long_the_request_took(
    client: FlaskClient, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def slow() -> tuple[str, int]:
        clock.advance(1.234)
        return "", 418

    client.application.add_url_rule("/slow", view_func=slow)
    client.get("/slow")

    assert lines(caplog) == ["⛔ 418 GET /slow after 1.23 s: I'm a Teapot"]


def test_only_our_own_failures_warn(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    client.get("/nothing")
    client.get("/broken")

    refused = [record for record in caplog.records if record.getMessage().startswith("⛔")]
    assert [record.levelno for record in refused] == [logging.INFO, logging.WARNING]


# How many


def test_a_flood_leaves_a_few_lines_a_second_and_the_next_says_how_many_it_left_out(
    client: FlaskClient, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(42):
        client.get("/nothing")
    assert len(lines(caplog)) == 5

    clock.advance(0.2)
    client.get("/nothing")
    client.get("/nothing")
    clock.advance(3600)
    for _ in range(42):
        client.get("/nothing")

    said = [line.partition("(")[2] for line in lines(caplog)]
    assert said == [*[""] * 5, "and 37 more)", "and 1 more)", *[""] * 4]


def test_what_the_log_does_not_want_takes_no_room(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    client = serve(keys=(), log_level="WARNING")
    for _ in range(9):
        client.get("/nothing")

    enhance(client)

    assert lines(caplog) == ["⛔ 503 POST /enhance after 0.00 s: No Groq API key is configured"]


# Who, and what they sent


def test_the_line_tells_neither_who_called_nor_what_was_asked(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    client.get(
        "/nothing?prompt=marzipan", environ_overrides={"REMOTE_ADDR": "192.0.2.1"}, headers={"Host": "me.example"}
    )
    client.get("/chat/completions", headers={"Host": "gsk_one.example"})

    assert len(lines(caplog)) == 2
    for secret in ("marzipan", "192.0.2.1", "example", *KEYS):
        assert secret not in "".join(lines(caplog))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/gsk_one", "/v1/gsk_***"),
        ("/GSK_one/x", "/GSK_***/x"),
        ("/of/org_one_and_two.", "/of/org_***."),
        ("/gsk%5Fone", "/gsk_***"),
        ("/x?key=1", "/x"),
        ("/a b\n⛔ 200\x1b[31m", "/a%20b%0A%E2%9B%94%20200%1B%5B31m"),
        ("/" + "x" * 4000, "/" + "x" * (SHOWN - 1) + "…"),
        ("", ""),
    ],
)
def test_a_path_is_cut_and_printable_and_has_no_secret(path: str, words: str) -> None:
    assert shown("GET", path) == f"GET {words}"


def test_a_method_is_shown_as_carefully() -> None:
    assert shown("GSK_ONE\n", "/") == "GSK_***%0A /"
