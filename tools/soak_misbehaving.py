"""The clients of a soak that hang up, stall, send garbage or never read; and the share of each kind of client."""

import random
import re
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress

from soak_clients import (
    HANGS,
    TOKEN,
    Heard,
    Line,
    Response,
    chat,
    chat_body,
    chat_stream,
    draft,
    models,
    press,
    press_once,
    response_stream,
    upload,
)

STAYS = 6.0  # seconds that a client stays which stalls, or never reads
LINGERS = 2.0  # seconds that one does not close after a response that closes


def _bytes(path: str, body: bytes, *lines: str) -> bytes:
    """A request with these lines more."""
    head = [f"POST {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {TOKEN}", "Content-Type: application/json"]
    return "\r\n".join([*head, *lines, "", ""]).encode() + body


def _sized(path: str, body: bytes, *lines: str) -> bytes:
    return _bytes(path, body, f"Content-Length: {len(body)}", *lines)


def _streamed(line: Line, word: str) -> bytes:
    return _sized("/v1/chat/completions", chat_body(line, word, stream=True))


def _received(sock: socket.socket, seconds: float) -> Response:
    """What comes until the other side closes, or for so long, as a response."""
    told, began = bytearray(), time.monotonic()
    until = began + seconds
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
    return Response(int(status[1]), kind[1].decode("latin-1") if kind else "", body, seconds=time.monotonic() - began)


def hang_up(line: Line, word: str) -> Heard:
    """Send a request and close at once, or reset."""
    asked = _sized("/enhance", draft(line, word)) if line.dice.random() < 0.5 else _streamed(line, word)
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
    whole = _sized("/enhance", draft(line, word))
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
    body = draft(line, word)
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
