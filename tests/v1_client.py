"""What the tests of the pass-through share: a client with a token, and streams to order."""

from contextlib import ExitStack
from typing import Any

from flask.testing import FlaskClient
from groqsim import End, Trouble, chunk
from werkzeug.test import TestResponse

TOKEN = "let-me-in"
MODEL = "openai/gpt-oss-20b"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "write a poem about rain"}], "max_tokens": 500}
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Client:
    """Someone with a token, who closes all responses in the end."""

    def __init__(self, flask: FlaskClient, opened: ExitStack) -> None:
        self.flask = flask
        self._opened = opened

    def open(self, method: str, path: str, **options: Any) -> TestResponse:
        headers = {"Authorization": f"Bearer {TOKEN}"} | options.pop("headers", {})
        response = self.flask.open(path, method=method, headers=headers, **options)
        self._opened.callback(response.close)
        return response

    def chat(self, **fields: Any) -> TestResponse:
        return self.open("POST", "/v1/chat/completions", json=CHAT | fields)

    def post(self, body: bytes, path: str = "/v1/chat/completions", **headers: str) -> TestResponse:
        return self.open("POST", path, data=body, headers={"Content-Type": "application/json"} | headers)


def streamed(*steps: bytes | float | End) -> Trouble:
    """A stream of these chunks, and of nothing else; it ends well unless by an ``End``."""
    whole = [chunk(step) if isinstance(step, bytes) else step for step in steps]
    return Trouble(script=lambda pieces: [SSE, *whole] if isinstance(steps[-1], End) else [SSE, *whole, chunk(b"")])


def raw(answer: bytes) -> Trouble:
    """These bytes, then the end of the connection."""
    return Trouble(script=lambda pieces: [answer, End.CLOSE])


def error_of(response: TestResponse) -> dict[str, str]:
    """The error, which is in OpenAI's shape."""
    assert response.content_type == "application/json"
    error: dict[str, str] = response.get_json()["error"]
    assert error.keys() >= {"message", "type", "code"}
    assert all(isinstance(value, str) for value in error.values())
    return error
