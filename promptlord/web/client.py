"""The client's connection: has it hung up, and does it still read?"""

import socket
import struct

from flask import request


class Connection:
    """The client's connection, to notice that it has hung up or reads no more."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def fileno(self) -> int:
        return self._socket.fileno()

    def disconnected(self) -> bool:
        try:
            return self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False  # it waits
        except OSError:
            return True

    def bound(self, seconds: float) -> None:
        """Have sending fail once the client has taken no byte for so long; it would hold its thread for ever."""
        whole, part = divmod(seconds, 1)
        interval = struct.pack("ll", int(whole), int(part * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)


def connection() -> Connection | None:
    """Who sent this request, where the server tells: gunicorn and ``flask run`` do."""
    sock = request.environ.get("gunicorn.socket") or request.environ.get("werkzeug.socket")
    return Connection(sock) if sock else None
