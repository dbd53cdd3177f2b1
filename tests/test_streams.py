"""Streams through the pass-through: whole events, as they come, told apart from those that break off."""

import gzip
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import BytesIO
from typing import Any
from unittest.mock import ANY

import pytest
from flask.testing import FlaskClient
from groqsim import End, GroqSim, Trouble, chunk
from v1_client import MODEL, SSE, TOKEN, Client, raw, streamed
from werkzeug.test import TestResponse

from promptlord.web import openai as v1
from promptlord.web.sse import HELD_MAX


@pytest.fixture
def client(serve: Callable[..., FlaskClient]) -> Iterator[Client]:
    with ExitStack() as opened:
        yield Client(serve(access_tokens=(TOKEN,)), opened)


DONE = b"data: [DONE]\n\n"
FINISHED = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'
UNFINISHED = b'data: {"choices": [{"delta": {"content": "so"}, "finish_reason": null}]}\n\n'
USAGE = b'data: {"choices": [], "usage": {"total_tokens": 7}}\n\n'
CREATED = b'event: response.created\ndata: {"type": "response.created", "sequence_number": 0, "error": null}\n\n'
DELTA = b'event: response.output_text.delta\ndata: {"type": "response.output_text.delta", "sequence_number": 6}\n\n'
COMPLETED = b'event: response.completed\ndata: {"type":"response.completed","response":{"error":null}}\n\n'
HOWEVER = pytest.mark.parametrize("end", [[End.CLOSE], []], ids=["cut", "ended"])


def response(client: Client) -> TestResponse:
    return client.open("POST", "/v1/responses", json={"model": MODEL, "input": "rain", "stream": True})


def told(data: bytes) -> tuple[bytes, dict[str, Any]]:
    """What came before the error event that ends the stream, and what that says."""
    before, event, told = data.rpartition(b"event: error\n")
    assert event, data
    assert told.startswith(b"data: ")
    assert told.endswith(b"\n\n")
    said: dict[str, Any] = json.loads(told[6:])
    return before, said


# As they come


@pytest.mark.parametrize(
    "body",
    [
        b'data: {"a": 1}\n\ndata: [DONE]\n\n',
        b": hello\n\nevent: x\r\ndata: {}\r\n\r\ndata: [DONE]\r\n\r\n",
        b"data: [DONE]",
        b'data: {"choices": [{"delta": {"content": "\\"error\\": {org_id}"}}]}\n\n' + DONE,
        b'data: {"response": {"error": null, "output": "SELECT org_id"}}\n\n' + DONE,
        b'data: {"content": "\\"type\\": \\"error\\" event: error org_id"}\n\n' + DONE,
        b"data: \xff\xfe\n\n\n\n\r\n" + DONE + b"\n\r\n",
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_streams_come_down_byte_for_byte_however_they_are_cut(
    client: Client, sim: GroqSim, body: bytes, size: int
) -> None:
    sim.order(streamed(*[body[start : start + size] for start in range(0, len(body), size)]))

    response = client.chat(stream=True)

    assert response.data == body
    assert response.content_type == "text/event-stream"


def test_an_event_is_passed_on_as_soon_as_it_is_whole(client: Client, sim: GroqSim) -> None:
    events = [b"data: 1\n\n", b"data: 2\r\n\r\n", b"data: 3\n\n", DONE]
    steps: list[bytes | float] = []
    for event in events:
        steps += [*[bytes([byte]) for byte in event], 0.1]
    sim.order(streamed(*steps))

    assert [*client.chat(stream=True).iter_encoded()] == events


def test_events_that_have_come_together_are_passed_on_together(client: Client, sim: GroqSim) -> None:
    events = [b"data: 1\n\n", b"data: 2\r\n\r\n", DONE]
    sim.order(Trouble(script=lambda pieces: [SSE, b"".join(map(chunk, [*events, b""]))]))

    assert [*client.chat(stream=True).iter_encoded()] == [b"".join(events)]


def test_an_event_of_several_megabytes_is_no_work(client: Client, sim: GroqSim) -> None:
    body = b'data: {"content": "%s"}\n\n' % (b"x" * 8_000_000) + DONE
    sim.order(streamed(*[body[start : start + 16384] for start in range(0, len(body), 16384)]))

    began = time.process_time()
    assert client.chat(stream=True).data == body
    took = time.process_time() - began
    print(f"{took:.2f} s of CPU")
    assert took < 2


def test_no_more_than_a_megabyte_waits_for_the_end_of_its_event(client: Client, sim: GroqSim) -> None:
    body = b"data: %s org_id\n\n" % (b"x " * 2_000_000) + DONE
    sim.order(streamed(*[body[start : start + 16384] for start in range(0, len(body), 16384)]))

    parts = list(client.chat(stream=True).iter_encoded())

    assert b"".join(parts) == body
    assert max(map(len, parts)) <= HELD_MAX + 65536


# Without organizations, where they tell errors


@pytest.mark.parametrize(
    "event",
    [
        b'event: error\ndata: {"error": {"message": "in organization `org_one`"}}',
        b'data: {"x_groq": {"error": "over capacity: org_one"}}',
        b'data: {"error":{"message":"in org_one"}}',
        b'event: error\ndata: {"message": "in org_one"}',
        b"event: error\r\ndata: in org_one",
        b'data: {"type": "error", "message": "in org_one"}',
        b'event: response.failed\ndata: {"response": {"message": "in org_one"}}',
    ],
)
@pytest.mark.parametrize("end", [b"\n\n", b"", b"\n"])
@pytest.mark.parametrize("size", [1, 1000])
def test_errors_in_a_stream_are_passed_on_without_organizations(
    client: Client, sim: GroqSim, event: bytes, end: bytes, size: int
) -> None:
    body = b'data: {"choices": [{"delta": {"content": "org_id"}}]}\n\n' + FINISHED + event + end
    sim.order(streamed(*[body[start : start + size] for start in range(0, len(body), size)]))

    assert client.chat(stream=True).data == body.replace(b"org_one", b"org_***")


def test_so_is_an_error_too_large_to_be_held(client: Client, sim: GroqSim) -> None:
    long = b'data: {"error": "%s"}\n\n' % (b"in org_one, " * 200_000)
    body = long + b"data: org_id\n\n" + DONE
    sim.order(streamed(*[body[start : start + 50_000] for start in range(0, len(body), 50_000)]))

    assert client.chat(stream=True).data == long.replace(b"org_one", b"org_***") + b"data: org_id\n\n" + DONE


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat/completions", {"stream": True}),
        ("responses", {"stream": True}),
        ("audio/speech", {"stream_format": "sse"}),
        ("audio/transcriptions", None),
    ],
)
def test_a_stream_is_not_asked_for_compressed(
    client: Client, sim: GroqSim, path: str, body: dict[str, Any] | None
) -> None:
    sim.order(Trouble.status(200, {"ok": True}))
    form = None if body else {"model": "whisper-large-v3", "stream": "true", "file": (BytesIO(b"RIFF"), "a.wav")}

    client.open("POST", f"/v1/{path}", json=body, data=form, headers={"Accept-Encoding": "gzip"})

    assert sim.calls[0].headers["accept-encoding"] == "identity"


def test_a_stream_that_comes_compressed_all_the_same_is_no_answer(client: Client, sim: GroqSim) -> None:
    head = SSE.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")
    sim.order(raw(head + chunk(gzip.compress(b'data: {"error": "in org_one"}\n\n'))), key="gsk_one")

    assert client.chat(stream=True).data.endswith(DONE)
    assert [call.key for call in sim.calls] == ["gsk_one", "gsk_two"]


# Whole or broken off


@HOWEVER
@pytest.mark.parametrize("part", [b"data: half an ev", b"data: 2\n", b""])
def test_a_chat_that_breaks_off_says_so(client: Client, sim: GroqSim, part: bytes, end: list[End]) -> None:
    sim.order(streamed(UNFINISHED, *[part] * bool(part), *end))

    before, said = told(client.chat(stream=True).data)

    assert before == UNFINISHED
    assert said["error"].keys() == {"message", "type", "code"}
    assert len(sim.calls) == 1


@HOWEVER
@pytest.mark.parametrize("part", [b"event: response.comp", b""])
def test_a_response_that_breaks_off_says_so_in_its_next_event(
    client: Client, sim: GroqSim, part: bytes, end: list[End]
) -> None:
    sim.order(streamed(CREATED + DELTA, *[part] * bool(part), *end))

    before, said = told(response(client).data)

    assert before == CREATED + DELTA
    assert said == {"type": "error", "code": "upstream_error", "message": ANY, "param": None, "sequence_number": 7}


def test_an_event_that_breaks_off_after_its_first_megabyte_ends_before_the_error(client: Client, sim: GroqSim) -> None:
    sim.order(streamed(b"data: " + b"x" * 2_000_000, End.CLOSE))

    before, said = told(client.chat(stream=True).data)

    assert before.startswith(b"data: xxx")
    assert before.endswith(b"x\n\n")
    assert said["error"]


@HOWEVER
@pytest.mark.parametrize(
    "body",
    [
        UNFINISHED + DONE,
        FINISHED,
        FINISHED + USAGE,
        UNFINISHED + b'event: error\ndata: {"error": {"message": "over capacity"}}\n\n',
        UNFINISHED + b"data:[DONE]\n\n",
    ],
)
def test_a_whole_chat_stays_whole(client: Client, sim: GroqSim, body: bytes, end: list[End]) -> None:
    sim.order(streamed(body, *end))

    assert client.chat(stream=True).data == body


@HOWEVER
@pytest.mark.parametrize(
    "last",
    [
        COMPLETED,
        COMPLETED.replace(b"completed", b"incomplete"),
        COMPLETED.replace(b"completed", b"failed"),
        COMPLETED.partition(b"\n")[2],
        b'data: {"type": "error", "message": "over capacity"}\n\n',
        COMPLETED[:-3] + b',"output":"%s"}\n\n' % (b"x" * 1_500_000),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_whole_response_stays_whole(client: Client, sim: GroqSim, last: bytes, end: list[End]) -> None:
    body = CREATED + DELTA + last
    sim.order(streamed(*[body[start : start + 50_000] for start in range(0, len(body), 50_000)], *end))

    assert response(client).data == body


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("audio/speech", b'data: {"type": "speech.audio.delta"}\n\n'),
        ("audio/transcriptions", b'data: {"type": "what.we.do.not.know"}\n\ndata: half'),
        ("models", b"data: 1\n\n"),
    ],
)
def test_of_other_streams_none_is_declared_broken_that_ends(
    client: Client, sim: GroqSim, path: str, body: bytes
) -> None:
    sim.order(streamed(body))

    method = v1.METHODS[path]
    assert client.open(method, f"/v1/{path}", json={"model": "m"} if method == "POST" else None).data == body


@pytest.mark.parametrize(("kind", "whole"), [("delta", False), ("done", True)])
def test_but_one_that_breaks_off_before_its_end_says_so(client: Client, sim: GroqSim, kind: str, whole: bool) -> None:
    body = b'data: {"type":"speech.audio.%b"}\n\n' % kind.encode()
    sim.order(streamed(body, End.CLOSE))

    data = client.open("POST", "/v1/audio/speech", json={"model": "m", "stream_format": "sse"}).data

    assert data == body if whole else told(data)[0] == body
