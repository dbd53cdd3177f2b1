"""What it costs: start, memory, an enhancement, an event of a stream; beside a naive app and Node, in turn, in one run.

Where a cgroup can be made, the start is felt on a tenth of a processor, too. python tools/bench.py --only costs
"""

import json
import math
import os
import selectors
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from completions import draft_of, enhanced
from distances import BEYOND
from groqsim import MODELS
from latency import MILLISECONDS, table, verdict
from rig import ROOT, STARTS_IN, TOKEN, beside, cpu, enhance, free_port, groq, pss, running, workers_of
from together import CLIENTS, WARM, press_for, pressing
from workload import PROMPTS

ROUNDS = 5  # of each figure, of all servers in turn
LOAD = 2.0  # seconds of enhancements in a round
STREAMS = 20  # at a time
PAUSE = 0.02  # seconds between a stream's events
LISTEN = 2.0  # seconds of events in a round
COUNT = "Count."
EVENTS = 4000  # of a stream, more than all rounds take
RESTS = 1.0  # seconds until memory is looked at
KEYS = {f"gsk_costs_{number}": f"org_{number}" for number in range(3)}
CPU_GROUPS = Path("/sys/fs/cgroup/cpu")
OURS, NAIVE, NODE = "ours", "naive", "Node"


class Server(NamedTuple):
    """How one is started, on a port that its settings name."""

    command: Sequence[str]
    where: Path
    settings: Mapping[str, str]


class Running(NamedTuple):
    port: int
    pid: int
    began: float

    @property
    def pids(self) -> list[int]:
        return [self.pid, *workers_of(self.pid)]

    @property
    def cpu(self) -> float:
        """Seconds of processor, of all its processes."""
        return sum(map(cpu, self.pids))

    def memory(self) -> float:
        """MB that all of them have, a moment later."""
        time.sleep(RESTS)
        return sum(map(pss, self.pids))

    def first_answer(self) -> None:
        """Press until there is an answer."""
        while time.monotonic() < self.began + STARTS_IN:
            with suppress(OSError):
                status, _, error = enhance(self.port, PROMPTS[0])
                assert status == 200, (status, error)
                return
            time.sleep(0.01)
        raise SystemExit("A server does not start")


def servers(url: str) -> dict[str, Server]:
    """Ours as a user starts it, with limits for its clients that these do not reach, and the others."""
    python, peers = [sys.executable, "-m", "gunicorn"], ROOT / "tools" / "peers"
    ours = {
        "GROQ_API_KEYS": ",".join(KEYS),
        "CLIENT_LIMITS": "100000 per 2 seconds;1000000 per minute",
        "ACCESS_TOKENS": TOKEN,
        "PYTHON_DOTENV_DISABLED": "1",
    }
    theirs = {"GROQ_API_KEY": next(iter(KEYS))}
    gthread = ["--worker-class", "gthread", "--threads", "64", "--keep-alive", "100", "naive:app"]
    found = {OURS: Server(python, ROOT, ours), NAIVE: Server([*python, *gthread], peers, theirs)}
    if node := shutil.which("node"):
        found[NODE] = Server([node, "node.mjs"], peers, theirs)
    return {name: each._replace(settings={**each.settings, "GROQ_BASE_URL": url}) for name, each in found.items()}


@contextmanager
def up(server: Server, before: Sequence[str] = ()) -> Iterator[Running]:
    """Started, behind a command that starts it."""
    port, began = free_port(), time.monotonic()
    settings = {"PORT": f"{port}", "GUNICORN_CMD_ARGS": f"--bind 127.0.0.1:{port}", **server.settings}
    with running([*before, *server.command], server.where, settings) as pid:
        yield Running(port, pid, began)


def start(server: Server) -> tuple[float, float]:
    """Seconds of processor from the start to the first answer, and MB of memory a moment later."""
    with up(server) as one:
        one.first_answer()
        return one.cpu, one.memory()


def felt(server: Server) -> float:
    """Seconds from the start to the first answer on a tenth of a processor. Raises ``OSError`` without cgroups."""
    group = CPU_GROUPS / f"promptlord-{os.getpid()}"
    group.mkdir()
    try:
        (group / "cpu.cfs_period_us").write_text("100000")
        (group / "cpu.cfs_quota_us").write_text("10000")
        with up(server, ["/bin/sh", "-c", f'echo $$ > {group}/tasks; exec "$@"', "sh"]) as one:
            one.first_answer()
            took = time.monotonic() - one.began
            for pid in one.pids:  # to end in its own time
                (CPU_GROUPS / "tasks").write_text(f"{pid}")
            return took
    finally:
        group.rmdir()


def enhancements(name: str, one: Running, stack: ExitStack) -> Callable[[], float]:
    """What measures seconds of processor for one, while all clients ask without a pause."""
    pipe = stack.enter_context(beside(pressing, [one.port]))
    press_for(pipe, WARM)

    def measure() -> float:
        before = one.cpu
        times, statuses, _ = press_for(pipe, LOAD)
        assert statuses.keys() == {200}, (name, statuses)
        return (one.cpu - before) / len(times)

    return measure


def events(name: str, one: Running, stack: ExitStack) -> Callable[[], float]:
    """What measures seconds of processor for one event, while all streams have some."""
    pipe = stack.enter_context(beside(_listen, one.port))

    def count() -> int:
        pipe.send("count")
        counted: int = pipe.recv()
        return counted

    while count() < STREAMS:
        time.sleep(PAUSE)

    def measure() -> float:
        had, before = count(), one.cpu
        time.sleep(LISTEN)
        took, came = one.cpu - before, count() - had
        assert came > LISTEN / PAUSE * STREAMS / 2, (name, came)
        return took / came

    return measure


def _listen(pipe: Connection, port: int) -> None:
    """Take in all streams in one thread; tell how many events have come, as often as it is asked."""
    asked = {
        "model": MODELS[0],
        "stream": True,
        "max_completion_tokens": EVENTS,
        "messages": [{"role": "user", "content": COUNT}],
    }
    body, came = json.dumps(asked).encode(), 0
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with selectors.DefaultSelector() as waiting:
        waiting.register(pipe, selectors.EVENT_READ)
        for _ in range(STREAMS):
            stream = socket.create_connection(("127.0.0.1", port))
            stream.sendall(head.encode() + body)
            waiting.register(stream, selectors.EVENT_READ)
        while True:
            for key, _ in waiting.select():
                if key.fileobj is pipe:
                    pipe.recv()
                    pipe.send(came)
                else:
                    data = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                    came += data.count(b"data: ")
                    if not data:
                        waiting.unregister(key.fileobj)


def in_turn(measures: Mapping[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, float]:
    """Medians of rounds in which all have their turn."""
    taken = [{name: measure() for name, measure in measures.items()} for _ in range(rounds)]
    return {name: median(each[name] for each in taken) for name in measures}


def starts() -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of processor, and MB."""
    with groq({"keys": KEYS, "limits": BEYOND}, {}) as sim:
        taken = [{name: start(server) for name, server in servers(sim.url).items()} for _ in range(ROUNDS)]
    seconds, memory = ({name: median(each[name][figure] for each in taken) for name in taken[0]} for figure in (0, 1))
    return seconds, memory


def felts() -> dict[str, float]:
    with groq({"keys": KEYS, "limits": BEYOND}, {}) as sim:
        return in_turn({name: partial(felt, server) for name, server in servers(sim.url).items()}, 3)


def under_load(
    measure: Callable[[str, Running, ExitStack], Callable[[], float]], *without: str
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of processor, and MB after all that."""
    settings = {"keys": KEYS, "limits": BEYOND, "chunk_pause": PAUSE, "reply": _reply}
    with ExitStack() as stack:
        sim = stack.enter_context(groq(settings, {}))
        all_up = {name: stack.enter_context(up(each)) for name, each in servers(sim.url).items() if name not in without}
        for one in all_up.values():
            one.first_answer()
        seconds = in_turn({name: measure(name, one, stack) for name, one in all_up.items()})
        return seconds, {name: one.memory() for name, one in all_up.items()}


def _reply(request: dict[str, Any]) -> str:
    return "and " * EVENTS if draft_of(request["messages"][-1]) == COUNT else enhanced(request)


class Figure(NamedTuple):
    """``peer`` and ``most``: so many times that one's it may be; ``before``: what it was, and so many times."""

    name: str
    unit: float
    digits: int
    peer: str
    most: float
    before: str


FIGURES = (
    Figure("start to the first answer, s of processor", 1, 2, NAIVE, 1.2, "0.38, 1.62 ×"),
    Figure("memory at rest, MB (PSS)", 1, 1, NAIVE, 1.12, "57.6, 1.33 ×"),
    Figure("an enhancement, ms of processor", MILLISECONDS, 2, NAIVE, 1.0, "2.16, 1.20 ×"),
    Figure("memory after so many of them, MB (PSS)", 1, 1, NAIVE, math.inf, "58.4, 1.38 ×"),
    Figure("an event, µs of processor", 1e6, 0, NODE, 1.5, "119, 2.14 ×"),
)
FELT = Figure("start to the first answer on a tenth of a processor, s", 1, 1, NAIVE, math.inf, "4.0, 1.65 ×")


def costs() -> tuple[str, bool]:
    """Measure; return tables, and whether all is as it must be."""
    found = [*starts(), *under_load(enhancements), under_load(events, NAIVE)[0]]
    rows = [_row(figure, each) for figure, each in zip(FIGURES, found, strict=True)]
    good = all(times is None or times <= figure.most for figure, (_, times) in zip(FIGURES, rows, strict=True))
    told = [row for row, _ in rows]
    with suppress(OSError):  # cgroups are root's
        told.append(_row(FELT, felts())[0])
    head = ("what", "ours", "naive app", "bare Node", "times", "before", "must")
    about = f"""\
Medians of {ROUNDS} rounds in turn. Calls come from {CLIENTS} clients without a pause, counted, below their limits;
events are those of {STREAMS} streams, one each {PAUSE * MILLISECONDS:.0f} ms. Before: when this was first measured."""
    return f"{about}\n\n{table(head, told)}", good


def _row(figure: Figure, found: Mapping[str, float]) -> tuple[list[str], float | None]:
    """Its cells, and how many times the other's it is, if that one is here."""
    cells = [f"{found[name] * figure.unit:.{figure.digits}f}" if name in found else "–" for name in (OURS, NAIVE, NODE)]
    if figure.peer not in found:
        return [figure.name, *cells, "–", "–", "–"], None
    times = found[OURS] / found[figure.peer]
    must = verdict(f"≤ {figure.most:g}", times <= figure.most) if figure.most < math.inf else "–"
    return [figure.name, *cells, f"{times:.2f} × {figure.peer}", figure.before, must], times


if __name__ == "__main__":
    print(costs()[0])
