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


class Reader(io.RawIOBase):
    """A socket's bytes until the deadline, or until the client has hung up."""

    def __init__(self, sock: Any, deadline: Deadline) -> None:
        self._sock, self._deadline = sock, deadline
        self._raw = sock.makefile("rb", buffering=0)
        self.ended = False  # whoever reads on finds the end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self.ended:
            return 0
        if not self.pending():
            self._wait()
        self._sock.settimeout(at_least_some(self._deadline.left()))
        count: int | None = self._raw.readinto(buffer)
        return count

    def pending(self) -> bool:
        """Whether TLS holds bytes back, of which the socket, where they came from, tells nothing any more."""
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0

    def refuse_more(self) -> None:
        """Have the pool see the connection as dropped."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _wait(self) -> None:
        """Return once there are bytes; raise ``TimeoutError`` or ``Disconnected``."""
        poll, client = select.poll(), self._deadline.client
        poll.register(self._sock, select.POLLIN)
        if client:
            poll.register(client.fileno(), select.POLLIN)
        while ready := dict(poll.poll(max(self._deadline.left(), 0.0) * 1000)):
            if self._sock.fileno() in ready:
                return
            if client and client.disconnected():
                raise Disconnected("the client has hung up")
            if client:
                poll.unregister(client.fileno())  # it sends its next request already
        raise TimeoutError("no answer in time")

    def close(self) -> None:
        self._raw.close()
        super().close()
