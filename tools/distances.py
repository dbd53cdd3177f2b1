"""How long requests and pages wait for a Redis that is far away, beside one that is near, and none at all."""

import http.client
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from itertools import cycle, islice
from typing import NamedTuple

from faraway import faraway
from groqsim import MODELS, Limits
from latency import MILLISECONDS, table, verdict
from rig import TOKEN, RedisServer, enhance, groq, redis_url, services
from workload import PROMPTS

BEYOND = Limits(1_000_000, 1_000_000_000, 1_000_000_000, None)  # a paid plan that nobody uses up
DISTANCES = (0.0, 0.02, 0.1, 0.4)  # seconds of round trip; the near one comes first
NUMBERS = (1, 2)  # of processes
ONCE = 12  # requests at the same instant
LATENCY = 0.3  # seconds of each of Groq's answers
PAGES = ("/health", "/status")
LOOKS = 0.05  # seconds between two looks at each
LONG = 30.0  # seconds; nobody looks at a page for longer
QUICK = 0.05  # seconds for each look
ALONE = 0.3  # seconds for an operation in Redis, after which a process goes on alone
AGAIN = 12.0  # seconds, in which a process that goes on alone tries Redis again
NOISE = 0.06  # seconds that the same takes now more, now less


class Burst(NamedTuple):
    """Seconds: of the first request, of the last of ``ONCE``, of each page's slowest look; and how many were served."""

    first: float
    last: float
    pages: Sequence[float]
    served: int

    def or_slower(self, other: "Burst") -> "Burst":
        """The worse of each."""
        pages = [*map(max, self.pages, other.pages)]
        return Burst(self.first, max(self.last, other.last), pages, min(self.served, other.served))


def burst(processes: int, round_trip: float | None) -> Burst:
    """``None``: there is no Redis."""
    keys = {f"gsk_faraway_{number}": f"org_{number}" for number in range(3)}
    settings = {"keys": keys, "limits": BEYOND, "models": MODELS[:1], "latency": LATENCY}
    with ExitStack() as stack:
        sim, setting = stack.enter_context(groq(settings, {})), {}
        if round_trip is not None:
            redis = stack.enter_context(closing(RedisServer()))
            way = stack.enter_context(faraway(redis.port, round_trip))
            setting = {"REDIS_URL": redis_url(way.port)}
        ours = stack.enter_context(services(processes, sim.url, [*keys], MODELS[:1], **setting))
        ports = [service.port for service in ours]
        first = max(press(port, PROMPTS[0])[1] for port in ports)
        until = time.monotonic() + (AGAIN if round_trip and round_trip > ALONE else 0.0)
        slowest = at_once(ports, first)
        while time.monotonic() < until:
            slowest = slowest.or_slower(at_once(ports, first))
        return slowest


def at_once(ports: Sequence[int], first: float) -> Burst:
    """Press at the same instant, spread over the ports, and look at their pages meanwhile."""
    over = threading.Event()
    with ThreadPoolExecutor(ONCE + len(PAGES) * len(ports)) as crew:
        looks = [[crew.submit(watch, port, page, over) for port in ports] for page in PAGES]
        try:
            prompts = [f"{PROMPTS[0]} ({number})" for number in range(ONCE)]
            responses = [*crew.map(press, islice(cycle(ports), ONCE), prompts)]
        finally:
            over.set()
        pages = [max(look.result() for look in of_page) for of_page in looks]
    served = sum(status == 200 for status, _ in responses)
    return Burst(first, max(seconds for _, seconds in responses), pages, served)


def press(port: int, prompt: str) -> tuple[int, float]:
    """Ask for an enhancement; return its status, 0 if there is none in time, and its seconds."""
    began, status = time.perf_counter(), 0
    with suppress(TimeoutError):
        status, _, _ = enhance(port, prompt)
    return status, time.perf_counter() - began


def watch(port: int, page: str, over: threading.Event) -> float:
    """Look at a page again and again; return the seconds of the slowest look."""
    slowest = 0.0
    while not over.is_set():
        slowest = max(slowest, look(port, page))
        over.wait(LOOKS)
    return slowest


def look(port: int, page: str) -> float:
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG)
    with closing(connection), suppress(TimeoutError):
        connection.request("GET", page, headers={"Authorization": f"Bearer {TOKEN}"})
        connection.getresponse().read()
    return time.perf_counter() - began


def distances() -> tuple[str, bool]:
    """Measure each of ``DISTANCES``; return a table, and whether all is as it must be."""
    rows, good = [row(("alone", "–"), burst(1, None), [])], True
    for processes in NUMBERS:
        near = None
        for round_trip in DISTANCES:
            here = burst(processes, round_trip)
            near = near or here
            musts = musts_of(here, near, round_trip)
            rows.append(row((f"{processes}", f"{round_trip * MILLISECONDS:.0f}"), here, musts))
            good = good and all(holds for _, holds in musts)
    head = ("processes", "round trip, ms", "first, s", f"last of {ONCE}, s", f"{' and '.join(PAGES)}, ms", "must")
    about = f"Redis far away: a first request, then {ONCE} at the same instant; answers after {LATENCY} s."
    about += f" Where an operation takes more than {ALONE} s, the slowest of many times, for {AGAIN:.0f} s:"
    return f"{about}\n\n{table(head, rows)}", good


def musts_of(here: Burst, near: Burst, round_trip: float) -> list[tuple[str, bool]]:
    """Two round trips more than a near Redis takes, or what an operation may take, and the machine's noise."""
    more = min(2 * round_trip, ALONE)
    return [
        (f"{ONCE} served", here.served == ONCE),
        (f"≤ {near.last + more + NOISE:.2f} s", here.last <= near.last + more + NOISE),
        (f"pages < {QUICK * MILLISECONDS:.0f} ms", max(here.pages) < QUICK),
    ]


def row(name: Sequence[str], here: Burst, musts: Sequence[tuple[str, bool]]) -> list[str]:
    pages = ", ".join(f"{seconds * MILLISECONDS:,.0f}" for seconds in here.pages)
    must = "; ".join(verdict(*each) for each in musts) or "–"
    return [*name, f"{here.first:.2f}", f"{here.last:.2f}", pages, must]
