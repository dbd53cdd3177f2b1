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


sending = threading.local()  # ``deadline``: of the request that this thread sends, for the connection it comes upon


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
            wait(self._raw, events, sending.deadline)

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
        self._holds_open = sock.makefile("rb", buffering=0)
        self.ended = False  # whoever reads on finds the end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        events = select.POLLIN
        while not self.ended:
            if not self.pending():
                wait(self._sock, events, self._deadline, self._deadline.client)
            try:
                return self._sock.recv_into(buffer)
            except (BlockingIOError, ssl.SSLWantReadError):
                events = select.POLLIN
            except ssl.SSLWantWriteError:
                events = select.POLLOUT
        return 0

    def pending(self) -> bool:
        """Whether TLS holds bytes back, of which the socket, where they came from, tells nothing any more."""
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0

    def refuse_more(self) -> None:
        """Have the pool see the connection as dropped."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._holds_open.close()
        super().close()


def wait(sock: socket.socket, events: int, deadline: Deadline, client: Client | None = None) -> None:
    """Return once the socket is ready; raise ``TimeoutError``, or ``Disconnected`` if the client hangs up meanwhile."""
    poll = select.poll()
    poll.register(sock, events)
    if client:
        poll.register(client.fileno(), select.POLLIN)
    while ready := dict(poll.poll(max(deadline.left(), 0.0) * 1000)):
        if sock.fileno() in ready:
            return
        if client and client.disconnected():
            raise Disconnected("the client has hung up")
        if client:
            poll.unregister(client.fileno())  # it sends its next request already
    raise TimeoutError("no answer in time")
