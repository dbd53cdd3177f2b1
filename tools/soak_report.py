"""What a soak shows: tables of what became of the requests and of the services, and what must be 0."""

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from latency import table
from soak_clients import TOKEN, Heard, Line
from soak_groq import ILLS, ORGANIZATION, Met
from soak_judge import BAD, NOTICES, OVERDUE, for_nobody, judge, overdue, while_cooling

CLIENTS = 40  # at a time; fewer than what may be in flight, so that nobody is refused for that
THREADS = 64
ALLOWED = THREADS * 3 // 2  # threads: half as many again wait for slow clients
AT_ONCE = THREADS - 4  # all that may be in flight: any place that was left taken is missed
MEMORY = 80  # megabytes; some 60 on two cores
SHOWN = 60  # characters of what must not be
MOST_SHOWN = 10  # of what came late, of each kind
QUOTES = re.compile(rf"quokka\d{{6}}|{TOKEN}|{ORGANIZATION}|gsk_soak".encode())


class Look(NamedTuple):
    """A look at a service's worker."""

    at: str
    threads: int
    descriptors: int  # without those of connections to Groq, which are kept, closed there or not
    rss: float  # megabytes
    pss: float


class Results(NamedTuple):
    heard: list[Heard]
    lines: list[Line]
    met: list[Met]
    looks: list[list[Look]]  # at each service
    at_once: list[tuple[int, float]]  # how many of those at once were served, and in how many seconds
    reloads: list[float]  # seconds; 0: it did not end
    away: list[tuple[float, float]]  # between which instants nothing was shared
    seconds: float

    def by_word(self) -> Mapping[str, Sequence[Met]]:
        calls: defaultdict[str, list[Met]] = defaultdict(list)
        for call in self.met:
            calls[call.word].append(call)
        return calls


def outcomes(results: Results) -> tuple[str, Counter[str], str]:
    """A table of what became of each kind of client, the sums, and a table of what must not be."""
    counts: Counter[tuple[str, str]] = Counter()
    bad: Counter[tuple[str, ...]] = Counter()
    calls = results.by_word()
    for each in results.heard:
        met = [call.name for call in calls.get(each.word, ())]
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


def lateness(results: Results) -> dict[str, list[str]]:
    """What was not in good time, each by what it is."""
    calls = results.by_word()
    return {
        f"calls {NOTICES} s after their client had left": [*for_nobody(results.heard, calls)],
        f"responses {OVERDUE:.0f} s after the request's whole time": [*overdue(results.heard, calls)],
        f"calls {NOTICES} s after their key's refusal": [*while_cooling(results.met, results.away)],
    }


def musts(results: Results, count: int, sums: Counter[str], log: bytes) -> list[tuple[str, int]]:
    """What must be 0, and is so many; ``count``: how many requests there should be."""
    lines, calls = log.splitlines(), results.by_word()
    dropped = [word for line in results.lines for word in line.dropped]
    ends = [(looks[0], looks[-1]) for looks in results.looks]
    most = max(each.rss for looks in results.looks for each in looks)
    return [
        *((f"requests: {name.lower()}", sums[name]) for name in BAD),
        ("responses 500 of our own", sum(_is_our_500(each, calls) for each in results.heard)),
        ("requests without a verdict", count - len(results.heard)),
        ("requests lost on a new connection", sum(line.lost for line in results.lines)),
        ("requests dropped after they had reached Groq", sum(word in calls for word in dropped)),
        *((name, len(late)) for name, late in lateness(results).items()),
        ("log lines that quote a prompt, token, key, organization", sum(bool(QUOTES.search(line)) for line in lines)),
        ("tracebacks", sum(line.startswith(b"Traceback") for line in lines)),
        # Half as many again wait for slow clients.
        (
            "threads beyond 3/2 THREADS",
            sum(max(0, last.threads - first.threads - THREADS * 3 // 2) for first, last in ends),
        ),
        ("descriptors left behind", sum(max(0, last.descriptors - first.descriptors) for first, last in ends)),
        (f"megabytes (RSS) beyond {MEMORY}", max(0, round(most - MEMORY))),
        (f"presses of {AT_ONCE} at once not served", sum(AT_ONCE - served for served, _ in results.at_once)),
        ("reloads that did not end", results.reloads.count(0)),
    ]


def _is_our_500(heard: Heard, calls: Mapping[str, Sequence[Met]]) -> bool:
    """And none of Groq's, which is passed on."""
    names = {call.name for call in calls.get(heard.word, ())}
    return heard.response.status == 500 and "internal_error" not in names


def report(results: Results, count: int, log: bytes) -> tuple[str, bool]:
    """What to print, and whether all is as it must be."""
    told, sums, odd = outcomes(results)
    zeros = musts(results, count, sums, log)
    rows = [
        [f"{number}", each.at, f"{each.threads}", f"{each.descriptors}", f"{each.rss:.0f}", f"{each.pss:.0f}"]
        for number, looks in enumerate(results.looks, 1)
        for each in looks
    ]
    late = itertools.chain.from_iterable(each[:MOST_SHOWN] for each in lateness(results).values())
    parts = [
        _summary(results),
        told,
        table(("worker of", "at", "threads", "descriptors", "RSS, MB", "PSS, MB"), rows),
        table(("must be 0", "is"), [[name, f"{number}"] for name, number in zeros]),
        odd,
        "\n".join(late),
    ]
    return "\n\n".join(filter(None, parts)), not any(number for _, number in zeros)


def _summary(results: Results) -> str:
    refused = sum(line.refused for line in results.lines)
    repeated = sum(len(line.dropped) for line in results.lines)
    troubled = sum(bool(call.name) for call in results.met)
    first = results.met[0].at
    apart = [f"from {began - first:.1f} to {ended - first:.1f} s" for began, ended in results.away]
    times = [f"{seconds:.2f} s" for _, seconds in results.at_once]
    return (
        f"{len(results.heard):,} requests of {CLIENTS} clients of {len(results.looks)} services in "
        f"{results.seconds:.0f} s; {len(results.met):,} calls, of which {troubled:,} met one of {len(ILLS)} "
        f"troubles; reloads in {', '.join(f'{seconds:.1f} s' for seconds in results.reloads)}; "
        f"nothing shared {', '.join(apart)}; "
        f"{refused} connections refused, {repeated} requests repeated as their kept-alive connection closed; {AT_ONCE} "
        f"presses at once took {', '.join(times[::2])} before, {', '.join(times[1::2])} after."
    )
