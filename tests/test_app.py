"""What clients may send and what they get back: the endpoints' contract, origins, limits."""

import json
import re
import socket
import time
from io import BytesIO
from typing import Any

import pytest
from completions import draft_of
from conftest import KEYS, redis_server
from flask.testing import FlaskClient
from groqsim import GroqSim, Limits, Trouble
from werkzeug.test import TestResponse

from app import WHAT_TO_SET
from promptlord.config import Config
from promptlord.groq import policy
from promptlord.groq.failure import TOLD
from promptlord.groq.policy import Fault
from promptlord.web.body import BODY_MAX

EXTENSION = "chrome-extension://" + "abcdefghijklmnop" * 2
REFUSED = "This web page's origin is not allowed here"
ONE_MODEL = {"models": ("openai/gpt-oss-20b",)}


def enhance(client: FlaskClient, prompt: object = "Write about cats", **options: Any) -> TestResponse:
    return client.post("/enhance", json={"prompt": prompt}, **options)


def error(response: TestResponse) -> tuple[int, str]:
    """Status and message of an error, which is JSON whatever it is."""
    assert response.mimetype == "application/json"
    assert response.headers["Vary"] == "Origin"
    told = response.get_json()
    assert told.keys() <= {"error", "details", "retryAfter"}
    assert response.headers.get("Retry-After", type=int) == told.get("retryAfter")
    return response.status_code, told["error"]


# /enhance


def test_a_prompt_is_enhanced(serve, sim):
    response = enhance(serve(), "  Write about cats\n")

    assert (response.status_code, response.mimetype) == (200, "application/json")
    assert response.get_json().keys() == {"enhancedPrompt"}
    assert "Task: Write about cats\n" in response.get_json()["enhancedPrompt"]
    assert draft_of(sim.calls[0].json["messages"][-1]) == "Write about cats"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Request body must be a JSON object"),
        (b"{", "Request body must be a JSON object"),
        (b"[]", "Request body must be a JSON object"),
        (b"null", "Request body must be a JSON object"),
        (b'"prompt"', "Request body must be a JSON object"),
        (b"\xff\xfe{}", "Request body must be a JSON object"),
        (b"[" * 100_000, "Request body must be a JSON object"),
        (b"{}", "Prompt must be a non-empty string"),
        (b'{"prompt": null}', "Prompt must be a non-empty string"),
        (b'{"prompt": ["a", "b"]}', "Prompt must be a non-empty string"),
        (b'{"prompt": ""}', "Prompt must be a non-empty string"),
        (b'{"prompt": "  "}', "Prompt cannot be empty or whitespace only"),
        (b'{"prompt": " a "}', "Prompt too short (minimum 2 characters)"),
        (b'{"prompt": "%b"}' % (b"a" * 5001), "Prompt too long (max 5,000 characters)"),
    ],
)
def test_a_bad_request_is_told_why_and_goes_no_further(serve, sim, body, message):
    response = serve().post("/enhance", data=body, content_type="application/json")

    assert error(response) == (400, message)
    assert sim.calls == []


@pytest.mark.parametrize("prompt", ["ping", " ping\n"])
@pytest.mark.parametrize("keys", [tuple(KEYS), ()])
def test_a_ping_is_answered_without_calling_groq(serve, sim, prompt, keys):
    response = enhance(serve(keys=keys), prompt)

    assert (response.status_code, response.json) == (200, {"enhancedPrompt": "ping"})
    assert sim.calls == []


@pytest.mark.parametrize("escaped", [True, False])
def test_the_longest_prompt_of_any_script_passes(serve, escaped):
    body = json.dumps({"prompt": "\U0001f600" * 5000}, ensure_ascii=escaped).encode()

    with GroqSim(KEYS, Limits(tpm=None), reply=lambda request: "Be brief.") as sim:
        response = serve(base_url=sim.url).post("/enhance", data=body, content_type="application/json")

    assert response.status_code == 200


@pytest.mark.parametrize("prompt", ["half \ud83d", "nul \0", "a\u2028b", "</script>", "\ufeff\ufeff"])
def test_strange_characters_do_no_harm(serve, prompt):
    assert enhance(serve(), prompt).status_code == 200


# What Groq's troubles become


@pytest.mark.parametrize(
    ("fault", "status", "message", "calls"),
    [
        (Trouble.rate_limit(7.5), 503, TOLD[Fault.LIMIT].words, 3),
        (Trouble.named("invalid_api_key"), 503, TOLD[Fault.KEY].words, 3),
        (Trouble.named("organization_restricted"), 503, TOLD[Fault.KEY].words, 3),
        (Trouble.named("model_permission_blocked_org"), 503, TOLD[Fault.KEY_FOR_MODEL].words, 3),
        (Trouble.named("request_too_large"), 413, "The prompt is too long for the model: shorten it", 2),
        (Trouble.named("json_validate_failed"), 502, TOLD[Fault.REQUEST].words, 1),
        (Trouble.named("semantic_error"), 502, TOLD[Fault.REQUEST].words, 1),
        (Trouble.named("model_not_found"), 502, TOLD[Fault.MODEL].words, 3),
        (Trouble.named("over_capacity"), 502, TOLD[Fault.GROQ].words, 3),
        (Trouble.named("bad_gateway_html"), 502, TOLD[Fault.GROQ].words, 3),
        (Trouble.reset(), 502, policy.UNREACHABLE.told, 3),
        (Trouble.garbage(), 502, "Groq answered what can't be used: try again", 3),
        (Trouble.content(""), 502, "Groq answered what can't be used: try again", 3),
        (Trouble.length("You are"), 502, policy.CUT_OFF.told, 3),
        (Trouble.named("access_denied"), 502, TOLD[Fault.NETWORK].words, 1),
        (Trouble.named("cloudflare_1010"), 502, TOLD[Fault.NETWORK].words, 1),
    ],
)
def test_each_trouble_with_groq_has_its_answer(serve, sim, fault, status, message, calls):
    sim.order(fault, times=None)

    assert error(enhance(serve(**ONE_MODEL))) == (status, message)
    assert len(sim.calls) == calls


def test_a_prompt_that_no_minute_holds_is_refused_with_the_length_that_fits(serve, sim):
    client, prompt = serve(**ONE_MODEL, keys=("gsk_one",)), "会議の記録をまとめて" * 500
    status, message = error(enhance(client, prompt))

    assert status == 413
    told = re.search(r"shorten it to about (\d,\d00) characters\Z", message)
    assert told
    assert len(sim.calls) == 1

    assert error(enhance(client, "\U0001f600" * 5000))[0] == 413
    assert len(sim.calls) == 1  # for now the limit is known, which this one can't fit into

    characters = int(told[1].replace(",", ""))
    assert 3500 < characters < 5000
    assert enhance(client, prompt[:characters]).status_code == 200
    assert [call.status for call in sim.calls] == [413, 200]


def test_a_paid_plan_holds_the_longest_prompt(serve):
    with GroqSim({"gsk_one": "org"}, Limits(1000, 250_000, 500_000, None)) as paid:
        client = serve(base_url=paid.url, keys=("gsk_one",))
        paid.order(Trouble.length("会議"))

        assert enhance(client, "会" * 5000).status_code == 200
        assert enhance(client, "会" * 5000).status_code == 200
        assert [call.status for call in paid.calls] == [200, 200, 200]


def test_groq_out_of_reach_is_a_502(serve, sim):
    sim.refuse()

    assert error(enhance(serve())) == (502, "Groq is unreachable: try again in a moment")


def test_what_groq_says_of_its_own_trouble_is_not_for_the_extension(serve, sim):
    sim.order(Trouble.status(500, {"error": {"message": "my own words"}}), times=None)

    assert error(enhance(serve())) == (502, TOLD[Fault.GROQ].words)


@pytest.mark.live
@pytest.mark.parametrize(
    "fault",
    [Trouble.stall(10), Trouble.drip(0.02), Trouble.drip(0.001), Trouble.stall_body(10)],
    ids=["silence", "dripping headers", "dripping body", "half a body"],
)
def test_no_upstream_takes_longer_than_the_request_may(serve, sim, fault):
    client = serve(request_timeout=0.3)
    sim.order(fault)

    began = time.monotonic()
    response = enhance(client)
    took = time.monotonic() - began

    assert error(response) == (504, "Groq did not answer in time")
    assert 0.27 < took < 3
    assert client.get("/health").json["failedKeys"] == []
    assert len(sim.calls) == 1


@pytest.mark.parametrize("fault", [Trouble.hangup(), Trouble.close()], ids=["while idle", "as the request came"])
def test_a_connection_that_groq_just_closed_costs_nobody_anything(serve, sim, caplog, fault):
    client = serve()
    sim.order(Trouble())
    sim.order(fault)

    assert [enhance(client).status_code for _ in range(3)] == [200] * 3

    assert list(dict.fromkeys(call.key for call in sim.calls)) == list(KEYS)
    assert client.get("/health").json["failedKeys"] == []
    assert "failed" not in caplog.text


def test_without_keys_every_answer_says_what_to_set_and_the_log_once(serve, caplog):
    response = enhance(serve(keys=()))

    assert error(response) == (503, "No Groq API key is configured")
    assert response.get_json()["details"] == WHAT_TO_SET
    assert caplog.text.count(f"❌ No Groq API key is configured. {WHAT_TO_SET}") == 1


@pytest.mark.parametrize(("told", "retry_after"), [(7, 7), (7.5, 8), (0.2, 1), (1_000_000, 86400)])
def test_retry_after_says_when_a_key_will_be_ready(serve, sim, clock, told, retry_after):
    client = serve(**ONE_MODEL)
    sim.order(Trouble.rate_limit(told), times=3)

    assert enhance(client).headers["Retry-After"] == str(retry_after)

    clock.advance(retry_after - 1)
    if retry_after > 1:
        assert error(enhance(client)) == (503, "All API keys are busy or cooling down")
        assert len(sim.calls) == 3
    clock.advance(1)
    assert enhance(client).status_code == 200


def test_each_typing_error_in_the_settings_has_its_line_in_the_log(serve, caplog):
    serve(warnings=("line 2 is lost", "GROQ_API_KEYZ is no setting"))

    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "⚠️  line 2 is lost",
        "⚠️  GROQ_API_KEYZ is no setting",
    ]


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 413, 422, 429, 498, 500])
@pytest.mark.parametrize("secret", ["gsk_one", "org_one", "my private prompt"])
def test_no_error_and_no_log_line_repeats_a_secret(serve, sim, caplog, status, secret):
    caplog.set_level("DEBUG")
    sim.order(Trouble.status(status, {"error": {"message": f"on {secret} tokens per day", "code": secret}}), times=None)

    response = enhance(serve(log_level="DEBUG"), "my private prompt")

    assert response.status_code >= 400
    assert secret not in caplog.text + response.text


# Other errors


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("POST", "/nothing", 404),
        ("POST", "/enhance/", 404),
        ("GET", "/%ff%00", 404),
        ("GET", "/static/../app.py", 404),
        ("GET", "/enhance", 405),
        ("DELETE", "/enhance", 405),
        ("BREW", "/enhance", 405),
        ("POST", "/health", 405),
    ],
)
def test_errors_are_json_on_any_path(serve, method, path, status):
    response = serve().open(path, method=method, json={"prompt": "Write about cats"})

    assert error(response)[0] == status


def test_a_405_says_what_is_allowed(serve):
    response = serve().get("/enhance")

    assert set(response.headers["Allow"].split(", ")) == {"POST", "OPTIONS"}


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_a_body_that_does_not_call_itself_json_is_refused(serve, sim, content_type):
    response = serve().post("/enhance", data=b'{"prompt": "Write"}', content_type=content_type)

    assert error(response) == (415, "Send the body as JSON, with Content-Type: application/json")
    assert sim.calls == []


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_beyond_the_limit_is_refused(serve, sim, chunked):
    body = BytesIO(b'{"prompt": "Write"}'.ljust(BODY_MAX + 1))
    length = {"wsgi.input_terminated": True} if chunked else {"CONTENT_LENGTH": str(BODY_MAX + 1)}

    response = serve().post("/enhance", input_stream=body, content_type="application/json", environ_overrides=length)

    assert error(response)[0] == 413
    assert sim.calls == []


def test_a_500_gives_nothing_away(serve):
    client = serve()

    def broken() -> str:
        raise RuntimeError("gsk_one of org_one")

    client.application.add_url_rule("/broken", view_func=broken)
    response = client.get("/broken", headers={"Origin": EXTENSION})

    assert error(response) == (500, "Internal Server Error")
    assert "_one" not in response.text
    assert response.headers["Access-Control-Allow-Origin"] == EXTENSION


# /health


def test_health_is_exact(serve, sim):
    client = serve()
    assert client.get("/health").data == b'{"status":"healthy","totalKeys":3,"activeKeys":3,"failedKeys":[]}\n'

    sim.order(Trouble.rate_limit(), key="gsk_one")
    assert enhance(client).status_code == 200

    assert client.get("/health").data == (
        b'{"status":"healthy","totalKeys":3,"activeKeys":2,'
        b'"failedKeys":[{"keyIndex":1,"failCount":1,"inCooldown":true}]}\n'
    )


def test_health_without_a_ready_key_is_exhausted_until_one_is(serve, sim, clock):
    client = serve()
    sim.order(Trouble.named("invalid_api_key"), times=3)
    enhance(client)

    exhausted = client.get("/health")
    clock.advance(60)
    healthy = client.get("/health")

    failed = [{"keyIndex": number, "failCount": 1, "inCooldown": True} for number in (1, 2, 3)]
    assert exhausted.status_code == 200
    assert exhausted.json == {"status": "exhausted", "totalKeys": 3, "activeKeys": 0, "failedKeys": failed}
    assert (healthy.json["status"], healthy.json["activeKeys"]) == ("healthy", 3)
    assert [key["inCooldown"] for key in healthy.json["failedKeys"]] == [False] * 3


def test_health_without_keys_is_a_503(serve):
    response = serve(keys=()).get("/health")

    assert response.status_code == 503
    assert response.data == b'{"status":"unconfigured","totalKeys":0,"activeKeys":0,"failedKeys":[]}\n'


@pytest.mark.parametrize("origin", ["https://evil.example", "null", EXTENSION, ""])
def test_health_is_open_to_any_page_and_never_limited(serve, origin):
    client = serve(client_limits="1 per day")

    assert [client.get("/health", headers={"Origin": origin}).status_code for _ in range(3)] == [200] * 3


# Origins

ALLOWED = [
    EXTENSION,
    "moz-extension://0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0",
    "safari-web-extension://0B1C2D3E-4F50-6172-8394-A5B6C7D8E9F0",
    "http://localhost:3000",
    "http://localhost",
    "https://localhost:3000",
    "https://localhost",
    "http://127.0.0.1:8080",
    "http://127.0.0.1",
    "http://[::1]:8080",
    "http://[::1]",
]
LOOK_ALIKES = [
    "https://evil.example",
    "null",
    "",
    "*",
    "chrome-extension://",
    "chrome-extension://x.evil.example/",
    "chrome-extension://x@evil.example",
    "xchrome-extension://abc",
    "https://127.0.0.1:3000",
    "http://localhost.",
    "http://localhost3000",
    "http://[::1]3000",
    "http://[::1",
    "http://[::12]:3000",
    "http://localhost:",
    "http://localhost:*",
    "http://localhost:80@evil.example",
    "http://localhost:3000.evil.example",
    "http://localhost:3000/",
    "http://localhost.evil.example:3000",
    "http://localhost:3000 https://evil.example",
    "http://localhost:3000\n",
    "http://localhost:3000\r\nSet-Cookie: a=b",
    "http://127.0.0.1.evil.example:80",
    "http://127x0.0.1:80",
    "https://evil.example?http://localhost:3000",
]


@pytest.mark.parametrize("origin", ALLOWED)
def test_allowed_pages_may_call_and_read_everything(serve, origin):
    client = serve()

    for response in (enhance(client, headers={"Origin": origin}), client.get("/nothing", headers={"Origin": origin})):
        assert response.headers["Access-Control-Allow-Origin"] == origin
        assert response.headers["Access-Control-Expose-Headers"] == "Retry-After, X-Request-Id"
        assert response.headers.getlist("Vary") == ["Origin"]


@pytest.mark.parametrize("origin", ALLOWED)
def test_allowed_pages_pass_the_preflight(serve, sim, origin):
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}

    response = serve().options("/enhance", headers={"Origin": origin} | asks)

    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Origin"] == origin
    assert "POST" in response.headers["Access-Control-Allow-Methods"]
    assert response.headers["Access-Control-Allow-Headers"] == "content-type"
    assert response.headers.getlist("Vary") == ["Origin"]
    assert sim.calls == []


def test_what_is_no_preflight_is_told_nothing_of_calls(serve):
    response = serve().options("/enhance", headers={"Origin": ALLOWED[0]})

    assert response.headers["Access-Control-Allow-Origin"] == ALLOWED[0]
    assert not {"Access-Control-Allow-Methods", "Access-Control-Allow-Headers"} & {*response.headers.keys()}


@pytest.mark.parametrize("method", ["POST", "OPTIONS"])
def test_look_alikes_are_refused_and_nothing_is_run(serve, sim, method):
    client = serve()

    for origin in LOOK_ALIKES:
        asks = {"HTTP_ORIGIN": origin, "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "POST"}
        response = client.open("/enhance", method=method, json={"prompt": "Write"}, environ_overrides=asks)

        assert error(response) == (403, REFUSED), origin
        assert not [name for name, _ in response.headers if name.startswith("Access-Control-")]
    assert sim.calls == []


def test_a_refused_page_learns_nothing_of_other_paths(serve):
    client = serve()

    for path in ("/nothing", "/enhance", "/health/"):
        assert error(client.get(path, headers={"Origin": "https://evil.example"})) == (403, REFUSED)


def test_a_program_without_an_origin_is_no_web_page(serve):
    response = enhance(serve())

    assert response.status_code == 200
    assert "Access-Control-Allow-Origin" not in response.headers
    assert response.headers["Vary"] == "Origin"


@pytest.mark.parametrize(
    ("setting", "origin", "status"),
    [
        ("*", "https://anyone.example", 200),
        ("*", "null", 200),
        ("https://a.example", "https://a.example", 200),
        ("https://a.example", "https://axexample", 403),
        ("https://a.example", "https://a.example.evil", 403),
        ("https://a.example", EXTENSION, 403),
        ("https://*.a.example", "https://b.c-d.a.example", 200),
        ("https://*.a.example", "https://a.example", 403),
        ("https://*.a.example", "https://evil.example/.a.example", 403),
        ("https://*.a.example", "https://evil.example:80#.a.example", 403),
        ("http://[::1]:*", "http://[::1]:3000", 200),
        ("https://a.example:*", "https://a.example", 200),
        ("https://a.example:*", "https://a.example:8443", 200),
        ("https://a.example:*", "https://a.example.evil", 403),
        ("https://a.example:443", "https://a.example", 403),
    ],
)
def test_the_operator_says_which_pages_may(serve, setting, origin, status):
    client = serve(allowed_origins=Config.from_env({"ALLOWED_ORIGINS": setting}).allowed_origins)

    assert enhance(client, headers={"Origin": origin}).status_code == status


# Limits of each client


def test_the_shortest_window_answers_429_until_it_ends(serve, sim, clock):
    client = serve(client_limits=Config().client_limits)
    assert enhance(client).status_code == 200

    clock.advance(0.5)
    response = enhance(client, headers={"Origin": EXTENSION})

    assert error(response) == (429, "Too many requests: wait a moment")
    assert response.headers["Retry-After"] == "2"
    assert response.headers["Access-Control-Allow-Origin"] == EXTENSION
    assert len(sim.calls) == 1
    clock.advance(1.5)
    assert enhance(client).status_code == 200


@pytest.mark.parametrize("limits", ["1 per 2 seconds;3 per minute", "3 per minute;1 per 2 seconds"])
def test_longer_windows_answer_402_until_they_end(serve, sim, clock, limits):
    client = serve(client_limits=limits)
    for _ in range(3):
        assert enhance(client).status_code == 200
        clock.advance(5)

    response = enhance(client)

    assert error(response) == (402, "FREE_LIMIT_REACHED")
    assert response.headers["Retry-After"] == "45"
    assert len(sim.calls) == 3
    clock.advance(45)
    assert enhance(client).status_code == 200


def test_a_refused_request_does_not_count_against_the_longer_window(serve, clock):
    client = serve(client_limits="1 per 2 seconds;2 per minute")

    assert [enhance(client).status_code for _ in range(4)] == [200, 429, 429, 429]
    clock.advance(2)
    assert enhance(client).status_code == 200


def test_the_only_limit_is_the_shortest(serve, clock):
    client = serve(client_limits="1 per day")

    assert [enhance(client).status_code for _ in range(2)] == [200, 429]


def test_no_limits_are_no_limits(serve):
    client = serve(client_limits="")

    assert [enhance(client).status_code for _ in range(5)] == [200] * 5


def test_what_costs_nothing_is_not_counted(serve, clock):
    client = serve(client_limits="1 per day")
    for _ in range(3):
        assert enhance(client, "ping").status_code == 200
        assert enhance(client, " ").status_code == 400
        assert client.options("/enhance", headers={"Origin": EXTENSION}).status_code == 200
        assert enhance(client, headers={"Origin": "https://evil.example"}).status_code == 403
        assert client.get("/nothing").status_code == 404

    assert enhance(client).status_code == 200


def counted_as_one(client: FlaskClient, one: dict[str, str], other: dict[str, str]) -> bool:
    first, second = (enhance(client, environ_overrides=environ).status_code for environ in (one, other))
    assert (first, second) in {(200, 200), (200, 429)}
    return second == 429


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("", "", True),
        ("unix:", "unix:", True),
    ],
)
def test_each_client_has_limits_of_its_own(serve, clock, one, other, same):
    client = serve(client_limits="1 per day")

    assert counted_as_one(client, {"REMOTE_ADDR": one}, {"REMOTE_ADDR": other}) is same


@pytest.mark.parametrize(
    ("hops", "one", "other", "same"),
    [
        (0, "192.0.2.1", "192.0.2.2", True),
        (1, "192.0.2.1", "192.0.2.2", False),
        (1, "1.1.1.1, 192.0.2.1", "2.2.2.2, 192.0.2.1", True),
        (1, "1.1.1.1,, ,192.0.2.1", "192.0.2.1", True),
        (3, "192.0.2.1, 10.0.0.1, 10.0.0.2", "192.0.2.2, 10.0.0.1, 10.0.0.2", False),
        (3, "192.0.2.1, 10.0.0.1, 10.0.0.2", "192.0.2.1, 10.0.0.3, 10.0.0.4", True),
        (3, "1.1.1.1, 192.0.2.1, 10.0.0.1, 10.0.0.2", "2.2.2.2, 3.3.3.3, 192.0.2.1, 10.0.0.1, 10.0.0.2", True),
        (3, "1.1.1.1", "2.2.2.2", True),
        (3, "1.1.1.1, 10.0.0.1", "", True),
        (1, "2001:db8::1", "2001:db8::2", True),
    ],
)
def test_a_forged_forwarded_address_gains_nothing(serve, clock, hops, one, other, same):
    client = serve(client_limits="1 per day", trusted_hops=hops)

    assert counted_as_one(client, {"HTTP_X_FORWARDED_FOR": one}, {"HTTP_X_FORWARDED_FOR": other}) is same


# Limits in Redis


def test_redis_shares_the_counts_and_outlives_a_restart(serve):
    with redis_server() as server:
        one, other = (serve(client_limits="2 per day", redis_url=server.url) for _ in range(2))

        assert [enhance(client).status_code for client in (one, other, one, other)] == [200, 200, 429, 429]


def test_retry_after_is_never_too_early_though_redis_rounds(serve):
    with redis_server() as server, server.client() as store:
        client = serve(client_limits="1 per day", redis_url=server.url)
        enhance(client)
        (count,) = store.keys("promptlord:calls:*")
        store.pexpire(count, 9_400)

        assert enhance(client).get_json()["retryAfter"] == 10


def test_without_redis_the_service_goes_on_and_counts_in_memory(serve):
    with redis_server() as server:
        client = serve(client_limits="1 per day", redis_url=server.url)
        assert [enhance(client).status_code for _ in range(2)] == [200, 429]

        server.close()

        assert enhance(client).status_code == 429, "what Redis had counted is known here"
        assert [enhance(client, environ_base={"REMOTE_ADDR": "10.0.0.2"}).status_code for _ in range(2)] == [200, 429]
        assert client.get("/health").status_code == 200


@pytest.mark.live
def test_a_redis_that_never_answers_holds_nobody_up(serve):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = serve(client_limits="1 per day", redis_url=f"redis://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()

        assert [enhance(client).status_code for _ in range(2)] == [200, 429]
        assert client.get("/health").status_code == 200
        assert time.monotonic() - started < 3
