"""A whole answer within its time: a socket's own time-out starts anew with every byte that drips in."""

import io
import select
import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from promptlord.errors import Disconnected

# What a poll tells of a client: on Linux that it has hung up, elsewhere that or its next request, which look alike.
HUNG_UP = getattr(select, "POLLRDHUP", select.POLLIN)
TOLD_APART = HUNG_UP != select.POLLIN


class Client(Protocol):
    """Whom the answer is for."""

    def fileno(self) -> int: ...

    def disconnected(self) -> bool: ...


@dataclass
class Deadline:
    """Until when to wait for an answer's bytes: ``at`` an instant, or if that is ``None``, ``timeout`` for each."""

    at: float | None
    timeout: float = 0.0  # seconds
    client: Client | None = None

    def left(self) -> float:
        """Seconds that the next bytes may take."""
        return self.timeout if self.at is None else self.at - time.monotonic()


# The request that this thread sends, for the connection it comes upon: its ``deadline``, and whether it ``has_body``.
sending = threading.local()


def at_least_some(seconds: float) -> float:
    """The same as a socket's time-out, for which 0 and less mean something else."""
    return max(seconds, 0.001)


class Line:
    """A connection, ready to be written to. It never blocks: what would is waited for, until the request's deadline.

    A socket's own time-out would have the system asked twice each time, and start anew with each byte.
    """

    def __init__(self, raw: socket.socket) -> None:
        raw.setblocking(False)
        self._raw = raw

    def sendall(self, data: bytes) -> None:
        """Raises ``TimeoutError``, or the ``OSError`` of a connection that broke."""
        rest, events = memoryview(data), select.POLLOUT
        while rest:
            try:
                rest = rest[self._raw.send(rest) :]
                continue
            except (BlockingIOError, ssl.SSLWantWriteError):
                events = select.POLLOUT
            except ssl.SSLWantReadError:
                events = select.POLLIN
            _Wait(self._raw, events, sending.deadline)()

    def makefile(self, mode: str) -> io.BufferedReader:
        """What is read from it for the request that this thread has sent."""
        return io.BufferedReader(Reader(self._raw, sending.deadline))

    def settimeout(self, seconds: float | None) -> None:
        """It has none."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


class Reader(io.RawIOBase):
    """A connection's bytes until the deadline, or until the client has hung up."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock, self._deadline = sock, deadline
        self._tls = sock if isinstance(sock, ssl.SSLSocket) else None
        self._wait = _Wait(sock, select.POLLIN, deadline, deadline.client)
        self._holds_open = sock.makefile("rb", buffering=0)
        self.ended = False  # whoever reads on finds the end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.take(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def take(self, size: int) -> bytes:
        """So many bytes at the most, all that are there, and none at the end."""
        wait = self._wait
        while not self.ended:
            if not self.pending():
                wait()
            try:
                data = self._sock.recv(size)
                self.ended = not data  # which TLS would be asked for in vain, while its connection stays open
                return data
            except (BlockingIOError, ssl.SSLWantReadError):
                wait = self._wait
            except ssl.SSLWantWriteError:
                wait = _Wait(self._sock, select.POLLOUT, self._deadline, self._deadline.client)
        return b""

    def pending(self) -> bool:
        """Whether TLS holds bytes back, of which the socket, where they came from, tells nothing any more."""
        return self._tls is not None and self._tls.pending() > 0

    def refuse_more(self) -> None:
        """Have the pool see the connection as dropped."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._holds_open.close()
        super().close()


class _Wait:
    """Waits until a socket is ready; raises ``TimeoutError``, or ``Disconnected`` if the client hangs up meanwhile."""

    def __init__(self, sock: socket.socket, events: int, deadline: Deadline, client: Client | None = None) -> None:
        self._deadline, self._fd, self._client = deadline, sock.fileno(), client
        self._poll = select.poll()
        self._poll.register(self._fd, events)
        if client:
            self._poll.register(client.fileno(), HUNG_UP)

    def __call__(self) -> None:
        while ready := dict(self._poll.poll(max(self._deadline.left(), 0.0) * 1000)):
            if self._fd in ready:
                return
            if self._client:
                if TOLD_APART or self._client.disconnected():
                    raise Disconnected("the client has hung up")
                self._poll.unregister(self._client.fileno())  # it has sent its next request already
        raise TimeoutError("no answer in time")
