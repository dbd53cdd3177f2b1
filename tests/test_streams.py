"""Streams through the pass-through: whole events, as they come, told apart from those that break off."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from flask.testing import FlaskClient
from groqsim import End, GroqSim
from passing import TOKEN, Client, streamed


@pytest.fixture
def client(serve: Callable[..., FlaskClient]) -> Iterator[Client]:
    with ExitStack() as opened:
        yield Client(serve(access_tokens=(TOKEN,)), opened)


@pytest.mark.parametrize(
    "body",
    [
        b'data: {"a": 1}\n\ndata: [DONE]\n\n',
        b": hello\n\nevent: x\r\ndata: {}\r\n\r\ndata: [DONE]\r\n\r\n",
        b"data: no end",
        b'data: {"choices": [{"delta": {"content": "\\"error\\": {org_id}"}}]}\n\n',
        b'data: {"response": {"error": null, "output": "SELECT org_id"}}\n\n',
        b"data: \xff\xfe\n\n\n\n\r\n",
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
    events = [b"data: 1\n\n", b"data: 2\r\n\r\n", b"data: 3\n\n"]
    sim.order(streamed(*[bytes([byte]) for byte in b"".join(events)]))

    assert [chunk for chunk in client.chat(stream=True).iter_encoded() if chunk] == events


def test_an_event_of_several_megabytes_is_no_work(client: Client, sim: GroqSim) -> None:
    body = b'data: {"content": "%s"}\n\n' % (b"x" * 8_000_000)
    sim.order(streamed(*[body[start : start + 16384] for start in range(0, len(body), 16384)]))

    began = time.process_time()
    assert client.chat(stream=True).data == body
    took = time.process_time() - began
    print(f"{took:.2f} s of CPU")
    assert took < 2


@pytest.mark.parametrize(
    "told",
    [
        b'event: error\ndata: {"error": {"message": "in organization `org_one`"}}\n\n',
        b'data: {"x_groq": {"error": "over capacity: org_one"}}\n\n',
    ],
)
def test_errors_in_a_stream_are_passed_on_without_organizations(client: Client, sim: GroqSim, told: bytes) -> None:
    before = b'data: {"choices": [{"delta": {"content": "org_id"}}]}\n\n'
    sim.order(streamed(before + told))

    assert client.chat(stream=True).data == before + told.replace(b"org_one", b"org_***")


@pytest.mark.parametrize("cut", [b"data: half an ev", b"data: 2\n", b""])
def test_a_stream_cut_short_looks_cut_short(client: Client, sim: GroqSim, cut: bytes) -> None:
    sim.order(streamed(b"data: 1\n\n", cut or b"data: 2\n\n", End.CLOSE))

    *whole, told = client.chat(stream=True).data.decode().removesuffix("\n\n").split("\n\n")

    assert whole == (["data: 1"] if cut else ["data: 1", "data: 2"])
    event, data = told.split("\n")
    assert event == "event: error"
    assert json.loads(data.removeprefix("data: "))["error"].keys() == {"message", "type", "code"}
    assert len(sim.calls) == 1
