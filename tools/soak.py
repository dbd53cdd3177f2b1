"""A soak: thousands of requests, one in five upstream calls failing, clients that misbehave, a reload in the middle.

python tools/soak.py --requests 20000 --seed 1
"""

import argparse
import itertools
import os
import random
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, NamedTuple

from burst import pss
from groqsim import MODELS
from latency import table
from rig import Service, health, service, workers_of
from soak_clients import TOKEN, Heard, Line, press_once
from soak_groq import ILLS, KEYS, ORGANIZATION, SHARE, WHOLE_TIME, TroubledGroq, troubled
from soak_judge import BAD, OK, judge
from soak_misbehaving import KINDS

CLIENTS = 40  # at a time; fewer than what may be in flight, so that nobody is refused for that
THREADS = 64
AT_ONCE = THREADS - 4  # all that may be in flight: any place that was left taken is missed
MEMORY = 80  # megabytes; some 60 on two cores
SETTLES = 15.0  # seconds after the last client until nothing of it may be left
RELOADS = 40.0  # seconds that a reload may take
SHOWN = 60  # characters of what must not be
SETTINGS = {
    "THREADS": str(THREADS),
    "REQUEST_TIMEOUT_SECONDS": str(WHOLE_TIME),
    "MAX_WAIT_SECONDS": "3",
    "KEY_COOLDOWN_SECONDS": "0.5",
    "ACCESS_TOKENS": TOKEN,
}
QUOTES = re.compile(rf"quokka\d{{6}}|{TOKEN}|{ORGANIZATION}|gsk_soak".encode())


class Look(NamedTuple):
    """A look at the service's worker."""

    at: str
    threads: int
    descriptors: int  # without those of connections to Groq, which are kept, closed there or not
    rss: float  # megabytes
    pss: float


class Results(NamedTuple):
    heard: list[Heard]
    lines: list[Line]
    met: dict[str, list[str]]
    looks: list[Look]
    at_once: list[tuple[int, float]]  # how many of those at once were served, and in how many seconds: before, after
    reloaded_in: float  # seconds; 0: never
    seconds: float


def look(at: str, worker: int, groq: TroubledGroq) -> Look:
    status = Path(f"/proc/{worker}/status").read_text()
    threads, rss = (int(re.findall(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[0]) for name in ("Threads", "VmRSS"))
    descriptors = len(_descriptors(worker) - _to(groq.port, worker))
    return Look(at, threads, descriptors, rss * 1024 / 1e6, pss(worker))


def _descriptors(worker: int) -> set[str]:
    """What they are of, each by a name of its own."""
    found = set()
    for descriptor in Path(f"/proc/{worker}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            target = os.readlink(descriptor)
            found.add(target if target.startswith("socket:") else str(descriptor))
    return found


def _to(port: int, worker: int) -> set[str]:
    """The sockets of connections to this port, in whatever state."""
    lines = [line.split() for line in Path(f"/proc/{worker}/net/tcp").read_text().splitlines()[1:]]
    return {f"socket:[{words[9]}]" for words in lines if words[2].endswith(f":{port:04X}")}


def at_once(port: int, words: Iterator[str]) -> tuple[int, float]:
    """Have as many press at once as may be in flight; return how many were served, and the seconds it took."""
    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as crew:
        heard = list(crew.map(lambda word: press_once(Line(port, random.Random(word)), word), words))
    return sum(judge(each, []) == OK for each in heard), time.monotonic() - began


def words(count: int) -> Iterator[str]:
    return (f"quokka{number:06}a" for number in range(count))


class Crowd:
    """Clients at work, each with one request after the other, until all words are asked."""

    def __init__(self, port: int, count: int, seed: int) -> None:
        self._words = words(count)
        self._drawing = threading.Lock()
        self.heard: list[Heard] = []
        self.lines = [Line(port, random.Random(f"{seed} {number}")) for number in range(CLIENTS)]
        self._threads = [threading.Thread(target=self._client, args=(line,), daemon=True) for line in self.lines]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def is_at(self, count: int) -> bool:
        return len(self.heard) >= count or not any(thread.is_alive() for thread in self._threads)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _client(self, line: Line) -> None:
        with closing(line):
            while True:
                with self._drawing:
                    word = next(self._words, None)
                if word is None:
                    return
                (kind,) = line.dice.choices([*KINDS], [*KINDS.values()])
                self.heard.append(kind(line, word))


def reload(master: int) -> float:
    """Have gunicorn replace its worker; return the seconds until the old one has gone, 0 if it does not go."""
    (old,), began = workers_of(master), time.monotonic()
    os.kill(master, signal.SIGHUP)
    while time.monotonic() < began + RELOADS:
        time.sleep(0.1)
        if workers_of(master) and old not in workers_of(master):
            return time.monotonic() - began
    return 0.0


def soak(count: int, seed: int, log: IO[bytes]) -> Results:
    """Run; the service's log goes to ``log``."""
    calm = (f"quokka9{number:05}a" for number in itertools.count())
    with troubled(seed) as groq, service(groq.url, [*KEYS], MODELS, log=log, **SETTINGS) as ours:
        looks = [look("start", ours.worker, groq)]
        served = [at_once(ours.port, itertools.islice(calm, AT_ONCE))]
        looks.append(look("before", ours.worker, groq))
        groq.trouble(SHARE)
        crowd, began = Crowd(ours.port, count, seed), time.monotonic()
        crowd.start()
        while not crowd.is_at(count // 2):
            time.sleep(0.05)
        looks.append(look("middle", workers_of(ours.master)[-1], groq))
        reloaded = reload(ours.master)
        crowd.join()
        seconds = time.monotonic() - began
        groq.trouble(0.0)
        looks.append(look("end", workers_of(ours.master)[-1], groq))
        looks.append(_settled(ours, looks[0], groq))
        served.append(at_once(ours.port, itertools.islice(calm, AT_ONCE)))
        return Results(crowd.heard, crowd.lines, dict(groq.met()), looks, served, reloaded, seconds)


def _settled(ours: Service, first: Look, groq: TroubledGroq) -> Look:
    """Look once nothing is left of the clients, or they have had their time."""
    until = time.monotonic() + SETTLES
    while True:
        last = look("after", workers_of(ours.master)[-1], groq)
        if last.descriptors <= first.descriptors or time.monotonic() > until:
            return last
        time.sleep(0.2)
        health(ours.port)


# What it shows


def outcomes(results: Results) -> tuple[str, Counter[str], str]:
    """A table of what became of each kind of client, the sums, and a table of what must not be."""
    counts: Counter[tuple[str, str]] = Counter()
    bad: Counter[tuple[str, ...]] = Counter()
    for each in results.heard:
        met = results.met.get(each.word, [])
        verdict = judge(each, met)
        counts[each.kind, verdict] += 1
        if verdict in BAD:
            bad[verdict, each.kind, ", ".join(filter(None, met)), f"{each.response.status}", _shown(each)] += 1
    kinds, verdicts = sorted({kind for kind, _ in counts}), sorted({name for _, name in counts})
    sums = Counter({name: sum(counts[kind, name] for kind in kinds) for name in verdicts})
    rows = [[kind, *(f"{counts[kind, name] or ''}" for name in verdicts)] for kind in kinds]
    rows.append(["all", *(f"{sums[name]:,}" for name in verdicts)])
    odd = table(
        ("what", "client", "met", "status", "response", "times"), [[*row, f"{bad[row]}"] for row in sorted(bad)]
    )
    return table(["client", *verdicts], rows), sums, odd if bad else ""


def _shown(heard: Heard) -> str:
    """A response's last words, without what differs from one to the next."""
    words = re.sub(rb"<[^>]*>|[^ -~]|quokka\w+|[0-9a-f]{8,}|[|\s]|[0-9]+a?-[0-9]+", b" ", heard.response.body)
    return " ".join(words.decode().split())[-SHOWN:]


def musts(results: Results, count: int, sums: Counter[str], log: bytes) -> list[tuple[str, int]]:
    """What must be 0, and is so many; ``count``: how many requests there should be."""
    first, *_, last = results.looks
    lines = log.splitlines()
    dropped = [word for line in results.lines for word in line.dropped]
    return [
        *((f"requests: {name.lower()}", sums[name]) for name in BAD),
        ("requests without a verdict", count - len(results.heard)),
        ("requests lost on a new connection", sum(line.lost for line in results.lines)),
        ("requests dropped after they had reached Groq", sum(word in results.met for word in dropped)),
        ("log lines that quote a prompt, token, key, organization", sum(bool(QUOTES.search(line)) for line in lines)),
        ("tracebacks", sum(line.startswith(b"Traceback") for line in lines)),
        ("threads beyond THREADS", max(0, last.threads - first.threads - THREADS)),
        ("descriptors left behind", max(0, last.descriptors - first.descriptors)),
        (f"megabytes (RSS) beyond {MEMORY}", max(0, round(max(each.rss for each in results.looks) - MEMORY))),
        (f"of {AT_ONCE} presses at once not served before", AT_ONCE - results.at_once[0][0]),
        (f"of {AT_ONCE} presses at once not served after", AT_ONCE - results.at_once[1][0]),
        ("reloads that did not end", int(not results.reloaded_in)),
    ]


def report(results: Results, count: int, log: bytes) -> tuple[str, bool]:
    """What to print, and whether all is as it must be."""
    told, sums, odd = outcomes(results)
    zeros = musts(results, count, sums, log)
    rows = [
        [each.at, f"{each.threads}", f"{each.descriptors}", f"{each.rss:.0f}", f"{each.pss:.0f}"]
        for each in results.looks
    ]
    parts = [
        _summary(results),
        told,
        table(("the worker", "threads", "descriptors", "RSS, MB", "PSS, MB"), rows),
        table(("must be 0", "is"), [[name, f"{number}"] for name, number in zeros]),
        odd,
    ]
    return "\n\n".join(parts), not any(number for _, number in zeros)


def _summary(results: Results) -> str:
    calls = [name for names in results.met.values() for name in names]
    refused = sum(line.refused for line in results.lines)
    repeated = sum(len(line.dropped) for line in results.lines)
    return (
        f"{len(results.heard):,} requests of {CLIENTS} clients in {results.seconds:.0f} s; {len(calls):,} calls, of "
        f"which {sum(map(bool, calls)):,} met one of {len(ILLS)} troubles; a reload in {results.reloaded_in:.1f} s; "
        f"{refused} connections refused, {repeated} requests repeated as their kept-alive connection closed; {AT_ONCE} "
        f"presses at once took {' and '.join(f'{seconds:.2f} s' for _, seconds in results.at_once)}, before and after."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Soak the service against a simulated Groq that fails.")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", type=Path, help="where to keep the service's log")
    options = parser.parse_args(arguments)
    with options.log.open("w+b") if options.log else tempfile.TemporaryFile() as log:
        results = soak(options.requests, options.seed, log)
        log.seek(0)
        text, good = report(results, options.requests, log.read())
    print(text)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
