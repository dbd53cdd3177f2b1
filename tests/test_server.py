"""The running server: the real gunicorn as the Procfile starts it, on a port of its own, against the simulated Groq."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException

import pytest
import requests
from conftest import BIN, KEYS, PROCFILE, ROOT, Server, both, environment, free_port, poll, seconds_of, starting
from groqsim import GroqSim, Limits, Trouble

from promptlord.pool.script import NAME

NO_LIMITS = Limits(rpm=None, tpm=None, rpd=None)
STAMP = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[\d+\] \[[A-Z]+\] "  # as gunicorn's
shared = pytest.mark.xdist_group("server")  # so that it is one


@pytest.fixture
def sim() -> Iterator[GroqSim]:
    with GroqSim(KEYS, NO_LIMITS) as sim:
        yield sim


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for those who leave nothing behind in it."""
    with GroqSim(KEYS, NO_LIMITS) as sim, starting(sim, tmp_path_factory.mktemp("server")) as start:
        yield start(THREADS="64")


# Start


def test_it_answers_within_a_second_or_so_of_its_start(start):
    server = start()

    assert server.health().json()["totalKeys"] == 3

    took = time.monotonic() - server.began
    print(f"first answer after {took:.2f} s")
    assert took < 5  # half a second on an idle machine


def test_groq_is_asked_about_each_key_once_behind_the_first_response(start, sim):
    server = start(CHECK_KEYS="1")
    assert sim.calls == []  # neither at the import nor at the start

    server.health()
    for _ in poll():
        told = requests.get(f"{server.url}/status", timeout=20).json()
        if all(key["finding"] == "works" for key in told["keys"]):
            break

    assert [key["finding"] for key in told["keys"]] == ["works"] * 3
    assert sum(call.path.endswith("/models") for call in sim.calls) == 3


def test_a_check_that_fails_harms_nothing(start, sim):
    sim.order(Trouble.named("reset"), times=None)
    server = start(CHECK_KEYS="1")
    server.health()
    for _ in poll():
        keys = requests.get(f"{server.url}/status", timeout=20).json()["keys"]
        if all(key["finding"] for key in keys):
            break

    assert {(key["finding"], key["state"]) for key in keys} == {("Groq is unreachable: not the key", "unknown")}
    assert server.health().json()["activeKeys"] == 3
    assert "Traceback" not in server.output


def test_there_is_one_worker_whatever_web_concurrency_says(start, sim):
    server = start(WEB_CONCURRENCY="2")

    assert [server.enhance().status_code for _ in range(6)] == [200] * 6

    assert [call.key for call in sim.calls] == [*KEYS, *KEYS]
    assert len(server.workers()) == 1
    assert server.output.count("WEB_CONCURRENCY=2 is passed over: without REDIS_URL the pool is in one process") == 1


def test_as_many_workers_as_web_concurrency_says_share_a_pool(start, sim, store):
    server = start(WEB_CONCURRENCY="3", REDIS_URL=store.url)

    assert [server.enhance().status_code for _ in range(6)] == [200] * 6

    assert [call.key for call in sim.calls] == [*KEYS, *KEYS]
    assert len(server.workers()) == 3
    assert "passed over" not in server.output


def test_what_a_worker_has_decided_is_in_redis_when_it_has_ended(start, store):
    server = start(REDIS_URL=store.url)
    assert server.enhance().status_code == 200
    assert server.stop() == 0

    with store.client() as client:
        (lane,) = (text for name, text in client.hgetall(NAME).items() if name.startswith(b"lane "))
    assert re.search(rb",\[\],\[\],{[^{}]*}\]$", lane), "its call is still in flight"


def test_renders_arguments_are_survived(start):
    server = start(
        WEB_CONCURRENCY="2", RENDER="true", GUNICORN_CMD_ARGS="--preload --access-logfile - --bind=0.0.0.0:0"
    )

    assert [server.enhance().status_code for _ in range(3)] == [200] * 3

    assert len(server.workers()) == 1
    assert server.stop() == 0
    assert server.output.count('"POST /enhance HTTP/1.1" 200') == 3


def test_idle_connections_are_kept_longer_than_herokus_router_keeps_them():
    command = [str(BIN / "gunicorn"), "--print-config"]

    settings = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True).stdout

    (seconds,) = re.findall(r"^keepalive\s*= (\d+)$", settings, re.MULTILINE)
    assert int(seconds) > 90


@shared
def test_a_connection_serves_several_requests(server):
    connection = HTTPConnection("127.0.0.1", server.port)

    ports = set()
    for _ in range(3):
        connection.request("GET", "/health")
        connection.getresponse().read()
        ports.add(connection.sock and connection.sock.getsockname())
    connection.close()

    assert len(ports) == 1
    assert None not in ports


@pytest.mark.parametrize("command", [PROCFILE, [*PROCFILE, "--preload"], ["flask", "run", "--port", "0"]], ids=" ".join)
def test_a_malformed_setting_stops_the_start_with_one_line(command):
    env = environment(GROQ_API_KEYS="gsk_sécret")

    ended = subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, env=env, capture_output=True, timeout=20)

    assert ended.returncode not in (0, None)
    assert re.fullmatch(r"❌ GROQ_API_KEYS must be [^\n]+\n", ended.stderr.decode())
    assert "gsk_" not in (ended.stdout + ended.stderr).decode()


def test_flask_run_takes_the_port_of_flaskenv(start, tmp_path):
    for file in [*ROOT.glob("*.py"), ROOT / ".flaskenv"]:
        shutil.copy(file, tmp_path)
    shutil.copytree(ROOT / "promptlord", tmp_path / "promptlord")
    flaskenv = tmp_path / ".flaskenv"
    assert "FLASK_RUN_PORT=3000\n" in flaskenv.read_text()
    flaskenv.write_text(flaskenv.read_text().replace("3000", port := free_port()))

    server = start(["flask", "run"], cwd=tmp_path, PYTHON_DOTENV_DISABLED="")

    assert server.port == int(port)
    assert server.enhance().status_code == 200


# Stop


@pytest.mark.parametrize("platform", ["Render", "Heroku"])
def test_what_is_in_flight_at_sigterm_is_answered(start, sim, platform):
    sim.latency = 2.0
    server = start()
    with ThreadPoolExecutor(20) as pool:
        calls = [pool.submit(lambda: server.enhance().status_code) for _ in range(20)]
        for _ in poll():
            if len(sim.calls) == 20:
                break

        if platform == "Heroku":  # signals every process, not only the first
            for worker in server.workers():
                os.kill(worker, signal.SIGTERM)
        code = server.stop()

    assert [call.result() for call in calls] == [200] * 20
    assert code == 0
    assert "Traceback" not in server.output


@both("who has connected and is not accepted yet is dropped as it stops (ThreadWorker.run, gunicorn#3397)")
@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_requests_around_sigterm_are_answered_or_refused(start, sim, worker, connection):
    sim.latency = 0.5
    server = start([*PROCFILE, *worker])
    with ThreadPoolExecutor(12) as pool:
        prompts = ["ping", "write a poem about rain"] * 6
        hammers = [pool.submit(hammer, server, prompt, connection) for prompt in prompts]
        for _ in poll():
            if len(sim.calls) >= 12:
                break

        code = server.stop()

    met = sum((hammer.result() for hammer in hammers), Counter())
    print(met)
    assert code == 0
    assert met.pop("refused") == 12
    # One may meet the instant between the last accept and the end of listening.
    assert met.total() - met[200] <= 1


@both("a thread that still serves is waited for (ThreadWorker.handle_quit, which joins its threads)")
def test_ctrl_c_ends_at_once_whatever_is_in_flight(start, sim, worker):
    sim.latency = 6
    server = start([*PROCFILE, *worker])
    with ThreadPoolExecutor(1) as pool:
        press = pool.submit(server.enhance)
        for _ in poll():
            if sim.calls:
                break

        server.signal(signal.SIGINT)
        began = time.monotonic()
        server.process.wait(timeout=35)

        assert time.monotonic() - began < 3
        assert isinstance(press.exception(), requests.ConnectionError)


def hammer(server: Server, prompt: str, connection: str) -> Counter[object]:
    """Enhance until nobody listens any more; count the statuses and what else was met."""
    met: Counter[object] = Counter()
    client = HTTPConnection("127.0.0.1", server.port, timeout=20)
    headers = {"Content-Type": "application/json", "Connection": connection}
    while not met["refused"]:
        try:
            client.request("POST", "/enhance", f'{{"prompt": "{prompt}"}}', headers)
            response = client.getresponse()
            response.read()
            met[response.status] += 1
        except ConnectionRefusedError:
            met["refused"] += 1
        except (OSError, HTTPException) as error:
            client.close()
            met[type(error).__name__] += 1
    return met


# Under load


def test_slow_requests_do_not_keep_a_health_check_waiting(start, sim):
    calls, slow, timeout = 100, 60, 4
    server = start(REQUEST_TIMEOUT_SECONDS=str(timeout), THREADS="64")
    sim.order(Trouble.stall(10), times=None)
    with ThreadPoolExecutor(calls) as pool:
        began = time.monotonic()
        under_way = [pool.submit(seconds_of, server.enhance) for _ in range(calls)]
        for _ in poll():
            if len(sim.calls) == slow:
                break

        checks = [seconds_of(server.health)[0] for _ in range(5)]

        assert time.monotonic() - began < timeout, "the slow ones ended before all checks were made"
        answers = [call.result() for call in under_way]

    print(f"/health beside {calls} slow requests: {max(checks):.3f} s at most")
    assert max(checks) < timeout / 4  # 0.01 s on an idle machine
    assert Counter(answer.status_code for _, answer in answers) == Counter({504: slow}) + Counter({503: calls - slow})
    surplus = [(took, answer) for took, answer in answers if answer.status_code == 503]
    assert all(took < timeout - 1 and int(answer.headers["Retry-After"]) >= 1 for took, answer in surplus)


# Logs


@pytest.mark.parametrize(("env", "stamp"), [({"RENDER": "true"}, ""), ({}, STAMP)], ids=["Render's stamps", "stamped"])
def test_the_log_says_what_happened_in_the_promised_words(start, sim, env, stamp):
    server = start(**env)
    sim.order(Trouble.rate_limit(), key="gsk_one")

    assert [server.enhance().status_code for _ in range(2)] == [200] * 2

    ours = re.findall(rf"^{stamp}([^\w\[].*)", server.output, re.MULTILINE)
    assert ours[0] == "✅ Loaded 3 Groq API key(s)"
    assert re.fullmatch(r"❌ Groq API Error \(Key #1\): Rate limit exceeded.*", ours[1])
    assert ours[2:] == [
        "⚠️  API Key #1 marked as failed (fail count: 1)",
        "✅ Request successful with API Key #2",
        "✅ Request successful with API Key #2",
    ]


def test_a_refused_request_leaves_one_stamped_line_and_a_good_one_none(start):
    server = start()

    assert server.health().status_code == 200
    assert requests.post(f"{server.url}/enhance", json={"prompt": ""}, timeout=20).status_code == 400
    server.wait_for(rf"(?m)^{STAMP}⛔ 400 POST /enhance after \d\.\d\d s: Prompt must be a non-empty string$")

    assert server.output.count("⛔") == 1


def test_no_secret_is_in_any_output_or_error(start, sim):
    server = start(
        LOG_LEVEL="DEBUG",
        REQUEST_TIMEOUT_SECONDS="1",
        KEY_COOLDOWN_SECONDS="0.1",
        GUNICORN_CMD_ARGS="--log-level debug --access-logfile -",
    )
    prompt, text = "a poem about marzipan", "You are a pastry chef"
    leak = " ".join([*KEYS, *KEYS.values(), prompt, text])
    faults = [
        *(Trouble.rate_limit(0.05, dimension) for dimension in ("RPM", "TPM", "RPD", "TPD")),
        *(Trouble.status(status) for status in (401, 403, 404, 413, 422, 498, 500)),
        *(
            Trouble.status(status, {"error": {"message": leak, "code": leak, "type": leak}})
            for status in (400, 429, 503)
        ),
        *(Trouble.status(status, f"<html>{leak}", {"x-request-id": leak}) for status in (200, 502)),
        *(Trouble.named(name) for name in ("organization_restricted", "reset", "close", "truncate", "garbage")),
        *(Trouble.content(), Trouble.length(text), Trouble.stall(10), Trouble.content(text)),
    ]
    for fault in faults:
        sim.order(fault)

    answers = []
    for _ in poll():
        answers.append(server.enhance(prompt))
        if len(sim.calls) >= len(faults) and answers[-1].status_code == 200:
            break
    answers.append(requests.post(f"{server.url}/enhance", data=f'{{"prompt": "{prompt}', timeout=20))

    said = [f"{answer.headers} {answer.text}" for answer in answers if answer.status_code != 200]
    assert len(sim.calls) >= len(faults)
    assert len(said) > 5
    for secret in ("gsk_", *KEYS, "org_", *KEYS.values(), "marzipan", "pastry"):
        assert secret not in server.output
        assert not [each for each in said if secret in each]
