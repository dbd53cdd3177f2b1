"""What clients may send: how much of it, how broken, and what it costs."""

import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

import pytest
import requests
from conftest import Server
from flask.testing import FlaskClient
from groqsim import GroqSim, Limits, Trouble
from v1_client import MODEL, TOKEN, Client
from werkzeug.test import TestResponse

from promptlord.pool.state import Demand
from promptlord.web.body import BODY_MAX, JSON_MAX, UPLOAD_MAX
from promptlord.web.openai import PassThrough

AUTHORIZED = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}


@pytest.fixture
def client(serve: Callable[..., FlaskClient]) -> Iterator[Client]:
    with ExitStack() as opened:
        yield Client(serve(access_tokens=(TOKEN,)), opened)


def picture(size: int) -> bytes:
    head = b'{"model": "%b", "messages": [{"role": "user", "content": [{"type": "image_url", ' % MODEL.encode()
    head, tail = head + b'"image_url": {"url": "data:image/png;base64,', b'"}}]}]}'
    return head + b"A" * (size - len(head) - len(tail)) + tail


def repeated(values: bytes, size: int = JSON_MAX) -> bytes:
    head, tail = b'{"model": "m", "messages": [', b"0]}"
    return head + values * ((size - len(head) - len(tail)) // len(values)) + tail


def conversation(size: int = JSON_MAX - 1000) -> bytes:
    """Messages as agents send them: code and tools' JSON, which have commas and brackets without end."""
    said = json.dumps([{"path": f"src/{number}.py", "lines": [1, 2, 3], "found": True} for number in range(20)])
    message = json.dumps({"role": "user", "content": "def f(a, b):\n    return [a, {b}]\n" * 10 + said}).encode() + b","
    return repeated(message, size).replace(b",0]}", b"]}").replace(b'"m"', f'"{MODEL}"'.encode(), 1)


def memory(server: Server, field: str) -> float:
    """Megabytes of the worker's memory: ``VmRSS`` now, ``VmHWM`` at its peak."""
    (pid,) = server.workers()
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1000


def said(response: TestResponse) -> str:
    """What an error says, whichever shape it has."""
    assert response.content_type == "application/json"
    told = response.get_json()
    return str(told["error"]["message"] if isinstance(told["error"], dict) else f"{told['error']}. {told['details']}")


# How much


@pytest.mark.parametrize(
    ("path", "kind", "limit", "words"),
    [
        ("/enhance", "application/json", BODY_MAX, "128 KB"),
        ("/v1/chat/completions", "application/json", JSON_MAX, "8 MB"),
        ("/v1/chat/completions", "", JSON_MAX, "8 MB"),
        ("/openai/v1/audio/transcriptions", "multipart/form-data; boundary=x", UPLOAD_MAX, "25 MB"),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_larger_body_is_told_how_large_it_may_be(
    client: Client, sim: GroqSim, path: str, kind: str, limit: int, words: str, chunked: bool
) -> None:
    body = BytesIO(b"{}" + b" " * limit)  # which would be good JSON if it were cut
    length = {"wsgi.input_terminated": True} if chunked else {"CONTENT_LENGTH": str(limit + 2)}

    response = client.open("POST", path, input_stream=body, content_type=kind, environ_overrides=length)

    assert response.status_code == 413
    assert said(response) == f"The request's body is too large. At most {words} are read here"
    assert sim.calls == []


@pytest.mark.parametrize("size", [JSON_MAX - 1, 100_000])
def test_a_large_picture_goes_up_byte_for_byte_to_the_next_key_too(client: Client, sim: GroqSim, size: int) -> None:
    sim.order(Trouble.rate_limit(), key="gsk_one")
    sim.order(Trouble.reset(), key="gsk_two")
    body = picture(size)

    assert client.post(body).status_code == 200
    assert [call.body == body for call in sim.calls] == [True] * 3
    assert [call.model for call in sim.calls] == [MODEL] * 3


def test_who_comes_back_with_a_large_picture_is_known(client: Client, sim: GroqSim) -> None:
    taken = [
        PassThrough("POST", "/p", headers, Demand(["m"], 0), payload).fingerprint()
        for headers, payload in (
            ({}, picture(2_000_000)),
            ({}, BytesIO(picture(2_000_000))),
            ({}, BytesIO(picture(2_000_001))),
            ({"Content-Type": "Multipart/form-data; boundary=x"}, BytesIO(b"--x")),
            ({}, None),
        )
    ]

    assert taken[0] == taken[1] != taken[2]
    assert taken[0] != b""
    assert taken[3:] == [b"", b""]


@pytest.mark.parametrize("values", [b"[],", b'{"a":1},', b'"a",', b"1,", b'{"a":[{}]},'])
def test_a_large_body_with_too_many_values_is_refused_unparsed(client: Client, sim: GroqSim, values: bytes) -> None:
    response = client.post(repeated(values))

    assert response.status_code == 400
    assert said(response) == "Request body must not have more than 250,000 values"
    assert sim.calls == []


def test_commas_and_brackets_within_texts_are_no_values(client: Client, sim: GroqSim) -> None:
    text = json.dumps([{"a": [1, 2, "\\"]}] * 100_000)

    assert client.post(json.dumps({"model": MODEL, "messages": [{"role": "user", "content": text}]}).encode()).data
    assert len(sim.calls) == 1


@pytest.mark.parametrize(
    "parts",
    [
        [b'name="model"\r\n\r\n' + b"m" * 2_000_000],
        [b'name="a%d"\r\n\r\n' % number for number in range(2000)],
    ],
    ids=["large", "many"],
)
def test_fields_of_a_form_are_not_held_without_end(client: Client, sim: GroqSim, parts: list[bytes]) -> None:
    form = b"".join(b"--x\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + b"--x--\r\n"

    response = client.open(
        "POST", "/v1/audio/transcriptions", data=form, content_type="multipart/form-data; boundary=x"
    )

    assert response.status_code == 400
    assert "fields" in said(response)
    assert sim.calls == []


# How broken


class BrokenOff(BytesIO):
    """A body whose rest the server can't make sense of, or does not get."""

    def __init__(self, error: Exception) -> None:
        super().__init__(b'{"model": ')
        self._error = error

    def read(self, size: int | None = -1) -> bytes:
        if data := super().read(size):
            return data
        raise self._error

    def readinto(self, buffer: object) -> int:
        raise self._error


@pytest.mark.parametrize("error", [ValueError("bad chunk"), ConnectionResetError("stalled")])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x"])
@pytest.mark.parametrize("path", ["/enhance", "/v1/chat/completions"])
def test_a_body_that_breaks_off_is_a_bad_request(
    client: Client, sim: GroqSim, path: str, kind: str, chunked: bool, error: Exception
) -> None:
    if path == "/enhance" and kind != "application/json":
        return
    length = {"wsgi.input_terminated": True} if chunked else {"CONTENT_LENGTH": "100"}

    response = client.open("POST", path, input_stream=BrokenOff(error), content_type=kind, environ_overrides=length)

    assert response.status_code == 400
    assert "The request's body broke off or is malformed" in response.text
    assert sim.calls == []


# What it costs


@pytest.mark.parametrize(
    "kinds",
    [
        {picture(JSON_MAX - 1): 200, conversation(): 200},
        {
            repeated(b"[],"): 400,
            repeated(b'{"a":1},'): 400,
            repeated(b'{"a":1},', 900_000): 400,
            repeated(b'"\\ud83d\\ude00 text ' + b"a" * 1_000_000 + b'",'): 400,
            b"[" * (JSON_MAX - 1): 400,
            b'"' + b'\\"' * (JSON_MAX // 2 - 1): 400,
        },
    ],
    ids=["sound", "hostile"],
)
def test_eight_large_bodies_at_once_stay_within_200_megabytes(
    start: Callable[..., Server], sim: GroqSim, kinds: dict[bytes, int]
) -> None:
    sim.limits = Limits(None, None, None, None)
    server = start(ACCESS_TOKENS=TOKEN, THREADS="64", REQUEST_TIMEOUT_SECONDS="60")
    assert server.health().ok

    for body, status in kinds.items():

        def send(body: bytes) -> int:
            return requests.post(f"{server.url}/v1/chat/completions", data=body, headers=AUTHORIZED).status_code

        waits = []
        with ThreadPoolExecutor(8) as pool:
            sent = [pool.submit(send, body) for _ in range(8)]
            while not all(each.done() for each in sent):
                began = time.monotonic()
                server.health()
                waits.append(time.monotonic() - began)

        print(f"{body[-20:]!r}: at most {memory(server, 'VmHWM'):.0f} MB, then {memory(server, 'VmRSS'):.0f};", end=" ")
        print(f"/health waits {max(waits):.2f} s at most")
        assert [each.result() for each in sent] == [status] * 8
        assert memory(server, "VmHWM") < 200
        assert max(waits) < 2  # a quarter of one where nobody else wants the processor
