"""What a start and a stream's event may cost, told by what they do, and not by a clock."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import requests
from conftest import ROOT, Server, environment
from groqsim import GroqSim
from v1_client import CHAT, TOKEN, streamed

UNUSED = {"asyncio", "limits", "prometheus_client", "promptlord.check_keys", "redis"}
START = """
import runpy, sys
runpy.run_path("gunicorn.conf.py")
print(*sys.modules)
import promptlord.gunicorn_worker, app
print(*sys.modules)
"""
EVENT = b'data: {"choices": [{"delta": {"content": "and "}}]}\n\n'
FEW, MANY = 40, 140


def modules_of(**env: str) -> list[set[str]]:
    """What gunicorn's master imports for the settings, and what a worker has in the end."""
    told = subprocess.run(
        [sys.executable, "-c", START], cwd=ROOT, env=environment(**env), capture_output=True, text=True, check=True
    )
    return [set(line.split()) for line in told.stdout.splitlines()]


def test_a_bare_start_imports_nothing_that_it_does_not_use() -> None:
    settings, all_of_it = modules_of(GROQ_API_KEYS="gsk_one")

    assert "flask" in all_of_it
    assert not UNUSED & all_of_it
    assert not {"flask", "requests", "urllib3"} & settings  # the master's memory, too


def test_redis_is_imported_by_who_has_one() -> None:
    _, all_of_it = modules_of(GROQ_API_KEYS="gsk_one", REDIS_URL="redis://localhost:6379")

    assert "redis" in all_of_it


def cores_of(pid: int) -> set[frozenset[int]]:
    """Those that its threads may run on."""
    return {frozenset(os.sched_getaffinity(int(thread))) for thread in os.listdir(f"/proc/{pid}/task")}


def test_all_threads_of_a_worker_share_one_core(start: Callable[..., Server]) -> None:
    server = start()
    with ThreadPoolExecutor(8) as clients:
        assert [each.status_code for each in clients.map(lambda _: server.enhance(), range(8))] == [200] * 8

    (worker,) = server.workers()
    (cores,) = cores_of(worker)
    assert len(cores) == 1
    assert cores_of(server.process.pid) == {frozenset(os.sched_getaffinity(0))}  # the next worker's choice


def test_workers_that_share_a_redis_are_left_to_the_system(start: Callable[..., Server], redis_url: str) -> None:
    server = start(REDIS_URL=redis_url)
    server.enhance()

    (worker,) = server.workers()
    assert cores_of(worker) == {frozenset(os.sched_getaffinity(0))}


@pytest.fixture
def strace() -> str:
    if not (found := shutil.which("strace")):
        assert "CI" not in os.environ, "CI must install strace"
        pytest.skip("there is no strace here")
    return found


def test_an_event_costs_three_system_calls(start: Callable[..., Server], sim: GroqSim, strace: str) -> None:
    server = start(ACCESS_TOKENS=TOKEN)
    stream(server, sim, 1)
    (worker,) = server.workers()

    few, many = (system_calls(strace, worker, partial(stream, server, sim, count)) for count in (FEW, MANY))

    each = (many - few) / (MANY - FEW)
    print(f"{each:.2f} system calls an event")
    assert 1 < each < 3.3  # to wait for it, to read it, to send it; now and then there is something else


def test_an_enhancement_is_one_packet_each_way(start: Callable[..., Server], strace: str) -> None:
    server = start()
    server.enhance()
    (worker,) = server.workers()

    assert system_calls(strace, worker, lambda: [server.enhance() for _ in range(10)], "sendto") == 20


def stream(server: Server, sim: GroqSim, count: int) -> None:
    """Have so many events, one by one."""
    sim.order(streamed(*[step for _ in range(count) for step in (EVENT, 0.005)], b"data: [DONE]\n\n"))
    url, token = f"{server.url}/v1/chat/completions", {"Authorization": f"Bearer {TOKEN}"}
    assert requests.post(url, json=CHAT | {"stream": True}, headers=token, timeout=20).text.count("and ") == count


def system_calls(strace: str, pid: int, work: Callable[[], object], kind: str = "!futex") -> int:
    """How many a process makes meanwhile; of all kinds, but for those by which its threads take turns."""
    command = [strace, "-f", "-c", "-e", f"trace={kind}", "-p", str(pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr
        assert "attached" in tracer.stderr.readline()
        work()
        tracer.terminate()
        table = tracer.stderr.read()
    _, _, _, calls, *_ = table.splitlines()[-1].split()
    return int(calls)
