"""A whole answer within its time: a socket's own time-out starts anew with every byte that drips in."""

import http.client
import io
import select
import ssl
import threading
import time
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


class _Reader(io.RawIOBase):
    """A socket's bytes until the deadline, or until the client has hung up."""

    def __init__(self, sock: Any, deadline: Deadline) -> None:
        self._sock, self._deadline = sock, deadline
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if not (isinstance(self._sock, ssl.SSLSocket) and self._sock.pending()):
            self._wait()
        self._sock.settimeout(max(self._deadline.left(), 0.001))
        count: int | None = self._raw.readinto(buffer)
        return count

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


class TimedResponse(http.client.HTTPResponse):
    """http.client's, reading until the deadline of the request that its thread has sent."""

    def __init__(self, sock: Any, **kwargs: Any) -> None:
        super().__init__(sock, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_Reader(sock, sending.deadline))
