"""Clients that stall, flood and send what is no HTTP, over real sockets: what our worker does about each.

What gunicorn's own worker still does otherwise is expected to fail with it: where it no longer does, the test says so,
and that part of ours can go.
"""

import json
import os
import re
import resource
import select
import signal
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import requests
import trustme
from conftest import KEYS, PROCFILE, Server, both, poll, seconds_of, starting
from groqsim import GroqSim, Limits, Trouble

from promptlord.gunicorn_client import ClientSocket, Waiting

Start = Callable[..., Server]
NO_LIMITS = Limits(rpm=None, tpm=None, rpd=None)
HEAD_TIMEOUT = 5  # seconds that the worker gives a client for the head of a request
shared = pytest.mark.xdist_group("worker")  # so that it is one
# gunicorn where the system keeps little of what is sent, as it does for far clients; for near ones it takes megabytes.
LITTLE_BUFFERS = """
import socket
from gunicorn.app.wsgiapp import run
class Socket(socket.socket):
    def listen(self, backlog):
        self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        super().listen(backlog)
socket.socket = Socket
run(prog="gunicorn")
"""
# gunicorn with an app of which a response breaks off, and which is told to stop as it starts, if ENDS is set.
BREAKS_OFF = """
import os, signal, sys
from gunicorn.app.wsgiapp import run
class Breaks:
    def __getattr__(self, name):
        if "ENDS" in os.environ:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.app
    def app(self, environ, start_response):
        start_response("200 OK", [])
        yield b"begun"
        if environ["PATH_INFO"] != "/health":
            raise ValueError("broken")
sys.modules["breaks"] = Breaks()
run(prog="gunicorn")
"""


SILENT, HALF_A_HEADER = b"", b"POST /enhance HTT"
POST = b"POST /enhance HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
NO_BODY = POST + b"Content-Length: 20\r\n\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
LAST_WORDS = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
PAGE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for those who leave nothing behind in it."""
    with GroqSim(KEYS, NO_LIMITS) as sim, starting(sim, tmp_path_factory.mktemp("server")) as start:
        yield serving(start, THREADS="64")


@contextmanager
def clients(server: Server, *said: bytes) -> Iterator[list[socket.socket]]:
    """Clients that connect, say this much and then neither speak, nor read, nor close."""
    with ExitStack() as stack:
        connected = []
        for words in said:
            connected.append(stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=8)))
            with suppress(BlockingIOError):  # where nobody takes so much
                connected[-1].sendall(words) if len(words) < 10_000 else connected[-1].send(words, socket.MSG_DONTWAIT)
        yield connected


def response_to(client: socket.socket) -> tuple[bytes, bytes]:
    """What it is sent until the server closes: head and content."""
    response = b""
    while more := client.recv(65536):
        response += more
    head, _, content = response.partition(b"\r\n\r\n")
    return head, content


def said_to(server: Server, words: bytes) -> tuple[bytes, bytes]:
    with clients(server, words) as (client,):
        return response_to(client)


def slowest_of(server: Server, count: int) -> float:
    """Seconds that the slowest of so many simultaneous health checks took; all are answered."""
    with ThreadPoolExecutor(count) as pool:
        checks = [pool.submit(seconds_of, server.health) for _ in range(count)]
        assert {check.result()[1].status_code for check in checks} == {200}
    return max(check.result()[0] for check in checks)


def serving(start: Start, options: Sequence[str] = (), **env: str) -> Server:
    """A server that serves already."""
    return served(start([*PROCFILE, *options], **env))


def with_little_buffers(start: Start, options: Sequence[str] = (), **env: str) -> Server:
    return served(start(["python", "-c", LITTLE_BUFFERS, *PROCFILE[1:], *options], **env))


def served(server: Server) -> Server:
    assert server.health().status_code == 200
    return server


def worker_of(server: Server) -> int:
    for _ in poll():
        if (workers := server.workers()) and "Loaded" in server.output:
            return workers[0]
    raise AssertionError("there is no worker")


# Reloads


def reload(server: Server) -> None:
    old = worker_of(server)
    server.process.send_signal(signal.SIGHUP)
    for _ in poll():
        if len(server.workers()) == 1 and server.workers() != [old]:
            return
    raise AssertionError("the worker was not replaced")


def replace(server: Server) -> None:
    """A new master on the same socket; the old one's worker ends, as with SIGWINCH."""
    old = worker_of(server)
    server.process.send_signal(signal.SIGUSR2)
    for _ in poll():
        if server.output.count("Booting worker") == 2:
            break
    os.kill(old, signal.SIGTERM)
    for _ in poll():
        if not Path(f"/proc/{old}").exists():
            return
    raise AssertionError("the old worker did not end")


def wear_out(server: Server) -> None:
    old = worker_of(server)
    for _ in poll():
        if server.workers() != [old]:
            return
        with suppress(requests.ConnectionError):
            server.health()


@pytest.mark.parametrize(
    ("renew", "options"),
    [(reload, []), (replace, []), (wear_out, ["--max-requests", "60"])],
    ids=["HUP", "USR2", "max"],
)
def test_a_worker_that_is_replaced_leaves_the_queue_of_connections_whole(start, renew, options):
    server = serving(start, options)
    children: list[int] = []
    try:
        renew(server)
        server.wait_for("(?s)Loaded.*Loaded")
        children = server.workers()

        took = slowest_of(server, 40)

        print(f"the slowest of 40 health checks: {took:.2f} s")
        assert took < 0.9  # a full queue drops what comes, and clients try again after a second
    finally:
        for child in children:  # a master that USR2 made outlives its parent
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)


# Clients that say nothing, or not enough


@shared
def test_silent_clients_cost_nothing(server):
    with clients(server, *[SILENT] * 70):
        took, response = seconds_of(lambda: server.health(timeout=3))

    assert response.status_code == 200
    assert took < 1


@both("a thread reads a request's head, however slowly it comes (ThreadWorker.handle, gunicorn#2652)")
def test_half_a_request_and_garbage_hold_up_nobody(start, worker):
    server = serving(start, worker, THREADS="64")

    with clients(server, *[HALF_A_HEADER] * 100, *[b"\x16\x03\x01 no HTTP\r\n\r\n"] * 200):
        took, response = seconds_of(lambda: server.health(timeout=3))

    print(f"/health beside 300 of them: {took:.2f} s")
    assert response.status_code == 200
    assert took < 1


def test_half_a_request_takes_no_place_from_an_upload(start):
    server = serving(start, THREADS="2")  # so that one client at a time is waited for in a thread
    body = b'{"prompt": "ping"}'

    with clients(server, NO_BODY.replace(b"20", str(len(body)).encode()), *[HALF_A_HEADER] * 10) as (upload, *_):
        for byte in body:
            time.sleep(0.05)
            upload.sendall(bytes([byte]))
        answer = upload.recv(4096)

    assert answer.startswith(b"HTTP/1.1 200 ")


@both("where there are too many connections, none is accepted (ThreadWorker.run)")
def test_more_connections_than_there_may_be_hold_up_nobody(start, worker):
    server = serving(start, [*worker, "--worker-connections", "80"], THREADS="8")

    with clients(server, *[SILENT] * 100):
        took, response = seconds_of(lambda: server.health(timeout=3))

    assert response.status_code == 200
    assert took < 1


def test_who_has_just_come_is_not_dropped_for_want_of_room(start):
    server = serving(start, ["--worker-connections", "20"], THREADS="8")

    with clients(server, *[LAST_WORDS] * 20), clients(server, SILENT) as (late,):
        time.sleep(0.3)
        late.sendall(LAST_WORDS)
        assert response_to(late)[0].startswith(b"HTTP/1.1 200 ")


@both("the loop waits up to 2 s for a client to close (TConn.close, util.close_graceful)")
def test_clients_that_do_not_close_hold_up_nobody(start, worker):
    server = serving(start, worker, THREADS="8")

    with clients(server, *[LAST_WORDS] * 64):
        took, response = seconds_of(lambda: server.health(timeout=3))

    print(f"/health beside 64 that do not close: {took:.2f} s")
    assert response.status_code == 200
    assert took < 1


def test_silent_and_idle_clients_do_not_hold_up_the_stop(start):
    server = start()

    with clients(server, SILENT), requests.Session() as idle:
        assert idle.get(f"{server.url}/health", timeout=20).status_code == 200
        began = time.monotonic()
        code = server.stop()

    assert code == 0
    assert time.monotonic() - began < HEAD_TIMEOUT + 3


def test_a_worker_that_is_stopped_as_it_starts_ends_in_peace(start):
    server = start(["python", "-c", BREAKS_OFF, "breaks:app"], ENDS="1")

    server.wait_for("(?s)Worker exiting.*Booting")

    assert "Traceback" not in server.output


@shared
def test_a_slow_but_steady_client_is_served(server):
    body = b'{"prompt": "ping"}'

    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        for byte in NO_BODY.replace(b"20", str(len(body)).encode()) + body:
            client.sendall(bytes([byte]))
        answer = client.recv(4096)

    assert answer.startswith(b"HTTP/1.1 200 ")


@shared
def test_requests_that_come_in_one_piece_are_served_in_turn(server):
    body = b'{"prompt": "ping"}'
    press = NO_BODY.replace(b"20", str(len(body)).encode()) + body

    head, content = said_to(
        server, b"\r\n" + press + press + PAGE.replace(b"/ ", b"/health ") + press[:9] + press[9:] + LAST_WORDS
    )

    assert (head + content).count(b"HTTP/1.1 200 OK") == 5
    assert content.count(b'{"enhancedPrompt":"ping"}') == 3


# Bodies


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
    assert time.monotonic() - began > HEAD_TIMEOUT


@pytest.mark.parametrize("threads", ["1", "2"])
def test_with_few_threads_a_body_may_come_late(start, threads):
    server = serving(start, ["--threads", threads])

    with clients(server, NO_BODY) as (client,):
        time.sleep(0.3)
        client.sendall(b'{"prompt": "ping"  }')
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")


@both("reading a body has no time-out (http.unreader, gunicorn#2652)")
@pytest.mark.parametrize("sent", [b"", b" " * 65536], ids=["nothing", "something"])
def test_a_body_that_stalls_holds_a_thread_for_the_requests_time(start, worker, sent):
    server = serving(start, worker, THREADS="2", REQUEST_TIMEOUT_SECONDS="1.5")
    stalls = POST + b"Content-Length: 100000\r\n\r\n" + sent

    with clients(server, *[stalls] * 3) as stalled:  # as many as there are threads
        began = time.monotonic()
        told = [response_to(client) for client in stalled]
        took = time.monotonic() - began

    ((head, content),) = [each for each in told if each[0]]  # the last that a thread met; the others made room for it
    assert took < 5  # 1.5 s on an idle machine
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(content)["error"]
    assert "Traceback" not in server.output


@both("a thread reads a request's body, however slowly it comes (ThreadWorker.handle)")
def test_many_bodies_that_stall_hold_up_nobody(start, worker):
    server = serving(start, worker, THREADS="8")

    with clients(server, *[NO_BODY] * 64):
        took, response = seconds_of(lambda: server.health(timeout=3))

    assert response.status_code == 200
    assert took < 1


def test_who_drips_makes_room_before_one_whose_upload_goes_on():
    waiting, pairs = Waiting(2), [socket.socketpair() for _ in range(3)]
    drips, uploads, other = (ClientSocket(ours, waiting) for ours, _ in pairs)
    peers = [theirs for _, theirs in pairs]

    def waits(client: ClientSocket, count: int) -> Future[bytes]:
        client.begin(20)
        read = pool.submit(client.recv, 1)
        assert any(len(waiting._clients) == count for _ in poll())
        return read

    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        for each in [*peers, drips.raw, uploads.raw, other.raw]:
            stack.enter_context(each)
        for client, peer, sent in ((drips, peers[0], b" "), (uploads, peers[1], b" " * 8192)):
            read = waits(client, 1)
            time.sleep(0.5)
            peer.sendall(sent)
            assert read.result() == sent
        upload, drip = waits(uploads, 1), waits(drips, 2)

        assert not waiting.wait(other, select.POLLIN, 0.01)

        with pytest.raises(ConnectionResetError):
            drip.result(5)
        peers[1].sendall(b"more")
        assert upload.result(5) == b"more"


@both("malformed bodies raise what is neither OSError nor ValueError (http.errors)")
@pytest.mark.parametrize(
    "rest", [b"5\r\nhello\r\nxyz\r\n", b"2\r\n{}--\r\n", b"2\r\n{}\r\n0\r\nContent-Length: 1\r\n\r\n"]
)
def test_a_malformed_body_is_a_bad_request(start, worker, rest):
    server = serving(start, worker)

    head, content = said_to(server, CHUNKED + rest)

    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nConnection: close" in head
    assert json.loads(content)["error"]
    assert "Traceback" not in server.output


@both("Connection is told before what is unread of the body is looked at (Response.default_headers, gunicorn#3301)")
@pytest.mark.parametrize("size", [200_000, 25_000_000])
def test_a_body_that_is_refused_unread_closes_the_connection_and_says_so(start, worker, size):
    server = serving(start, worker)

    head, content = said_to(server, POST + b"Content-Length: %d\r\n\r\n" % size)

    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nConnection: close" in head
    assert json.loads(content)["error"]


@pytest.mark.parametrize("path", ["v1/chat/completions", "nowhere", "enhance"])
def test_large_uploads_that_are_refused_hang_nobody(start, path):
    server = start()
    body = b"x" * 6_000_000

    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:  # one that minds being cut off
        client.sendall(POST.replace(b"/enhance", b"/" + path.encode()) + b"Content-Length: 6000000\r\n\r\n" + body)
        assert json.loads(response_to(client)[1])["error"]

    def upload(_: int) -> tuple[float, requests.Response]:
        return seconds_of(lambda: requests.post(f"{server.url}/{path}", json={}, data=body, timeout=20))

    with ThreadPoolExecutor(12) as pool:
        uploads = list(pool.map(upload, range(24)))

    print(f"the slowest of 24 uploads of 6 MB: {max(took for took, _ in uploads):.2f} s")
    assert {response.status_code for _, response in uploads} < {401, 403, 404, 413, 415}
    assert all(response.json()["error"] for _, response in uploads)
    assert max(took for took, _ in uploads) < 5


def test_one_that_has_its_response_and_neither_closes_nor_ends_is_dropped(start):
    server = serving(start, REQUEST_TIMEOUT_SECONDS="1")

    with clients(server, LAST_WORDS, NO_BODY.replace(b"20", b"%d" % 10**12)) as (silent, endless):
        assert keeps_taking(endless, 5) < 5
        assert keeps_taking(silent, 5) < 5


def keeps_taking(client: socket.socket, seconds: float) -> float:
    """Seconds for which the server lets a client send a little now and then, ``seconds`` at most."""
    began = time.monotonic()
    with suppress(ConnectionError):
        for _ in poll(seconds):
            client.sendall(b" " * 1000)
    return time.monotonic() - began


# Responses


@shared
def test_files_are_served(server):
    response = requests.get(f"{server.url}/static/status.js", timeout=20)

    assert response.status_code == 200
    assert len(response.content) == int(response.headers["Content-Length"]) > 0


@contextmanager
def small(server: Server, words: bytes) -> Iterator[socket.socket]:
    """A client that has room for little, and asks for more and more."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(("127.0.0.1", server.port))
        client.send(words, socket.MSG_DONTWAIT)
        yield client


@both("sending has no time-out (util.write, gunicorn#2652)")
def test_clients_that_never_read_hold_up_nobody(start, worker):
    server = with_little_buffers(start, worker, THREADS="8")

    with ExitStack() as stack:
        for _ in range(64):
            stack.enter_context(small(server, PAGE * 2000))
        checks = [seconds_of(lambda: server.health(timeout=3))[0] for _ in poll(3, every=0.1)]

    print(f"/health beside 64 that never read: {max(checks):.2f} s")
    assert max(checks) < 1


@both("sending has no time-out (util.write, gunicorn#2652)")
def test_one_that_reads_a_little_now_and_then_is_not_served_for_ever(start, worker):
    server = with_little_buffers(start, worker, REQUEST_TIMEOUT_SECONDS="1")
    descriptors = Path(f"/proc/{worker_of(server)}/fd")
    before = min(len(list(descriptors.iterdir())) for _ in poll(0.5))

    with small(server, PAGE * 20_000) as client, suppress(ConnectionResetError):
        assert client.recv(20)
        for _ in poll(8, every=0.05):
            assert client.recv(20)
            if len(list(descriptors.iterdir())) == before:
                break
        else:
            raise AssertionError("it is still served")


def test_a_response_that_breaks_off_ends_its_connection_and_no_more(start):
    server = served(start(["python", "-c", BREAKS_OFF, "breaks:app"]))
    before = server.workers()

    _, content = said_to(server, PAGE)

    assert content == b"5\r\nbegun\r\n"
    assert server.health().text == "begun"
    assert server.workers() == before


# What is no request


BAD = {
    400: b"NONSENSE with secret-words\r\n\r\n",
    414: b"GET /" + b"secret-words" * 400 + b" HTTP/1.1\r\n\r\n",
    417: b"GET / HTTP/1.1\r\nHost: x\r\nExpect: secret-words\r\n\r\n",
    431: b"GET / HTTP/1.1\r\nAuthorization: " + b"secret-words" * 900 + b"\r\n\r\n",
    501: b"POST / HTTP/1.1\r\nTransfer-Encoding: secret-words\r\n\r\n",
}
BAD_NAME = b"GET /health HTTP/1.1\r\nHost: x\r\nSCRIPT_NAME: /secret-words\r\n\r\n"
BAD_HEADER = b"GET / HTTP/1.1\r\nAuthorization Bearer secret-words\r\n\r\n"


@both("errors are HTML, and the log quotes the request (base.Worker.handle_error)")
@pytest.mark.parametrize(
    ("status", "words"), [*BAD.items(), (400, BAD_NAME), (400, BAD_HEADER), (400, b"secret-words\n\n")]
)
def test_what_is_no_request_is_answered_in_json_and_quoted_nowhere(start, worker, status, words):
    server = serving(start, [*worker, "--log-level", "debug"])

    head, content = said_to(server, words)

    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nContent-Type: application/json" in head
    assert b"\r\nConnection: close" in head
    assert isinstance(json.loads(content)["error"], str)
    server.wait_for(rf"\[(?:INFO|WARNING)\] ⛔ {status} (?:[A-Z]+ \S+ )?after \d\.\d\d s: The request")
    (line,) = re.findall("⛔.*", server.output)
    assert "127.0.0.1" not in line
    assert "secret-words" not in server.output
    assert "Traceback" not in server.output


# Descriptors


@both("the loop ends when there is no descriptor (ThreadWorker.accept)")
def test_without_descriptors_it_goes_on(start, worker):
    server = serving(start, worker, THREADS="8")
    pid = worker_of(server)
    in_use = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (in_use + 20, in_use + 20))

    with clients(server, *[SILENT] * 60):
        took, response = seconds_of(lambda: server.health(timeout=3))

    assert response.status_code == 200
    assert took < 1
    assert server.health(timeout=4).status_code == 200


def test_it_asks_for_as_many_descriptors_as_it_may_have(start):
    few = "import os, resource as r, sys; r.setrlimit(r.RLIMIT_NOFILE, (128, r.getrlimit(r.RLIMIT_NOFILE)[1]));"
    server = start(["python", "-c", f"{few} os.execvp(sys.argv[1], sys.argv[1:])", *PROCFILE], THREADS="8")
    pid = worker_of(server)

    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)

    assert soft == min(hard, 8192)


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Sequence[str]:
    """The authority, a certificate of it for localhost, and its key: paths."""
    where, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    paths = [str(where / name) for name in ("ca.pem", "cert.pem", "key.pem")]
    of_localhost = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(paths[0])
    of_localhost.cert_chain_pems[0].write_to_path(paths[1])
    of_localhost.private_key_pem.write_to_path(paths[2])
    return paths


def test_with_a_certificate_it_speaks_tls_only(start, certificate):
    authority, cert, key = certificate
    server = start([*PROCFILE, "--certfile", cert, "--keyfile", key], ACCESS_TOKENS="secret", THREADS="8")
    url = f"https://127.0.0.1:{server.port}"

    with requests.Session() as session:
        session.verify, session.trust_env = authority, False
        for _ in range(2):  # kept alive
            pressed = session.post(f"{url}/enhance", json={"prompt": "write a poem"}, timeout=20)
            assert pressed.json()["enhancedPrompt"]
        streamed = session.post(
            f"{url}/v1/chat/completions",
            json={"model": "openai/gpt-oss-20b", "stream": True, "messages": [{"role": "user", "content": "hi"}]},
            headers={"Authorization": "Bearer secret"},
            timeout=20,
        )
        assert streamed.text.endswith("data: [DONE]\n\n")
        assert session.post(f"{url}/enhance", data=b"x" * 5_000_000, timeout=20).status_code in (413, 415)

        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
        silent[0].sendall(b"\x16\x03\x01\x02")  # the beginning of a handshake
        took, response = seconds_of(lambda: session.get(f"{url}/health", timeout=20))
        for each in silent:
            each.close()

    assert response.status_code == 200
    assert took < 1
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{server.port}/health", timeout=20)
    assert "Traceback" not in server.output


def test_over_tls_a_client_that_hangs_up_is_noticed(start, sim, certificate):
    authority, cert, key = certificate
    sim.order(Trouble.stall(30))
    server = start([*PROCFILE, "--certfile", cert, "--keyfile", key, "--access-logfile", "-"])
    words = b'{"prompt": "a poem about"}'

    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        context = ssl.create_default_context(cafile=authority)
        with context.wrap_socket(raw, server_hostname="localhost") as client:
            client.sendall(NO_BODY.replace(b"20", str(len(words)).encode()) + words)
            for _ in poll():
                if sim.calls:
                    break
    began = time.monotonic()

    server.wait_for('"POST /enhance HTTP/1.1" 499')
    assert time.monotonic() - began < 5


def test_over_tls_a_client_that_resets_before_it_is_accepted_ends_nothing(start, certificate):
    _, cert, key = certificate
    server = start([*PROCFILE, "--certfile", cert, "--keyfile", key])
    worker = worker_of(server)

    os.kill(worker, signal.SIGSTOP)  # so that it comes too late
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"\x16\x03\x01")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.kill(worker, signal.SIGCONT)

    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(PAGE)  # not TLS: it is dropped, after the other
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""
    assert server.workers() == [worker]
    assert "Traceback" not in server.output


def test_over_tls_requests_in_one_record_are_served_in_turn(start, certificate):
    authority, cert, key = certificate
    server = start([*PROCFILE, "--certfile", cert, "--keyfile", key])
    body = b'{"prompt": "ping"%s}' % (b" " * 12_000)

    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
        context = ssl.create_default_context(cafile=authority)
        with context.wrap_socket(raw, server_hostname="localhost") as client:
            client.sendall(NO_BODY.replace(b"20", str(len(body)).encode()))
            time.sleep(0.3)  # so that a thread waits for the body
            client.sendall(body + LAST_WORDS)
            head, content = response_to(client)

    assert (head + content).count(b"HTTP/1.1 200 OK") == 2


def test_over_tls_who_makes_room_for_another_does_not_go_on_in_clear(certificate):
    authority, cert, key = certificate
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    waiting, (ours, theirs), (other, another) = Waiting(1), socket.socketpair(), socket.socketpair()

    with other, another, ThreadPoolExecutor(1) as pool:
        greeting = pool.submit(context.wrap_socket, ours, server_side=True)
        client = ssl.create_default_context(cafile=authority).wrap_socket(theirs, server_hostname="localhost")
        with client, greeting.result() as tls:
            waits = pool.submit(waiting.wait, ClientSocket(tls, waiting), select.POLLIN, 20)
            while not waits.done():
                waiting.wait(ClientSocket(other, waiting), select.POLLIN, 0.01)
            assert tls.version() is not None
