"""The connections to Groq: kept alive, one TLS context, no cookies, and no answer slower than its deadline."""

import functools
import http.client
import io
import socket
import ssl
import time
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, ReadTimeoutError

CONNECT_TIMEOUT = 5.0  # seconds; leaves time for another attempt
ANSWER_MAX = 1 << 20  # bytes of a decoded answer; a completion has some kilobytes


class Silence(Exception):
    """Groq took the request and did not finish answering in time; sending it again might do the work twice."""


class Broken(Exception):
    """No usable answer came over the wire; it is safe to try another key."""


class _NeverSent(Broken):
    """The request met a connection that had just been closed, and reached nobody."""


class _Closed(http.client.RemoteDisconnected):
    """The same, as http.client's callers know it."""


class _TimedReader(io.RawIOBase):
    """A socket's bytes until ``deadline``: a time-out of the socket's own starts anew with every byte that drips in."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock, self._deadline = sock, deadline
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer's time is used up")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, deadline: float, **kwargs: Any) -> None:
        super().__init__(sock, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_TimedReader(sock, deadline))


class _Timed:
    """Bounds a whole answer, headers included, by the read time-out, and knows a stale connection when it meets one."""

    answered = 0

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self.answered = 0

    def getresponse(self) -> Any:
        deadline = time.monotonic() + self.timeout  # type: ignore[attr-defined]
        self.response_class = functools.partial(_TimedResponse, deadline=deadline)
        try:
            response = super().getresponse()  # type: ignore[misc]
        except (ConnectionError, http.client.BadStatusLine) as error:
            if self.answered:
                raise _Closed(str(error)) from error
            raise
        self.answered += 1
        return response


class _Http(_Timed, HTTPConnection):  # type: ignore[misc]
    pass


class _Https(_Timed, HTTPSConnection):  # type: ignore[misc]
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


class _Adapter(HTTPAdapter):
    """requests' adapter on timed connections; one ``SSLContext``, since requests re-reads the CA file for each."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        context = ssl.create_default_context(cafile=DEFAULT_CA_BUNDLE_PATH)
        super().init_poolmanager(*args, **kwargs, ssl_context=context)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Nothing to load: the context above verifies."""


class Transport:
    """Sends requests to Groq over connections that it keeps. Safe to share between threads."""

    def __init__(self, base_url: str, connections: int) -> None:
        self._adapter = _Adapter(pool_connections=1, pool_maxsize=connections, max_retries=0)
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "promptlord-backend"}
        # Prepared once and copied, past requests' Session: a third of the time, no .netrc and no cookie jar.
        self._post = requests.Request("POST", base_url, headers=headers).prepare()
        self._base_url = base_url

    def post(self, path: str, body: bytes, secret: str, seconds: float) -> tuple[int, Any, bytes]:
        """Return status, headers and decoded body of the answer, all within ``seconds``.

        Raises ``Silence`` or ``Broken``. A request that met a connection just closed is sent once more.
        """
        request = self._post.copy()
        request.url = self._base_url + path
        request.body = body
        request.headers.update({"Content-Length": str(len(body)), "Authorization": f"Bearer {secret}"})
        deadline = time.monotonic() + seconds
        try:
            return self._send(request, deadline)
        except _NeverSent:
            return self._send(request, deadline)

    def _send(self, request: requests.PreparedRequest, deadline: float) -> tuple[int, Any, bytes]:
        left = max(deadline - time.monotonic(), 0.001)
        try:
            answer = self._adapter.send(request, stream=True, timeout=(min(left, CONNECT_TIMEOUT), left))
            with answer:
                body = answer.raw.read(ANSWER_MAX, decode_content=True)
        except (requests.ReadTimeout, ReadTimeoutError) as error:
            raise Silence("no answer in time") from error
        except (requests.RequestException, HTTPError) as error:
            raise (_NeverSent if _was_closed(error) else Broken)(type(error).__name__) from error
        return answer.status_code, answer.headers, body


def _was_closed(error: BaseException | None) -> bool:
    """Whether a ``_Closed`` lies at the bottom: requests and urllib3 each wrap it once."""
    while error and not isinstance(error, _Closed):
        error = error.__context__
    return error is not None
