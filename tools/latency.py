"""What the service adds to a call: time, processor, memory; each against the same call made directly, in one run."""

import http.client
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple
from urllib.parse import urlsplit

from groqsim import MODELS, Limits
from rig import TOKEN, Service, cpu, groq, health, service

PAIRS = 400  # of a direct call and one through the service, in turn
CLIENTS = 8  # that call without a pause
LOAD = 5.0  # seconds of their calls
STREAMS = 60  # at a time
PAUSE = 0.05  # seconds between a stream's events
KEYS = {f"gsk_{number}": f"org_{number}" for number in range(3)}
MILLISECONDS = 1000
UNLIMITED = Limits(None, None, None, None)


class Place(NamedTuple):
    """Where a call goes: straight to the simulated Groq, or through the service."""

    port: int
    key: str


def latency() -> str:
    """Measure, and return tables in Markdown."""
    with groq({"keys": KEYS, "limits": UNLIMITED}, {}) as plain, started(plain.url, 64) as served:
        calls = pairs(_direct(plain.url), Place(served.port, TOKEN), stream=False)
        streams = pairs(_direct(plain.url), Place(served.port, TOKEN), stream=True)
        per_second, cpu = load(served)
    head = ("THREADS", "streams served", "slowest, s (one alone, directly)", "/health meanwhile, ms", "MB before, then")
    return f"""\
{table(("to the first byte, p50 and p99 in ms", "directly", "through the service", "added"), [calls, streams])}

{per_second:.0f} calls a second with {CLIENTS} clients, {cpu:.2f} ms of processor each.
{served.started_in:.2f} s from the start to the first answer.

{STREAMS} streams at a time, with an event each {PAUSE * MILLISECONDS:.0f} ms:

{table(head, [_threads(count) for count in (64, 128, 256)])}"""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def verdict(must: str, holds: bool) -> str:
    """What a result has to show, and whether it does."""
    return f"{must}: {'ok' if holds else 'FAILED'}"


def started(url: str, threads: int) -> AbstractContextManager[Service]:
    return service(url, list(KEYS), MODELS, KEY_REQUESTS_PER_MINUTE="0", THREADS=str(threads))


def _direct(url: str) -> Place:
    return Place(urlsplit(url).port or 80, next(iter(KEYS)))


def pairs(direct: Place, ours: Place, *, stream: bool) -> list[str]:
    """Call both in turn on connections kept alive; return a row of their p50 and p99, to the first byte of a body."""
    taken: tuple[list[float], list[float]] = ([], [])
    with ExitStack() as opened:
        both = [
            (opened.enter_context(closing(http.client.HTTPConnection("127.0.0.1", place.port))), place, times)
            for place, times in zip((direct, ours), taken, strict=True)
        ]
        for _ in range(PAIRS):
            for connection, place, times in both:
                first, _, status = call(connection, place, stream=stream)
                assert status == 200, (place, status)
                times.append(first * MILLISECONDS)
    cuts = [quantiles(times, n=100) for times in taken]
    (d50, d99), (o50, o99) = ((cut[49], cut[98]) for cut in cuts)
    name = "a stream's first event" if stream else "a plain call"
    return [name, f"{d50:.1f}, {d99:.1f}", f"{o50:.1f}, {o99:.1f}", f"{o50 - d50:.1f}, {o99 - d99:.1f}"]


def call(connection: http.client.HTTPConnection, place: Place, *, stream: bool) -> tuple[float, float, int]:
    """Make one call; return the seconds to its first byte and to its last, and its status."""
    body = {
        "model": MODELS[0],
        "stream": stream,
        "max_completion_tokens": 300,
        "messages": [{"role": "user", "content": "a poem about rain"}],
    }
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {place.key}"}
    began = time.perf_counter()
    prefix = "/v1" if place.key == TOKEN else "/openai/v1"
    connection.request("POST", f"{prefix}/chat/completions", json.dumps(body), headers)
    response = connection.getresponse()
    response.read(1)
    first = time.perf_counter() - began
    response.read()
    return first, time.perf_counter() - began, response.status


def load(served: Service) -> tuple[float, float]:
    """Calls a second from clients without a pause, and the worker's milliseconds of processor for each."""
    until, before = time.monotonic() + LOAD, cpu(served.worker)
    counts: list[int] = []

    def client() -> None:
        count = 0
        with closing(http.client.HTTPConnection("127.0.0.1", served.port)) as connection:
            while time.monotonic() < until:
                call(connection, Place(served.port, TOKEN), stream=False)
                count += 1
        counts.append(count)

    _together([client] * CLIENTS)
    return sum(counts) / LOAD, (cpu(served.worker) - before) / sum(counts) * MILLISECONDS


def _threads(count: int) -> list[str]:
    """A row for this number of threads, under ``STREAMS`` streams at a time."""
    settings = {"keys": KEYS, "limits": UNLIMITED, "chunk_pause": PAUSE}
    with groq(settings, {}) as slow, started(slow.url, count) as served:
        alone, _ = _stream(_direct(slow.url))
        before = _memory(served.worker)
        taken: list[tuple[float, int]] = []
        seen: list[float] = []

        def look() -> None:
            time.sleep(alone / 2)
            seen.extend((health(served.port), _memory(served.worker)))

        _together([*[lambda: taken.append(_stream(Place(served.port, TOKEN)))] * STREAMS, look])
    good = [seconds for seconds, status in taken if status == 200]
    took, memory = seen
    slowest = f"{max(good):.1f} ({alone:.1f})"
    return [str(count), f"{len(good)}", slowest, f"{took * MILLISECONDS:.0f}", f"{before:.0f}, {memory:.0f}"]


def _stream(place: Place) -> tuple[float, int]:
    with closing(http.client.HTTPConnection("127.0.0.1", place.port, timeout=60)) as connection:
        _, seconds, status = call(connection, place, stream=True)
    return seconds, status


def _together(tasks: Sequence[Callable[[], object]]) -> None:
    threads = [threading.Thread(target=task) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _memory(pid: int) -> float:
    """Megabytes that a process has in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    print(latency())
