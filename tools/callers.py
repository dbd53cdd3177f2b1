"""The clients of a soak: those that behave, and those that hang up, stall, send garbage or never read."""

import http.client
import json
import random
import re
import socket
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from groqsim import MODELS

TOKEN = "soak-token-7f3a"  # that opens /v1
HANGS = 60.0  # seconds after which a client gives up on a response, which none must
STAYS = 6.0  # seconds that a client stays which stalls, or never reads
LINGERS = 2.0  # seconds that one does not close after a response that closes
TRIES = 200  # to connect, while connections are refused, and
AGAIN = 0.05  # seconds between two
LONG = " and then it told me of its life" * 150  # of a draft with 4,800 characters
BLOB = random.Random(0).randbytes(400_000)  # of which uploads are made
FORM = "soakboundary"


class Response(NamedTuple):
    """What a client got: ``status`` 0 if nothing; ``cut``: it broke off, and that shows."""

    status: int = 0
    kind: str = ""
    body: bytes = b""
    cut: bool = False


class Heard(NamedTuple):
    """One request and its response; ``kind`` is its sender's. ``sent``: bytes of an upload."""

    kind: str
    word: str
    response: Response
    sent: int = 0


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
        try:
            link.request("POST" if body else "GET", path, body or None, dict(headers))
            response = link.getresponse()
        except ConnectionError:
            link.close()
            if fresh:
                self.lost += 1
                return word, Response()
            self.dropped.append(word)
            again = word[:-1] + chr(ord(word[-1]) + 1)
            old, new = word.encode(), again.encode()
            return self.ask(again, path.replace(word, again), body.replace(old, new), headers)
        except (TimeoutError, http.client.HTTPException) as odd:
            link.close()
            return word, Response(0 if isinstance(odd, TimeoutError) else -1, cut=True)
        told = self._read(response)
        if keep and not told.cut and not response.will_close:
            self.held = link
        else:
            link.close()
        return word, told

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


def _draft(line: Line, word: str) -> bytes:
    return json.dumps({"prompt": f"write of {word}{LONG if line.dice.random() < 0.05 else ''}"}).encode()


def _chat(line: Line, word: str, **more: object) -> bytes:
    said = [{"role": "user", "content": f"say {word}"}]
    return json.dumps({"model": line.dice.choice(MODELS), "messages": said, "max_tokens": 500, **more}).encode()


def _headers(line: Line, **more: str) -> dict[str, str]:
    packed = {"Accept-Encoding": "gzip"} if line.dice.random() < 0.5 else {}
    return {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", **packed, **more}


JSON = {"Content-Type": "application/json"}


def press(line: Line, word: str) -> Heard:
    return Heard("press", *line.ask(word, "/enhance", _draft(line, word), JSON))


def press_once(line: Line, word: str) -> Heard:
    line.close()
    line.held = None
    told = line.ask(word, "/enhance", _draft(line, word), {**JSON, "Connection": "close"})
    return Heard("press, closing", *told)


def chat(line: Line, word: str) -> Heard:
    told = line.ask(word, "/v1/chat/completions", _chat(line, word), _headers(line))
    return Heard("chat", *told)


def chat_stream(line: Line, word: str) -> Heard:
    body = _chat(line, word, stream=True)
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


# Those that misbehave, each on a connection of its own


def _bytes(path: str, body: bytes, *lines: str) -> bytes:
    """A request with these lines more."""
    head = [f"POST {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {TOKEN}", "Content-Type: application/json"]
    return "\r\n".join([*head, *lines, "", ""]).encode() + body


def _sized(path: str, body: bytes, *lines: str) -> bytes:
    return _bytes(path, body, f"Content-Length: {len(body)}", *lines)


def _streamed(line: Line, word: str) -> bytes:
    return _sized("/v1/chat/completions", _chat(line, word, stream=True))


def _received(sock: socket.socket, seconds: float) -> Response:
    """What comes until the other side closes, or for so long, as a response."""
    told, until = bytearray(), time.monotonic() + seconds
    with suppress(OSError):
        while (left := until - time.monotonic()) > 0:
            sock.settimeout(left)
            if not (data := sock.recv(65536)):
                break
            told += data
    head, _, body = bytes(told).partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.[01] (\d{3}) ", head)
    kind = re.search(rb"(?i)\r\ncontent-type: ?([^\r]*)", head)
    if not status:
        return Response(-1 if told else 0, "", bytes(told))
    return Response(int(status[1]), kind[1].decode("latin-1") if kind else "", body)


def hang_up(line: Line, word: str) -> Heard:
    """Send a request and close at once, or reset."""
    asked = _sized("/enhance", _draft(line, word)) if line.dice.random() < 0.5 else _streamed(line, word)
    with closing(line.dial()) as sock, suppress(OSError):
        sock.sendall(asked)
        if line.dice.random() < 0.5:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return Heard("hangs up", word, Response())


def hang_up_later(line: Line, word: str) -> Heard:
    with closing(line.dial()) as sock, suppress(OSError):
        sock.sendall(_streamed(line, word))
        sock.recv(1000)
    return Heard("hangs up in a stream", word, Response())


def half(line: Line, word: str) -> Heard:
    whole = _sized("/enhance", _draft(line, word))
    with closing(line.dial()) as sock, suppress(OSError):
        sock.sendall(whole[: line.dice.randrange(1, len(whole))])
        return Heard("half a request", word, _received(sock, STAYS))
    return Heard("half a request", word, Response())


GARBAGE: tuple[Callable[[str], bytes], ...] = (
    lambda word: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + word.encode() * 20 + b"\r\n\r\n",
    lambda word: f"{word} and more of this\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode(),
    lambda word: f"POST /{word} HTTP/9.9\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode(),
    lambda word: _bytes("/enhance", b"", f"{word} no colon"),
    lambda word: _bytes("/enhance", b"", f"Content-Length: {word}"),
    lambda word: _bytes("/enhance", b"", f"X-{word}: {'x' * 10_000}"),
    lambda word: _bytes(f"/{word * 800}", b""),
    lambda word: _bytes("/enhance", b"", f"Transfer-Encoding: {word}"),
    lambda word: _bytes("/enhance", b"{}", "SCRIPT_NAME: /x", f"{word}: {TOKEN}", "Content-Length: 2"),
    lambda word: _bytes("/enhance", b"{}", f"Expect: {word}", "Content-Length: 2"),
    lambda word: bytes(random.Random(word).randbytes(500)) + b"\r\n\r\n",
)


def garbage(line: Line, word: str) -> Heard:
    with closing(line.dial()) as sock, suppress(OSError):
        sock.sendall(line.dice.choice(GARBAGE)(word))
        return Heard("garbage", word, _received(sock, STAYS))
    return Heard("garbage", word, Response())


CHUNKS: tuple[Callable[[bytes], bytes], ...] = (
    lambda word: b"zz\r\n" + word + b"\r\n0\r\n\r\n",
    lambda word: word + b"\r\n" + word + b"\r\n0\r\n\r\n",
    lambda word: b"-5\r\n" + word + b"\r\n0\r\n\r\n",
    lambda word: b"5\r\n" + word + b"\r\n0\r\n\r\n",
    lambda word: b"0\r\n" + word + b" trailer\r\n\r\n",
)


def bad_chunks(line: Line, word: str) -> Heard:
    path = line.dice.choice(("/enhance", "/v1/chat/completions"))
    asked = _bytes(path, line.dice.choice(CHUNKS)(word.encode()), "Transfer-Encoding: chunked")
    with closing(line.dial()) as sock, suppress(OSError):
        sock.sendall(asked)
        return Heard("bad chunks", word, _received(sock, STAYS))
    return Heard("bad chunks", word, Response())


def never_read(line: Line, word: str) -> Heard:
    pages = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 100
    with closing(line.dial()) as sock, suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(STAYS)
        for part in (_streamed(line, word), *[pages] * 30):
            sock.sendall(part)
        time.sleep(STAYS)
    return Heard("never reads", word, Response())


def never_close(line: Line, word: str) -> Heard:
    body = _draft(line, word)
    with closing(line.dial()) as sock, suppress(OSError):
        sock.sendall(_sized("/enhance", body, "Connection: close"))
        told = _received(sock, HANGS)
        time.sleep(LINGERS)
        return Heard("never closes", word, told)
    return Heard("never closes", word, Response())


KINDS: Mapping[Callable[[Line, str], Heard], float] = {  # and their share in percent
    press: 26, press_once: 15, chat: 13, chat_stream: 14, response_stream: 9, models: 5, upload: 6,
    hang_up: 4, hang_up_later: 2.5, half: 0.5, garbage: 2, bad_chunks: 2, never_read: 0.5, never_close: 0.5,
}  # fmt: skip
