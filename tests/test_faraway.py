"""The way to a server that is far away: what the measurements and tests behind it rely on."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import pytest
from faraway import Faraway, faraway

pytestmark = pytest.mark.live
ROUND_TRIP = 0.4  # seconds


class Echo:
    """A server that sends back what it gets, and tells when a client closed."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.closed = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with suppress(OSError):  # until it is closed
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(1 << 16):
                connection.sendall(data)
        self.closed.set()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    with suppress(OSError):  # a test closed it already
        server.close()


@pytest.fixture
def far(echo: Echo) -> Iterator[Faraway]:
    with faraway(echo.port, ROUND_TRIP) as way:
        yield way


@contextmanager
def connected(far: Faraway) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", far.port), timeout=10) as connection:
        yield connection


def seconds_of(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def said_back(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    return connection.recv(100)


def test_an_answer_takes_a_round_trip(far: Faraway) -> None:
    with connected(far) as connection:
        took = [seconds_of(lambda: said_back(connection, b"hello")) for _ in range(2)]

    assert min(took) >= ROUND_TRIP
    assert max(took) < 1.4 * ROUND_TRIP


def test_what_is_on_its_way_at_the_same_time_takes_no_longer(far: Faraway) -> None:
    sent: list[float] = []
    back: list[float] = []
    with connected(far) as connection:
        connection.settimeout(ROUND_TRIP / 8)
        while len(back) < 7:
            if len(sent) < 7:
                sent.append(time.monotonic())
                connection.sendall(b".")
            with suppress(TimeoutError):
                arrived = connection.recv(100)
                back += [time.monotonic()] * len(arrived)

    took = [end - start for start, end in zip(sent, back, strict=True)]

    assert sent[-1] < back[0], "they were not on their way at the same time"
    assert min(took) >= ROUND_TRIP
    assert max(took) < 1.4 * ROUND_TRIP


def test_many_connections_do_not_wait_for_each_other(far: Faraway) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(20) as crew:
        connections = [stack.enter_context(connected(far)) for _ in range(20)]
        began = time.monotonic()

        answers = [*crew.map(said_back, connections, [b"hello"] * 20)]

        assert answers == [b"hello"] * 20
        assert time.monotonic() - began < 1.9 * ROUND_TRIP


def test_silent_it_accepts_and_holds_everything_back_until_told_to_go_on(far: Faraway) -> None:
    with connected(far) as old:
        assert said_back(old, b"hello") == b"hello"
        far.fall_silent()
        with connected(far) as new:
            for connection in (old, new):
                connection.sendall(b"one, ")
                connection.sendall(b"two")
                connection.settimeout(1.5 * ROUND_TRIP)
                with pytest.raises(TimeoutError):
                    connection.recv(100)

            far.go_on()

            for connection in (old, new):
                connection.settimeout(10)
                with connection.makefile("rb") as file:
                    assert file.read(8) == b"one, two"


def test_a_client_that_closes_is_seen_at_the_far_end_later(echo: Echo, far: Faraway) -> None:
    with connected(far) as connection:
        assert said_back(connection, b"hello") == b"hello"
    began = time.monotonic()

    assert echo.closed.wait(10)
    assert time.monotonic() - began >= ROUND_TRIP / 2.1


def test_a_connection_is_closed_at_once_where_nobody_listens(echo: Echo, far: Faraway) -> None:
    echo.close()

    with connected(far) as connection:
        assert connection.recv(100) == b""
