"""The client's connection: has it hung up?"""

import socket

from flask import request


class Connection:
    """The client's connection, to notice that it has hung up."""

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


def connection() -> Connection | None:
    """Who sent this request, where the server tells: gunicorn and ``flask run`` do."""
    sock = request.environ.get("gunicorn.socket") or request.environ.get("werkzeug.socket")
    return Connection(sock) if sock else None
