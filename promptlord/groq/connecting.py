"""A connection to Groq within its time, the look-up of its name included; and why there is none."""

import errno
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from promptlord.groq.deadline import at_least_some

LOOKUPS = 8  # names looked up at once; each takes a thread until the resolver answers or gives up

_lookups = threading.BoundedSemaphore(LOOKUPS)


def connect(host: str, port: int, options: Iterable[Any], timeout: float) -> socket.socket:
    """A connection to the first of ``host``'s addresses that takes one, within ``timeout`` seconds for all of it.

    Each address has an equal share of the time left, so that a dead one leaves the others theirs.
    ``options`` are for ``setsockopt``. Raises ``OSError``, or ``ValueError`` if ``host`` can be no name.
    """
    until = time.monotonic() + timeout
    *others, last = _addresses(host, port, timeout)
    for number, address in enumerate(others):
        with suppress(OSError):
            return _connect(address, options, (until - time.monotonic()) / (len(others) + 1 - number))
    return _connect(last, options, until - time.monotonic())


def _connect(found: Any, options: Iterable[Any], timeout: float) -> socket.socket:
    family, kind, protocol, _, address = found
    sock = socket.socket(family, kind, protocol)
    try:
        for option in options:
            sock.setsockopt(*option)
        sock.settimeout(at_least_some(timeout))
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock


def _addresses(host: str, port: int, timeout: float) -> list[Any]:
    """What ``getaddrinfo`` says. Nothing can interrupt it, so a name is looked up in a thread that is left behind."""
    with suppress(socket.gaierror):  # an address needs nobody to look it up
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    until = time.monotonic() + timeout
    found: Future[list[Any]] = Future()
    try:
        if not _lookups.acquire(timeout=at_least_some(timeout)):
            raise TimeoutError
        _start(threading.Thread(target=_look_up, args=(host, port, found), daemon=True))
        return found.result(at_least_some(until - time.monotonic()))
    except TimeoutError:
        raise socket.gaierror(socket.EAI_AGAIN, "no answer in time") from None


def _start(lookup: threading.Thread) -> None:
    try:
        lookup.start()
    except RuntimeError as error:
        _lookups.release()
        raise OSError(errno.EAGAIN, "no thread for the lookup") from error


def _look_up(host: str, port: int, found: "Future[list[Any]]") -> None:
    try:
        found.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except (OSError, ValueError) as error:
        found.set_exception(error)
    finally:
        _lookups.release()


_CERTIFICATE_FAULTS = {  # by OpenSSL's numbers, X509_V_ERR_…
    9: "its certificate is not valid yet: is this machine's clock right?",
    10: "its certificate has expired",
    62: "its certificate is for another name",
    64: "its certificate is for another address",
}
_NOT_TRUSTED = "its certificate is not trusted: REQUESTS_CA_BUNDLE may name the authority that it is of"


def why_not(error: Exception) -> str:
    """Why there is no connection, in our words and the system's: none that came over the wire."""
    match error:
        case ssl.SSLCertVerificationError():
            return _CERTIFICATE_FAULTS.get(error.verify_code, _NOT_TRUSTED)
        case ssl.SSLError():
            return f"TLS fails: {(error.reason or 'cut off').lower().replace('_', ' ')}"
        case TimeoutError():
            return "it does not answer in time"
        case socket.gaierror():
            return f"its name is not found: {error.strerror}"
        case OSError():
            return error.strerror or "cut off"
    return "its name is malformed"
