"""A client as gunicorn's threads meet it: its socket, its request and its body, all waited for in bounded time."""

import errno
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gunicorn.http.body import Body, ChunkedReader
from gunicorn.http.errors import ParseException
from gunicorn.http.message import Request

SLOW = 1 << 12  # bytes a second, which make up for that second's wait
RECORD_MAX = 1 << 14  # bytes that a TLS record holds at most


class Waiting:
    """The clients that threads wait for, to send or to read: so many at most, or slow ones would hold all threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._clients: dict[
            ClientSocket, float
        ] = {}  # and since when they are waited for, or would be, had they not moved

    def wait(self, client: "ClientSocket", events: int, seconds: float, lag: float = 0.0) -> bool:
        """Whether the client is ready within ``seconds``. The one waited for longest makes room for the next.

        ``lag``: seconds for which it has been waited for already.
        """
        poll = select.poll()
        poll.register(client.raw, events)
        with self._lock:
            if len(self._clients) >= self._most:
                longest = min(self._clients, key=self._clients.__getitem__)
                del self._clients[longest]
                with suppress(OSError):
                    # Which wakes the thread that waits for it; TLS's own would have it go on in clear meanwhile.
                    socket.socket.shutdown(longest.raw, socket.SHUT_RDWR)
            self._clients[client] = time.monotonic() - lag
        try:
            return bool(poll.poll(seconds * 1000))
        finally:
            with self._lock:
                self._clients.pop(client, None)


class ClientSocket:
    """A client's socket. It never blocks: what would is waited for, for so many seconds in all of one request.

    gunicorn sets time-outs, if any, for each ``recv()`` and ``send()``: a client that takes a byte now and then holds
    its thread for ever.
    """

    def __init__(self, raw: socket.socket, waiting: Waiting) -> None:
        raw.setblocking(False)
        self.raw, self._waiting = raw, waiting
        self._left = {select.POLLIN: 0.0, select.POLLOUT: 0.0}
        self.began = time.monotonic()  # its request
        self._lag = 0.0  # seconds it was waited for, less those that its bytes have made up for
        self._holds = False  # what comes next back, a response's head,
        self._head = b""  # which is this until the first of its body comes

    def begin(self, seconds: float) -> None:
        """A request has come: so long its body may let us wait, and so long its response."""
        self.began = time.monotonic()
        self._holds = True
        self._left = {select.POLLIN: seconds, select.POLLOUT: seconds}

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Bytes, at least one; with ``flags``, what the system's own returns for them, TLS or not.

        They may be more than ``size``: of a TLS record read in part, no poller would tell the rest.
        """
        if flags:
            return socket.socket.recv(self.raw, size, flags)
        data: bytes = self._done(self.raw.recv, max(size, RECORD_MAX), select.POLLIN)
        if not data:  # gunicorn would quote in its log what has come before
            raise ConnectionResetError(errno.ECONNRESET, "the client has disconnected")
        self._lag = max(self._lag - len(data) / SLOW, 0.0)
        return data

    def send(self, data: Any) -> int:
        count: int = self._done(self.raw.send, data, select.POLLOUT)
        self._lag = max(self._lag - count / SLOW, 0.0)
        return count

    def sendall(self, data: bytes) -> None:
        """Send it; a response's head with the first of its body, for each packet wakes whoever waits for it."""
        if self._holds:
            self._holds, self._head = False, data
            return
        if self._head:
            data, self._head = self._head + data, b""
        rest = memoryview(data)
        while rest:
            rest = rest[self.send(rest) :]

    def flush(self) -> None:
        """Send the head of a response that has no body."""
        self._holds = False
        if self._head:
            self.sendall(b"")

    def setblocking(self, flag: bool) -> None:
        """It never does."""

    def gettimeout(self) -> float:
        return self._left[select.POLLIN]

    def settimeout(self, seconds: float) -> None:
        self._left[select.POLLIN] = min(seconds, self._left[select.POLLIN])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)

    def _done(self, operation: Callable[[Any], Any], argument: Any, events: int) -> Any:
        """The operation's result. Raises ``ConnectionResetError``, the one error that gunicorn logs no traceback of."""
        while True:
            try:
                return operation(argument)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                began = time.monotonic()
                ready = self._waiting.wait(self, events, max(self._left[events], 0.0), self._lag)
                took = time.monotonic() - began
                self._left[events] -= took
                self._lag += took
                if not ready:
                    raise ConnectionResetError(errno.ECONNRESET, "the client stalled") from None
            except OSError as error:
                raise ConnectionResetError(errno.ECONNRESET, "the connection to the client broke") from error


class BoundedBody(Body):  # type: ignore[misc]
    """A request's body; one that is malformed looks like one that broke off, which every framework makes a 400 of."""

    def _read_reader(self, size: int) -> bytes:
        try:
            data: bytes = super()._read_reader(size)
        except ParseException as error:
            raise ConnectionResetError(errno.ECONNRESET, "the body is malformed") from error
        return data


class BoundedRequest(Request):  # type: ignore[misc]
    def set_body_reader(self) -> None:
        super().set_body_reader()
        self.body: Body = BoundedBody(self.body.reader)

    def should_close(self) -> bool:
        """Also if its body was not read: gunicorn would announce keep-alive, read up to 64 KiB of it, and close."""
        return super().should_close() or not self._is_here()

    def _is_here(self) -> bool:
        """Whether nothing of the body is still to come, as far as one can know."""
        reader = self.body.reader
        if isinstance(reader, ChunkedReader):
            return reader.parser is None
        return bool(reader.length <= len(self.unreader.buf.getvalue()))
