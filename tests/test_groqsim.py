"""The simulator keeps to what is known of Groq; seen through real sockets, with a client that knows nothing of it."""

import base64
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import completions
import groqsim
import pytest
import requests
from groqsim import ERRORS, FAULTS, GroqSim, Limits, Trouble, count_tokens, go_duration

MODEL, OTHER = "openai/gpt-oss-20b", "openai/gpt-oss-120b"
KEYS = {"gsk_a": "org_x", "gsk_b": "org_x", "gsk_c": "org_y"}
UPGRADE = "Need more tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing"
SAID = [{"role": "user", "content": "a" * 120}]  # 30 tokens, and 70 of the template: a prompt of 100


class Caller:
    """A client of one simulator, on one connection kept alive."""

    def __init__(self, sim: GroqSim) -> None:
        self.sim = sim
        self.session = requests.Session()
        self.session.trust_env = False

    def chat(self, key: str = "gsk_a", **fields: Any) -> requests.Response:
        body = {"model": MODEL, "messages": SAID, "max_completion_tokens": 200} | fields
        return self.send("POST", "/openai/v1/chat/completions", key, json=body)

    def send(self, method: str, path: str, key: str = "gsk_a", **options: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {key}"}
        return self.session.request(method, self.sim.url + path, headers=headers, timeout=5, **options)


@pytest.fixture
def sim(clock) -> Iterator[GroqSim]:
    with GroqSim(KEYS, clock=clock) as sim:
        yield sim


@pytest.fixture
def caller(sim) -> Iterator[Caller]:
    caller = Caller(sim)
    with caller.session:
        yield caller


def message(response: requests.Response) -> str:
    return str(response.json()["error"]["message"])


def content(response: requests.Response) -> str:
    return str(response.json()["choices"][0]["message"]["content"])


def events(response: requests.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    return [json.loads(line) if line.startswith("{") else line for line in lines]


def listed(caller: Caller, key: str) -> list[str]:
    return [model["id"] for model in caller.send("GET", "/openai/v1/models", key).json()["data"]]


def ratelimit(response: requests.Response) -> dict[str, str]:
    start = "x-ratelimit-"
    return {name[len(start) :]: value for name, value in response.headers.items() if name.startswith(start)}


# Words and numbers


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "0s"),
        (0.00000015, "150ns"),
        (0.00025, "250µs"),
        (0.54, "540ms"),
        (0.172799999, "172.799999ms"),
        (2, "2s"),
        (1.984999999, "1.984999999s"),
        (36.27, "36.27s"),
        (60, "1m"),
        (86.4, "1m26.4s"),
        (578.016, "9m38.016s"),
        (11525, "3h12m5s"),
        (45000, "12h30m"),
        (3605, "1h5s"),
    ],
)
def test_durations_are_written_as_go_does(seconds, written):
    assert go_duration(seconds) == written


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("привет", 3), ("雨の詩", 3)]
)
def test_tokens_are_fewer_letters_the_rarer_the_alphabet(text, tokens):
    assert count_tokens(text) == tokens


def test_a_text_is_cut_to_its_tokens():
    assert completions.cut("abcdefghi", 2) == "abcdefgh"
    assert completions.cut("雨の詩", 2) == "雨の"
    assert completions.cut("abc", -1) == ""


# Chats


def test_a_chat_is_answered_with_an_enhanced_prompt_and_its_usage(caller):
    answer = caller.chat(messages=[{"role": "user", "content": "poem about 雨"}]).json()

    choice = answer["choices"][0]
    assert "Task: poem about 雨" in choice["message"]["content"]
    assert (choice["finish_reason"], answer["model"], answer["object"]) == ("stop", MODEL, "chat.completion")
    said = 40 + count_tokens(choice["message"]["content"])
    assert answer["usage"]["prompt_tokens"] == 70 + 4
    assert answer["usage"]["completion_tokens"] == said
    assert answer["usage"]["total_tokens"] == 74 + said
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 40}
    assert {"queue_time", "total_time"} <= answer["usage"].keys()
    assert answer["service_tier"] == "on_demand"


def test_the_same_message_gets_the_same_text(caller):
    assert content(caller.chat()) == content(caller.chat())


def test_content_may_come_in_parts(caller):
    parts = [{"type": "text", "text": "rain "}, {"type": "text", "text": "song"}]

    assert "Task: rain song" in content(caller.chat(messages=[{"role": "user", "content": parts}]))


def test_reasoning_is_told_unless_refused(caller):
    assert "reasoning" in caller.chat().json()["choices"][0]["message"]
    assert "reasoning" not in caller.chat(include_reasoning=False).json()["choices"][0]["message"]


def test_a_reply_of_ones_own_replaces_the_text(clock):
    with GroqSim(KEYS, clock=clock, reply=lambda request: request["user"].upper()) as sim:
        assert content(Caller(sim).chat(user="me")) == "ME"


@pytest.mark.parametrize(
    ("most", "text", "finish", "tokens"),
    [(41, "abcd", "length", 41), (40, "", "length", 40), (7, "", "length", 7), (42, "abcdefgh", "stop", 42)],
)
def test_what_does_not_fit_is_cut_and_reasoning_eats_first(clock, most, text, finish, tokens):
    with GroqSim(KEYS, clock=clock, reply=lambda request: "abcdefgh") as sim:
        answer = Caller(sim).chat(max_completion_tokens=most).json()

    choice = answer["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (text, finish)
    assert answer["usage"]["completion_tokens"] == tokens


@pytest.mark.parametrize("stream", [False, True])
def test_who_names_no_maximum_is_served_whole(caller, stream):
    draft = "write of rain " * 357  # 5,000 characters, which come back in the answer

    response = caller.chat(max_completion_tokens=None, messages=[{"role": "user", "content": draft}], stream=stream)

    assert response.status_code == 200
    told = [event["choices"][0] for event in events(response)[:-1]] if stream else [response.json()["choices"][0]]
    assert told[-1]["finish_reason"] == "stop"
    assert draft.strip() in "".join((choice.get("message") or choice["delta"]).get("content", "") for choice in told)


def test_a_stream_tells_the_same_text_chunk_by_chunk(caller):
    whole = content(caller.chat())
    streamed = caller.chat(stream=True)

    told = events(streamed)
    assert streamed.headers["content-type"] == "text/event-stream"
    assert told[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in told[:-1]) == whole
    assert len(told) > 20
    assert [event["choices"][0]["finish_reason"] for event in told[-3:-1]] == [None, "stop"]
    assert told[-2]["x_groq"]["usage"]["prompt_tokens"] == 100
    assert told[-1] == "[DONE]"


def test_a_stream_ends_with_its_usage_when_asked(caller):
    told = events(caller.chat(stream=True, stream_options={"include_usage": True}))

    assert told[-2]["choices"] == []
    assert told[-2]["usage"]["prompt_tokens"] == 100
    assert [event.get("service_tier") for event in told[-3:-1]] == [None, "on_demand"]


def test_chunks_arrive_one_by_one(sim):
    sim.reply = lambda request: "two words"
    sim.chunk_pause = 0.02

    with connected(sim, stream=True, include_reasoning=False) as client:
        received = list(iter(lambda: client.recv(65536), b"0\r\n\r\n"))

    assert [piece.count(b"data: ") for piece in received] in ([1] * 5, [0, *[1] * 5])


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"{", "Failed to parse the request body as a JSON object"),
        (b"[" * 100_000, "Failed to parse the request body as a JSON object"),
        (b"[]", "Failed to parse the request body as a JSON object"),
        ({"messages": SAID}, "'model' : property 'model' is missing"),
        ({"model": MODEL}, "'messages' : property 'messages' is missing"),
        ({"model": MODEL, "messages": []}, "'messages' : one or more objects are needed"),
        ({"model": MODEL, "messages": ["hi"]}, "'messages' : one or more objects are needed"),
        (
            {"model": MODEL, "messages": SAID, "max_completion_tokens": 0},
            "`max_completion_tokens` must be between `1` and `65536`",
        ),
        (
            {"model": MODEL, "messages": SAID, "max_completion_tokens": 9, "max_tokens": "9"},
            "`max_completion_tokens` must be between `1` and `65536`",
        ),
        (
            {"model": MODEL, "messages": SAID, "max_tokens": 10**400},
            "`max_completion_tokens` must be between `1` and `65536`",
        ),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(caller, body, complaint):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = caller.send("POST", "/openai/v1/chat/completions", data=data)

    assert response.status_code == 400
    assert response.json() == {"error": {"message": complaint, "type": "invalid_request_error"}}


def test_a_400_shows_the_limits_and_takes_nothing(caller):
    assert ratelimit(caller.chat(messages=[]))["remaining-requests"] == "1000"


def test_an_unknown_key_is_refused_without_limits(caller):
    response = caller.chat(key="gsk_nobody")

    assert response.status_code == 401
    assert response.json() == {
        "error": {"message": "Invalid API Key", "type": "invalid_request_error", "code": "invalid_api_key"}
    }
    assert ratelimit(response) == {}


def test_an_unknown_model_is_not_found(caller):
    response = caller.chat(model="gone")

    assert response.status_code == 404
    assert response.json()["error"] == {
        "message": "The model `gone` does not exist or you do not have access to it.",
        "type": "invalid_request_error",
        "code": "model_not_found",
    }


def test_models_are_listed_and_described(caller):
    listed = caller.send("GET", "/openai/v1/models").json()

    assert [model["id"] for model in listed["data"]] == [MODEL, OTHER]
    assert caller.send("GET", f"/openai/v1/models/{OTHER}").json() == listed["data"][1]
    assert caller.send("GET", f"/openai/v1/models/{OTHER.replace('/', '%2F')}").json() == listed["data"][1]
    assert caller.send("GET", "/openai/v1/models/gone").json()["error"]["code"] == "model_not_found"
    assert caller.send("GET", "/openai/v1/models", key="gsk_nobody").status_code == 401


def test_an_organization_may_lack_a_model(caller):
    caller.sim.lacking = {"org_x": [MODEL]}
    chat, embedding = {"model": MODEL, "messages": SAID}, {"model": MODEL, "input": "rain"}

    refused = [
        caller.send("POST", "/openai/v1/chat/completions", json=chat),
        caller.send("POST", "/openai/v1/chat/completions", "gsk_b", json=chat),
        caller.send("POST", "/openai/v1/embeddings", json=embedding),
        caller.send("GET", f"/openai/v1/models/{MODEL}"),
    ]

    assert [response.status_code for response in refused] == [404] * 4
    assert {message(response) for response in refused} == {
        f"The model `{MODEL}` does not exist or you do not have access to it."
    }
    assert refused[0].json()["error"]["code"] == "model_not_found"
    assert listed(caller, "gsk_a") == [OTHER]
    assert ratelimit(caller.chat(model=OTHER))["remaining-requests"] == "999"


def test_what_one_organization_lacks_others_have(caller):
    caller.sim.lacking = {"org_x": [MODEL]}

    assert caller.chat(key="gsk_c").status_code == 200
    assert listed(caller, "gsk_c") == [MODEL, OTHER]
    assert caller.send("GET", f"/openai/v1/models/{MODEL}", "gsk_c").json()["id"] == MODEL


def test_unknown_paths_and_methods_are_not_found(caller):
    assert caller.send("GET", "/openai/v1/chat/completions").json()["error"]["code"] == "unknown_url"
    assert caller.send("POST", "/openai/v1/nothing").status_code == 404


def test_answers_look_as_if_they_came_through_cloudflare(caller):
    headers = caller.chat().headers

    assert re.fullmatch(r"req_\w+", headers["x-request-id"])
    assert headers["server"] == "cloudflare"
    assert headers.keys() >= {"cf-ray", "x-groq-region", "date"}
    assert "__cf_bm" in caller.session.cookies


# What else there is


WEATHER = {"name": "weather", "parameters": {"type": "object", "required": ["place"]}}


@pytest.mark.parametrize("stream", [False, True])
def test_an_offered_tool_is_called_and_its_result_told(caller, stream):
    tools = [{"type": "function", "function": WEATHER}]
    response = caller.chat(tools=tools, stream=stream)
    told = events(response)[-3] if stream else response.json()
    (called,) = told["choices"][0]["delta" if stream else "message"]["tool_calls"]

    assert called["function"] == {"name": "weather", "arguments": '{"place": "rain"}'}
    assert '"finish_reason": "tool_calls"' in response.text
    assert content(caller.chat(tools=tools, messages=[*SAID, {"role": "tool", "content": "wet"}]))


def test_json_mode_answers_json(caller):
    assert json.loads(content(caller.chat(response_format={"type": "json_object"}))).keys() == {"answer"}


def test_responses_are_whole_or_named_events_without_done(caller):
    asked = {"model": MODEL, "input": "a" * 120, "max_output_tokens": 200}
    whole = caller.send("POST", "/openai/v1/responses", json=asked)
    streamed = caller.send("POST", "/openai/v1/responses", json=asked | {"stream": True})

    text = whole.json()["output"][0]["content"][0]["text"]
    names = re.findall(r"^event: (\S+)$", streamed.text, re.MULTILINE)
    deltas = re.findall(r'"response.output_text.delta".*?"delta": ("(?:[^"\\]|\\.)*")', streamed.text)
    assert text == content(caller.chat())
    assert whole.json()["service_tier"] == "on_demand"
    assert ratelimit(whole)["remaining-tokens"] == "7700"
    assert (names[0], names[-1]) == ("response.created", "response.completed")
    assert "".join(map(json.loads, deltas)) == text
    assert "[DONE]" not in streamed.text


def test_embeddings_are_the_same_packed_or_not(caller):
    asked = {"model": "embed", "input": ["rain", "snow"]}
    plain = caller.send("POST", "/openai/v1/embeddings", json=asked).json()["data"]
    packed = caller.send("POST", "/openai/v1/embeddings", json=asked | {"encoding_format": "base64"}).json()["data"]

    assert [len(each["embedding"]) for each in plain] == [8, 8]
    assert plain[0]["embedding"] != plain[1]["embedding"]
    unpacked = struct.unpack("<8f", base64.b64decode(packed[1]["embedding"]))
    assert unpacked == pytest.approx(plain[1]["embedding"])


@pytest.mark.parametrize("task", ["transcriptions", "translations"])
def test_sound_becomes_text_if_file_and_model_are_there(caller, task):
    path, file = f"/openai/v1/audio/{task}", {"file": ("a.wav", b"RIFF\0\r\n", "audio/wav")}

    heard = caller.send("POST", path, data={"model": "whisper-large-v3", "prompt": "rain"}, files=file)
    assert heard.json()["text"] == f" rain {len(caller.sim.calls[-1].body)} bytes of sound."
    assert caller.sim.calls[-1].model == "whisper-large-v3"

    assert "'model'" in message(caller.send("POST", path, files=file))
    assert "'file'" in message(caller.send("POST", path, files={"model": (None, "whisper-large-v3")}))


def test_text_becomes_sound(caller):
    spoken = caller.send("POST", "/openai/v1/audio/speech", json={"model": "tts", "input": "rain", "voice": "x"})

    assert spoken.headers["content-type"] == "audio/wav"
    with wave.open(BytesIO(spoken.content)) as sound:
        assert sound.getnframes() == 640


def test_answers_are_compressed_on_order_for_who_accepts_it(caller):
    caller.sim.gzip = True
    assert caller.chat().headers["content-encoding"] == "gzip"
    assert content(caller.chat())

    caller.session.headers["Accept-Encoding"] = "identity"
    assert "content-encoding" not in caller.chat().headers


# Limits


def test_limits_stand_in_the_headers(caller):
    response = caller.chat()  # 100 + 200 tokens

    assert ratelimit(response) == {
        "limit-requests": "1000",
        "remaining-requests": "999",
        "reset-requests": "1m26.4s",
        "limit-tokens": "8000",
        "remaining-tokens": "7700",
        "reset-tokens": "2.25s",
    }


def test_streams_have_the_same_headers(caller):
    assert ratelimit(caller.chat(stream=True))["remaining-tokens"] == "7700"


def test_tokens_refill_to_the_instant(caller, clock):
    assert caller.chat(max_completion_tokens=7900).status_code == 200

    clock.advance(2.24)
    refused = caller.chat()
    clock.advance(0.01)
    admitted = caller.chat()

    assert refused.status_code == 429
    assert message(refused) == (
        f"Rate limit reached for model `{MODEL}` in organization `org_x` service tier `on_demand` on tokens per minute "
        f"(TPM): Limit 8000, Used 7702, Requested 300. Please try again in 15ms. {UPGRADE}"
    )
    assert refused.headers["retry-after"] == "1"
    assert ratelimit(refused)["remaining-tokens"] == "298"
    assert admitted.status_code == 200
    assert ratelimit(admitted)["remaining-tokens"] == "0"


def test_no_more_is_saved_up_than_the_limit(caller, clock):
    caller.chat()
    clock.advance(3600)

    assert ratelimit(caller.chat())["remaining-tokens"] == "7700"


def test_requests_refill_one_every_two_seconds(caller, clock):
    caller.sim.limits = Limits(rpm=30, tpm=None)
    for _ in range(30):
        assert caller.chat().status_code == 200

    refused = caller.chat()
    clock.advance(1.999)
    assert "Please try again in 1ms." in message(caller.chat())
    clock.advance(0.001)
    assert caller.chat().status_code == 200

    assert refused.json()["error"] == {
        "message": f"Rate limit reached for model `{MODEL}` in organization `org_x` service tier `on_demand` on "
        f"requests per minute (RPM): Limit 30, Used 30, Requested 1. Please try again in 2s. {UPGRADE}",
        "type": "requests",
        "code": "rate_limit_exceeded",
    }
    assert refused.headers["retry-after"] == "2"


def test_a_429_for_requests_shows_no_tokens(caller):
    caller.sim.limits = Limits(rpm=1)
    caller.chat()

    assert ratelimit(caller.chat()).keys() == {"limit-requests", "remaining-requests", "reset-requests"}


def test_requests_of_a_day_refill_too(caller, clock):
    caller.sim.limits = Limits(rpm=None, rpd=1000, tpm=None)
    for _ in range(3):
        caller.chat()
    clock.advance(86.4)

    assert ratelimit(caller.chat()) == {
        "limit-requests": "1000",
        "remaining-requests": "997",
        "reset-requests": "4m19.2s",
    }


def test_a_day_of_requests_used_up(caller):
    caller.sim.limits = Limits(rpm=None, rpd=2, tpm=None)
    caller.chat()
    caller.chat()

    refused = caller.chat()

    assert "on requests per day (RPD): Limit 2, Used 2, Requested 1. Please try again in 12h. Need" in message(refused)
    assert refused.headers["retry-after"] == "43200"


def test_a_day_of_tokens_used_up_has_a_sentence_but_no_header(caller):
    spend_the_day(caller)

    refused = caller.chat(max_completion_tokens=2579)

    assert refused.json()["error"] == {
        "message": f"Rate limit reached for model `{MODEL}` in organization `org_x` service tier `on_demand` on tokens "
        f"per day (TPD): Limit 200000, Used 199754, Requested 2679. Please try again in 17m31.056s. {UPGRADE}",
        "type": "tokens",
        "code": "rate_limit_exceeded",
    }
    assert refused.headers["retry-after"] == "1052"
    assert ratelimit(refused).keys() == {"limit-requests", "remaining-requests", "reset-requests"}


def test_tokens_of_a_day_refill_too_and_are_counted_whole(caller, clock):
    spend_the_day(caller)

    clock.advance(0.4)  # of 0.432 for a token
    assert "Used 199754, Requested 2679. Please try again in 17m31.056s." in message(
        caller.chat(max_completion_tokens=2579)
    )
    clock.advance(1050.65)
    assert "Used 197322, Requested 2679. Please try again in 432ms." in message(caller.chat(max_completion_tokens=2579))
    clock.advance(0.006)
    assert caller.chat(max_completion_tokens=2579).status_code == 200


def spend_the_day(caller: Caller) -> None:
    """199,754 of the free plan's 200,000 tokens, all at once."""
    caller.sim.limits = Limits(tpm=None)
    for most in (65_536, 65_536, 65_536, 2746):
        assert caller.chat(max_completion_tokens=most).status_code == 200


def test_a_day_may_be_used_up_while_the_minute_shows_plenty(caller):
    caller.sim.limits = Limits(tpd=500)
    caller.chat()

    refused = caller.chat()

    assert "(TPD): Limit 500, Used 300, Requested 300." in message(refused)
    assert ratelimit(refused)["remaining-tokens"] == "7700"


def test_more_than_a_minute_holds_is_too_large_for_good(caller):
    response = caller.chat(max_completion_tokens=8900)

    assert response.status_code == 413
    assert response.json()["error"] == {
        "message": f"Request too large for model `{MODEL}` in organization `org_x` service tier `on_demand` on "
        "tokens per minute (TPM): Limit 8000, Requested 9000, please reduce your message size and try again. "
        + UPGRADE,
        "type": "tokens",
        "code": "rate_limit_exceeded",
    }
    assert response.headers["retry-after"] == "8"
    assert ratelimit(response) == {}


def test_too_large_is_said_even_when_requests_are_used_up(caller):
    caller.sim.limits = Limits(rpm=1)
    caller.chat()

    assert caller.chat(max_completion_tokens=8900).status_code == 413


@pytest.mark.parametrize("maxima", [{}, {"max_completion_tokens": None, "max_tokens": None}])
def test_without_a_maximum_a_small_default_is_reserved(caller, maxima):
    chat = caller.send("POST", "/openai/v1/chat/completions", json={"model": MODEL, "messages": SAID} | maxima)
    response = caller.send("POST", "/openai/v1/responses", json={"model": MODEL, "input": "a" * 120} | maxima)

    assert ratelimit(chat)["remaining-tokens"] == "6876"  # 100 and 1,024 less
    assert ratelimit(response)["remaining-tokens"] == "5752"
    assert caller.sim.calls[0].max_completion_tokens is None


@pytest.mark.parametrize(
    "maxima",
    [
        {"max_tokens": 200},
        {"max_completion_tokens": 200, "max_tokens": 1},
        {"max_completion_tokens": 1, "max_tokens": 200, "max_output_tokens": None},
        {"max_completion_tokens": 1, "max_tokens": 2, "max_output_tokens": 200},
    ],
)
def test_of_several_maxima_the_largest_counts(caller, maxima):
    chat = caller.send("POST", "/openai/v1/chat/completions", json={"model": MODEL, "messages": SAID} | maxima)
    response = caller.send("POST", "/openai/v1/responses", json={"model": MODEL, "input": "a" * 120} | maxima)

    assert ratelimit(chat)["remaining-tokens"] == "7700"
    assert ratelimit(response)["remaining-tokens"] == "7400"


def test_a_maximum_beyond_the_models_is_too_large_for_a_minute_first(caller):
    response = caller.chat(max_tokens=1_000_000)

    assert response.status_code == 413
    assert message(response).startswith(f"Request too large for model `{MODEL}` in organization `org_x` ")
    assert "(TPM): Limit 8000, Requested 1000100, please" in message(response)
    assert response.json()["error"]["code"] == "rate_limit_exceeded"
    assert ratelimit(caller.chat())["remaining-tokens"] == "7700"


@pytest.mark.parametrize("limits", [Limits(tpm=None), Limits(tpm=250_000, tpd=None), Limits(tpm=65_637)])
def test_a_maximum_beyond_the_models_is_a_bad_request_where_a_minute_would_hold_it(caller, limits):
    caller.sim.limits = limits
    response = caller.chat(max_tokens=65_537)

    assert response.status_code == 400
    assert response.json()["error"] == {
        "message": "`max_completion_tokens` must be less than or equal to `65536`, the maximum value for "
        "`max_completion_tokens` is less than the `context_window` for this model",
        "type": "invalid_request_error",
    }
    assert ratelimit(caller.chat())["remaining-requests"] == "999"


def test_a_paid_plan_has_larger_limits_in_the_same_headers(caller):
    caller.sim.limits = Limits(1000, 250_000, 500_000, None)

    assert ratelimit(caller.chat(max_completion_tokens=65_536)) == {
        "limit-requests": "500000",
        "remaining-requests": "499999",
        "reset-requests": "172.8ms",
        "limit-tokens": "250000",
        "remaining-tokens": "184364",
        "reset-tokens": "15.75264s",
    }
    more_than_free = [caller.chat(max_completion_tokens=5000).status_code for _ in range(30)]
    assert set(more_than_free) == {200}


def test_what_is_refused_costs_nothing(caller):
    caller.chat(max_completion_tokens=7000)
    for _ in range(3):
        assert caller.chat(max_completion_tokens=7000).status_code == 429

    assert ratelimit(caller.chat())["remaining-requests"] == "998"


def test_keys_of_one_organization_share_its_limits(caller):
    caller.chat(key="gsk_a")

    assert ratelimit(caller.chat(key="gsk_b"))["remaining-requests"] == "998"
    assert ratelimit(caller.chat(key="gsk_c"))["remaining-requests"] == "999"


def test_each_model_has_its_own_limits(clock):
    with GroqSim(KEYS, clock=clock, per_model={OTHER: Limits(tpm=5000, rpd=None)}) as sim:
        caller = Caller(sim)
        caller.chat()

        assert ratelimit(caller.chat(model=OTHER)) == {
            "limit-tokens": "5000",
            "remaining-tokens": "4700",
            "reset-tokens": "3.6s",
        }


@pytest.mark.parametrize(("refund", "left"), [(False, "5700"), (True, "7555")])
def test_what_was_reserved_and_not_used_may_be_given_back(clock, refund, left):
    with GroqSim(KEYS, clock=clock, refund=refund, reply=lambda request: "abcd" * 4 + "a") as sim:
        caller = Caller(sim)
        assert ratelimit(caller.chat(max_completion_tokens=1900))["remaining-tokens"] == "6000"
        caller.chat(max_completion_tokens=45)  # once it is answered, the first one's rest was given back

        assert ratelimit(caller.chat(max_completion_tokens=55))["remaining-tokens"] == left


def test_many_at_once_are_counted_one_by_one(clock):
    with GroqSim(KEYS, Limits(rpm=20, tpm=None), clock=clock, latency=0.02) as sim:
        barrier, statuses = threading.Barrier(30), []

        def call() -> None:
            with (caller := Caller(sim)).session:
                barrier.wait()
                statuses.append(caller.chat().status_code)

        threads = [threading.Thread(target=call) for _ in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert (statuses.count(200), statuses.count(429), len(sim.calls)) == (20, 10, 30)


# What it remembers


def test_calls_are_remembered(caller, clock):
    caller.chat(key="gsk_b", max_completion_tokens=150)
    clock.advance(1)
    caller.send("GET", "/openai/v1/models?page=2", key="gsk_nobody")

    chat, models = caller.sim.calls
    assert (chat.at, chat.key, chat.organization, chat.model, chat.status) == (1000.0, "gsk_b", "org_x", MODEL, 200)
    assert (chat.prompt_tokens, chat.max_completion_tokens, chat.json["messages"]) == (100, 150, SAID)
    assert json.loads(chat.body) == chat.json
    assert chat.headers["authorization"] == "Bearer gsk_b"
    assert (models.at, models.method, models.path) == (1001.0, "GET", "/openai/v1/models?page=2")
    assert (models.status, models.organization, models.model, models.json) == (401, "", "", None)


def test_calls_are_a_copy_and_can_be_forgotten(caller):
    caller.chat()

    caller.sim.calls.clear()
    assert len(caller.sim.calls) == 1
    caller.sim.forget()
    assert caller.sim.calls == []


# Faults


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_every_named_error_is_answered(caller, name):
    caller.sim.order(Trouble.named(name))

    response = caller.chat()

    error = response.json()["error"]
    assert response.status_code == ERRORS[name][0]
    assert error.get("code", name) == name
    assert "{" not in error["message"]
    assert bool(ratelimit(response)) == (response.status_code == 400)
    assert caller.chat().status_code == 200


@pytest.mark.parametrize(
    ("name", "status", "kind", "sign"),
    [
        ("access_denied", 403, "application/json", "Access denied. Please check your network settings."),
        ("cloudflare_1010", 403, "text/plain; charset=UTF-8", "error code: 1010"),
        ("bad_gateway_html", 502, "text/html; charset=UTF-8", "<title>api.groq.com | 502: Bad gateway</title>"),
        ("empty", 500, "text/plain; charset=UTF-8", ""),
        ("request_too_large", 413, "application/json", "Request too large for model `openai/gpt-oss-20b` in org"),
        ("garbage", 200, "application/json", "this is not JSON"),
    ],
)
def test_every_other_answer(caller, name, status, kind, sign):
    caller.sim.order(Trouble.named(name))

    response = caller.chat()

    assert (response.status_code, response.headers["content-type"]) == (status, kind)
    assert sign in response.text


@pytest.mark.parametrize(
    ("options", "retry_after", "words", "shown"),
    [
        ({}, "2", "requests per minute (RPM): Limit 30, Used 30, Requested 1. Please try again in 2s.", 3),
        ({"retry_after": 86.4, "dimension": "RPD"}, "86.4", "(RPD): Limit 1000, Used 1000, Requested 1.", 3),
        ({"retry_after": 0.54, "dimension": "TPM"}, "0.54", "(TPM): Limit 8000, Used 7772, Requested 300.", 6),
        ({"retry_after": 7, "dimension": "TPD"}, "7", "(TPD): Limit 200000, Used 199716, Requested 300.", 6),
    ],
)
def test_a_rate_limit_to_order(caller, options, retry_after, words, shown):
    caller.sim.order(Trouble.named("rate_limit", **options))

    response = caller.chat()

    assert response.status_code == 429
    assert response.headers["retry-after"] == retry_after
    assert words in message(response)
    assert "in organization `org_x`" in message(response)
    assert len(ratelimit(response)) == shown


@pytest.mark.parametrize(
    ("limits", "dimension", "words"),
    [
        (Limits(None, None, None, None), "RPM", "Limit 30, Used 30, Requested 1."),
        (Limits(None, None, None, None), "TPD", "Limit 200000, Used 199705, Requested 300."),
        (Limits(tpm=200), "TPM", "Limit 200, Used 7, Requested 200."),
    ],
)
def test_a_rate_limit_can_be_ordered_where_none_is_or_a_small_one(caller, limits, dimension, words):
    caller.sim.limits = limits
    caller.sim.order(Trouble.rate_limit(retry_after=2, dimension=dimension))

    assert words in message(caller.chat())


@pytest.mark.parametrize(
    ("status", "sign"),
    [(400, "valid"), (401, "Invalid API Key"), (403, "network"), (413, "too large"), (429, "try again in 2s"),
     (498, "Flex"), (500, "Internal"), (502, "<html"), (503, "over capacity"), (522, "Internal")],
)  # fmt: skip
def test_a_status_has_groqs_own_body(caller, status, sign):
    caller.sim.order(Trouble.status(status))

    response = caller.chat()

    assert response.status_code == status
    assert sign in response.text


def test_a_status_may_have_any_body_and_headers(caller):
    caller.sim.order(Trouble.status(503, {"error": "no"}, {"retry-after": "nan"}))
    caller.sim.order(Trouble.status(429, headers={"retry-after": "-1"}))
    caller.sim.order(Trouble.status(500, b"\xff"))
    caller.sim.order(Trouble.status(500, "no"))

    first, second, third, fourth = (caller.chat() for _ in range(4))

    assert (first.json(), first.headers["retry-after"]) == ({"error": "no"}, "nan")
    assert (second.json()["error"]["code"], second.headers["retry-after"]) == ("rate_limit_exceeded", "-1")
    assert third.content == b"\xff"
    assert fourth.text == "no"


def test_faults_are_met_by_matching_calls_in_the_order_given(caller):
    caller.sim.order(Trouble.status(500), key="gsk_a")
    caller.sim.order(Trouble.status(503), model=OTHER)
    caller.sim.order(Trouble.status(502), times=2)

    met = [caller.chat(key, model=model).status_code for key, model in (
        ("gsk_b", MODEL), ("gsk_b", OTHER), ("gsk_a", OTHER), ("gsk_a", OTHER), ("gsk_a", OTHER),
    )]  # fmt: skip

    assert met == [502, 503, 500, 502, 200]


def test_a_fault_for_ever_lasts_until_cleared(caller):
    caller.sim.order(Trouble.status(503), times=None)

    assert {caller.chat().status_code for _ in range(5)} == {503}
    caller.sim.clear()
    assert caller.chat().status_code == 200


def test_an_ordered_error_costs_nothing(caller):
    caller.sim.order(Trouble.status(503))
    caller.chat()

    assert ratelimit(caller.chat())["remaining-requests"] == "999"


@pytest.mark.parametrize(
    ("fault", "text", "finish"),
    [
        (Trouble.content(""), "", "stop"),
        (Trouble.content("hm"), "hm", "stop"),
        (Trouble.length(), "", "length"),
        (Trouble.length("and then"), "and then", "length"),
    ],
)
def test_the_content_can_be_ordered(caller, fault, text, finish):
    caller.sim.order(fault, times=2)

    choice = caller.chat().json()["choices"][0]
    told = events(caller.chat(stream=True))

    assert (choice["message"]["content"], choice["finish_reason"]) == (text, finish)
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in told[:-1]) == text
    assert told[-2]["choices"][0]["finish_reason"] == finish


def test_a_reset_is_a_reset(caller):
    caller.sim.order(Trouble.reset())

    with pytest.raises(requests.ConnectionError, match="ConnectionResetError"):
        caller.chat()

    assert [call.status for call in caller.sim.calls] == [0]
    assert caller.chat().status_code == 200


def test_a_close_ends_the_connection_without_an_answer(caller):
    caller.sim.order(Trouble.close())

    with pytest.raises(requests.ConnectionError, match="RemoteDisconnected"):
        caller.chat()

    assert [call.status for call in caller.sim.calls] == [0]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", [Trouble.stall(0.02), Trouble.stall_body(0.02), Trouble.drip(0.00001)])
def test_slow_answers_arrive_whole(caller, fault, stream):
    caller.sim.reply = lambda request: "hm"
    caller.sim.order(fault)

    started = time.monotonic()
    response = caller.chat(stream=stream)

    assert response.text.endswith("data: [DONE]\n\n" if stream else "}")
    assert time.monotonic() - started > 0.01
    assert caller.chat().status_code == 200


def test_a_stall_is_silence(sim):
    sim.order(Trouble.stall(30))

    with connected(sim) as client:
        client.settimeout(0.02)
        with pytest.raises(TimeoutError):
            client.recv(1)

    assert [call.status for call in sim.calls] == [0]


def test_a_stalled_body_begins(sim):
    sim.order(Trouble.stall_body(30))

    with connected(sim) as client:
        head, _, body = client.recv(65536).partition(b"\r\n\r\n")
        client.settimeout(0.02)
        with pytest.raises(TimeoutError):
            client.recv(1)

    length = re.search(rb"content-length: (\d+)", head)
    assert length
    assert len(body) == int(length[1]) // 2


def test_a_truncated_answer_is_shorter_than_it_says(caller):
    caller.sim.order(Trouble.truncate())

    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        caller.chat()


def test_a_truncated_stream_breaks_off_between_two_chunks(sim):
    sim.order(Trouble.truncate())

    with connected(sim, stream=True) as client:
        received = read_all(client)

    assert received.count(b"data: {") > 5
    assert received.endswith(b"\n\n\r\n")
    assert b"[DONE]" not in received


def test_a_stream_error_comes_after_some_chunks(caller):
    caller.sim.order(Trouble.stream_error())

    *told, last = (part for part in caller.chat(stream=True).text.split("\n\n") if part)

    assert all(part.startswith("data: {") for part in told)
    assert len(told) > 5
    assert last.startswith('event: error\ndata: {"error": {"message": "Internal Server Error"')


def test_a_hangup_answers_then_closes(sim):
    sim.order(Trouble.hangup())

    with connected(sim) as client:
        received = read_all(client)

    assert received.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close" not in received.lower()
    assert sim.calls[0].status == 200


def raw(sim: GroqSim, fault: Trouble, stream: bool = False) -> bytes:
    """All that a call with this fault is answered with, to the end of its connection."""
    sim.order(fault)
    with connected(sim, stream=stream) as client:
        return read_all(client)


def test_a_reset_body_begins(caller):
    caller.sim.order(Trouble.reset_body())

    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="reset"):
        caller.chat()

    assert caller.sim.calls[0].status == 200


@pytest.mark.parametrize(("length", "lines"), [("abc", [b"abc"]), ("3,700", [b"3", b"700"]), ("5", [b"5"])])
def test_the_length_may_be_any(sim, length, lines):
    head, _, body = raw(sim, Trouble.length_says(length)).partition(b"\r\n\r\n")

    assert re.findall(rb"\r\ncontent-length: (.*?)(?=\r|$)", head) == lines
    assert json.loads(body)["object"] == "chat.completion"


def test_a_bad_chunk_ends_what_was_no_stream_too(sim):
    head, _, body = raw(sim, Trouble.bad_chunk()).partition(b"\r\n\r\n")

    assert b"transfer-encoding: chunked" in head
    assert b"content-length" not in head
    assert body == b"xyz\r\n"
    assert raw(sim, Trouble.bad_chunk(), stream=True).endswith(b"\n\n\r\nxyz\r\n")


@pytest.mark.parametrize(("fault", "finish"), [(Trouble.unfinished(), False), (Trouble.no_done(), True)])
def test_a_stream_may_end_without_done(caller, fault, finish):
    caller.sim.order(fault)

    told = events(caller.chat(stream=True))

    assert (told[-1]["choices"][0]["finish_reason"] == "stop") == finish
    assert len(told) > 5


def test_a_broken_end_comes_after_done(sim):
    assert raw(sim, Trouble.broken_end(), stream=True).endswith(b"data: [DONE]\n\n\r\n")


@pytest.mark.parametrize("stream", [False, True])
def test_one_answer_can_be_compressed_a_stream_too(caller, stream):
    plainly = caller.chat(stream=stream)
    caller.sim.order(Trouble.zipped())
    packed = caller.chat(stream=stream)

    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plainly.headers
    assert len(packed.text) == len(plainly.text)


@pytest.mark.parametrize(
    "order",
    [
        lambda: Trouble.named("nonsense"),
        lambda: Trouble.named("organization_restricted", retry_after=1),
        lambda: Trouble.rate_limit(dimension="RPX"),
        lambda: Trouble.rate_limit(retry_after=float("nan")),
        lambda: Trouble.stall(-1),
        lambda: Trouble.stall(float("inf")),
        lambda: Trouble.status(99),
        lambda: GroqSim(KEYS).order(Trouble.close(), key="gsk_nobody"),
        lambda: GroqSim(KEYS).order(Trouble.close(), times=0),
    ],
)
def test_nonsense_is_not_ordered(order):
    with pytest.raises(ValueError, match=r"\ANo(t| such) "):
        order()


# Connections


def connected(sim: GroqSim, **fields: Any) -> socket.socket:
    """A connection on which one chat was asked for."""
    body = json.dumps({"model": MODEL, "messages": SAID, "max_completion_tokens": 200} | fields).encode()
    client = socket.create_connection(("127.0.0.1", sim.port), timeout=5)
    head = (
        f"POST /openai/v1/chat/completions HTTP/1.1\r\nAuthorization: Bearer gsk_a\r\nContent-Length: {len(body)}\r\n"
    )
    client.sendall(head.encode() + b"\r\n" + body)
    return client


def read_all(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


def test_a_connection_serves_one_request_after_the_other(caller):
    statuses = [caller.chat(stream=stream).status_code for stream in (True, False, True)]

    pools = caller.session.get_adapter(caller.sim.url).poolmanager.pools
    (pool,) = (pools[key] for key in pools.keys())  # noqa: SIM118 (it is no dict)
    assert statuses == [200, 200, 200]
    assert (pool.num_connections, pool.num_requests) == (1, 3)


def test_a_client_that_wants_to_close_is_closed(sim):
    with socket.create_connection(("127.0.0.1", sim.port), timeout=5) as client:
        client.sendall(b"GET /openai/v1/models HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert read_all(client).startswith(b"HTTP/1.1 401 Unauthorized\r\n")


@pytest.mark.parametrize("noise", [b"\r\n", b"hello\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: many\r\n\r\n"])
def test_what_is_no_http_is_closed(sim, noise):
    with socket.create_connection(("127.0.0.1", sim.port), timeout=5) as client:
        client.sendall(noise)
        assert read_all(client) == b""


def test_latency_passes_before_an_answer_and_can_be_a_keys_own(sim, caller):
    sim.latency_of["gsk_b"] = 0.05

    assert caller.chat("gsk_b").elapsed.total_seconds() >= 0.05
    assert caller.chat("gsk_a").elapsed.total_seconds() < 0.05


@pytest.mark.parametrize("fault", [Trouble.stall(30), Trouble.stall_body(30), Trouble.drip(30)])
def test_stop_ends_every_wait_at_once(clock, fault):
    sim = GroqSim(KEYS, clock=clock)
    sim.start()
    sim.order(fault)
    with socket.create_connection(("127.0.0.1", sim.port)) as idle, connected(sim) as busy:
        while not sim.calls:
            time.sleep(0.001)

        started = time.monotonic()
        sim.stop()

        assert time.monotonic() - started < 0.5
        assert not read_all(busy).endswith(b"}")
        assert idle.recv(1) == b""
    for thread in threading.enumerate():
        if "process_request_thread" in thread.name:
            thread.join(timeout=5)
            assert not thread.is_alive()


def test_a_refusing_simulator_accepts_again_on_the_same_port(sim, caller):
    caller.chat()
    url = sim.url

    sim.refuse()
    with pytest.raises(requests.ConnectionError, match="Connection refused"):
        caller.chat()
    sim.accept()

    assert caller.chat().status_code == 200
    assert sim.url == url
    assert ratelimit(caller.chat())["remaining-requests"] == "997"


# Control over HTTP


def test_faults_can_be_ordered_over_http(caller):
    fault = {"name": "rate_limit", "key": "gsk_a", "times": 2, "retry_after": 7}
    assert caller.send("POST", "/sim/faults", json=fault).json() == {"ordered": fault}
    caller.send("POST", "/sim/faults", json={"status": 503, "model": OTHER})

    assert caller.chat("gsk_b").status_code == 200
    assert caller.chat("gsk_b", model=OTHER).status_code == 503
    assert caller.chat().headers["retry-after"] == "7"
    assert caller.chat().status_code == 429
    assert caller.chat().status_code == 200


def test_every_fault_can_be_ordered_over_http(caller):
    options: dict[str, dict[str, Any]] = {"stall": {"seconds": 1}, "stall_body": {"seconds": 1}}
    options |= {"drip": {"seconds_per_byte": 0}, "length_says": {"length": "abc"}}

    for name in [*ERRORS, *FAULTS]:
        assert caller.send("POST", "/sim/faults", json={"name": name, **options.get(name, {})}).status_code == 200


def test_faults_can_be_cleared_over_http(caller):
    caller.sim.order(Trouble.status(503), times=None)

    assert caller.send("DELETE", "/sim/faults").status_code == 200
    assert caller.chat().status_code == 200


def test_calls_can_be_read_and_forgotten_over_http(caller):
    caller.chat()

    (call,) = caller.send("GET", "/sim/calls").json()
    assert (call["key"], call["status"], call["json"]["model"]) == ("gsk_a", 200, MODEL)
    caller.send("DELETE", "/sim/calls")
    assert caller.send("GET", "/sim/calls").json() == []


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("{", "Expecting"),
        ("[]", "Send "),
        ("{}", "Send "),
        ('{"name": "nonsense"}', "No such fault: 'nonsense'"),
        ('{"name": "stall"}', "seconds"),
        ('{"name": "stall", "seconds": "long"}', "long"),
        ('{"name": "stall", "seconds": null}', "number"),
        ('{"status": "bad"}', "No such status: 'bad'."),
        ('{"status": 500, "headers": 5}', "int"),
        ('{"status": 500, "times": -1}', "Not a number of times: -1."),
        ('{"name": "close", "key": "gsk_nobody"}', "No such key: 'gsk_nobody'."),
    ],
)
def test_bad_control_is_answered_with_a_sentence(caller, body, sentence):
    response = caller.send("POST", "/sim/faults", data=body)

    assert response.status_code == 400
    assert sentence.lower() in response.json()["error"].lower()


def test_unknown_controls_are_named(caller):
    response = caller.send("PUT", "/sim/faults")

    assert response.status_code == 404
    assert "There is no PUT /sim/faults" in response.json()["error"]


# The program


def program(*options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, groqsim.__file__, "--key", "gsk_1=org_1", "--key", "gsk_2=org_2", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path("/"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_program_serves_until_told_to_end(number):
    with program("--port", "0", "--rpd", "5", "--tpm", "0") as process:
        assert process.stdout
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found
        url = found[0]
        call = requests.post(
            f"{url}/openai/v1/chat/completions",
            json={"model": MODEL, "messages": SAID},
            headers={"Authorization": "Bearer gsk_2"},
            timeout=5,
        )
        os.kill(process.pid, number)
        os.kill(process.pid, signal.SIGTERM)  # as a shell's trap does after Ctrl-C
        rest, complaints = process.communicate(timeout=5)

    assert "gsk_1" in line
    assert "gsk_2" in line
    assert call.status_code == 200
    assert ratelimit(call) == {"limit-requests": "5", "remaining-requests": "4", "reset-requests": ANY}
    assert (process.returncode, rest, complaints) == (0, "", "")


def test_the_program_says_so_when_its_port_is_taken(sim):
    with program("--port", str(sim.port)) as process:
        _, complaints = process.communicate(timeout=5)

    assert process.returncode == 1
    assert complaints == f"Port {sim.port}: Address already in use\n"


@pytest.mark.parametrize(
    ("flags", "limits"),
    [
        ("", Limits(rpm=30, tpm=8000, rpd=1000, tpd=200_000)),
        ("--rpm 1000 --tpm 250000 --rpd 500000 --tpd 0", Limits(1000, 250_000, 500_000, None)),
        ("--rpm 0 --tpm 0 --rpd 0", Limits(None, None, None, 200_000)),
    ],
)
def test_the_program_has_the_free_plans_limits_unless_told(flags, limits):
    assert groqsim.simulator(["--key", "gsk_1=org_1", *flags.split()]).limits == limits


def test_the_program_wants_keys_with_organizations(capsys):
    with pytest.raises(SystemExit) as end:
        groqsim.simulator(["--key", "gsk_lonely"])

    assert end.value.code == 2
    assert "KEY=ORGANIZATION" in capsys.readouterr().err
