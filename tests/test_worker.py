"""Clients that stall, flood and send what is no HTTP, over real sockets: what our worker does about each."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import requests
from conftest import KEYS, Server, seconds_of, starting
from groqsim import GroqSim, Limits

NO_LIMITS = Limits(rpm=None, tpm=None, rpd=None)
PATIENCE = 5  # seconds that gunicorn.conf.py gives a client to send its request
shared = pytest.mark.xdist_group("worker")  # so that it is one
SILENT, HALF_A_HEADER = b"", b"POST /enhance HTT"
NO_BODY = b"POST /enhance HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n"
LAST_WORDS = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for those who leave nothing behind in it."""
    with GroqSim(KEYS, NO_LIMITS) as sim, starting(sim, tmp_path_factory.mktemp("server")) as start:
        yield start(THREADS="64")


@contextmanager
def clients(server: Server, *said: bytes) -> Iterator[list[socket.socket]]:
    """Clients that connect, say this much and then neither speak nor close."""
    with ExitStack() as stack:
        connected = []
        for words in said:
            connected.append(stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20)))
            connected[-1].sendall(words)
        yield connected


@shared
def test_silent_clients_cost_nothing(server):
    with clients(server, *[SILENT] * 70):
        took, response = seconds_of(server.health)

    assert response.status_code == 200
    assert took < PATIENCE / 2


@shared
def test_clients_that_do_not_close_hold_up_nobody(server):
    with clients(server, *[LAST_WORDS] * 10):
        took, response = seconds_of(server.health)

    assert response.status_code == 200
    assert took < 10  # gunicorn would wait 2 s for each of them


@shared
def test_clients_that_stall_half_way_lose_their_threads(server):
    with clients(server, *[HALF_A_HEADER, NO_BODY] * 35) as stalled:
        took, response = seconds_of(server.health)
        answer = b""
        while b"}" not in answer and (more := stalled[1].recv(4096)):
            answer += more

    print(f"/health behind 70 stalled clients: {took:.1f} s")
    assert response.status_code == 200
    assert took < PATIENCE + 5
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'{"error":' in answer
    assert "Traceback" not in server.output


def test_silent_and_idle_clients_do_not_hold_up_the_stop(start):
    server = start()

    with clients(server, SILENT), requests.Session() as idle:
        assert idle.get(f"{server.url}/health", timeout=20).status_code == 200
        began = time.monotonic()
        code = server.stop()

    assert code == 0
    assert time.monotonic() - began < PATIENCE + 3


@shared
def test_a_slow_but_steady_client_is_served(server):
    body = b'{"prompt": "ping"}'

    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        for byte in NO_BODY.replace(b"20", str(len(body)).encode()) + body:
            client.sendall(bytes([byte]))
        answer = client.recv(4096)

    assert answer.startswith(b"HTTP/1.1 200 ")


@shared
def test_a_long_upload_over_a_slow_line_is_served(server):
    body = b'{"prompt": "ping"%s}' % (b" " * 100_000)
    began = time.monotonic()

    def line() -> Iterator[bytes]:
        for at in range(0, len(body), 8192):
            yield body[at : at + 8192]
            time.sleep(0.5)

    answer = requests.post(
        f"{server.url}/enhance", data=line(), headers={"Content-Type": "application/json"}, timeout=20
    )

    assert answer.json() == {"enhancedPrompt": "ping"}
    assert time.monotonic() - began > PATIENCE
