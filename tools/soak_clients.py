"""The clients of a soak that behave: what they ask, and what they hear."""

import http.client
import json
import random
import socket
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from groqsim import MODELS

TOKEN = "soak-token-7f3a"  # that opens /v1
HANGS = 60.0  # seconds after which a client gives up on a response, which none must
TRIES = 200  # to connect, while connections are refused, and
AGAIN = 0.05  # seconds between two
LONG = " and then it told me of its life" * 150  # of a draft with 4,800 characters
BLOB = random.Random(0).randbytes(400_000)  # of which uploads are made
FORM = "soakboundary"


class Response(NamedTuple):
    """What a client got: ``status`` 0 if nothing; ``cut``: it broke off, and that shows; ``seconds`` to its head."""

    status: int = 0
    kind: str = ""
    body: bytes = b""
    cut: bool = False
    seconds: float = 0.0


class Heard(NamedTuple):
    """One request and its response; ``kind`` is its sender's, who ``left`` then. ``sent``: bytes of an upload."""

    kind: str
    word: str
    response: Response
    sent: int = 0
    left: float = 0.0


@dataclass
class Line:
    """A client's connection to the service, and what happened to it."""

    port: int
    dice: random.Random
    held: http.client.HTTPConnection | None = None
    refused: int = 0  # connections; who is refused tries again
    dropped: list[str] = field(default_factory=list)  # words of requests that met a closing kept-alive connection
    lost: int = 0  # requests on a new connection that closed without a response

    def ask(self, word: str, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[str, Response]:
        """Post ``body``, or get if there is none; return the word that was asked in the end, and the response.

        What meets a closing kept-alive connection is repeated, with another word.
        """
        keep, fresh = "close" not in headers.get("Connection", ""), self.held is None
        link, self.held = self.held or self._connected(), None
        began = time.monotonic()
        try:
            link.request("POST" if body else "GET", path, body or None, dict(headers))
            response = link.getresponse()
        except ConnectionError:
            link.close()
            if not fresh:
                return self._ask_again(word, path, body, headers)
            self.lost += 1
            return word, Response()
        except (TimeoutError, http.client.HTTPException) as odd:
            link.close()
            return word, Response(0 if isinstance(odd, TimeoutError) else -1, cut=True)
        seconds = time.monotonic() - began
        told = self._read(response)._replace(seconds=seconds)
        if keep and not told.cut and not response.will_close:
            self.held = link
        else:
            link.close()
        return word, told

    def _ask_again(self, word: str, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[str, Response]:
        self.dropped.append(word)
        again = word[:-1] + chr(ord(word[-1]) + 1)
        return self.ask(again, path.replace(word, again), body.replace(word.encode(), again.encode()), headers)

    def _read(self, response: http.client.HTTPResponse) -> Response:
        packed = response.headers.get("Content-Encoding") == "gzip"
        kind = response.headers.get("Content-Type", "")
        try:
            body, cut = response.read(), False
        except http.client.IncompleteRead as short:
            body, cut = short.partial, True
        except (OSError, http.client.HTTPException):
            body, cut = b"", True
        if packed:
            with suppress(zlib.error):
                body = zlib.decompressobj(wbits=31).decompress(body)
        return Response(response.status, kind, body, cut)

    def _connected(self) -> http.client.HTTPConnection:
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANGS)
        link.sock = self.dial()
        return link

    def dial(self) -> socket.socket:
        for _ in range(TRIES):
            try:
                sock = socket.create_connection(("127.0.0.1", self.port), HANGS)
            except ConnectionRefusedError:
                self.refused += 1
                time.sleep(AGAIN)
            else:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock
        raise SystemExit("The service is no longer there.")

    def close(self) -> None:
        if self.held:
            self.held.close()


# What they ask


def draft(line: Line, word: str) -> bytes:
    return json.dumps({"prompt": f"write of {word}{LONG if line.dice.random() < 0.05 else ''}"}).encode()


def chat_body(line: Line, word: str, **more: object) -> bytes:
    said = [{"role": "user", "content": f"say {word}"}]
    return json.dumps({"model": line.dice.choice(MODELS), "messages": said, "max_tokens": 500, **more}).encode()


def _headers(line: Line, **more: str) -> dict[str, str]:
    packed = {"Accept-Encoding": "gzip"} if line.dice.random() < 0.5 else {}
    return {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", **packed, **more}


JSON = {"Content-Type": "application/json"}


def press(line: Line, word: str) -> Heard:
    return Heard("press", *line.ask(word, "/enhance", draft(line, word), JSON))


def press_once(line: Line, word: str) -> Heard:
    line.close()
    line.held = None
    told = line.ask(word, "/enhance", draft(line, word), {**JSON, "Connection": "close"})
    return Heard("press, closing", *told)


def chat(line: Line, word: str) -> Heard:
    told = line.ask(word, "/v1/chat/completions", chat_body(line, word), _headers(line))
    return Heard("chat", *told)


def chat_stream(line: Line, word: str) -> Heard:
    body = chat_body(line, word, stream=True)
    return Heard("chat, streamed", *line.ask(word, "/v1/chat/completions", body, _headers(line)))


def response_stream(line: Line, word: str) -> Heard:
    body = json.dumps({"model": line.dice.choice(MODELS), "input": f"say {word}", "stream": True}).encode()
    return Heard("response, streamed", *line.ask(word, "/v1/responses", body, _headers(line)))


def models(line: Line, word: str) -> Heard:
    return Heard("models", *line.ask(word, f"/v1/models?of={word}", b"", _headers(line)))


def upload(line: Line, word: str) -> Heard:
    size = line.dice.randrange(100_000, len(BLOB))
    parts = {"prompt": word.encode(), "model": b"whisper-large-v3", 'file"; filename="a.wav': BLOB[:size]}
    fields = [
        b'--%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (FORM.encode(), name.encode(), value)
        for name, value in parts.items()
    ]
    body = b"".join(fields) + b"--%b--\r\n" % FORM.encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={FORM}"}
    told = line.ask(word, "/v1/audio/transcriptions", body, _headers(line, **kind))
    return Heard("upload", *told, sent=len(body))
