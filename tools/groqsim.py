"""A small, faithful Groq for tests, demo and benchmark: limits, headers, errors, streams and, on order, faults.

python tools/groqsim.py --port 4000 --key gsk_demo_1=org_a --key gsk_demo_2=org_b --latency 0.3
curl localhost:4000/sim/faults -d '{"name": "rate_limit", "key": "gsk_demo_1", "retry_after": 7}'
"""

import argparse
import gzip
import itertools
import json
import math
import re
import signal
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from email.utils import formatdate
from enum import Enum
from functools import partial
from http.client import responses
from socketserver import StreamRequestHandler, TCPServer, ThreadingMixIn
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

from completions import (
    MOST_COMPLETION,
    TIER,
    as_chat,
    as_events,
    as_json,
    as_response,
    as_response_events,
    as_wanted,
    complaint,
    completion,
    cut,
    enhanced,
    form_fields,
    maxima,
    sse,
    text_of,
    usage,
    vector,
)
from completions import count_tokens as count_tokens
from completions import tone as tone

MODELS = ("openai/gpt-oss-20b", "openai/gpt-oss-120b")
CONTEXT_WINDOW = 131072  # tokens
DEFAULT_COMPLETION = 1024  # tokens, reserved for who names no maximum: reports say 1,024 or 2,048, none the most
TEMPLATE_TOKENS = 70  # of gpt-oss' chat template around the messages
GZIP = 31  # of zlib's windows the one with gzip's header
SLACK = 1e-6  # tokens: more than floats lose in rounding, and nothing to a client

DIMENSIONS = {  # name: (what Groq calls it, its type, its period in seconds)
    "RPM": ("requests per minute", "requests", 60),
    "RPD": ("requests per day", "requests", 86400),
    "TPM": ("tokens per minute", "tokens", 60),
    "TPD": ("tokens per day", "tokens", 86400),
}
EFFORTS = {"openai/gpt-oss": ("low", "medium", "high"), "qwen/": ("none", "default")}  # by how a model's name begins
SHOWN = {"requests": "RPD", "tokens": "TPM"}  # RPM and TPD have no header
UPGRADE = "Need more tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing"

ERRORS = {  # name: (status, message); the name is the code, but of those in UNCODED
    "bad_request": (400, "The request is not valid."),
    "organization_restricted": (400, "Organization has been restricted. Please reach out to support."),
    "blocked_api_access": (400, "API access is blocked: spend limit reached. See https://console.groq.com/settings/billing"),
    "spend_limit_reached": (400, "Spend limit reached. See https://console.groq.com/settings/billing"),
    "model_decommissioned": (400, "The model `{model}` has been decommissioned and is no longer supported."),
    "json_validate_failed": (400, "Failed to generate JSON. Please adjust your prompt."),
    "context_length_exceeded": (400, "Please reduce the length of the messages or completion."),
    "invalid_api_key": (401, "Invalid API Key"),
    "model_permission_blocked_org": (403, "The model `{model}` is blocked at the organization level."),
    "model_permission_blocked_project": (403, "The model `{model}` is blocked at the project level."),
    "model_not_found": (404, "The model `{model}` does not exist or you do not have access to it."),
    "unknown_url": (404, "Unknown request URL: {method} {path}. Please check the URL for typos."),
    "semantic_error": (422, "The request was well-formed but could not be followed."),
    "capacity_exceeded": (498, "Flex tier capacity exceeded. Please try again later."),
    "internal_error": (500, "Internal Server Error"),
    "over_capacity": (503, "{model} is currently over capacity. Please try again and back off exponentially."),
}  # fmt: skip
UNCODED = {"bad_request", "semantic_error", "internal_error", "over_capacity"}
USUAL = {  # status: what Groq most often means by it; others are "internal_error"
    400: "bad_request", 401: "invalid_api_key", 403: "access_denied", 404: "model_not_found", 413: "request_too_large",
    422: "semantic_error", 429: "rate_limit", 498: "capacity_exceeded", 502: "bad_gateway_html", 503: "over_capacity",
}  # fmt: skip
INVALID = "invalid_request_error"
BEYOND = (
    f"`max_completion_tokens` must be less than or equal to `{MOST_COMPLETION}`, the maximum value for "
    "`max_completion_tokens` is less than the `context_window` for this model"
)
REFUSED = "Access denied. Please check your network settings."
BAD_GATEWAY = """<!DOCTYPE html>
<html lang="en-US"><head><title>api.groq.com | 502: Bad gateway</title></head>
<body><h1>Bad gateway <span>Error code 502</span></h1><p>Cloudflare Ray ID: 8f2b6c1d9e0a4f37</p></body></html>
"""


def go_duration(seconds: float) -> str:
    """Write ``seconds`` as Groq does: ``540ms``, ``36.27s``, ``1m26.4s``, ``12h30m``."""
    ns = round(seconds * 1e9)
    if ns < 10**9:
        unit, size = next(((unit, size) for unit, size in (("ms", 10**6), ("µs", 10**3)) if ns >= size), ("ns", 1))
        return f"{_decimal(ns, size)}{unit}" if ns else "0s"
    minutes, ns = divmod(ns, 60 * 10**9)
    parts = (f"{minutes // 60}h", f"{minutes % 60}m", f"{_decimal(ns, 10**9)}s")
    return "".join(part for part in parts if part[:-1] != "0")


def _decimal(amount: int, size: int) -> str:
    whole, rest = divmod(amount, size)
    return f"{whole}.{rest:0{len(str(size)) - 1}}".rstrip("0") if rest else str(whole)


# Limits


@dataclass(frozen=True)
class Limits:
    """Requests and tokens per minute and day, of one organization for one model; ``None``: no such limit.

    By default those of the free plan. A paid one has ``Limits(1000, 250_000, 500_000, None)`` or so.
    """

    rpm: int | None = 30
    tpm: int | None = 8000
    rpd: int | None = 1000
    tpd: int | None = 200_000


class Meter:
    """An allowance that starts full and refills continuously, ``limit`` in its dimension's period."""

    def __init__(self, dimension: str, limit: int, now: float) -> None:
        _, self._kind, self._period = DIMENSIONS[dimension]
        self.limit = limit
        self._level, self._at = float(limit), now

    def level(self, now: float) -> float:
        return min(self.limit, self._level + (now - self._at) * self.limit / self._period)

    def add(self, amount: float, now: float) -> None:
        self._level, self._at = min(self.limit, self.level(now) + amount), now

    def remaining(self, now: float) -> int:
        return math.floor(self.level(now) + SLACK)

    def ready_in(self, need: float, now: float) -> float:
        """Seconds until ``need`` is there; Groq counts tokens whole, but tells of parts of a request."""
        missing = need - (self.remaining(now) if self._kind == "tokens" else self.level(now))
        return missing * self._period / self.limit if missing > SLACK else 0.0


@dataclass(frozen=True)
class Shortage:
    """The bucket that refused a call, and in how many seconds it would not."""

    dimension: str
    limit: int
    used: int
    requested: int
    ready_in: float

    @property
    def for_good(self) -> bool:
        return self.dimension == "TPM" and self.requested > self.limit


class Account:
    """What one organization may do with one model. Not locked."""

    def __init__(self, limits: Limits, now: float) -> None:
        sizes = {name: getattr(limits, name.lower()) for name in DIMENSIONS}
        self._buckets = {name: Meter(name, size, now) for name, size in sizes.items() if size}

    def charge(self, tokens: int, now: float) -> Shortage | None:
        """Take one request and its tokens; or nothing at all, and return which bucket is short."""
        needs = {name: 1 if name.startswith("R") else tokens for name in self._buckets}
        short = [
            Shortage(name, bucket.limit, bucket.limit - bucket.remaining(now), needs[name], ready_in)
            for name, bucket in self._buckets.items()
            if (ready_in := bucket.ready_in(needs[name], now))
        ]
        if not short:
            self.add({name: -need for name, need in needs.items()}, now)
        return max(short, key=lambda shortage: shortage.for_good, default=None)

    def add(self, amounts: Mapping[str, float], now: float) -> None:
        for name in self._buckets.keys() & amounts.keys():
            self._buckets[name].add(amounts[name], now)

    def headers(self, kinds: Iterable[str], now: float) -> dict[str, str]:
        headers = {}
        for kind in kinds:
            if bucket := self._buckets.get(SHOWN[kind]):
                headers[f"x-ratelimit-limit-{kind}"] = str(bucket.limit)
                headers[f"x-ratelimit-remaining-{kind}"] = str(bucket.remaining(now))
                headers[f"x-ratelimit-reset-{kind}"] = go_duration(bucket.ready_in(bucket.limit, now))
        return headers


# Calls and answers


@dataclass
class Received:
    """A request as received, ``at`` the clock's instant; ``status`` is 0 until, and unless, it is answered."""

    at: float
    key: str
    organization: str
    method: str
    path: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    json: Any = field(repr=False)
    form: dict[str, bytes] = field(default_factory=dict, repr=False)
    model: str = ""
    status: int = 0
    prompt_tokens: int = 0
    max_completion_tokens: int | None = None

    @property
    def reserve(self) -> int:
        return self.max_completion_tokens or DEFAULT_COMPLETION

    @property
    def tokens(self) -> int:
        """What it is admitted by, and charged up front."""
        return self.prompt_tokens + self.reserve


@dataclass(frozen=True)
class Reply:
    """What to send: ``events`` if there are any, else ``body``; ``shows`` the limits that have headers."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    events: list[bytes] | None = None
    shows: tuple[str, ...] | None = None
    sent: Callable[[], None] = lambda: None

    def limits_shown(self) -> tuple[str, ...]:
        return self.shows if self.shows is not None else tuple(SHOWN) if self.status in (200, 400, 429) else ()

    def pieces(self) -> list[bytes]:
        """All bytes: of a stream its head and each chunk, else one piece."""
        if self.events is None:
            return [self._head("application/json", f"content-length: {len(self.body)}") + self.body]
        head = self._head("text/event-stream", "transfer-encoding: chunked")
        return [head, *map(chunk, self.events), chunk(b"")]

    def zipped(self) -> "Reply":
        """The same compressed, a stream event by event."""
        headers = {**self.headers, "content-encoding": "gzip"}
        if self.events is None:
            return replace(self, body=gzip.compress(self.body), headers=headers) if self.body else self
        packer = zlib.compressobj(wbits=GZIP)
        events = [packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH) for event in self.events]
        return replace(self, events=[*events, packer.flush()], headers=headers)

    def _head(self, kind: str, framing: str) -> bytes:
        headers = {"date": formatdate(usegmt=True), "content-type": kind} | dict(self.headers)
        lines = (f"HTTP/1.1 {self.status} {responses.get(self.status, '')}", *map(": ".join, headers.items()), framing)
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def error(status: int, message: str, code: str | None = None, kind: str | None = None) -> Reply:
    usual = "permissions_error" if status == 403 else "internal_server_error" if status >= 498 else INVALID
    about = {"message": message, "type": kind or usual} | ({"code": code} if code else {})
    return Reply(status, as_json({"error": about}))


def named_error(name: str, call: Received) -> Reply:
    status, message = ERRORS[name]
    text = message.format(model=call.model, method=call.method, path=call.path)
    return error(status, text, None if name in UNCODED else name)


def limited(call: Received, shortage: Shortage, retry_after: str = "") -> Reply:
    """Return a 429, or the 413 of a call that no waiting helps. ``retry_after``: whole seconds, unless given."""
    name, kind, _ = DIMENSIONS[shortage.dimension]
    where = f"model `{call.model}` in organization `{call.organization}` service tier `{TIER}`"
    where += f" on {name} ({shortage.dimension}): Limit {shortage.limit}"
    if shortage.for_good:
        status, start = 413, f"Request too large for {where}, Requested {shortage.requested}"
        end = ", please reduce your message size and try again."
    else:
        status, start = 429, f"Rate limit reached for {where}, Used {shortage.used}, Requested {shortage.requested}"
        end = f". Please try again in {go_duration(shortage.ready_in)}."
    answer = error(status, f"{start}{end} {UPGRADE}", "rate_limit_exceeded", kind)
    headers = {"retry-after": retry_after or str(math.ceil(round(shortage.ready_in, 6)))}
    return replace(answer, headers=headers, shows=("requests",) if kind == "requests" else None)


# Faults


class End(Enum):
    CLOSE = "FIN"
    RESET = "RST"


Script = list[bytes | float | End]  # what happens on the connection: bytes are sent, seconds pass, or it ends


@dataclass(frozen=True)
class Trouble:
    """What goes wrong with a call: the ``answer``, its text and finish reason, or how its ``pieces`` are sent.

    ``zips``: it is compressed for who accepts it, which is none, but seldom.
    """

    answer: Callable[[Received, Limits], Reply] | None = None
    says: tuple[str, str] | None = None
    script: Callable[[list[bytes]], Script] = lambda pieces: [*pieces]
    zips: bool = False

    @classmethod
    def status(cls, status: int, body: Any = None, headers: Mapping[str, str] | None = None) -> "Trouble":
        """Answer with ``status`` and a text, bytes or object; if there is none, with Groq's own for that status."""
        if type(status) is not int or not 200 <= status <= 599:
            raise ValueError(f"No such status: {status!r}.")
        like = cls.named(USUAL.get(status, "internal_error")).answer if body is None else plain(body)
        assert like
        more = {name: str(value) for name, value in dict(headers or {}).items()}
        return cls(lambda call, limits: altered(like(call, limits), status, more))

    @classmethod
    def named(cls, name: str, **options: Any) -> "Trouble":
        """A fault of the tables by its name; raises ``ValueError`` or ``TypeError`` if there is none, or not such."""
        if name in ERRORS and not options:
            return cls(lambda call, limits: named_error(name, call))
        if name not in FAULTS:
            raise ValueError(f"No such fault: {name!r} with {options}. There are: {', '.join([*ERRORS, *FAULTS])}.")
        return FAULTS[name](**options)

    @classmethod
    def rate_limit(cls, retry_after: float = 2.0, dimension: str = "RPM") -> "Trouble":
        if dimension not in DIMENSIONS:
            raise ValueError(f"No such dimension: {dimension!r}. There are: {', '.join(DIMENSIONS)}.")
        return cls(partial(out_of, dimension=dimension, ready_in=span(retry_after)))

    @classmethod
    def content(cls, text: str = "") -> "Trouble":
        return cls(says=(str(text), "stop"))

    @classmethod
    def length(cls, text: str = "") -> "Trouble":
        return cls(says=(str(text), "length"))

    @classmethod
    def garbage(cls) -> "Trouble":
        return cls.status(200, b"this is not JSON")

    @classmethod
    def reset(cls) -> "Trouble":
        """Read the request, then RST."""
        return cls(script=lambda pieces: [End.RESET])

    @classmethod
    def close(cls) -> "Trouble":
        """Read the request, then FIN."""
        return cls(script=lambda pieces: [End.CLOSE])

    @classmethod
    def stall(cls, seconds: float) -> "Trouble":
        """Silence, then the answer."""
        pause = span(seconds)
        return cls(script=lambda pieces: [pause, *pieces])

    @classmethod
    def stall_body(cls, seconds: float) -> "Trouble":
        """Headers and half of the body, silence, the rest."""
        pause = span(seconds)
        return cls(script=lambda pieces: [*halves(pieces)[0], pause, *halves(pieces)[1]])

    @classmethod
    def drip(cls, seconds_per_byte: float) -> "Trouble":
        pause = span(seconds_per_byte)
        return cls(script=lambda pieces: [step for byte in b"".join(pieces) for step in (bytes([byte]), pause)])

    @classmethod
    def truncate(cls) -> "Trouble":
        """Headers and half of the body, or half of the chunks of a stream, then FIN."""
        return cls(script=lambda pieces: [*halves(pieces)[0], End.CLOSE])

    @classmethod
    def reset_body(cls) -> "Trouble":
        """Headers and half of the body, then RST."""
        return cls(script=lambda pieces: [*halves(pieces)[0], End.RESET])

    @classmethod
    def length_says(cls, length: str) -> "Trouble":
        """Another Content-Length than the body's, or two with a comma between, then FIN; streams have none."""
        lines = "\r\n".join(f"content-length: {said}" for said in str(length).split(","))
        return cls(script=lambda pieces: [reframed(pieces[0], lines), *pieces[1:], End.CLOSE])

    @classmethod
    def bad_chunk(cls) -> "Trouble":
        """A chunk whose length is no number, after half of the chunks of a stream, then FIN."""
        return cls(script=lambda pieces: [*begun(pieces), b"xyz\r\n", End.CLOSE])

    @classmethod
    def unfinished(cls) -> "Trouble":
        """Half of a stream, ended as if it were whole; what is no stream is sent whole."""
        return cls(script=lambda pieces: [*begun(pieces), chunk(b"")] if len(pieces) > 1 else [*pieces])

    @classmethod
    def no_done(cls) -> "Trouble":
        """A stream without its last event, ended as if it were whole; what is no stream is sent whole."""
        return cls(script=lambda pieces: [*pieces[:-2], pieces[-1]] if len(pieces) > 1 else [*pieces])

    @classmethod
    def broken_end(cls) -> "Trouble":
        """A whole stream but for the end of its chunks, then FIN; what is no stream is sent whole."""
        return cls(script=lambda pieces: [*(pieces[:-1] if len(pieces) > 1 else pieces), End.CLOSE])

    @classmethod
    def zipped(cls) -> "Trouble":
        """The answer compressed, a stream too, for who accepts it."""
        return cls(zips=True)

    @classmethod
    def stream_error(cls) -> "Trouble":
        """Half of a stream, an error event, the end; what is no stream is sent whole."""
        return cls(script=lambda pieces: [*halves(pieces)[0], *BROKEN] if len(pieces) > 1 else [*pieces])

    @classmethod
    def hangup(cls) -> "Trouble":
        """The whole answer, keep-alive promised, then FIN."""
        return cls(script=lambda pieces: [*pieces, End.CLOSE])


FAULTS: dict[str, Callable[..., Trouble]] = {
    "access_denied": lambda: Trouble.status(403, {"error": {"message": REFUSED}}),
    "request_too_large": lambda: Trouble(oversized),
    "cloudflare_1010": lambda: Trouble.status(403, "error code: 1010"),
    "bad_gateway_html": lambda: Trouble.status(502, BAD_GATEWAY, {"content-type": "text/html; charset=UTF-8"}),
    "html": lambda: Trouble.status(200, BAD_GATEWAY, {"content-type": "text/html; charset=UTF-8"}),
    "empty": lambda: Trouble.status(500, ""),
} | {
    factory.__name__: factory
    for factory in (
        Trouble.rate_limit, Trouble.content, Trouble.length, Trouble.garbage, Trouble.reset, Trouble.close,
        Trouble.stall, Trouble.stall_body, Trouble.drip, Trouble.truncate, Trouble.stream_error, Trouble.hangup,
        Trouble.reset_body, Trouble.length_says, Trouble.bad_chunk, Trouble.unfinished, Trouble.no_done,
        Trouble.broken_end, Trouble.zipped,
    )
}  # fmt: skip
OUTAGE = {"error": {"message": "Internal Server Error", "type": "internal_server_error"}}
BROKEN: Script = [chunk(b"event: error\n" + sse(OUTAGE)), chunk(b""), End.CLOSE]


def span(seconds: float | str) -> float:
    if not 0 <= float(seconds) < threading.TIMEOUT_MAX:
        raise ValueError(f"Not a number of seconds: {seconds!r}.")
    return float(seconds)


def plain(body: Any) -> Callable[[Received, Limits], Reply]:
    if isinstance(body, str):
        return lambda call, limits: Reply(200, body.encode(), {"content-type": "text/plain; charset=UTF-8"})
    return lambda call, limits: Reply(200, body if isinstance(body, bytes) else as_json(body))


def altered(answer: Reply, status: int, headers: Mapping[str, str]) -> Reply:
    return replace(answer, status=status, headers={**answer.headers, **headers})


def out_of(call: Received, limits: Limits, dimension: str, ready_in: float) -> Reply:
    """Return the 429 of a call that would be admitted in ``ready_in`` seconds."""
    limit = getattr(limits, dimension.lower()) or getattr(Limits, dimension.lower())
    need = 1 if dimension.startswith("R") else min(call.tokens, limit)
    used = min(limit, limit - need + round(ready_in * limit / DIMENSIONS[dimension][2]))
    return limited(call, Shortage(dimension, limit, used, need, ready_in), f"{ready_in:.9g}")


def oversized(call: Received, limits: Limits) -> Reply:
    limit = limits.tpm or 8000
    need = max(limit + 1, call.tokens)
    return limited(call, Shortage("TPM", limit, 0, need, (need - limit) * 60 / limit))


def begun(pieces: list[bytes]) -> list[bytes]:
    """The head of an answer in chunks, and the first half of them; none of what was no stream."""
    chunked = "transfer-encoding: chunked"
    return (
        halves(pieces)[0] if len(pieces) > 1 else [reframed(pieces[0], chunked).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"]
    )


def reframed(piece: bytes, lines: str) -> bytes:
    """A head, and what follows it, with other ``lines`` for the length of its body."""
    return re.sub(rb"(?<=\r\n)content-length: \d+", lines.encode(), piece, count=1)


def halves(pieces: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Cut a stream between two chunks, any other answer in the middle of its body."""
    if len(pieces) > 1:
        return pieces[: len(pieces) // 2], pieces[len(pieces) // 2 :]
    middle = (pieces[0].index(b"\r\n\r\n") + 4 + len(pieces[0])) // 2
    return [pieces[0][:middle]], [pieces[0][middle:]]


# The server


class Gone(Exception):
    """The connection is of no more use: the client left or speaks no HTTP, or the simulator stops."""


class Connection(StreamRequestHandler):
    """One client's connection in a thread of its own: requests and answers in turn."""

    server: "Server"
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with suppress(Gone, OSError):
            while self._exchange():
                pass

    def _exchange(self) -> bool:
        """Answer one request; return whether there may be another."""
        method, path, version, headers, body = self._request()
        sim = self.server.sim
        if path.startswith("/sim/"):
            self._play(sim.control(method, path, body).pieces())
        else:
            call, fault = sim.receive(method, path, headers, body)
            answer = sim.answer(call, fault)
            self._wait(sim.latency_of.get(call.key, sim.latency))
            if not self._play(fault.script(answer.pieces()), partial(setattr, call, "status", answer.status)):
                return False
            answer.sent()
        return version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"

    def _request(self) -> tuple[str, str, str, dict[str, str], bytes]:
        try:
            method, path, version = self.rfile.readline().decode("latin-1").split()
            fields = (line.decode("latin-1").partition(":") for line in itertools.takewhile(bytes.strip, self.rfile))
            headers = {name.lower(): value.strip() for name, _, value in fields}
            return method, path, version, headers, self.rfile.read(int(headers.get("content-length", 0)))
        except ValueError as problem:
            raise Gone from problem

    def _play(self, script: Iterable[bytes | float | End], sending: Callable[[], None] = lambda: None) -> bool:
        """Do as the script says, call ``sending`` before any byte; return whether the connection is still open."""
        for number, step in enumerate(script):
            if isinstance(step, End):
                self._end(step)
                return False
            if isinstance(step, float):
                self._wait(step)
                continue
            if number > 1:
                self._wait(self.server.sim.chunk_pause)
            sending()
            self.connection.sendall(step)
        return True

    def _wait(self, seconds: float) -> None:
        if seconds > 0 and self.server.stopping.wait(seconds):
            raise Gone

    def _end(self, how: End) -> None:
        if how is End.RESET:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()  # here, for the server's own way of closing begins with a FIN


class Server(ThreadingMixIn, TCPServer):
    """Listens, and knows its connections and their threads, so as to end them."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, sim: "GroqSim", port: int) -> None:
        self.sim = sim
        self.stopping = threading.Event()
        self._open: dict[socket.socket, threading.Thread] = {}
        super().__init__(("127.0.0.1", port), Connection)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        while not self.stopping.is_set():
            self.handle_request()

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        self._open[request] = thread
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        self._open.pop(request, None)
        super().shutdown_request(request)

    def connections(self) -> list[socket.socket]:
        return [*self._open]

    def stop(self) -> None:
        self.stopping.set()
        socket.create_connection(("127.0.0.1", self.sim.port)).close()  # one more connection wakes the listener
        self._listener.join()
        self.server_close()
        for connection, thread in self._open.copy().items():
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # wakes a thread that reads, as close() would not
            thread.join(timeout=2)


# The simulator


@dataclass
class Order:
    """A fault for the next ``times`` calls with this key and for this model; ``None``: any, or for ever."""

    fault: Trouble
    key: str | None
    model: str | None
    times: int | None

    def wants(self, call: Received) -> bool:
        return self.key in (None, call.key) and self.model in (None, call.model) and self.times != 0


@dataclass(eq=False)
class GroqSim:
    """A Groq on this machine, on a free port unless told which. ``keys`` maps keys to organizations.

    ``latency`` (of single keys: ``latency_of``) passes before each answer, ``chunk_pause`` between a stream's chunks,
    in seconds. ``limits`` and ``per_model`` hold from a lane's first call on. ``lacking`` maps organizations to the
    models that they have no access to.
    """

    keys: Mapping[str, str]
    limits: Limits = Limits()
    _: KW_ONLY
    per_model: Mapping[str, Limits] = field(default_factory=dict)
    models: Sequence[str] = MODELS
    lacking: Mapping[str, Collection[str]] = field(default_factory=dict)
    latency: float = 0.0
    latency_of: dict[str, float] = field(default_factory=dict)
    chunk_pause: float = 0.0
    reasoning_tokens: int = 40
    refund: bool = False  # of what a completion left of its max_completion_tokens
    gzip: bool = False  # for who accepts it
    reply: Callable[[dict[str, Any]], str] = enhanced
    clock: Callable[[], float] = time.monotonic
    port: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._lanes: dict[tuple[str, str], Account] = {}
        self._calls: list[Received] = []
        self._orders: list[Order] = []
        self._server: Server | None = None

    def __enter__(self) -> "GroqSim":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; raises ``OSError`` if the port is taken."""
        if not self._server:
            self._server = Server(self, self.port)
            self.port = self._server.server_address[1]

    def stop(self) -> None:
        """Close the port and every connection, whatever it waits for."""
        if self._server:
            self._server.stop()
            self._server = None

    refuse, accept = stop, start  # the port stays the same

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def calls(self) -> list[Received]:
        """A copy of all calls, in the order received."""
        with self._lock:
            return [replace(call) for call in self._calls]

    def forget(self) -> None:
        """Empty ``calls``."""
        with self._lock:
            self._calls.clear()

    def order(self, fault: Trouble, key: str | None = None, model: str | None = None, times: int | None = 1) -> None:
        """Have the next ``times`` matching calls meet ``fault``, after earlier orders; ``None``: until ``clear()``."""
        if key is not None and key not in self.keys:
            raise ValueError(f"No such key: {key!r}.")
        if times is not None and (type(times) is not int or times < 1):
            raise ValueError(f"Not a number of times: {times!r}.")
        with self._lock:
            self._orders.append(Order(fault, key, model, times))

    def clear(self) -> None:
        """Forget all orders."""
        with self._lock:
            self._orders.clear()

    def receive(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[Received, Trouble]:
        """Note a call, and return it with what it is to meet."""
        key = headers.get("authorization", "").removeprefix("Bearer ").strip()
        call = Received(0.0, key, self.keys.get(key, ""), method, path, headers, body, parsed(body))
        call.form = form_fields(body) if "multipart/form-data" in headers.get("content-type", "") else {}
        chat = as_chat(call.json)
        if isinstance(chat, dict) and isinstance(chat.get("model"), str):
            call.model = chat["model"]
        elif "model" in call.form:
            call.model = call.form["model"].decode("utf-8", "replace")
        if complaint(chat) is None:
            call.prompt_tokens = TEMPLATE_TOKENS + sum(count_tokens(text_of(said)) for said in chat["messages"])
            call.max_completion_tokens = max(maxima(chat), default=None)
        with self._lock:
            call.at = self.clock()
            self._calls.append(call)
            order = next((order for order in self._orders if order.wants(call)), None)
            if order and order.times:
                order.times -= 1
        return call, order.fault if order else Trouble()

    def answer(self, call: Received, fault: Trouble) -> Reply:
        answer = fault.answer(call, self._limits(call)) if fault.answer else self._route(call, fault)
        headers = {
            "server": "cloudflare",
            "cf-ray": f"{uuid4().hex[:16]}-FRA",
            "x-groq-region": "dls",
            "x-request-id": f"req_{uuid4().hex}",
            # Groq's is bound to its domain and Secure; from here no client would store such a cookie.
            "set-cookie": f"__cf_bm={uuid4().hex}; path=/; HttpOnly",
        }
        if call.organization and call.model in self.models:
            with self._lock:
                headers |= self._lane(call).headers(answer.limits_shown(), self.clock())
        answer = replace(answer, headers=headers | dict(answer.headers))
        if "gzip" not in call.headers.get("accept-encoding", ""):
            return answer
        return answer.zipped() if fault.zips or (self.gzip and answer.events is None) else answer

    def _route(self, call: Received, fault: Trouble) -> Reply:
        path = call.path.partition("?")[0]
        for method, pattern, respond in ROUTES:
            if method == call.method and (match := re.fullmatch(pattern, path)):
                if not call.organization:
                    return UNAUTHORIZED
                if self._lacks(call, call.model):
                    return named_error("model_not_found", call)
                return respond(self, call, fault, *match.groups())
        return named_error("unknown_url", call)

    def _lacks(self, call: Received, model: str) -> bool:
        return model in self.lacking.get(call.organization, ())

    def _limits(self, call: Received) -> Limits:
        return self.per_model.get(call.model, self.limits)

    def _lane(self, call: Received) -> Account:
        name = (call.organization, call.model)
        if name not in self._lanes:
            self._lanes[name] = Account(self._limits(call), self.clock())
        return self._lanes[name]

    def _chat(self, call: Received, fault: Trouble) -> Reply:
        if problem := complaint(as_chat(call.json)):
            return error(400, problem)
        if call.model not in self.models:
            return named_error("model_not_found", call)
        if problem := unwilling(call.json):
            return error(400, problem)
        if call.reserve > MOST_COMPLETION and call.tokens <= (self._limits(call).tpm or math.inf):
            return error(400, BEYOND)
        with self._lock:
            shortage = self._lane(call).charge(call.tokens, self.clock())
        return limited(call, shortage) if shortage else self._complete(call, fault)

    def _complete(self, call: Received, fault: Trouble) -> Reply:
        chat = as_chat(call.json)
        text, finish = fault.says or (as_wanted(chat, self.reply(chat)), "stop")
        said = self.reasoning_tokens + count_tokens(text)
        most = call.max_completion_tokens or MOST_COMPLETION  # who names none is served whole, whatever is reserved
        if said > most:
            text, finish, said = cut(text, most - self.reasoning_tokens), "length", most
        whole = completion(chat, (text, finish), usage(call.prompt_tokens, said, self.reasoning_tokens))
        sent = partial(self._give_back, call, call.reserve - said)
        if chat is not call.json:
            whole = as_response(whole)
            events = as_response_events(whole) if chat.get("stream") else None
            return Reply(200, as_json(whole), events=events, sent=sent)
        if not call.json.get("stream"):
            return Reply(200, as_json(whole), sent=sent)
        include_usage = bool((call.json.get("stream_options") or {}).get("include_usage"))
        return Reply(200, events=as_events(whole, include_usage), sent=sent)

    def _give_back(self, call: Received, tokens: int) -> None:
        if self.refund:
            with self._lock:
                self._lane(call).add({"TPM": tokens, "TPD": tokens}, self.clock())

    def _embed(self, call: Received, fault: Trouble) -> Reply:
        asked = call.json if isinstance(call.json, dict) else {}
        texts = [said] if isinstance(said := asked.get("input"), str) else said
        if not call.model or not isinstance(texts, list):
            return error(400, "'model' and 'input' : both are needed")
        packed = asked.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": vector(str(text), packed)}
            for index, text in enumerate(texts)
        ]
        usage = dict.fromkeys(("prompt_tokens", "total_tokens"), sum(count_tokens(str(text)) for text in texts))
        return Reply(200, as_json({"object": "list", "data": data, "model": call.model, "usage": usage}))

    def _hear(self, call: Received, fault: Trouble) -> Reply:
        for name in ("file", "model"):
            if not call.form.get(name):
                return error(400, f"`{name}` : property '{name}' is missing")
        words = call.form.get("prompt", b"").decode("utf-8", "replace")
        about = {
            "text": f" {words} {len(call.body)} bytes of sound.".replace("  ", " "),
            "x_groq": {"id": f"req_{uuid4().hex}"},
        }
        return Reply(200, as_json(about))

    def _speak(self, call: Received, fault: Trouble) -> Reply:
        asked = call.json if isinstance(call.json, dict) else {}
        if not call.model or not isinstance(asked.get("input"), str):
            return error(400, "'model' and 'input' : both are needed")
        return Reply(200, tone(asked["input"]), {"content-type": "audio/wav"})

    def _list(self, call: Received, fault: Trouble) -> Reply:
        models = [described(model) for model in self.models if not self._lacks(call, model)]
        return Reply(200, as_json({"object": "list", "data": models}))

    def _describe(self, call: Received, fault: Trouble, name: str) -> Reply:
        model = unquote(name)
        if model not in self.models or self._lacks(call, model):
            return named_error("model_not_found", replace(call, model=model))
        return Reply(200, as_json(described(model)))

    def control(self, method: str, path: str, body: bytes) -> Reply:
        """Answer a tester's request: faults to order, calls to look at."""
        if (method, path) not in CONTROLS:
            return Reply(404, as_json({"error": f"There is no {method} {path}, but {CONTROLS.keys()}."}))
        try:
            return Reply(200, as_json(CONTROLS[method, path](self, body)))
        except (TypeError, ValueError) as problem:
            return Reply(400, as_json({"error": str(problem)}))

    def _order_named(self, body: bytes) -> dict[str, Any]:
        wanted = json.loads(body)
        if not isinstance(wanted, dict) or not wanted.keys() & {"name", "status"}:
            raise ValueError('Send {"name": …} or {"status": …}, with "key", "model", "times" and options as you like.')
        target = {name: wanted.pop(name) for name in ("key", "model", "times") if name in wanted}
        self.order(Trouble.status(**wanted) if "status" in wanted else Trouble.named(**wanted), **target)
        return {"ordered": wanted | target}

    def _calls_as_json(self, body: bytes) -> list[dict[str, Any]]:
        return [
            asdict(call) | {"body": call.body.decode("utf-8", "replace"), "form": [*call.form]} for call in self.calls
        ]


def parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def unwilling(request: dict[str, Any]) -> str:
    """What a model says of an effort that it does not know; empty if there is nothing to say."""
    efforts = next((known for family, known in EFFORTS.items() if request["model"].startswith(family)), ())
    if (effort := request.get("reasoning_effort")) is None or effort in efforts:
        return ""
    if not efforts:
        return "`reasoning_effort` is not supported with this model"
    return f"`reasoning_effort` must be one of {', '.join(f'`{known}`' for known in efforts[:-1])} or `{efforts[-1]}`"


def described(model: str) -> dict[str, Any]:
    about = {"id": model, "object": "model", "created": 1754408224, "owned_by": "OpenAI", "active": True}
    return about | {"context_window": CONTEXT_WINDOW, "max_completion_tokens": MOST_COMPLETION, "public_apps": None}


UNAUTHORIZED = error(401, "Invalid API Key", "invalid_api_key")
ROUTES: list[tuple[str, str, Callable[..., Reply]]] = [
    ("POST", "/openai/v1/(?:chat/completions|responses)", GroqSim._chat),
    ("POST", "/openai/v1/embeddings", GroqSim._embed),
    ("POST", "/openai/v1/audio/(?:transcriptions|translations)", GroqSim._hear),
    ("POST", "/openai/v1/audio/speech", GroqSim._speak),
    ("GET", "/openai/v1/models", GroqSim._list),
    ("GET", "/openai/v1/models/(.+)", GroqSim._describe),
]
CONTROLS: dict[tuple[str, str], Callable[[GroqSim, bytes], Any]] = {
    ("POST", "/sim/faults"): GroqSim._order_named,
    ("DELETE", "/sim/faults"): lambda sim, body: sim.clear(),
    ("GET", "/sim/calls"): GroqSim._calls_as_json,
    ("DELETE", "/sim/calls"): lambda sim, body: sim.forget(),
}


# The program


def simulator(arguments: Sequence[str] | None = None) -> GroqSim:
    """The simulator that the command line asks for, or ``arguments`` do."""
    given = vars(options().parse_args(arguments))
    limits = Limits(**{name: given.pop(name) or None for name in asdict(Limits())})
    return GroqSim(dict(given.pop("keys")), limits, models=given.pop("models") or MODELS, **given)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="A simulated Groq.")
    parser.add_argument("--port", type=int, default=4000)
    parser.add_argument("--key", dest="keys", action="append", required=True, type=pair, metavar="KEY=ORGANIZATION")
    parser.add_argument("--model", dest="models", action="append", help=f"instead of {' and '.join(MODELS)}")
    parser.add_argument("--latency", type=span, default=0.0, metavar="SECONDS")
    parser.add_argument("--chunk-pause", type=span, default=0.0, metavar="SECONDS")
    parser.add_argument("--reasoning-tokens", type=int, default=40)
    parser.add_argument("--refund", action="store_true", help="give unused tokens back")
    parser.add_argument("--gzip", action="store_true", help="compress for those who accept it")
    for name, limit in asdict(Limits()).items():
        parser.add_argument(f"--{name}", type=int, default=limit, help="0: none (default: %(default)s)")
    return parser


def pair(text: str) -> tuple[str, str]:
    key, organization = text.split("=")
    return key, organization


ENDING = {signal.SIGINT, signal.SIGTERM}


def main() -> None:
    sim = simulator()
    # For all threads to come, and to the end: a shell's Ctrl-C is often followed by a TERM.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        with sim:
            print(f"Simulated Groq on {sim.url} with the keys {', '.join(sim.keys)}", flush=True)
            signal.sigwait(ENDING)
    except OSError as problem:
        sys.exit(f"Port {sim.port}: {problem.strerror}")


if __name__ == "__main__":
    main()
