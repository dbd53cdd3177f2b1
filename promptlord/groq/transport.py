"""The connections to Groq: kept alive, one TLS context, no cookies, and no answer that takes longer than it may."""

import http.client
import logging
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from typing import IO, Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, ReadTimeoutError

from promptlord.config import tls
from promptlord.errors import Broken, ReadTimeout
from promptlord.groq.connecting import connect, why_not
from promptlord.groq.deadline import Deadline, Line, at_least_some, sending
from promptlord.groq.response import TimedResponse, decoded

log = logging.getLogger("promptlord")

CONNECT_TIMEOUT = 5.0  # seconds, and as many for TLS's handshake; leaves time for another attempt
ANSWER_MAX = 1 << 20  # bytes of a decoded answer; a completion has some kilobytes


class _NeverSent(Broken):
    """The request met a connection that had just been closed, and reached nobody."""


class _Unreachable(Broken):
    """No connection came about. The message tells the operator why, in words that did not come over the wire."""


class _Closed(http.client.RemoteDisconnected):
    """The same, as http.client's callers know it."""


class _Timed:
    """Bounds a whole call, from the look-up of the name on, and knows a stale connection when it meets one."""

    sock: socket.socket | None
    answered = 0
    _holds = False  # the next bytes back, a request's head,
    _head = b""  # which is this until the first of its body come
    response_class = TimedResponse

    def connect(self) -> None:
        try:
            super().connect()  # type: ignore[misc]
        except (OSError, ValueError) as error:
            raise _Unreachable(why_not(error)) from error
        self.sock, self.answered = Line(self.sock), 0  # type: ignore[assignment, arg-type]

    def _new_conn(self) -> socket.socket:
        deadline: Deadline = sending.deadline
        where = self.host, self.port, self.socket_options or ()  # type: ignore[attr-defined]
        sock = connect(*where, min(deadline.left(), CONNECT_TIMEOUT))
        sock.settimeout(at_least_some(min(deadline.left(), CONNECT_TIMEOUT)))  # for the whole of TLS's handshake
        return sock

    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        self._holds, self._head = sending.has_body, b""
        super().endheaders(*args, **kwargs)  # type: ignore[misc]

    def send(self, data: Any) -> None:
        """Send bytes until the deadline: with urllib3, each block of an upload has a time-out of its own.

        A head goes with its body: two packets would wake whoever waits at the other end twice.
        """
        if self.sock is None:
            self.connect()
        if self._holds:
            self._holds, self._head = False, data
            return
        if self._head:
            data, self._head = self._head + data, b""
        try:
            self.sock.sendall(data)  # type: ignore[union-attr]
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            raise BrokenPipeError from error  # as without TLS, where urllib3 goes on to read what was answered
        except TimeoutError as error:
            raise ReadTimeout("it was not taken in time") from error

    def getresponse(self) -> Any:
        try:
            response = super().getresponse()  # type: ignore[misc]
        except ConnectionError as error:
            if self.answered:
                raise _Closed(str(error)) from error
            raise
        self.answered += 1
        return response


class _Http(_Timed, HTTPConnection):  # type: ignore[misc]
    pass


class _Https(_Timed, HTTPSConnection):  # type: ignore[misc]
    ssl_context: "_Resuming"  # type: ignore[assignment]

    def getresponse(self) -> Any:
        sock: Any = self.sock  # which the response may take over
        response = super().getresponse()
        if self.answered == 1:
            self.ssl_context.session = sock.session  # of TLS 1.3, it comes with the answer
        return response


class _Resuming:
    """A context that offers its one server the session they had last: half of a handshake's work, the certificates'."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self.session: ssl.SSLSession | None = None

    def wrap_socket(self, sock: socket.socket, **how: Any) -> ssl.SSLSocket:
        return self._context.wrap_socket(sock, session=self.session, **how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https  # type: ignore[assignment]


def _https_pool(ca_bundle: str, *args: Any, **kwargs: Any) -> _HttpsPool:
    """The pool, which is made for the first call: so late are the authorities read, too."""
    return _HttpsPool(*args, **kwargs, ssl_context=_Resuming(tls(ca_bundle)))


class _Adapter(HTTPAdapter):
    """requests' adapter on timed connections; one ``SSLContext``, since requests re-reads the CA file for each.

    What it finds out for each call of the same host it is told once, and what nobody reads of an answer it leaves out:
    the rest takes half of the time.
    """

    def __init__(self, base_url: str, ca_bundle: str, connections: int) -> None:
        super().__init__(pool_connections=1, pool_maxsize=connections, max_retries=0)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": partial(_https_pool, ca_bundle)}
        self._base_url, self._path = base_url, urlsplit(base_url).path

    @cached_property
    def _pool(self) -> HTTPConnectionPool:
        pool: HTTPConnectionPool = self.poolmanager.connection_from_url(self._base_url)
        return pool

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        return self._pool

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        return self._path + (request.url or "").removeprefix(self._base_url)

    def build_response(self, request: requests.PreparedRequest, raw: Any) -> requests.Response:
        """No cookies, and the headers as urllib3 has them, which ignore case as well."""
        response = requests.Response()
        response.status_code, response.headers, response.raw = raw.status, raw.headers, raw
        return response

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Nothing to load: the pool's context verifies."""


class Answer:
    """What Groq answers, while it still comes in. Close it."""

    def __init__(self, response: requests.Response, deadline: Deadline) -> None:
        self.status, self.headers, self.deadline = response.status_code, response.headers, deadline
        self._raw = response.raw
        self._pieces = self._raw._original_response.pieces()  # type: ignore[union-attr]
        self._first = b""
        self._body: bytes | None = None
        self._closing = ExitStack()
        self._closing.callback(self._let_go)

    def read(self) -> bytes:
        """The whole body, decoded. Raises ``ReadTimeout``, ``Broken`` or ``Disconnected``."""
        if self._body is None:
            parts, size = [], 0
            with _translated():
                for part in decoded(self._pieces, self.headers.get("Content-Encoding", ""), ANSWER_MAX):
                    parts.append(part)
                    size += len(part)
                    if size > ANSWER_MAX:
                        break
            self._body = b"".join(parts)[:ANSWER_MAX]
            self._let_go()
        return self._body

    def begin(self) -> bool:
        """Wait for the body's first bytes, after which only a read timeout ends it; false if there are none.

        Raises like ``read``.
        """
        with _translated():
            self._first = next(self._pieces, b"")
        self.deadline.at = None
        return bool(self._first)

    def chunks(self) -> Iterator[bytes]:
        """The body's bytes as they come in, untouched. Raises like ``read``."""
        with _translated():
            if self._first:
                yield self._first
            yield from self._pieces

    def on_close(self, callback: Callable[[], None]) -> None:
        self._closing.callback(callback)

    def close(self) -> None:
        """Let go of the connection, which is kept if the body has been read to its end."""
        self._closing.close()

    def _let_go(self) -> None:
        if not self._raw.closed:  # whose end was not reached
            self._raw.close()
        self._raw.release_conn()


class Transport:
    """Sends requests to Groq over connections that it keeps. Safe to share between threads."""

    def __init__(self, base_url: str, connections: int, ca_bundle: str | None = None) -> None:
        """``ca_bundle``: a file or directory of the authorities to trust, instead of requests' own."""
        self._adapter = _Adapter(base_url, ca_bundle or DEFAULT_CA_BUNDLE_PATH, connections)
        self._base_url = base_url
        self._told = ""  # why Groq is unreachable, as the log has it already

    def send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | IO[bytes] | None, deadline: Deadline
    ) -> Answer:
        """Return the answer once its headers are here; a request that met a closed connection is sent once more.

        Raises ``ReadTimeout``, ``Broken`` or ``Disconnected``.
        """
        request = requests.PreparedRequest()  # by hand, past requests' Session: no .netrc and no cookie jar
        request.method, request.url = method, self._base_url + path
        request.body = body  # type: ignore[assignment]  # an open file is as good
        request.headers = {"User-Agent": "promptlord-backend", **headers}  # type: ignore[assignment]
        length = 0 if body is None else _length(body)
        if body is not None:
            request.headers["Content-Length"] = str(length)
        sending.has_body = length > 0
        try:
            return self._send(request, deadline)
        except _NeverSent:
            return self._send(request, deadline)

    def _send(self, request: requests.PreparedRequest, deadline: Deadline) -> Answer:
        if hasattr(request.body, "seek"):
            request.body.seek(0)  # type: ignore[union-attr]
        sending.deadline = deadline
        try:
            with _translated():
                response = self._adapter.send(request, stream=True, timeout=at_least_some(deadline.left()))
        except _Unreachable as error:
            self._tell(str(error))
            raise
        self._told = ""
        return Answer(response, deadline)

    def _tell(self, why: str) -> None:
        """Log why Groq is unreachable, once until it changes: there may be hundreds of calls a minute."""
        if why != self._told:
            log.warning("⚠️  Groq is unreachable: %s", why)
        self._told = why


def _length(body: bytes | IO[bytes]) -> int:
    return len(body) if isinstance(body, bytes) else body.seek(0, os.SEEK_END)


@contextmanager
def _translated() -> Iterator[None]:
    """Say in our words what requests and urllib3 raise; raw reads raise what is no ``RequestException``."""
    try:
        yield
    except (requests.ReadTimeout, ReadTimeoutError, TimeoutError) as error:
        raise ReadTimeout("no answer in time") from error
    except (requests.RequestException, HTTPError, OSError, http.client.HTTPException) as error:
        raise (_NeverSent if _was_closed(error) else Broken)("it broke off") from error


def _was_closed(error: BaseException | None) -> bool:
    """Whether a ``_Closed`` lies at the bottom: requests and urllib3 each wrap it once."""
    while error and not isinstance(error, _Closed):
        error = error.__context__
    return error is not None
