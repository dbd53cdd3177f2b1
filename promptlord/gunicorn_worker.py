"""gunicorn's threaded worker, without what lets clients that stall hold it up, and without losing any as it stops."""

import errno
import selectors
import socket
import time
from contextlib import suppress
from functools import partial
from typing import Any

from gunicorn.http import get_parser
from gunicorn.http.unreader import SocketUnreader
from gunicorn.util import close_graceful
from gunicorn.workers.gthread import TConn, ThreadWorker

PATIENCE = 5.0  # seconds that a client may take to send its request, and
SLOWEST = 16384  # one more for each so many bytes of it


class Unreader(SocketUnreader):  # type: ignore[misc]
    """A client's bytes while they keep coming; gunicorn would wait for them for ever, and hold a thread."""

    deadline = 0.0

    def chunk(self, size_hint: int | None = None) -> bytes:
        self.sock.settimeout(max(self.deadline - time.monotonic(), 0.001))
        try:
            data: bytes = super().chunk(size_hint)
        except TimeoutError as error:  # as the one error that the worker does not log with a traceback
            raise ConnectionResetError(errno.ECONNRESET, "the client stalled") from error
        finally:
            self.sock.settimeout(None)
        self.deadline += len(data) / SLOWEST
        return data


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's own lets clients that stall hold its threads and its loop, and drops connections as it stops."""

    def enqueue_req(self, conn: TConn) -> None:
        """Leave a new connection with the poller until it says something: a silent one costs no thread."""
        if conn.data_ready or conn.initialized:
            super().enqueue_req(conn)
            return
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + PATIENCE
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def handle(self, conn: TConn) -> object:
        if conn.parser is None:
            conn.parser = get_parser(self.cfg, conn.sock, conn.client)
            conn.parser.unreader = Unreader(conn.sock)
        conn.parser.unreader.deadline = time.monotonic() + PATIENCE
        keep = super().handle(conn)
        if not keep:
            # Wait for the client to close here, in a thread; the loop, which would wait for 2 s, then need not.
            with suppress(OSError):
                close_graceful(conn.sock.dup())
                conn.sock.shutdown(socket.SHUT_RD)
        return keep

    def handle_request(self, req: Any, conn: TConn) -> bool:
        try:
            keep: bool = super().handle_request(req, conn)
        except BlockingIOError as error:  # see ``access.Caller.bound``
            raise ConnectionResetError(errno.ECONNRESET, "the client reads no more") from error
        return keep

    def set_accept_enabled(self, enabled: bool) -> None:
        """When it stops, accept who has connected already and refuse the rest: a refused one is tried elsewhere."""
        super().set_accept_enabled(enabled)
        if not self.alive:
            for listener in self.sockets:
                # From now on one at a time gets in: whoever connects between the last accept and the end is lost, and
                # a thread that holds the interpreter can make that milliseconds. Others knock again, and are refused.
                listener.listen(0)
                accepted = -1
                while accepted != self.nr_conns:
                    accepted = self.nr_conns
                    self.accept(listener)
                listener.close()
