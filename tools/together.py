"""Many processes, one pool in Redis: how much they do together, and how long they wait for a Redis that is far away.

Each beside one process alone. The clients are one process more, which takes 0.1 ms of processor a call, the simulated
Groq another, which takes 0.5: neither is counted, but they share the machine's cores with what is measured.
"""

import json
import re
import selectors
import shutil
import socket
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from itertools import cycle, islice
from multiprocessing.connection import Connection
from typing import NamedTuple

from distances import BEYOND, distances
from groqsim import MODELS
from latency import MILLISECONDS, table, verdict
from rig import RedisServer, beside, cpu, groq, services
from workload import PROMPTS

CLIENTS = 16  # that ask again as soon as they are answered
SECONDS = 8.0  # of their asking
WARM = 1.0  # seconds of it before that, in which connections are made and limits learnt
ENOUGH = 60.0  # seconds; who is not answered by then is not waited for


class Bound(NamedTuple):
    """What must be: enhancements a second, times the processor of one process alone, seconds of the 99th in 100."""

    rate: float
    cpu: float
    p99: float


class Load(NamedTuple):
    keys: int
    models: Sequence[str]
    processes: int
    shared: bool = True
    bound: Bound | None = None


class Done(NamedTuple):
    """Seconds of each response, how many of each status, the whole, and of processor: all services' and Redis'."""

    times: list[float]
    statuses: Counter[int]
    took: float
    cpu: float
    redis: float

    @property
    def rate(self) -> float:
        return self.statuses[200] / self.took

    def at(self, share: float) -> float:
        """Seconds within which this share of them is answered."""
        return sorted(self.times)[int(share * len(self.times))]


FEW, MANY = (3, MODELS[:1]), (100, MODELS)
LOADS = (  # what is alone comes first
    (Load(*FEW, 1, False), Load(*FEW, 2), Load(*FEW, 4, True, Bound(300, 1.6, 0.08)), Load(*FEW, 4, False)),
    (Load(*MANY, 1, False), Load(*MANY, 4, True, Bound(200, 2.0, 0.12))),
)


def measure(load: Load, seconds: float) -> Done:
    keys = {f"gsk_together_{number}": f"org_{number}" for number in range(load.keys)}
    with ExitStack() as stack:
        sim = stack.enter_context(groq({"keys": keys, "limits": BEYOND, "models": load.models}, {}))
        redis = stack.enter_context(closing(RedisServer())) if load.shared else None
        setting = {"REDIS_URL": redis.url} if redis else {}
        ours = stack.enter_context(services(load.processes, sim.url, [*keys], load.models, **setting))
        pipe = stack.enter_context(beside(pressing, [service.port for service in ours]))
        press_for(pipe, WARM)
        before, there = sum(cpu(service.worker) for service in ours), cpu(redis.pid) if redis else 0.0
        times, statuses, took = press_for(pipe, seconds)
        after = sum(cpu(service.worker) for service in ours)
        return Done(times, statuses, took, after - before, cpu(redis.pid) - there if redis else 0.0)


def press_for(pipe: Connection, seconds: float) -> tuple[list[float], Counter[int], float]:
    pipe.send(seconds)
    answer: tuple[list[float], Counter[int], float] = pipe.recv()
    return answer


class Client:
    """One connection, kept alive."""

    def __init__(self, port: int, number: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        body = json.dumps({"prompt": f"{PROMPTS[0]} ({number})"})
        head = "POST /enhance HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length:"
        self._request = f"{head} {len(body)}\r\n\r\n{body}".encode()

    def ask(self) -> None:
        self._response, self._began = b"", time.perf_counter()
        self.socket.sendall(self._request)

    def hear(self) -> tuple[int, float] | None:
        """Read some; once all of the response is there, its status and the seconds that it took."""
        if not (data := self.socket.recv(1 << 16)):
            raise ConnectionError("the service closed a connection")
        self._response += data
        head, found, body = self._response.partition(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
        if not found or not length or len(body) < int(length[1]):
            return None
        return int(head.split(b" ", 2)[1]), time.perf_counter() - self._began


def pressing(pipe: Connection, ports: Sequence[int]) -> None:
    """Ask for as many seconds as the pipe says, again and again; say each time what came of it."""
    with selectors.DefaultSelector() as waiting:
        for number, port in enumerate(islice(cycle(ports), CLIENTS)):
            client = Client(port, number)
            waiting.register(client.socket, selectors.EVENT_READ, client)
        while True:
            pipe.send(_rounds(waiting, pipe.recv()))


def _rounds(waiting: selectors.BaseSelector, seconds: float) -> tuple[list[float], Counter[int], float]:
    """One thread for all, for that is cheapest; a client that is not answered in time counts as status 0."""
    times, statuses, began = [], Counter[int](), time.perf_counter()
    for key in waiting.get_map().values():
        key.data.ask()
    busy = CLIENTS
    while busy and (ready := waiting.select(ENOUGH)):
        for key, _ in ready:
            if heard := key.data.hear():
                statuses[heard[0]] += 1
                times.append(heard[1])
                if time.perf_counter() < began + seconds:
                    key.data.ask()
                else:
                    busy -= 1
    statuses[0] += busy
    return times, +statuses, time.perf_counter() - began


def loads(seconds: float) -> tuple[str, bool]:
    """All of ``LOADS``, and whether they are as they must be."""
    rows, good = [], True
    for group in LOADS:
        alone = measure(group[0], seconds)
        for load in group:
            done = alone if load is group[0] else measure(load, seconds)
            musts = load_musts(load.bound, done, alone)
            rows.append(load_row(load, done, alone, musts))
            good = good and all(holds for _, holds in musts)
    head = ("keys × models", "processes", "a second", "processor, ms a call", "× alone", "Redis', ms", "p50 / p99 ms")
    about = f"{CLIENTS} clients without a pause, answers at once; alone is one process without Redis:"
    return f"{about}\n\n{table((*head, 'must'), rows)}", good


def load_musts(bound: Bound | None, done: Done, alone: Done) -> list[tuple[str, bool]]:
    served = [("all served", done.statuses.keys() == {200})]
    if not bound:
        return served
    return [
        *served,
        (f"≥ {bound.rate:.0f} a second", done.rate >= bound.rate),
        (f"processor ≤ {bound.cpu:.1f} × alone", dear(done, alone) <= bound.cpu),
        (f"p99 ≤ {bound.p99 * MILLISECONDS:.0f} ms", done.at(0.99) <= bound.p99),
    ]


def dear(done: Done, alone: Done) -> float:
    """How many times the processor of one alone a call takes."""
    return (done.cpu / len(done.times)) / (alone.cpu / len(alone.times))


def load_row(load: Load, done: Done, alone: Done, musts: Sequence[tuple[str, bool]]) -> list[str]:
    name = "alone" if done is alone else f"{load.processes}" + (", one Redis" if load.shared else ", no Redis")
    share = MILLISECONDS / len(done.times)
    return [
        f"{load.keys} × {len(load.models)}",
        name,
        f"{done.rate:.0f}",
        f"{done.cpu * share:.2f}",
        f"{dear(done, alone):.2f}",
        f"{done.redis * share:.2f}" if load.shared else "–",
        f"{done.at(0.5) * MILLISECONDS:.0f} / {done.at(0.99) * MILLISECONDS:,.0f}",
        "; ".join(verdict(*must) for must in musts) or "–",
    ]


def together(seconds: float) -> tuple[str, bool]:
    """Measure, for a while that ``seconds`` of the whole benchmark leave; return tables, and whether all is good."""
    if not shutil.which("redis-server"):
        return "Not measured: there is no redis-server on this machine.", False
    busy, busy_good = loads(min(SECONDS, seconds / 20))
    far, far_good = distances()
    return f"{busy}\n\n{far}", busy_good and far_good
