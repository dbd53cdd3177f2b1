"""The pass-through: what goes up, what comes down, and whose key pays; in this process, against the simulator."""

import gzip
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import BytesIO

import pytest
from flask.testing import FlaskClient
from groqsim import End, Limits, Trouble, chunk
from v1_client import CHAT, MODEL, SSE, TOKEN, Client, error_of, raw, streamed
from werkzeug.test import EnvironBuilder

from promptlord.tokens import estimate_all
from promptlord.web import openai as v1
from promptlord.web.access import CLOSED, FOREIGN, SECURITY_HEADERS

SOUND = b"RIFF\r\n" + bytes(range(256)) * 100


@pytest.fixture
def connect(serve: Callable[..., FlaskClient]) -> Iterator[Callable[..., Client]]:
    with ExitStack() as opened:
        yield lambda **settings: Client(serve(**{"access_tokens": ("another", TOKEN)} | settings), opened)


@pytest.fixture
def client(connect: Callable[..., Client]) -> Client:
    return connect()


# What goes up


ODD = b' {"messages" :[ {"content":"\\u0068\\ud83d\\ude00 \\/ \xe2\x82\xac","role":"user"}],\n\t"model":"openai\\/gpt-oss-20b" , "x":1.50e+1,"model_":null,"max_tokens":9 } \r\n'  # noqa: E501


@pytest.mark.parametrize("prefix", v1.PREFIXES)
def test_a_body_goes_up_byte_for_byte(client, sim, prefix):
    response = client.post(ODD, f"{prefix}/chat/completions?beta=a%20b&c")

    (call,) = sim.calls
    assert response.status_code == 200
    assert call.body == ODD
    assert (call.method, call.path) == ("POST", "/openai/v1/chat/completions?beta=a%20b&c")
    assert call.model == MODEL


@pytest.mark.parametrize("path", [path for path, method in v1.METHODS.items() if method == "POST"])
def test_every_path_is_passed_on(client, sim, path):
    sim.order(Trouble.status(200, {"ok": path}))

    assert client.post(b'{"model": "m"}', f"/v1/{path}").get_json() == {"ok": path}
    assert sim.calls[0].path == f"/openai/v1/{path}"


@pytest.mark.parametrize("name", ["openai/gpt-oss-20b", "openai%2Fgpt-oss-20b"])
def test_models_are_listed_and_found_by_names_with_a_slash(client, sim, name):
    assert [model["id"] for model in client.open("GET", "/v1/models").get_json()["data"]] == list(sim.models)
    assert client.open("GET", f"/v1/models/{name}").get_json()["id"] == MODEL


def test_a_form_goes_up_byte_for_byte(client, sim):
    form = {"model": "whisper-large-v3", "file": (BytesIO(SOUND), "a.wav")}

    response = client.open("POST", "/v1/audio/transcriptions", data=form)

    (call,) = sim.calls
    assert "bytes of sound" in response.get_json()["text"]
    assert call.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert SOUND in call.body
    assert call.headers["content-length"] == str(len(call.body))


def test_a_form_is_sent_again_whole_to_the_next_key_and_its_model_counts(client, sim):
    sim.order(Trouble.rate_limit(), key="gsk_one", model="whisper-large-v3")
    sim.order(Trouble.reset(), key="gsk_two", model="whisper-large-v3")
    form = {"file": (BytesIO(SOUND), "a.wav"), "model": "whisper-large-v3"}

    assert client.open("POST", "/v1/audio/translations", data=form).status_code == 200

    bodies = [call.body for call in sim.calls]
    assert len(bodies) == 3
    assert bodies[0] == bodies[1] == bodies[2]


def test_of_the_clients_headers_only_what_groq_needs_goes_up(client, sim):
    client.post(
        b'{"model": "m"}',
        Accept="text/event-stream",
        Cookie="session=mine",
        Origin="http://localhost:5000",
        Referer="http://localhost:5000/",
        Forwarded="for=1.2.3.4",
        X_Forwarded_For="1.2.3.4",
        X_Real_Ip="1.2.3.4",
        OpenAI_Organization="org-mine",
        User_Agent="OpenAI/Python 3",
        Accept_Encoding="br, gzip;q=0.5",
        Groq_Beta="mine",
    )

    headers = sim.calls[0].headers
    assert headers.pop("authorization") == "Bearer gsk_one"
    assert headers.pop("host")
    assert headers == {
        "user-agent": "promptlord-backend",
        "content-type": "application/json",
        "content-length": "14",
        "accept": "text/event-stream",
        "accept-encoding": "gzip",
    }


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"model": "openai/gpt-oss-20b", "max_tokens": -5}', 400),
        (b'{"model": "openai/gpt-oss-20b", "max_tokens": 1%s}' % (b"0" * 400), 400),
        (b'{"model": "openai/gpt-oss-20b", "max_tokens": true, "max_completion_tokens": 1e999}', 400),
        (b'{"model": "openai/gpt-oss-20b", "max_tokens": NaN}', 400),
        (b'{"model": {"a": ["b"]}}', 400),
        (b'{"model": 7, "messages": 7}', 400),
        (b'{"model": null}', 400),
        (b"{}", 400),
        (b'{"model": "openai/gpt-oss-20b", "messages": [{"content": "\\ud800 lone"}], "max_tokens": 0}', 400),
        (b'{"model": "%s"}' % (b"m" * 100_000), 400),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_odd_is_groqs_to_judge(client, sim, body, status):
    response = client.post(body)

    assert (response.status_code, len(sim.calls)) == (status, 1)
    assert sim.calls[0].body == body
    assert client.chat().status_code == 200


def test_brackets_by_the_thousand_are_no_json(client):
    response = client.post(b'{"model": "m", "deep": %s%s}' % (b"[" * 20_000, b"]" * 20_000))

    assert response.status_code == 400
    assert client.chat().status_code == 200


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("data: some words " * 100, 567),
        ("data:image/png;base64," + "A" * 9000, 0),
        ("data:audio/wav;base64," + "A" * 9000, 0),
        ("data:,hello", 4),
    ],
)
def test_only_pictures_and_sounds_are_no_text(text, tokens):
    assert estimate_all({"content": [{"url": text}]}) == tokens


@pytest.mark.parametrize("reserve", ["-1000000", "1" + "0" * 300, "1" + "0" * 18])
def test_no_number_upsets_the_books(connect, sim, reserve):
    sim.limits = Limits(rpm=None, tpm=8000)
    client = connect(keys=("gsk_one",))
    client.chat()
    for _ in range(3):
        client.post(b'{"model": "openai/gpt-oss-20b", "messages": [], "max_tokens": %s}' % reserve.encode())

    taken = [client.chat(max_tokens=2000).status_code for _ in range(5)]

    assert taken.count(200) == 3
    assert 429 not in [call.status for call in sim.calls]


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"model": "', b"\xff\xfe{}", b'{"a": "\xff"}', b"[" * 100_000])
def test_what_is_no_json_object_goes_nowhere(client, sim, body):
    response = client.post(body)

    assert response.status_code == 400
    assert error_of(response)["message"] == "Request body must be a JSON object"
    assert sim.calls == []


# What comes down


def test_of_groqs_headers_only_what_a_client_needs_comes_down(client):
    headers = client.chat().headers

    assert re.fullmatch(r"req_\w+", headers["X-Request-Id"])
    ours = {name.lower() for name in SECURITY_HEADERS} | {"cache-control", "vary"}
    assert {name.lower() for name, _ in headers} - ours == {"content-type", "content-length", "x-request-id"}


@pytest.mark.parametrize("stream", [False, True])
def test_headers_that_gunicorn_would_refuse_are_left_out(client, sim, stream):
    sim.order(Trouble(script=lambda pieces: [pieces[0].replace(b"x-request-id: ", b"x-request-id: \1"), *pieces[1:]]))

    assert "X-Request-Id" not in client.chat(stream=stream).headers


def test_compressed_answers_stay_as_they_are(client, sim):
    sim.gzip = True

    response = client.post(json.dumps(CHAT).encode(), Accept_Encoding="gzip")

    assert response.headers["Content-Encoding"] == "gzip"
    assert int(response.headers["Content-Length"]) == len(response.data)
    assert "rain" in json.loads(gzip.decompress(response.data))["choices"][0]["message"]["content"]


def test_who_accepts_no_compression_gets_none(client, sim):
    sim.gzip = True

    assert client.chat().get_json()["choices"]
    assert sim.calls[0].headers["accept-encoding"] == "identity"


def test_errors_that_are_compressed_are_read_and_told_plainly(client, sim):
    sim.gzip = True

    response = client.post(b'{"model": "gone", "messages": [{}]}', Accept_Encoding="gzip")

    assert "Content-Encoding" not in response.headers
    assert response.get_json()["error"]["code"] == "model_not_found"


def test_sound_comes_down_as_it_is(client, sim):
    response = client.open("POST", "/v1/audio/speech", json={"model": "tts", "input": "rain", "voice": "x"})

    assert response.content_type == "audio/wav"
    assert response.data[:4] == b"RIFF"


def test_a_plain_answer_cut_short_is_cut_short(client, sim):
    sim.order(Trouble.truncate())

    with pytest.raises(ConnectionResetError):
        _ = client.chat().data


# Whose fault


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault",
    [
        Trouble.rate_limit(),
        Trouble.status(401),
        Trouble.named("organization_restricted"),
        Trouble.status(500),
        Trouble.status(301, "", {"location": "http://127.0.0.1:1/"}),
        Trouble.reset(),
        Trouble.close(),
        raw(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        raw(b"HTTP/1.1 204 No Content\r\n\r\n"),
        raw(SSE),
        Trouble(script=lambda pieces: [SSE, chunk(b"")]),
    ],
)
def test_another_key_answers_before_the_first_byte(client, sim, fault, stream):
    sim.order(fault, key="gsk_one")

    response = client.chat(stream=stream)

    assert response.status_code == 200
    assert b"[DONE]" in response.data if stream else response.get_json()["choices"]
    assert [call.key for call in sim.calls] == ["gsk_one", "gsk_two"]


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (Trouble.rate_limit(7), 503, "no_key_ready"),
        (Trouble.status(401), 503, "no_key_ready"),
        (Trouble.named("bad_gateway_html"), 502, "upstream_error"),
        (Trouble.status(500, "text"), 502, "upstream_error"),
        (Trouble.status(500, {"detail": "an error, but not OpenAI's"}), 502, "upstream_error"),
        (Trouble.status(500, {"error": {"message": "x" * 70_000}}), 502, "upstream_error"),
        (Trouble.status(302, "", {"location": "http://127.0.0.1:1/"}), 502, "upstream_error"),
        (Trouble.named("access_denied"), 502, "upstream_error"),
        (raw(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), 502, "upstream_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_when_no_key_helps_the_error_is_openais(client, sim, fault, status, code, stream):
    sim.order(fault, times=None)

    response = client.chat(stream=stream)

    assert response.status_code == status
    assert error_of(response)["code"] == code
    assert ("Retry-After" in response.headers) == (status == 503)


@pytest.mark.parametrize("status", [498, 500, 503])
@pytest.mark.parametrize("stream", [False, True])
def test_what_groq_says_of_its_own_trouble_is_passed_on_once_no_key_helps(client, sim, status, stream):
    told = {"error": {"message": "`org_three`: the model does not support embeddings", "type": "é"}}
    sim.order(Trouble.status(status, told), key="gsk_two", times=None)
    sim.order(Trouble.named("bad_gateway_html"), key="gsk_one", times=None)
    sim.order(Trouble.named("invalid_api_key"), key="gsk_three", times=None)

    response = client.chat(stream=stream)

    assert (response.status_code, response.mimetype) == (status, "application/json")
    assert response.get_json() == {
        "error": told["error"] | {"message": told["error"]["message"].replace("three", "***")}
    }
    assert len(sim.calls) == 3


def test_the_wait_that_is_told_is_true(client, sim):
    sim.order(Trouble.rate_limit(7), times=None)
    client.chat()

    assert client.chat().headers["Retry-After"] == "7"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (Trouble.named("json_validate_failed"), 400, "json_validate_failed"),
        (Trouble.named("model_decommissioned"), 400, "model_decommissioned"),
        (Trouble.named("request_too_large"), 413, "rate_limit_exceeded"),
        (Trouble.status(422), 422, None),
    ],
)
def test_what_is_the_clients_to_know_is_passed_through_once(client, sim, fault, status, code, stream):
    sim.order(fault, key="gsk_one")

    response = client.chat(stream=stream)

    assert response.status_code == status
    assert response.get_json()["error"].get("code") == code
    assert "org_one" not in response.text
    assert [call.key for call in sim.calls] == ["gsk_one"]
    assert client.flask.get("/health").get_json()["failedKeys"] == []


def test_that_no_organization_has_a_model_is_passed_through_and_no_key_pays(client, sim):
    for calls in (2, 3, 4):
        response = client.chat(model="gpt-7")

        assert (response.status_code, response.get_json()["error"]["code"]) == (404, "model_not_found")
        assert len(sim.calls) == calls  # two organizations are asked, then one at a time, for it may be there now
    assert client.flask.get("/health").get_json()["failedKeys"] == []


def test_where_one_organization_lacks_a_model_another_serves_it(client, sim):
    sim.order(Trouble.named("model_not_found"), key="gsk_one", times=None)

    assert [client.chat().status_code for _ in range(4)] == [200] * 4
    assert [call.key for call in sim.calls] == ["gsk_one", "gsk_two", "gsk_two", "gsk_three", "gsk_two"]


def test_organizations_are_masked_in_what_is_passed_through(client, sim):
    sim.order(Trouble.status(400, {"error": {"message": "not in `org_01k9v83k2bf1zr2nc2pzp9y3ad`", "param": "é"}}))

    assert client.chat().get_json() == {"error": {"message": "not in `org_***`", "param": "é"}}


def test_a_model_that_a_client_lacks_is_no_trouble_of_enhance(client, sim):
    sim.order(Trouble.named("model_not_found"), model=MODEL)
    client.chat()

    client.flask.post("/enhance", json={"prompt": "a prompt"})

    assert sim.calls[-1].model == MODEL


# Who may call


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer let-me-i", "Bearer let-me-in2", "Basic let-me-in", "Bearer é", "let-me-in"],
)
def test_a_wrong_token_is_told_so(client, sim, authorization):
    headers = {} if authorization is None else {"Authorization": authorization}

    for method, path in (("GET", "/v1/models"), ("POST", "/openai/v1/chat/completions"), ("GET", "/v1/files")):
        response = client.flask.open(path, method=method, headers=headers, json=CHAT if method == "POST" else None)
        assert response.status_code == 401
        assert error_of(response)["code"] == "invalid_api_key"
        assert error_of(response)["message"] == "Wrong or missing access token: send it as Authorization: Bearer"
        assert response.headers["WWW-Authenticate"] == "Bearer"
    assert sim.calls == []


@pytest.mark.parametrize("authorization", ["Bearer let-me-in", "bearer  let-me-in", "Bearer another"])
def test_every_token_opens(serve, authorization):
    flask = serve(access_tokens=("another", TOKEN))

    assert flask.get("/v1/models", headers={"Authorization": authorization}).status_code == 200


def test_without_tokens_it_is_closed_and_the_log_says_how_to_open_it(serve, sim, caplog):
    response = serve().post("/v1/chat/completions", json=CHAT, headers={"Authorization": "Bearer "})

    assert response.status_code == 403
    assert error_of(response)["message"] == CLOSED
    assert "ACCESS_TOKENS" not in CLOSED
    assert caplog.text.count("set ACCESS_TOKENS to one or more tokens of your choice, then restart") == 1
    assert sim.calls == []


def test_without_keys_it_says_what_to_set(connect):
    response = connect(keys=()).chat()

    assert response.status_code == 503
    assert "GROQ_API_KEYS" in error_of(response)["message"]


def test_a_web_page_needs_an_allowed_origin_even_with_a_token(client, sim, caplog):
    refused = client.open("GET", "/v1/models", headers={"Origin": "https://evil.example"})
    admitted = client.open("GET", "/v1/models", headers={"Origin": "http://localhost:5000"})

    assert refused.status_code == 403
    assert error_of(refused)["message"] == FOREIGN
    assert "ALLOWED_ORIGINS" not in FOREIGN
    assert caplog.text.count("add it to ALLOWED_ORIGINS if it is yours") == 1
    assert admitted.status_code == 200
    assert admitted.headers["Access-Control-Allow-Origin"] == "http://localhost:5000"
    assert len(sim.calls) == 1


def test_a_preflight_needs_no_token(client, sim):
    asked = {
        "Origin": "http://localhost:5000",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, x-stainless-lang",
    }
    response = client.flask.options("/v1/chat/completions", headers=asked)

    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:5000"
    assert "POST" in response.headers["Access-Control-Allow-Methods"]
    for name in ("authorization", "content-type", "x-stainless-lang"):
        assert name in response.headers["Access-Control-Allow-Headers"].lower()
    assert sim.calls == []


def test_client_limits_do_not_apply(connect):
    client = connect(client_limits="1 per 2 seconds")

    assert [client.chat().status_code for _ in range(4)] == [200] * 4


# What there is not


@pytest.mark.parametrize("path", ["files", "files/file-1/content", "batches", "batches/b/cancel", "fine_tuning/jobs"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_what_belongs_to_one_organization_is_not_found(client, sim, method, path):
    response = client.open(method, f"/v1/{path}")

    assert response.status_code == 404
    assert "one organization" in error_of(response)["message"]
    assert sim.calls == []


@pytest.mark.parametrize(
    "path",
    [
        "images/generations",
        "chat/completions/x",
        "completions",
        "models/../files",
        "models/%2e%2e/files",
        "models/..%2ffiles",
        "models/.",
        "audio/../files",
    ],
)
def test_all_else_is_not_found_and_told_what_is(client, sim, path):
    response = client.open("GET", f"/openai/v1/{path}")

    assert response.status_code == 404
    assert "chat/completions" in error_of(response)["message"]
    assert sim.calls == []


@pytest.mark.parametrize("base", ["", "/openai", "/v1/v1", "/openai/v1/openai/v1", "/v1/openai/v1", "/api/v1", "/v2"])
def test_under_a_wrong_base_url_the_right_one_is_told(client, sim, base):
    for path, method in {**v1.METHODS, "models/openai/gpt-oss-20b": "GET", "completions": "POST"}.items():
        response = client.open(method, f"{base}/{path}", base_url="http://host:3000")

        assert response.status_code == 404
        message = error_of(response)["message"]
        assert message.endswith("Set the base URL to http://host:3000/v1, or in Groq's own SDK to http://host:3000")
    assert sim.calls == []


def test_the_base_url_that_is_told_is_the_one_outside_of_the_proxy(client):
    response = client.open("POST", "/chat/completions", headers={"X-Forwarded-Proto": "https", "Host": "a.example"})

    assert "https://a.example/v1" in error_of(response)["message"]


@pytest.mark.parametrize("path", ["/nothing", "/chat", "/enhance/chat", "/modelsx", "/chat/completionsx"])
def test_other_paths_are_not_found_as_ever(client, path):
    assert client.open("POST", path).get_json()["error"] == "Not Found"


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/openai/v1", "/v1x"])
def test_the_bare_prefix_is_not_found(client, path):
    assert client.open("GET", path).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "chat/completions", "POST"),
        ("PUT", "audio/speech", "POST"),
        ("POST", "models", "GET"),
        ("DELETE", "models/openai/gpt-oss-20b", "GET"),
        ("HEAD", "models", "GET"),
    ],
)
def test_other_methods_are_told_which(client, sim, method, path, allowed):
    response = client.open(method, f"/v1/{path}")

    assert response.status_code == 405
    assert response.headers["Allow"] == allowed
    assert method == "HEAD" or error_of(response)["code"] == "method_not_allowed"
    assert sim.calls == []


# What is held, and given back


def test_every_answer_gives_its_place_back_read_or_not(connect, sim):
    client = connect(threads=5, key_cooldown=0.1)  # one place
    whole = [
        *(lambda: client.chat(), lambda: client.chat(stream=True)),
        *(lambda: client.chat(messages=[]), lambda: client.open("GET", "/v1/models")),
    ]

    for _ in range(3):
        for ask in whole:
            response = ask()
            assert response.data
            response.close()
            left_unread = ask()
            assert left_unread.status_code in (200, 400)
            left_unread.close()


@pytest.mark.parametrize("body", [b"{}", b"x" * 100_000])
@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_refuses_the_headers_gives_the_place_back(connect, sim, body, stream):
    client = connect(threads=5)  # one place
    kind = b"text/event-stream" if stream else b"application/json"
    sim.order(raw(b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n\r\n%b" % (kind, body)))
    environ = EnvironBuilder("/v1/chat/completions", method="POST", json=CHAT).get_environ()

    def refuse(*_: object) -> None:
        raise ValueError("invalid literal")  # as gunicorn does

    with pytest.raises(ValueError, match="invalid literal"):
        client.flask.application.wsgi_app(environ | {"HTTP_AUTHORIZATION": f"Bearer {TOKEN}"}, refuse)

    assert client.chat().status_code == 200


def test_a_plain_length_is_passed_on(client, sim):
    sim.order(raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"))

    response = client.chat()

    assert response.headers["Content-Length"] == "2"
    assert response.data == b"{}"


@pytest.mark.parametrize(
    "length",
    ["abc", "2\r\ncontent-length: 2", "-2", "+2", "2.0", "\xb2", "9" * 5000, "2\r\ntransfer-encoding: gzip"],
)
def test_where_the_length_is_in_doubt_the_next_key_answers_and_no_place_is_lost(connect, sim, length):
    client = connect(threads=5)  # one place
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"

    for _ in range(2):
        sim.order(raw(head.encode("latin-1") + b"{}"))
        response = client.chat()
        assert response.json["choices"]
        response.close()

    assert len(sim.calls) == 4


def test_a_stream_keeps_its_place_until_it_ends(connect, sim):
    client = connect(threads=5)
    stream = client.chat(stream=True)

    assert client.chat().status_code == 503

    assert b"[DONE]" in stream.data
    stream.close()
    assert client.chat().status_code == 200


def test_the_connection_of_an_answer_that_was_read_is_used_again(client, sim):
    threads = set()

    def reply(request: object) -> str:
        threads.add(threading.current_thread())  # each connection has its own
        return "said"

    sim.reply = reply
    for stream in (False, True) * 3:
        response = client.chat(stream=stream)
        assert response.data
        response.close()

    assert len(threads) == 1


# Logs


def test_the_log_gives_nothing_away(client, sim, caplog):
    caplog.set_level(logging.DEBUG)
    sim.order(Trouble.rate_limit(), key="gsk_one")
    sim.order(
        Trouble.status(400, {"error": {"message": "marzipan org_three", "code": "marzipan org_three"}}), key="gsk_three"
    )
    sim.order(streamed(b"data: marzipan\n\n", End.RESET), key="gsk_two", times=1)

    for stream in (False, True, False):
        assert client.chat(stream=stream, messages=[{"role": "user", "content": "marzipan"}]).data

    assert "Request successful with API Key #2" in caplog.text
    for secret in (TOKEN, "gsk_", "org_", "marzipan"):
        assert secret not in caplog.text
