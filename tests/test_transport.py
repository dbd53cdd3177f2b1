"""The connection to Groq over real sockets: certificates, what bad bytes come to, and that time bounds all."""

import gzip
import hashlib
import io
import json
import re
import select
import socket
import ssl
import struct
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

import pytest
import trustme
from conftest import KEYS
from cryptography.x509 import load_pem_x509_certificate

from app import create_app
from keypool import KeyPool
from promptlord import errors
from promptlord.config import Config
from promptlord.errors import Broken, Disconnected, ReadTimeout
from promptlord.groq.admission import Admission
from promptlord.groq.attempts import Upstream
from promptlord.groq.connecting import LOOKUPS
from promptlord.groq.deadline import Deadline
from promptlord.groq.transport import ANSWER_MAX, Transport
from promptlord.web.client import Connection
from promptlord.web.enhance import Enhancement

SOON = 0.4  # seconds of those calls that wait in vain
LONG = 10.0  # seconds that nobody waits
KEY = {"Authorization": "Bearer gsk_secret"}
CLOSE, RESET = object(), object()
OK = b"HTTP/1.1 200 OK\r\n"
GOOD = OK + b"Content-Length: 4\r\n\r\ngood"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Peer:
    """A server that answers each request, whatever connection it comes over, with the next of ``answers``.

    These are bytes, or steps: bytes, an event to wait for, ``CLOSE`` or ``RESET``. The last one is repeated.
    """

    def __init__(self, *answers: bytes | Sequence[Any], tls: ssl.SSLContext | None = None) -> None:
        self._answers: list[Sequence[Any]] = [[answer] if isinstance(answer, bytes) else answer for answer in answers]
        self._tls, self._open = tls, list[socket.socket]()
        self.requests: list[bytes] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]

    def url(self, host: str = "127.0.0.1") -> str:
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}"

    def __enter__(self) -> "Peer":
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self._listener, *self._open):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(LONG)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._open.append(self._listener.accept()[0])
                self.connections += 1
                self._threads.append(threading.Thread(target=self._talk, args=(self._open[-1],)))
                self._threads[-1].start()

    def _talk(self, sock: socket.socket) -> None:
        with suppress(OSError), sock, self._tls.wrap_socket(sock, server_side=True) if self._tls else sock as sock:
            self._open.append(sock)
            while True:
                steps = self._answers[min(len(self.requests), len(self._answers) - 1)]
                if not (request := self._request(sock, whole=steps != [RESET])):
                    return
                self.requests.append(request)
                for step in steps:
                    if step is CLOSE or step is RESET:
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", step is RESET, 0))
                        return
                    step.wait(LONG) if isinstance(step, threading.Event) else sock.sendall(step)

    def _request(self, sock: socket.socket, *, whole: bool) -> bytes:
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            if not (more := sock.recv(1 << 16)):
                return b""
            received += more
        length = re.search(rb"(?i)content-length: (\d+)", received)
        while whole and len(received) < end + 4 + int(length[1] if length else 0):  # closing before would be a reset
            received += sock.recv(1 << 16)
        return received


def send(transport: Transport, body: bytes | IO[bytes] | None = None, seconds: float = 2, **how: Any) -> Any:
    deadline = Deadline(time.monotonic() + seconds, seconds, **how)
    return transport.send("POST", "/openai/v1/chat/completions", KEY, body, deadline)


def fetch(transport: Transport, seconds: float = 2) -> bytes:
    with closing(send(transport, b"{}", seconds)) as answer:
        body: bytes = answer.read()
        return body


def stream(transport: Transport, seconds: float = 2) -> bytes:
    with closing(send(transport, b"{}", seconds)) as answer:
        answer.begin()
        return b"".join(answer.chunks())


@contextmanager
def within(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def bundle(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def server_tls(authority: trustme.CA, *names: str, **dates: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names or ("127.0.0.1", "localhost"), **dates).configure_cert(context)
    return context


@pytest.fixture(scope="module")
def tls(authority: trustme.CA) -> ssl.SSLContext:
    return server_tls(authority)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_calls_share_one_connection_over_tls(tls: ssl.SSLContext, bundle: str, host: str) -> None:
    with Peer(GOOD, tls=tls) as peer:
        transport = Transport(peer.url(host), 2, bundle)

        assert [fetch(transport) for _ in range(3)] == [b"good"] * 3
        assert (len(peer.requests), peer.connections) == (3, 1)
        assert b"Bearer gsk_secret" in peer.requests[0]


def test_what_tls_holds_back_is_read_without_waiting_for_more(tls: ssl.SSLContext, bundle: str) -> None:
    events = [b"data: %d%b\n\n" % (number, b"." * 5000) for number in range(3)]
    more = threading.Event()
    with Peer([CHUNKED + b"".join(map(chunk, events)), more, chunk(b"last") + chunk(b"")], tls=tls) as peer:
        with closing(send(Transport(peer.url(), 2, bundle), b"{}")) as answer:
            assert answer.begin()
            chunks, got = answer.chunks(), b""
            while len(got) < len(b"".join(events)):
                got += next(chunks)
            more.set()
            got += b"".join(chunks)

        assert got == b"".join(events) + b"last"


@pytest.mark.parametrize("over", ["tls", "tcp"])
@pytest.mark.parametrize("end", [CLOSE, RESET])
def test_one_that_meets_a_connection_just_closed_is_sent_once_more_and_whole(
    tls: ssl.SSLContext, bundle: str, over: str, end: object
) -> None:
    with Peer(GOOD, [end], GOOD, tls=tls if over == "tls" else None) as peer, tempfile.TemporaryFile() as upload:
        upload.write(bytes(range(256)) * 1000)
        transport = Transport(peer.url(), 2, bundle)
        fetch(transport)

        with closing(send(transport, upload)) as answer:
            assert answer.read() == b"good"
        assert (len(peer.requests), peer.connections) == (3, 2)
        assert peer.requests[-1].endswith(b"\r\n\r\n" + bytes(range(256)) * 1000)


@pytest.mark.parametrize("over", ["tls", "tcp"])
def test_a_connection_closed_while_it_was_idle_is_not_used(tls: ssl.SSLContext, bundle: str, over: str) -> None:
    with Peer([GOOD, CLOSE], GOOD, tls=tls if over == "tls" else None) as peer:
        transport = Transport(peer.url(), 2, bundle)

        assert [fetch(transport), fetch(transport)] == [b"good"] * 2


@pytest.mark.parametrize(
    "answer", [GOOD, GOOD.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")], ids=["kept", "closed"]
)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_new_connection_goes_on_with_the_last_ones_session(
    authority: trustme.CA, bundle: str, version: ssl.TLSVersion, answer: bytes
) -> None:
    context = server_tls(authority)
    context.maximum_version = version
    with Peer([answer, CLOSE], [answer, CLOSE], answer, tls=context) as peer:
        transport = Transport(peer.url(), 2, bundle)

        assert [fetch(transport) for _ in range(3)] == [b"good"] * 3
        assert (peer.connections, context.session_stats()["hits"]) == (3, 2)


def days(count: int) -> datetime:
    return datetime.now(UTC) + timedelta(days=count)


@pytest.mark.parametrize(
    ("names", "dates", "why"),
    [
        (["localhost"], {"not_before": days(-9), "not_after": days(-1)}, "its certificate has expired"),
        (["localhost"], {"not_before": days(1), "not_after": days(9)}, "its certificate is not valid yet"),
        (["api.groq.com"], {}, "its certificate is for another name"),
    ],
)
def test_a_bad_certificate_gets_no_key_and_the_log_says_what_is_wrong_with_it(
    authority: trustme.CA,
    bundle: str,
    caplog: pytest.LogCaptureFixture,
    names: list[str],
    dates: dict[str, datetime],
    why: str,
) -> None:
    with Peer(GOOD, tls=server_tls(authority, *names, **dates)) as peer:
        transport = Transport(peer.url("localhost"), 2, bundle)

        for _ in range(3):
            with pytest.raises(Broken, match=why):
                fetch(transport)

    assert peer.requests == []
    (record,) = caplog.records  # for all three
    assert record.getMessage().startswith(f"⚠️  Groq is unreachable: {why}")


@pytest.mark.parametrize("trusted", [None, "another"])
def test_an_untrusted_certificate_gets_no_key(
    tls: ssl.SSLContext, tmp_path: Path, caplog: pytest.LogCaptureFixture, trusted: str | None
) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "another")
    with Peer(GOOD, tls=tls) as peer, pytest.raises(Broken, match="not trusted"):
        fetch(Transport(peer.url(), 2, str(tmp_path / trusted) if trusted else None))

    assert peer.requests == []
    assert "its certificate is not trusted: REQUESTS_CA_BUNDLE" in caplog.text


def test_one_that_speaks_no_tls_gets_no_key(bundle: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as server:
        accepted = server.submit(listener.accept)
        transport = Transport(f"https://127.0.0.1:{listener.getsockname()[1]}", 2, bundle)
        failed = ThreadPoolExecutor(1).submit(fetch, transport)
        with accepted.result()[0] as sock:
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

            with pytest.raises(Broken, match="TLS fails: "):
                failed.result()
            assert b"gsk_secret" not in sock.recv(1 << 16)


def hash_of(certificate: bytes) -> str:
    """The name under which OpenSSL looks for an authority in a directory."""
    subject = load_pem_x509_certificate(certificate).subject
    name = subject.public_bytes()[2:]
    for attribute in subject:
        value = attribute.value.encode() if isinstance(attribute.value, str) else attribute.value
        name = name.replace(value, value.lower())
    return f"{int.from_bytes(hashlib.sha1(name).digest()[:4], 'little'):08x}.0"


def test_a_directory_of_authorities_is_as_good(authority: trustme.CA, tls: ssl.SSLContext, tmp_path: Path) -> None:
    authority.cert_pem.write_to_path(tmp_path / hash_of(authority.cert_pem.bytes()))
    with Peer(GOOD, tls=tls) as peer:
        assert fetch(Transport(peer.url(), 2, str(tmp_path))) == b"good"


def answer_of(data: Any) -> bytes:
    body = json.dumps(data).encode()
    return OK + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_the_service_and_its_check_trust_the_authority_that_the_environment_names(
    tls: ssl.SSLContext, bundle: str, name: str
) -> None:
    completion = {
        "choices": [{"message": {"content": "Write a sonnet about the rain in April."}, "finish_reason": "stop"}]
    }
    with Peer(answer_of(completion), answer_of({"data": [{"id": "m"}]}), tls=tls) as peer:
        env = {"GROQ_API_KEYS": "gsk_one", "GROQ_MODELS": "m", "GROQ_BASE_URL": peer.url(), name: bundle}
        app = create_app(Config.from_env(env))

        assert app.test_client().post("/enhance", json={"prompt": "a prompt"}).status_code == 200
        assert app.test_cli_runner().invoke(args=["check-keys"]).exit_code == 0


# Bad bytes


@pytest.mark.parametrize("read", [fetch, stream])
@pytest.mark.parametrize(
    "bad",
    [
        b"HELLO\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/3.7 200 OK\r\nContent-Length: 4\r\n\r\ngood",
        b"HTTP/1.1 99999 OK\r\n\r\n",
        b"H" * (1 << 17),
        OK + b"a: b\r\n" * 200 + b"\r\n",
        OK + b"a: " + b"b" * (1 << 17),
        OK + b"Content-Length: 4\r\norg_secret\r\n\r\ngood",
        OK + b" org_secret\r\nContent-Length: 4\r\n\r\ngood",
        OK + b"X: org\r_secret\r\nContent-Length: 4\r\n\r\ngood",
        OK + b"Content-Length: abc\r\n\r\ngood",
        OK + b"Content-Length: -4\r\n\r\ngood",
        OK + b"Content-Length: +4\r\n\r\ngood",
        OK + b"Content-Length: \r\n\r\ngood",
        OK + b"Content-Length: \xb2\r\n\r\ngood",
        OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\ngood",
        OK + b"Content-Length: 4, 4\r\n\r\ngood",
        OK + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\ngood",
        OK + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\ngood!",
        OK + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"good") + chunk(b""),
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + chunk(b"good") + chunk(b""),
        OK + b"Transfer-Encoding: secret\r\n\r\ngood",
        CHUNKED + b"zz\r\ngood\r\n",
        CHUNKED + b"-1\r\ngood\r\n",
        CHUNKED + b"-5\r\ngood\r\n",
        CHUNKED + chunk(b"good") + b"-5\r\ngood\r\n",
        CHUNKED + b"1" * (1 << 17),
        CHUNKED + chunk(b"good") + b"0\r\n" + b"x" * (1 << 17),
        [OK + b"Content-Length: 5\r\n\r\ngood", CLOSE],
        [OK + b"Content-Length: 5\r\n\r\ngood", RESET],
        [CHUNKED + chunk(b"good"), CLOSE],
        [CHUNKED + b"5\r\ngood", RESET],
        [OK + b"Content-Le", CLOSE],
        CHUNKED + b"3\r\nabcXX0\r\n\r\n",
        CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
        [CHUNKED + chunk(b"good") + b"0\r\nX: y\r\n", CLOSE],
    ],
    ids=lambda bad: repr(bad if isinstance(bad, bytes) else bad[0])[-50:],
)
def test_bad_bytes_break_the_answer_at_once_and_end_the_connection(
    bad: bytes | Sequence[Any], read: Callable[[Transport], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    with Peer(bad, GOOD) as peer:
        transport = Transport(peer.url(), 2)

        with pytest.raises(Broken):
            read(transport)

        assert fetch(transport) == b"good"
        assert peer.connections == 2
    assert "secret" not in caplog.text


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"gzip, " * 99 + b"gzip"], ids=["gzip", "deflate", "many"])
@pytest.mark.parametrize(
    "body",
    [b"garbage", gzip.compress(b"good")[:-8] + bytes(8), gzip.compress(b"good")[:-3]],
    ids=["garbage", "wrong sum", "cut off"],
)
def test_what_cannot_be_decoded_is_broken(coding: bytes, body: bytes) -> None:
    with Peer(coded(body, coding)) as peer, pytest.raises(Broken):
        fetch(Transport(peer.url(), 2))


def coded(body: bytes, coding: bytes) -> bytes:
    return OK + b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n%b" % (coding, len(body), body)


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (coded(gzip.compress(b"good"), b"gzip"), b"good"),
        (coded(zlib.compress(b"good"), b"deflate"), b"good"),
        (coded(b"good", b"identity"), b"good"),
        (coded(b"", b"gzip"), b""),
        (coded(gzip.compress(bytes(3 * ANSWER_MAX)), b"gzip"), bytes(ANSWER_MAX)),
        (coded(bytes(3 * ANSWER_MAX), b"identity"), bytes(ANSWER_MAX)),
    ],
    ids=["gzip", "deflate", "plain", "empty", "bomb", "large"],
)
def test_an_answer_is_read_decoded_and_no_more_of_it_than_may_be(answer: bytes, body: bytes) -> None:
    with Peer(answer, GOOD) as peer:
        transport = Transport(peer.url(), 2)

        assert fetch(transport) == body
        assert fetch(transport) == b"good"


@pytest.mark.parametrize("interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"])
def test_an_interim_answer_is_not_the_answer(interim: bytes) -> None:
    with Peer(interim * 2 + GOOD) as peer:
        transport = Transport(peer.url(), 2)

        assert [fetch(transport), fetch(transport)] == [b"good"] * 2
        assert peer.connections == 1


HEAD = OK + b"Content-Length: 8000\r\n\r\n"
FULL = HEAD.replace(b"8000", b"%d" % (size := io.DEFAULT_BUFFER_SIZE - len(HEAD))) + bytes(size)  # fills the buffer


@pytest.mark.parametrize("over", ["tls", "tcp"])
@pytest.mark.parametrize("answer", [GOOD, FULL, b"HTTP/1.1 204 No Content\r\n\r\n"], ids=["good", "full", "none"])
@pytest.mark.parametrize("more", [b"\r\n", OK + b"Content-Length: 12000\r\n\r\n" + bytes(12000)], ids=["stray", "next"])
def test_what_comes_after_an_answer_is_never_the_next_one(
    tls: ssl.SSLContext, bundle: str, over: str, answer: bytes, more: bytes
) -> None:
    with Peer(answer + more, GOOD, tls=tls if over == "tls" else None) as peer:
        transport = Transport(peer.url(), 2, bundle)
        fetch(transport)

        assert fetch(transport) == b"good"
        assert peer.connections == 2


@pytest.mark.parametrize("over", ["tls", "tcp"])
@pytest.mark.parametrize("read", [fetch, stream])
@pytest.mark.parametrize("answer", [GOOD, CHUNKED + chunk(b"go") + chunk(b"od") + chunk(b"")], ids=["length", "chunks"])
def test_nor_is_it_taken_for_more_of_the_answer_it_came_with(
    tls: ssl.SSLContext, bundle: str, over: str, answer: bytes, read: Callable[[Transport], bytes]
) -> None:
    with Peer(answer + OK + b"Content-Length: 3\r\n\r\nbad", GOOD, tls=tls if over == "tls" else None) as peer:
        transport = Transport(peer.url(), 2, bundle)

        assert [read(transport), read(transport)] == [b"good"] * 2
        assert peer.connections == 2


class Failing(io.BytesIO):
    """A file that can't be read."""

    def read(self, size: int | None = -1) -> bytes:
        raise OSError("no such disk")


def test_the_head_of_a_request_that_failed_is_not_the_next_ones() -> None:
    with Peer(GOOD) as peer:
        transport = Transport(peer.url(), 1)
        with suppress(Broken):
            send(transport, Failing(b"body"))

        with closing(send(transport)) as answer:
            assert answer.read() == b"good"
        assert [request.count(b"HTTP/1.1") for request in peer.requests] == [1]


def test_the_base_may_have_a_path() -> None:
    with Peer(GOOD) as peer:
        fetch(Transport(f"{peer.url()}/a/groq", 2))

        assert peer.requests[0].startswith(b"POST /a/groq/openai/v1/chat/completions HTTP/1.1\r\n")


def test_a_body_may_be_empty() -> None:
    with Peer(GOOD) as peer, closing(send(Transport(peer.url(), 2), b"")) as answer:
        assert answer.read() == b"good"


@pytest.mark.parametrize(
    ("head", "connections"),
    [
        (b"HTTP/1.1 200 OK\r\n", 1),
        (b"HTTP/1.1 200 OK\r\nConnection: Close\r\n", 2),
        (b"HTTP/1.0 200 OK\r\n", 2),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n", 1),
    ],
)
def test_a_connection_is_kept_as_the_answer_says(head: bytes, connections: int) -> None:
    with Peer(head + b"Content-Length: 4\r\n\r\ngood") as peer:
        transport = Transport(peer.url(), 2)

        assert [fetch(transport), fetch(transport)] == [b"good"] * 2
        assert peer.connections == connections


@pytest.mark.parametrize("head", [b"HTTP/1.1 200", OK + b"X: y\r\n\r\n"], ids=["in the head", "without a length"])
def test_an_end_that_tls_alone_tells_is_one(tls: ssl.SSLContext, bundle: str, head: bytes) -> None:
    ended = threading.Event()

    def answer(listener: socket.socket) -> None:
        with listener.accept()[0] as plain, tls.wrap_socket(plain, server_side=True) as sock:
            sock.recv(1 << 16)
            sock.sendall(head)
            with suppress(OSError):
                sock.settimeout(LONG)
                sock.unwrap()
            ended.wait(LONG)

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as server:
        server.submit(answer, listener)
        try:
            with suppress(Broken):
                assert fetch(Transport(f"https://127.0.0.1:{listener.getsockname()[1]}", 2, bundle), LONG) == b""
        finally:
            ended.set()


def test_an_answer_that_was_not_read_to_its_end_leaves_no_connection() -> None:
    with Peer(CHUNKED + chunk(b"a") + chunk(b"b"), GOOD) as peer:
        transport = Transport(peer.url(), 2)
        with closing(send(transport)) as answer:
            assert answer.begin()

        assert fetch(transport) == b"good"
        assert peer.connections == 2


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="Linux alone tells it")
def test_who_hangs_up_behind_its_next_request_is_noticed() -> None:
    silent = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener, Peer([silent]) as peer:
        with socket.create_connection(listener.getsockname()) as theirs:
            ours, _ = listener.accept()
            theirs.sendall(b"GET /health HTTP/1.1\r\n")

        with ours, within(2), pytest.raises(Disconnected):
            send(Transport(peer.url(), 2), seconds=LONG, client=Connection(ours))
        silent.set()


# Time


@pytest.fixture
def deaf() -> Iterator[int]:
    """The port of one that is full: it answers no further connection."""
    with socket.socket() as listener, ExitStack() as callers:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            caller = callers.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], list[int]]], None]:
    """Have ``groq.test`` be found at these ports of this machine."""
    really = socket.getaddrinfo

    def answer_with(ports: Callable[[], list[int]]) -> None:
        def getaddrinfo(host: str, port: int, **how: Any) -> list[Any]:
            if host != "groq.test" or how.get("flags"):
                return really(host, port, **how)
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port)) for port in ports()]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return answer_with


Resolve = Callable[[Callable[[], list[int]]], None]


@pytest.mark.live
def test_a_dead_address_leaves_a_good_one_its_time(deaf: int, resolve: Resolve) -> None:
    with Peer(GOOD) as peer:
        resolve(lambda: [deaf, peer.port])

        with within(1.6 * SOON):  # half of its time is the dead one's
            assert fetch(Transport("http://groq.test", 2), 2 * SOON) == b"good"


@pytest.mark.live
def test_all_addresses_together_take_no_longer_than_the_request_may(deaf: int, resolve: Resolve) -> None:
    resolve(lambda: [deaf] * 4)

    with within(2 * SOON), pytest.raises(Broken, match="in time"):
        fetch(Transport("http://groq.test", 2), SOON)


@pytest.mark.live
def test_a_request_that_could_not_connect_in_its_time_is_told_so_at_once(deaf: int) -> None:
    transport = Transport(f"http://127.0.0.1:{deaf}", 2)
    pool = KeyPool(list(KEYS), 60)
    upstream = Upstream(pool, transport, Admission(9), max_attempts=3, timeout=SOON, max_wait=0)

    with within(2 * SOON), pytest.raises(errors.DeadlineExceeded):
        upstream.fetch(Enhancement.of("a prompt", ("m",)))
    assert pool.health(("m",))["failedKeys"] == []


@pytest.mark.live
def test_a_resolver_that_hangs_holds_nobody_and_few_threads(resolve: Resolve) -> None:
    answered, callers = threading.Event(), 2 * LOOKUPS
    before = set(threading.enumerate())
    with Peer(GOOD) as peer, ThreadPoolExecutor(callers) as threads:
        resolve(lambda: [peer.port] if answered.wait(LONG) else [])
        transport = Transport("http://groq.test", callers)
        with within(3 * SOON):
            calls = [threads.submit(fetch, transport, SOON) for _ in range(callers)]
            assert all(isinstance(call.exception(), Broken) for call in calls)
        hanging = [thread for thread in set(threading.enumerate()) - before if "_look_up" in thread.name]

        assert len(hanging) == LOOKUPS
        assert all(thread.daemon for thread in hanging)  # which the process does not wait for

        answered.set()
        for thread in hanging:
            thread.join(LONG)
        assert fetch(transport) == b"good"


def test_a_name_that_does_not_exist_is_said_to_be_so(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("groq.invalid", "x" * 70):
        with pytest.raises(Broken, match="its name is"):
            fetch(Transport(f"http://{name}", 2), LONG)


@pytest.mark.live
def test_a_server_that_never_shakes_hands_is_not_waited_for(bundle: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"

        with within(2 * SOON), pytest.raises(Broken, match="in time"):
            fetch(Transport(url, 2, bundle), SOON)


@pytest.mark.live
@pytest.mark.parametrize("kind", ["bytes", "file"])
@pytest.mark.parametrize("over", ["tls", "tcp"])
def test_a_server_that_reads_slowly_is_not_sent_to_for_longer_than_the_request_may_take(
    tls: ssl.SSLContext, bundle: str, over: str, kind: str
) -> None:
    body = bytes(25_000_000)
    ended = threading.Event()

    def wrap(plain: socket.socket) -> socket.socket:
        return tls.wrap_socket(plain, server_side=True) if over == "tls" else plain

    def drain(listener: socket.socket) -> None:
        with suppress(OSError), listener.accept()[0] as plain, wrap(plain) as sock:
            while not ended.wait(SOON / 20) and sock.recv(1 << 14):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as server:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        server.submit(drain, listener)
        transport = Transport(
            f"{'https' if over == 'tls' else 'http'}://127.0.0.1:{listener.getsockname()[1]}", 2, bundle
        )
        with tempfile.TemporaryFile() as file:
            file.write(body)

            with within(3 * SOON), pytest.raises(ReadTimeout):
                send(transport, body if kind == "bytes" else file, SOON)
        ended.set()
