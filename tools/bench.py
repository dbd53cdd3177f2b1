"""Measures the service: real gunicorns against simulated Groqs, side by side and in real time. ``make bench``.

python tools/bench.py --seconds 30 --only overload
"""

import argparse
import itertools
import math
import os
import platform
import random
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property, partial

from groqsim import MODELS, Limits
from latency import latency, table, verdict
from rig import ROOT, Seen, groq, post, service
from turns import turn_costs
from workload import CALLS, MANY, PROMPTS, TOKENS, answer_tokens, mean_cost, reply

from promptlord.web import enhance

SEED = 3
LATENCY = 0.3  # seconds of each of Groq's answers
SLOW = 3.0  # of those with a slow key
PATIENCE = 10.0  # MAX_WAIT_SECONDS where nobody sets it
NOTICED = 0.1  # seconds; a shorter wait is the machine's
RETRIED = 3  # of so many clients that are told to come back, one does
FULL = 180.0  # seconds from which on a run is worth writing down
FREE = Limits()  # Groq's, of its free plan


# Scenarios


@dataclass(frozen=True)
class Must:
    """What a result has to show."""

    text: str
    holds: Callable[["Result"], bool]


@dataclass(frozen=True)
class Scenario:
    """``rate``: enhancements a minute. ``organizations``: one a key. ``faults`` and ``slow`` by the keys' places."""

    name: str
    about: str
    rate: float
    organizations: Sequence[str]
    musts: Sequence[Must] = ()
    models: Sequence[str] = MODELS
    limits: Limits = FREE
    faults: Mapping[int, str] = field(default_factory=dict)
    slow: Sequence[int] = ()

    @property
    def keys(self) -> dict[str, str]:
        return {f"gsk_bench_{place}": f"org_{name}" for place, name in enumerate(self.organizations, 1)}

    def latency(self, key: str) -> float:
        return SLOW if int(key.rpartition("_")[2]) in self.slow else LATENCY

    def arrivals(self, seconds: float) -> Iterator[tuple[float, str]]:
        """Poisson, given how many come; each prompt equally often. The same in each run."""
        dice, number = random.Random(f"{SEED} {self.name}"), round(self.rate * seconds / 60)
        deck = (prompt for _ in itertools.count() for prompt in dice.sample(PROMPTS, len(PROMPTS)))
        for place, at in enumerate(sorted(dice.uniform(0, seconds) for _ in range(number))):
            yield at, f"{next(deck)} ({place})"

    def allowed(self, seconds: float) -> float:
        """Enhancements that the buckets of all usable lanes admit, full at first; the last come may wait a while."""
        lanes = (len(set(self.organizations)) - len(self.faults)) * len(self.models)
        calls, tokens = mean_cost([prompt for _, prompt in self.arrivals(seconds)])
        needs = [(self.limits.rpm, 60, calls), (self.limits.rpd, 86400, calls)]
        needs += [(self.limits.tpm, 60, tokens), (self.limits.tpd, 86400, tokens)]
        return lanes * min(limit * (1 + (seconds + PATIENCE) / period) / need for limit, period, need in needs if limit)


@dataclass
class Visit:
    """One client's request: when it came, what it got after how many seconds; ``again``: what a retry got."""

    at: float
    prompt: str
    status: int = 0
    seconds: float = 0.0
    retry_after: int = 0
    again: int = 0
    again_after: float = 0.0  # seconds after it came, too
    error: str = ""


@dataclass(frozen=True)
class Result:
    scenario: Scenario
    seconds: float
    visits: list[Visit]
    calls: list[Seen]

    @property
    def delivered(self) -> list[Visit]:
        return [visit for visit in self.visits if visit.status == 200]

    @property
    def again(self) -> list[int]:
        return [visit.again for visit in self.visits if visit.again]

    @property
    def answered(self) -> float:
        return len(self.delivered) / len(self.visits)

    @cached_property
    def allowed(self) -> float:
        return min(self.scenario.allowed(self.seconds), len(self.visits) + len(self.again))

    @property
    def used(self) -> float:
        """What was delivered, retries too, of what was allowed."""
        return (len(self.delivered) + self.again.count(200)) / self.allowed

    @property
    def refusals(self) -> int:
        return sum(call.status in (429, 413) for call in self.calls)

    @property
    def waits(self) -> list[float]:
        """Seconds that the delivered ones spent neither with Groq nor on the way."""
        with_groq: defaultdict[str, float] = defaultdict(float)
        for call in self.calls:
            with_groq[call.prompt] += self.scenario.latency(call.key)
        return [visit.seconds - with_groq[visit.prompt] for visit in self.delivered]

    @property
    def odd(self) -> dict[tuple[int, str], int]:
        """What else than 200 and 503 there was."""
        return dict(Counter((visit.status, visit.error) for visit in self.visits if visit.status not in (200, 503)))

    @property
    def told_when(self) -> bool:
        """Whether every 503 said when to come back."""
        return all(visit.retry_after for visit in self.visits if visit.status == 503)

    def asked(self, place: int) -> int:
        return sum(call.key == f"gsk_bench_{place}" for call in self.calls)

    def sustained(self) -> float:
        """Enhancements a minute once the buckets' first filling is gone."""
        since = self.seconds / 3
        ends = [visit.at + visit.seconds for visit in self.delivered]
        ends += [visit.at + visit.again_after for visit in self.visits if visit.again == 200]
        return sum(since <= end < self.seconds for end in ends) * 60 / (self.seconds - since)


RPM_ONLY = Limits(30, None, None, None)
ALL_ANSWERED = Must("100 % answered", lambda result: result.answered == 1)
SCENARIOS = (
    Scenario(
        "shared", "three keys of one organization", 30, "aaa",
        [Must("≥ 97 % answered", lambda result: result.answered >= 0.97),
         Must("≤ 5 refusals", lambda result: result.refusals <= 5)],
    ),
    Scenario(
        "rpm", "three organizations, RPM the only limit, one model, 90 %", 81, "abc",
        [ALL_ANSWERED, Must("0 refusals", lambda result: not result.refusals)], MODELS[:1], RPM_ONLY,
    ),
    Scenario(
        "overload", "the same, 150 %", 135, "abc",
        [Must("≥ 98 % of allowed", lambda result: result.used >= 0.98),
         Must("refusals ≤ 2 % of calls", lambda result: result.refusals <= 0.02 * len(result.calls)),
         Must("503s say when", lambda result: result.told_when),
         Must("retries served", lambda result: set(result.again) <= {200})], MODELS[:1], RPM_ONLY,
    ),
    Scenario(
        "free", "three organizations, free limits", 90, "abc",
        [Must("≥ 97 % of allowed", lambda result: result.used >= 0.97)],
    ),
    Scenario(
        "faulty", "ten keys: #3 dead, #5 restricted, #7 slow; 50 %", 0.5 * 10 * 2 * 8000 / TOKENS, "abcdefghij",
        [ALL_ANSWERED, Must("bad ones ≤ 5 calls", lambda result: max(map(result.asked, (3, 5))) <= 5)],
        faults={3: "invalid_api_key", 5: "organization_restricted"}, slow=[7],
    ),
    Scenario("one-model", "one key, one model, more than it can", 40, "a", models=MODELS[:1]),
    Scenario("two-models", "one key, two models, more than they can", 60, "a"),
)  # fmt: skip


# Running one


def visit_with(visit: Visit, port: int, due: float, turned_away: Iterator[int]) -> None:
    visit.status, visit.retry_after, visit.error = post(port, visit.prompt)
    visit.seconds = time.monotonic() - due
    if visit.status == 503 and visit.retry_after and next(turned_away) % RETRIED == 0:
        time.sleep(visit.retry_after)
        visit.again = post(port, visit.prompt)[0]
        visit.again_after = time.monotonic() - due


def run(seconds: float, scenario: Scenario) -> Result:
    """Open loop: each client comes at its time in a thread of its own, whatever became of those before."""
    visits, turned_away, threads = [Visit(*arrival) for arrival in scenario.arrivals(seconds)], itertools.count(), []
    slow = {key: scenario.latency(key) for key in scenario.keys}
    faults = {f"gsk_bench_{place}": name for place, name in scenario.faults.items()}
    settings = {"keys": scenario.keys, "limits": scenario.limits, "latency_of": slow, "reasoning_tokens": 0}
    with groq(settings | {"reply": reply}, faults) as sim, service(sim.url, [*scenario.keys], scenario.models) as ours:
        start = time.monotonic()
        for visit in visits:
            due = start + visit.at
            time.sleep(max(0.0, due - time.monotonic()))
            threads.append(threading.Thread(target=visit_with, args=(visit, ours.port, due, turned_away), daemon=True))
            threads[-1].start()
        for thread in threads:
            thread.join(60)
        return Result(scenario, seconds, visits, sim.calls())


# What it shows


def ms(seconds: Sequence[float], percent: float) -> str:
    ranked = sorted(seconds)
    return f"{ranked[min(len(ranked) - 1, math.ceil(percent * len(ranked)) - 1)] * 1000:,.0f}" if ranked else "–"


def row(result: Result) -> dict[str, str]:
    latencies = [visit.seconds for visit in result.delivered]
    waits = [wait for wait in result.waits if wait > NOTICED]
    again = f" + {result.again.count(200)} of {len(result.again)}" if result.again else ""
    musts = [verdict(must.text, must.holds(result)) for must in result.scenario.musts]
    return {
        "scenario": result.scenario.about,
        "offered": str(len(result.visits)),
        "delivered + retries": f"{len(result.delivered)}{again}",
        "allowed": f"{result.allowed:.0f}",
        "of allowed": f"{result.used:.1%}",
        "of offered": f"{result.answered:.1%}",
        "refusals of calls": f"{result.refusals} of {len(result.calls)}",
        "503": str(sum(visit.status == 503 for visit in result.visits)),
        "p50 / p95 / p99 ms": " / ".join(ms(latencies, percent) for percent in (0.5, 0.95, 0.99)),
        "waited, longest": f"{len(waits) / max(1, len(latencies)):.0%}, {max(waits, default=0):.1f} s",
        "must": "; ".join(musts) or "–",
    }


MEANING = f"""\
Answers take {LATENCY} s and are made up: {min(map(answer_tokens, MANY))} to {max(map(answer_tokens, MANY)):,} tokens,
for prompts of {min(map(len, PROMPTS))} to {max(map(len, PROMPTS)):,} characters in seven languages. A mean
enhancement takes {CALLS:.2f} calls and {TOKENS:.0f} tokens; what a reserve has left is not given back.

- allowed: what the buckets of all usable lanes (organizations × models) hold at first and refill until the last may be
  served, {PATIENCE:.0f} s after it came, divided by what a mean enhancement takes; but not more than came
- retries: one in {RETRIED} of those who got a 503 came back once, exactly when told to; so many of them were served
- waited: for a slot, over {NOTICED} s"""


def capacity(seconds: float, only: str | None) -> tuple[str, bool]:
    """All scenarios at once; return what to print, and whether all is as it must be."""
    scenarios = [scenario for scenario in SCENARIOS if only in (None, scenario.name)]
    with ThreadPoolExecutor(len(scenarios)) as crew:
        results = list(crew.map(partial(run, seconds), scenarios))
    good = all(must.holds(result) for result in results for must in result.scenario.musts)
    rows = [row(result) for result in results]
    parts = [MEANING, table([*rows[0]], [[*cells.values()] for cells in rows])]
    parts += [f"{result.scenario.about}: {result.odd}" for result in results if result.odd]
    free = [[result.scenario.about, f"{result.sustained():.1f}"] for result in results if not result.scenario.musts]
    if free:
        parts.append(table(("free plan, sustained", "enhancements a minute"), free))
    return "\n\n".join(parts), good


# The reserve


def reserves(seconds: float, only: str | None) -> tuple[str, bool]:
    """What other bounds would give: computed, from what Groq counts. The chosen one stands in ``enhance.py``."""
    chosen, rows = enhance.LEAST_RESERVE, []
    for least in sorted({200, 300, chosen, 400, 500, 700}):
        enhance.LEAST_RESERVE = least
        costs = [mean_cost(MANY, longer) for longer in (1.0, 1.5, 2.0)]
        rows.append([f"{least}", *(f"{8000 / tokens:.1f}, {calls - 1:.0%}" for calls, tokens in costs)])
    enhance.LEAST_RESERVE = chosen
    head = ("LEAST_RESERVE", "answers as above", "half as long again", "twice as long")
    about = f"Enhancements a minute of one lane, and the share of them cut off at first; {chosen} is in use:"
    return f"{about}\n\n{table(head, rows)}", True


PARTS: dict[str, tuple[str, Callable[[float, str | None], tuple[str, bool]]]] = {  # name: (title, what measures it)
    "turns": ("The cost of a turn", lambda seconds, only: turn_costs()),
    "capacity": ("Capacity", capacity),
    "reserves": ("The reserve", reserves),
    "added": ("What the service adds", lambda seconds, only: (latency(), True)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the service against simulated Groqs.")
    parser.add_argument("--seconds", type=float, default=FULL, help="of offered load (default: %(default)g)")
    parser.add_argument("--only", choices=[*PARTS, *(scenario.name for scenario in SCENARIOS)])
    options = parser.parse_args()
    only = "capacity" if options.only and options.only not in PARTS else options.only
    texts, good = (
        [f"# Measured\n\n`make bench`, {date.today()}, {os.cpu_count()} cores, Python {platform.python_version()}"],
        True,
    )
    for name, (title, part) in PARTS.items():
        if only in (None, name):
            text, holds = part(options.seconds, None if options.only == only else options.only)
            texts, good = [*texts, f"## {title}\n\n{text}"], good and holds
    report = "\n\n".join(texts) + "\n"
    print(report)
    if not only and options.seconds >= FULL:
        (ROOT / "docs" / "bench.md").write_text(report, encoding="utf-8")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
