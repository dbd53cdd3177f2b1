"""Clients that press of several servers, and what servers that share a Redis know of each other."""

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import NamedTuple

import requests
from completions import draft_of
from conftest import Server, poll
from groqsim import MODELS, GroqSim, Limits, Received, Trouble

FREELY = {"GROQ_MODELS": MODELS[0], "KEY_REQUESTS_PER_MINUTE": "0"}  # settings that hold nobody back
NO_LIMITS = Limits(None, None, None, None)
SOON = 1.0  # seconds within which a request is served while Groq answers at once, if the machine is idle
SURELY = 5.0  # likewise, on a busy one
TOGETHER = 12.0  # seconds within which processes share again


class Press(NamedTuple):
    """What a client met: with which prompt, begun when, after how many seconds; status 0 if its connection failed."""

    server: Server
    prompt: str
    began: float
    seconds: float
    status: int


def press(server: Server, prompt: str = "write a poem about rain", timeout: float = 10) -> requests.Response:
    return server.enhance(prompt, timeout)


def heard(server: Server, prompt: str) -> Press:
    began, status = time.monotonic(), 0
    with suppress(requests.RequestException):
        status = press(server, prompt, timeout=20).status_code
    return Press(server, prompt, began, time.monotonic() - began, status)


@contextmanager
def pressed(servers: Sequence[Server], clients: int = 5, pause: float = 0.15) -> Iterator[list[Press]]:
    """Meanwhile so many clients of each press one time after the other; yields what they meet."""
    met: list[Press] = []
    over, numbers = threading.Event(), itertools.count()

    def client(server: Server) -> None:
        while not over.is_set():
            met.append(heard(server, f"meanwhile ({next(numbers)})"))
            over.wait(pause)

    with ThreadPoolExecutor(clients * len(servers)) as crew:
        jobs = [crew.submit(client, server) for server in [*servers] * clients]
        try:
            yield met
        finally:
            over.set()
    for job in jobs:
        job.result()


def prompt_of(call: Received) -> str:
    return draft_of(call.json["messages"][-1])


def keys_of(sim: GroqSim, prompts: str = "") -> list[str]:
    """Those called for prompts that begin so, in order."""
    return [call.key for call in sim.calls if prompt_of(call).startswith(prompts)]


def refusals(sim: GroqSim) -> int:
    return sum(call.status == 429 for call in sim.calls)


def assert_turns_are_taken(sim: GroqSim, *servers: Server, within: float = TOGETHER) -> None:
    """Soon keys follow one another, whichever server is asked."""
    order = [*sim.keys] * (len(servers) + 1)
    for _ in poll(within, every=0.2):
        sim.forget()
        for server in servers * 2:
            assert press(server).status_code == 200
        keys = keys_of(sim)
        if keys == order[(first := order.index(keys[0])) : first + len(keys)]:
            return
    raise AssertionError(f"each goes on alone: {keys}")


def assert_shared(sim: GroqSim, *servers: Server, within: float = TOGETHER) -> None:
    """Soon they take turns together, and what one is told the others know."""
    assert_turns_are_taken(sim, *servers, within=within)
    meet_a_limit(sim, servers[0], "gsk_one")
    sim.forget()
    for server in servers[1:] * 3:
        press(server)
    assert "gsk_one" not in keys_of(sim)


def meet_a_limit(sim: GroqSim, server: Server, key: str, seconds: float = 30.0) -> None:
    """Have it refused with this key, by the third turn at the latest."""
    sim.order(Trouble.rate_limit(seconds), key=key)
    before = refusals(sim)
    for _ in sim.keys:
        assert press(server, "meets a limit").status_code == 200
        if refusals(sim) > before:
            return
    raise AssertionError(f"{key} is not called")


def assert_no_fault(*servers: Server) -> None:
    for server in servers:
        _, fault, more = server.output.partition("Traceback")
        assert not fault, more[:4000]


def warnings(server: Server) -> int:
    """Lines that warn of something else than a key."""
    lines = [line for line in server.output.splitlines() if "⚠️" in line]
    return sum("API Key" not in line for line in lines)
