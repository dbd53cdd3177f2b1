"""gunicorn's threaded worker, in which a client costs a thread only while it is served, and in bounded time.

What it overrides, and why, as of gunicorn 27.0.1; ``tests/test_worker.py`` fails where a newer one needs it no longer.
"""

import errno
import json
import os
import re
import select
import selectors
import socket
import ssl
import sys
import time
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any

from gunicorn import http, sock
from gunicorn.http import errors
from gunicorn.workers.gthread import TConn, ThreadWorker

from promptlord.gunicorn_client import BoundedRequest, ClientSocket, Waiting
from promptlord.refusals import Refusals, shown

HEAD_TIMEOUT = 5.0  # seconds for the head of a request
HEAD_MAX = 1 << 16  # bytes of it that are waited for without a thread
HEAD_END = re.compile(rb"\n\r?\n")
LINGER = 2.0  # seconds without a byte, after which a client that has its response is not waited for any longer
DISCARD_MAX = 32 << 20  # bytes that one may still send then
CHUNK = 1 << 16  # bytes read at once
NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

ERRORS = (  # the more special ones first
    (errors.LimitRequestLine, 414, "The request's address is too long"),
    (errors.LimitRequestHeaders, 431, "The request's headers are too large"),
    (errors.ExpectationFailed, 417, "The request expects something that this server does not do"),
    (errors.UnsupportedTransferCoding, 501, "The request's transfer coding is not supported"),
    (errors.ConfigurationProblem, 400, "The request's path does not begin with its SCRIPT_NAME"),
    ((errors.InvalidResponseHeader, errors.InvalidResponseHeaderName), 500, "Internal Server Error"),
    (errors.ParseException, 400, "The request is not valid HTTP"),
    (Exception, 500, "Internal Server Error"),
)


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's own waits for its clients in threads, and even in its loop, and drops connections as it stops."""

    request_timeout = 25.0  # seconds; gunicorn.conf.py sets the service's own

    def init_process(self) -> None:
        self.waiting = Waiting(max(self.cfg.threads // 3, 1))
        self.refusals = Refusals(self.log.error_log)
        self.lingering: dict[TConn, float] = {}  # and when the last of its time is over
        self.swept = 0.0
        self.crowded = False  # there is no descriptor for another connection
        self.tls = sock.ssl_context(self.cfg) if self.cfg.is_ssl else None
        super().init_process()

    # A connection comes in

    def accept(self, listener: Any) -> bool:
        """Accept one; false for want of a descriptor. gunicorn's loop would end then, or accept no more of too many."""
        try:
            super().accept(listener)
        except OSError as error:
            if error.errno not in NO_DESCRIPTORS:
                raise
            self.crowded = True
            return False
        return True

    def enqueue_req(self, conn: TConn) -> None:
        """Hand a connection to a thread once the head of a request is here. gunicorn reads it there, however slow."""
        try:
            if conn.parser is None:
                self.prepare(conn)
            whole = _has_head(conn)
        except OSError:
            self.drop(conn)
            return
        if whole:
            super().enqueue_req(conn)
            return
        conn.timeout = time.monotonic() + HEAD_TIMEOUT
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def prepare(self, conn: TConn) -> None:
        """Give a new connection what bounds it: its socket, and the requests that come over it."""
        raw = conn.sock
        if self.tls:
            raw = self.tls.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
        conn.sock = ClientSocket(raw, self.waiting)
        conn.parser = http.get_parser(self.cfg, conn.sock, conn.client)
        conn.parser.mesg_class = BoundedRequest
        conn.data_ready = True

    def on_pending_socket_readable(self, conn: TConn, client: ClientSocket) -> None:
        try:
            whole = _has_head(conn, seen=conn.parser.unreader.buf.tell())
        except OSError:
            self.drop(conn)
            return
        if whole:
            self.poller.unregister(client)
            self.pending_conns.remove(conn)
            super().enqueue_req(conn)

    # A thread serves it

    def handle(self, conn: TConn) -> object:
        conn.sock.begin(self.request_timeout)
        kept = super().handle(conn)
        try:
            conn.sock.flush()
        except OSError:
            return False
        return kept

    def handle_error(self, req: Any, client: ClientSocket, addr: Any, exc: Exception) -> None:
        """Answer as JSON, and say what was wrong, not with what: gunicorn answers HTML, and logs what it was sent."""
        status, told = next((status, told) for error, status, told in ERRORS if isinstance(exc, error))
        if status == 500:
            self.log.exception("Error handling request")
        request = shown(req.method, req.path) if req else ""
        self.refusals.tell(status, request, told, time.monotonic() - client.began)
        content = json.dumps({"error": told})
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "Connection: close",
            "Content-Type: application/json",
            f"Content-Length: {len(content)}",
        )
        with suppress(OSError):
            client.sendall("\r\n".join((*head, "", content)).encode())

    # It ends

    def handle_quit(self, sig: int, frame: Any) -> None:
        """End at once, as Ctrl-C says. gunicorn's waits for itself where the signal meets the start of a thread: for a
        lock that it holds, or for a thread that nobody wakes.
        """
        self.cfg.worker_int(self)
        os._exit(0)

    def finish_request(self, conn: TConn, fs: Any) -> None:
        """Keep the connection, or linger on it. gunicorn's loop would stand still until this client closes, for 2 s."""
        if fs.cancelled() or fs.exception() or fs.result():
            super().finish_request(conn, fs)
            return
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.drop(conn)
            return
        now = time.monotonic()
        conn.timeout, conn.discarded = now + LINGER, 0
        self.lingering[conn] = now + self.request_timeout
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.discard, conn))

    def discard(self, conn: TConn, client: ClientSocket) -> None:
        """Throw away what a client still sends: closed at once, it would be sent a reset, and lose its response."""
        try:
            data = client.raw.recv(CHUNK)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            data = b""
        conn.discarded += len(data)
        conn.timeout = min(time.monotonic() + LINGER, self.lingering[conn])
        if not data or conn.discarded > DISCARD_MAX:
            self.drop(conn)

    def murder_pending(self) -> None:
        super().murder_pending()
        if (self.crowded or self.nr_conns >= self.worker_connections) and not self.make_room():
            time.sleep(0.01)  # all are being served: the loop would spin
        self.crowded = False
        now = time.monotonic()
        if now - self.swept > 0.5:
            self.swept = now
            for conn in [conn for conn in self.lingering if conn.timeout < now]:
                self.drop(conn)

    def make_room(self) -> bool:
        """Drop the one that has said nothing for longest; false if there is none."""
        kinds = (
            (self.pending_conns, HEAD_TIMEOUT),
            (self.lingering, LINGER),
            (self.keepalived_conns, self.cfg.keepalive),
        )
        firsts = [(next(iter(conns)), timeout) for conns, timeout in kinds if conns]
        if firsts:
            self.drop(min(firsts, key=lambda first: first[0].timeout - first[1])[0])
        return bool(firsts)

    def drop(self, conn: TConn) -> None:
        """Close a connection that no thread serves."""
        for connections in (self.pending_conns, self.keepalived_conns):
            with suppress(ValueError):
                connections.remove(conn)
        self.lingering.pop(conn, None)
        with suppress(KeyError, ValueError):  # not registered, or closed already
            self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()

    def set_accept_enabled(self, enabled: bool) -> None:
        """When it stops, accept who has connected already and refuse the rest. gunicorn would drop the former."""
        super().set_accept_enabled(enabled)
        if enabled or self.alive:  # it may be told to stop before it starts
            return
        # Who connects between the last accept and the end of listening is lost if nobody else listens on this socket,
        # and other threads could make that milliseconds: let none hold the interpreter.
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        for listener in self.sockets:
            queue = select.poll()
            queue.register(listener, select.POLLIN)
            while queue.poll(0) and self.accept(listener):
                pass
            listener.close()
        self.sockets.clear()
        sys.setswitchinterval(interval)


def _has_head(conn: TConn, seen: int = 0) -> bool:
    """Take in what the client has sent, without waiting: is the head of a request here? Raises ``OSError``, closed too.

    ``seen``: bytes in which no head ends.
    """
    buffer = conn.parser.unreader.buf
    while not HEAD_END.search(buffer.getbuffer(), max(seen - 2, 0)):
        seen = buffer.seek(0, 2)
        if seen > HEAD_MAX:  # the thread will refuse it
            break
        try:
            data = conn.sock.raw.recv(CHUNK)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "the client has disconnected")
        buffer.write(data)
    return True
