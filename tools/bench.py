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
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property, partial
from statistics import mean
from typing import NamedTuple

from burst import burst
from clients import RETRIED, Visit, greedy, is_greedy, press
from costs import costs
from groqsim import DIMENSIONS, MODELS, Limits
from latency import latency, table, verdict
from rig import ROOT, Seen, groq, service
from together import together
from turns import turn_costs
from workload import CALLS, MANY, PROMPTS, TOKENS, answer_tokens, mean_cost, reply

from promptlord.web import enhance

SEED = 3
LATENCY = 0.3  # seconds of each of Groq's answers
SLOW = 3.0  # of those with a slow key
PATIENCE = 10.0  # MAX_WAIT_SECONDS where nobody sets it
NOTICED = 0.1  # seconds; a shorter wait is the machine's
FULL = 180.0  # seconds from which on a run is worth writing down
FREE = Limits()  # Groq's, of its free plan
PAID = Limits(1000, 250_000, 500_000, None)
A_MINUTE = 8000 / TOKENS  # enhancements that the free plan allows for an organization and a model,
A_DAY = min(200_000 / TOKENS, 1000 / CALLS)  # and those of a day
DAY = 3_000_000  # tokens a day: many, so that some come back within minutes,
LEFT = 1600  # and all but so many of them used up when the run begins


# Scenarios


@dataclass(frozen=True)
class Must:
    """What a result has to show."""

    text: str
    holds: Callable[["Result"], bool]


class Needs(NamedTuple):
    """What Groq counts."""

    requests: float = 0.0
    tokens: float = 0.0


class Rest(NamedTuple):
    """What the buckets of a model's lane had for ``/v1`` beside the presses, which of them binds, what was served."""

    model: str
    allowed: float
    binds: str
    served: int


@dataclass(frozen=True)
class Scenario:
    """``rate``: enhancements a minute. ``organizations``: one a key. ``faults`` and ``slow`` by the keys' places.

    ``had``: tokens that a lane has had of its day's before. ``greedy``: clients of ``/v1`` for each model, which come
    beside the presses of the scenario ``alone``.
    """

    name: str
    about: str
    rate: float
    organizations: Sequence[str]
    musts: Sequence[Must] = ()
    models: Sequence[str] = MODELS
    limits: Limits = FREE
    faults: Mapping[int, str] = field(default_factory=dict)
    slow: Sequence[int] = ()
    had: int = 0
    greedy: int = 0
    alone: str = ""

    @property
    def keys(self) -> dict[str, str]:
        return {f"gsk_bench_{place}": f"org_{name}" for place, name in enumerate(self.organizations, 1)}

    def latency(self, key: str) -> float:
        return SLOW if int(key.rpartition("_")[2]) in self.slow else LATENCY

    def arrivals(self, seconds: float) -> Iterator[tuple[float, str]]:
        """Poisson, given how many come; each prompt equally often. The same in each run."""
        dice, number = random.Random(f"{SEED} {self.alone or self.name}"), round(self.rate * seconds / 60)
        deck = (prompt for _ in itertools.count() for prompt in dice.sample(PROMPTS, len(PROMPTS)))
        for place, at in enumerate(sorted(dice.uniform(0, seconds) for _ in range(number))):
            yield at, f"{next(deck)} ({place})"

    def allowed(self, seconds: float) -> float:
        """Enhancements that the buckets of all usable lanes admit, full at first; the last come may wait a while."""
        lanes = (len(set(self.organizations)) - len(self.faults)) * len(self.models)
        needs = Needs(*mean_cost([prompt for _, prompt in self.arrivals(seconds)]))
        return lanes * self.admits(seconds + PATIENCE, needs, Needs())[0]

    def admits(self, seconds: float, needs: Needs, taken: Needs) -> tuple[float, str]:
        """How many of ``needs`` a lane admits in so many seconds, beside what is taken, and the bucket that binds."""
        counts = []
        for name, (_, kind, period) in DIMENSIONS.items():
            if limit := getattr(self.limits, name.lower()):
                room = limit * (1 + seconds / period) - (self.had if name == "TPD" else 0)
                counts.append(((room - getattr(taken, kind)) / getattr(needs, kind), name))
        return min(counts)


@dataclass(frozen=True)
class Result:
    scenario: Scenario
    seconds: float
    visits: list[Visit]
    calls: list[Seen]
    greedy: list[int]  # statuses
    began: float  # by the clock of ``calls``
    alone: "Result | None" = None  # of the same presses with nobody beside them

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
        """What was delivered, retries too, of what was allowed, and no later."""
        return sum(end <= self.seconds + PATIENCE + LATENCY for end in self.ends) / self.allowed

    @property
    def ends(self) -> list[float]:
        """When each that was delivered was, retries too."""
        first = [visit.at + visit.seconds for visit in self.delivered]
        return first + [visit.at + visit.again_after for visit in self.visits if visit.again == 200]

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

    @property
    def beside(self) -> float:
        """Of the presses that are served alone the share that was served here, too."""
        assert self.alone
        pairs = zip(self.visits, self.alone.visits, strict=True)
        both = [here.status == 200 for here, there in pairs if there.status == 200]
        return sum(both) / len(both)

    @cached_property
    def rests(self) -> list[Rest]:
        """For each model. A request of ``/v1`` takes what Groq counted for it."""
        return [self._rest(model) for model in self.scenario.models]

    def _rest(self, model: str) -> Rest:
        calls = [call for call in self.calls if call.model == model and call.status == 200]
        calls = [call for call in calls if call.at <= self.began + self.seconds]
        presses = [call.tokens for call in calls if not is_greedy(call.prompt)]
        bulk = [call.tokens for call in calls if is_greedy(call.prompt)]
        taken, needs = Needs(len(presses), sum(presses)), Needs(1, mean(bulk))
        return Rest(model, *self.scenario.admits(self.seconds, needs, taken), len(bulk))

    @property
    def rest_used(self) -> float:
        return sum(rest.served for rest in self.rests) / sum(rest.allowed for rest in self.rests)

    def sustained(self) -> float:
        """Enhancements a minute once the buckets' first filling is gone."""
        since = self.seconds / 3
        return sum(since <= end < self.seconds for end in self.ends) * 60 / (self.seconds - since)


RPM_ONLY = Limits(30, None, None, None)
ALL_ANSWERED = Must("100 % answered", lambda result: result.answered == 1)
SCENARIOS = (
    Scenario(
        "shared", "three keys of one organization", 2.4 * A_MINUTE, "aaa",
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
        "free", "three organizations, free limits", 7.2 * A_MINUTE, "abc",
        [Must("≥ 97 % of allowed", lambda result: result.used >= 0.97)],
    ),
    Scenario(
        "faulty", "ten keys: #3 dead, #5 restricted, #7 slow; 50 %", 10 * A_MINUTE, "abcdefghij",
        [ALL_ANSWERED, Must("bad ones ≤ 5 calls", lambda result: max(map(result.asked, (3, 5))) <= 5)],
        faults={3: "invalid_api_key", 5: "organization_restricted"}, slow=[7],
    ),
    Scenario(
        "day", "one organization, the day's tokens used up", 15, "a",
        [Must("refusals ≤ 1 a lane", lambda result: result.refusals <= len(MODELS)),
         Must("503s say when", lambda result: result.told_when),
         Must("≥ 97 % of allowed", lambda result: result.used >= 0.97)],
        limits=replace(FREE, tpd=DAY), had=DAY - LEFT,
    ),
    Scenario(
        "paid", "one key on a paid plan", 120, "a",
        [ALL_ANSWERED, Must("0 refusals", lambda result: not result.refusals)], limits=PAID,
    ),
    Scenario("alone", "one organization, 12 presses a minute", 12, "a", [ALL_ANSWERED]),
    Scenario(
        "greedy", "the same beside twelve greedy clients", 12, "a",
        [Must("≥ 95 % of the presses served alone", lambda result: result.beside >= 0.95),
         Must("/v1 gets ≥ 90 % of the rest", lambda result: result.rest_used >= 0.9)], greedy=6, alone="alone",
    ),
    Scenario("one-model", "one key, one model, more than it can", 40, "a", models=MODELS[:1]),
    Scenario("two-models", "one key, two models, more than they can", 60, "a"),
)  # fmt: skip


# Running one


def run(seconds: float, scenario: Scenario) -> Result:
    """Open loop: each client comes at its time in a thread of its own, whatever became of those before."""
    visits, turned_away, threads = [Visit(*arrival) for arrival in scenario.arrivals(seconds)], itertools.count(), []
    statuses: list[int] = []
    slow = {key: scenario.latency(key) for key in scenario.keys}
    faults = {f"gsk_bench_{place}": name for place, name in scenario.faults.items()}
    settings = {"keys": scenario.keys, "limits": scenario.limits, "latency_of": slow, "reasoning_tokens": 0}
    with (
        groq(settings | {"reply": reply}, faults, scenario.had) as sim,
        service(sim.url, [*scenario.keys], scenario.models) as ours,
    ):
        start = time.monotonic()
        for model, number in itertools.product(scenario.models, range(scenario.greedy)):
            greed = (ours.port, model, str(number), start + seconds, statuses)
            threads.append(threading.Thread(target=greedy, args=greed, daemon=True))
            threads[-1].start()
        for visit in visits:
            due = start + visit.at
            time.sleep(max(0.0, due - time.monotonic()))
            threads.append(threading.Thread(target=press, args=(visit, ours.port, due, turned_away), daemon=True))
            threads[-1].start()
        for thread in threads:
            thread.join(60)
        return Result(scenario, seconds, visits, sim.calls(), statuses, start)


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
  served, {PATIENCE:.0f} s after it came, divided by what a mean enhancement takes; but not more than came; of
  allowed: those served until then
- retries: one in {RETRIED} of those who got a 503 came back once, exactly when told to; so many of them were served
- waited: for a slot, over {NOTICED} s
- the day's tokens used up: {LEFT:,} of {DAY:,} a lane are left when the run begins
- greedy clients: six a model ask `/v1` without a pause, and after a 503 again within a second; the rest is what the
  buckets hold and refill in the run, without what the presses took, divided by what a request of theirs takes"""


def capacity(seconds: float, only: str | None) -> tuple[str, bool]:
    """All scenarios at once; return what to print, and whether all is as it must be."""
    wanted = {scenario.name for scenario in SCENARIOS if only in (None, scenario.name)}
    wanted |= {scenario.alone for scenario in SCENARIOS if scenario.name in wanted}
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in wanted]
    with ThreadPoolExecutor(len(scenarios)) as crew:
        by_name = {result.scenario.name: result for result in crew.map(partial(run, seconds), scenarios)}
    results = [replace(result, alone=by_name.get(result.scenario.alone)) for result in by_name.values()]
    good = all(must.holds(result) for result in results for must in result.scenario.musts)
    rows = [row(result) for result in results]
    parts = [MEANING, table([*rows[0]], [[*cells.values()] for cells in rows])]
    parts += [f"{result.scenario.about}: {result.odd}" for result in results if result.odd]
    parts += [rest(result) for result in results if result.greedy]
    free = [
        [result.scenario.about, f"{result.sustained():.1f}", f"{len(result.scenario.models) * A_DAY:.0f}"]
        for result in results
        if not result.scenario.musts
    ]
    if free:
        parts.append(table(("free plan, sustained", "enhancements a minute", "and a day, by its tokens"), free))
    return "\n\n".join(parts), good


def rest(result: Result) -> str:
    """What ``/v1`` had beside the presses, and what these had beside it."""
    told = ", ".join(f"{count} × {status}" for status, count in sorted(Counter(result.greedy).items()))
    about = (
        f"Beside {len(MODELS) * result.scenario.greedy} greedy clients, which met {told}, {result.beside:.1%} of the"
    )
    about += f" presses served alone are served; `/v1` gets {result.rest_used:.1%} of the rest:"
    head = ("model", "/v1 served", "the rest", "of the rest", "bound by")
    rows = [
        [rest.model, f"{rest.served}", f"{rest.allowed:.0f}", f"{rest.served / rest.allowed:.1%}", rest.binds]
        for rest in result.rests
    ]
    return f"{about}\n\n{table(head, rows)}"


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
    "burst": ("A burst", lambda seconds, only: burst()),
    "reserves": ("The reserve", reserves),
    "together": ("Many processes, one pool", lambda seconds, only: together(seconds)),
    "costs": ("What it costs", lambda seconds, only: costs()),
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
