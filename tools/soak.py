"""A soak: thousands of requests, one in five upstream calls failing, clients that misbehave, a reload in the middle.

python tools/soak.py --requests 20000 --seed 1
python tools/soak.py --processes 2    on one Redis, which is frozen before the reloads, and killed after them
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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext, suppress
from pathlib import Path
from typing import IO

from groqsim import MODELS
from rig import RedisServer, Service, health, pss, services, workers_of
from soak_clients import TOKEN, Heard, Line, press_once
from soak_groq import KEYS, SHARE, WHOLE_TIME, TroubledGroq, troubled
from soak_judge import OK, judge
from soak_misbehaving import KINDS
from soak_report import AT_ONCE, CLIENTS, THREADS, Look, Results, report

SETTLES = 15.0  # seconds after the last client until nothing of it may be left
RELOADS = 40.0  # seconds that a reload may take
FROZEN = 5.0  # seconds that Redis stands still,
DEAD = 1.0  # and that there is none
SETTINGS = {
    "THREADS": str(THREADS),
    "REQUEST_TIMEOUT_SECONDS": str(WHOLE_TIME),
    "MAX_WAIT_SECONDS": "3",
    "KEY_COOLDOWN_SECONDS": "0.5",
    "ACCESS_TOKENS": TOKEN,
}


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

    def __init__(self, ports: Sequence[int], count: int, seed: int) -> None:
        self._words = words(count)
        self._drawing = threading.Lock()
        self.heard: list[Heard] = []
        spread = itertools.islice(itertools.cycle(ports), CLIENTS)
        self.lines = [Line(port, random.Random(f"{seed} {number}")) for number, port in enumerate(spread)]
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
                heard = kind(line, word)
                self.heard.append(heard._replace(left=time.monotonic()))


def reload(master: int) -> float:
    """Have gunicorn replace its worker; return the seconds until the old one has gone, 0 if it does not go."""
    (old,), began = workers_of(master), time.monotonic()
    os.kill(master, signal.SIGHUP)
    while time.monotonic() < began + RELOADS:
        time.sleep(0.1)
        if workers_of(master) and old not in workers_of(master):
            return time.monotonic() - began
    return 0.0


class Soak:
    """Services under way, and what is seen of them."""

    def __init__(self, groq: TroubledGroq, ours: Sequence[Service], redis: RedisServer | None) -> None:
        self._groq, self._ours, self._redis = groq, ours, redis
        self._calm = (f"quokka9{number:05}a" for number in itertools.count())
        self._looks: list[list[Look]] = [[] for _ in ours]
        self._at_once: list[list[tuple[int, float]]] = [[] for _ in ours]
        self._reloads: list[float] = []
        self._away: list[tuple[float, float]] = []

    def run(self, count: int, seed: int) -> Results:
        for service in self._ours:  # so that it is connected to Redis
            press_once(Line(service.port, random.Random(seed)), next(self._calm))
        self._look("start")
        self._press_at_once()
        self._look("before")
        self._groq.trouble(SHARE)
        crowd, began = Crowd([service.port for service in self._ours], count, seed), time.monotonic()
        crowd.start()
        for share, befalls in self._mishaps():
            while not crowd.is_at(int(share * count)):
                time.sleep(0.05)
            befalls()
        crowd.join()
        seconds = time.monotonic() - began
        self._groq.trouble(0.0)
        self._look("end")
        self._look_once_settled()
        self._press_at_once()
        at_once = [each for pair in self._at_once for each in pair]
        met = self._groq.met()
        return Results(crowd.heard, crowd.lines, met, self._looks, at_once, self._reloads, self._away, seconds)

    def _mishaps(self) -> list[tuple[float, Callable[[], None]]]:
        """What befalls, and after which share of the requests."""
        if not (redis := self._redis):  # a new worker knows nothing
            return [(0.5, lambda: self._apart(nullcontext(), self._reload))]
        return [
            (0.25, lambda: self._apart(redis.frozen(), lambda: time.sleep(FROZEN))),
            (0.5, self._reload),
            (0.75, lambda: self._apart(redis.killed(), lambda: time.sleep(DEAD))),
        ]

    def _apart(self, harm: AbstractContextManager[None], befalls: Callable[[], None]) -> None:
        began = time.monotonic()
        with harm:
            befalls()
        self._away.append((began, time.monotonic()))

    def _reload(self) -> None:
        self._look("middle")
        self._reloads += [reload(service.master) for service in self._ours]

    def _press_at_once(self) -> None:
        for service, told in zip(self._ours, self._at_once, strict=True):
            told.append(at_once(service.port, itertools.islice(self._calm, AT_ONCE)))

    def _look(self, at: str) -> None:
        for service, looks in zip(self._ours, self._looks, strict=True):
            looks.append(look(at, workers_of(service.master)[-1], self._groq))

    def _look_once_settled(self) -> None:
        """Look at each once nothing is left of the clients, or they have had their time."""
        until = time.monotonic() + SETTLES
        for service, looks in zip(self._ours, self._looks, strict=True):
            while True:
                last = look("after", workers_of(service.master)[-1], self._groq)
                if last.descriptors <= looks[0].descriptors or time.monotonic() > until:
                    break
                time.sleep(0.2)
                health(service.port)
            looks.append(last)


def soak(count: int, seed: int, processes: int, log: IO[bytes]) -> Results:
    """Run; the services' log goes to ``log``."""
    with ExitStack() as stack:
        groq = stack.enter_context(troubled(seed))
        redis = stack.enter_context(closing(RedisServer())) if processes > 1 else None
        # Limits that nobody reaches are counted in Redis all the same.
        more = {"REDIS_URL": redis.url, "CLIENT_LIMITS": "1000000 per minute"} if redis else {}
        ours = services(processes, groq.url, [*KEYS], MODELS, log=log, **SETTINGS, **more)
        return Soak(groq, stack.enter_context(ours), redis).run(count, seed)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Soak the service against a simulated Groq that fails.")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="on one Redis that fails; 1: without Redis")
    parser.add_argument("--log", type=Path, help="where to keep the services' log")
    options = parser.parse_args(arguments)
    with options.log.open("w+b") if options.log else tempfile.TemporaryFile() as log:
        results = soak(options.requests, options.seed, options.processes, log)
        log.seek(0)
        text, good = report(results, options.requests, log.read())
    print(text)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
