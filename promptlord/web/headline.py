"""What the operator is told first: does it work, and if not, what to do now. Outcomes decide. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

from promptlord.errors import Cause
from promptlord.pool.quota import RPD, TPD, Lane
from promptlord.pool.state import Hour, KeyView, Refusal, Snapshot
from promptlord.typos import CONSOLE
from promptlord.web.enhance import Enhancement

LEAST = Enhancement.of("", ()).demand.tokens  # with room for so many a key is ready
RECENT = 600.0  # seconds; what happened before says little of now
ROW = 3  # failures one after the other that are no accident
USED_UP = {TPD: "the day's tokens are used up", RPD: "the day's requests are used up"}

Lanes = Mapping[str, Mapping[str, Lane]]  # by model and owner


class Status(Enum):
    UNCONFIGURED = "unconfigured"
    UNTRIED = "untried"
    WORKING = "working"
    IMPAIRED = "impaired"
    FAILING = "failing"


class Advice(NamedTuple):
    """What to do now, in a sentence; the ``command`` or the address that it takes."""

    text: str
    link: str = ""
    command: str = ""


class Wait(NamedTuple):
    """Why a key does not serve a model, and for how long; ``limited``: it will be back then, else it is tried again."""

    seconds: float = 0.0
    reason: str = ""
    limited: bool = True
    dimension: str = ""


@dataclass(frozen=True)
class Story:
    """``notes``: what else there is to know. ``back_in``: seconds until it is better, where that is known."""

    status: Status
    headline: str
    advice: Advice | None = None
    notes: Sequence[str] = ()
    back_in: float | None = None


KEYS, BILLING = CONSOLE, "https://console.groq.com/settings/billing"
STATUS, LIMITS = "https://groqstatus.com", "https://console.groq.com/settings/limits"
TRY = (
    "curl {url}enhance -H 'Content-Type: application/json' "
    """-d '{{"prompt": "write a poem about rain"}}'"""
)
UNCONFIGURED = Story(
    Status.UNCONFIGURED, "No key is configured", Advice("Create a key, set GROQ_API_KEYS to it, and restart.", KEYS)
)
UNTRIED = Story(
    Status.UNTRIED, "Not tried yet", Advice("Ask Groq about each key, or press the extension's button once.", "", TRY)
)
ACCEPTED = Story(
    Status.UNTRIED, "Not tried yet", Advice("Groq accepts every key: press the extension's button once.", "", TRY)
)
REPLACE = {
    Refusal.REVOKED: Advice("Create a new key, set GROQ_API_KEYS to it, and restart.", KEYS),
    Refusal.RESTRICTED: Advice(
        "Groq has restricted the organization: ask its support why.", "https://groq.com/contact"
    ),
    Refusal.SPENT: Advice("The spend limit is reached: raise it.", BILLING),
}
FAILING = {
    Cause.GROQ: (
        "Groq does not answer",
        Advice("Wait, if Groq's own status says the same; else this service's log says what is wrong.", STATUS),
    ),
    Cause.NETWORK: (
        "Groq refuses this server's network",
        Advice("Move the service to another region or host: no key helps here.", STATUS),
    ),
    Cause.MODEL: (
        "Groq does not serve the models any more",
        Advice("Set GROQ_MODELS to models that Groq serves, and restart.", "https://console.groq.com/docs/models"),
    ),
    Cause.KEYS: (
        "no key may use the models",
        Advice("Allow them in the Groq console, or set GROQ_MODELS to others.", LIMITS),
    ),
}
NOTHING = Advice("Nothing: it comes back by itself.")
UPGRADE = Advice("Wait, or upgrade the plan. More keys of the same organization add nothing.", BILLING)


class Past(NamedTuple):
    """What became of the last requests: instants, 0 for none, and the failures since the last success."""

    served_at: float
    failed_at: float
    cause: Cause
    reason: str
    row: int

    @classmethod
    def of(cls, hours: Mapping[int, Hour]) -> "Past":
        newest = [hours[number] for number in sorted(hours, reverse=True)]
        last = max(newest, key=lambda hour: hour.failed_at, default=Hour())
        served_at = max((hour.served_at for hour in newest), default=0.0)
        row = sum(hour.row for hour in newest if hour.failed_at >= served_at)
        return cls(served_at, last.failed_at, last.cause, last.reason, row)

    def fails(self, now: float) -> bool:
        """Whether something was tried in the last minutes, and nothing worked, but for an accident."""
        worked = bool(self.served_at) and now - self.served_at <= RECENT
        return bool(self.row) and now - self.failed_at <= RECENT and (self.row >= ROW or not worked)


def tell(pool: Snapshot, lanes: Lanes, models: Sequence[str], max_wait: float) -> Story:
    """Say how it goes. ``lanes``: of each key's owner, for all models; ``models``: those of ``/enhance``."""
    past = Past.of(pool.hours)
    if not pool.keys:
        return UNCONFIGURED
    if all(key.refused for key in pool.keys):
        return _no_key(pool.keys)
    if past.fails(pool.now):
        headline, advice = FAILING[past.cause]
        return Story(Status.FAILING, f"Not working: {headline}", advice)
    first = min((each for model in models for each in _waits(pool, lanes[model])), key=lambda wait: wait.seconds)
    if first.seconds > max_wait:
        return replace(_waiting(first), notes=[f"Also: {but.told}." for but in _refused(pool.keys)])
    return _working(pool, lanes, models, max_wait, past)


def wait(key: KeyView, lanes: Mapping[str, Lane], now: float) -> Wait:
    """What keeps the key from serving an enhancement now, with a model whose lanes these are."""
    cooling, lane = key.cooling, lanes[key.owner]
    if cooling.until > now:
        return Wait(round(cooling.until - now, 1), cooling.reason, cooling.limited, cooling.dimension)
    seconds = round(max(0.0, lane.ready_at(now, LEAST) - now), 1)
    if lane.until > now:
        return Wait(seconds, lane.reason, lane.limited, lane.dimension)
    if not seconds:
        return Wait()
    alone = (replace(lane, buckets={name: bucket}) for name, bucket in lane.buckets.items())
    (scarcest,) = max(alone, key=lambda lane: lane.ready_at(now, LEAST)).buckets
    return Wait(seconds, f"{scarcest} used up", True, scarcest)


def _no_key(keys: Sequence[KeyView]) -> Story:
    refusal = next(key.refused for key in keys if key.refused)
    return Story(Status.FAILING, "Not working: no key is valid", REPLACE[refusal])


def _waiting(first: Wait) -> Story:
    if first.dimension in USED_UP:
        return Story(Status.FAILING, f"Not working: {USED_UP[first.dimension]}", UPGRADE, back_in=first.seconds)
    if first.limited:
        return Story(Status.IMPAIRED, "Busy: no key has room now", UPGRADE, (), first.seconds)
    advice = Advice("Ask Groq about each key, and read this service's log.")
    return Story(Status.FAILING, f"Not working: every key has failed: {first.reason}", advice, (), first.seconds)


def _working(pool: Snapshot, lanes: Lanes, models: Sequence[str], max_wait: float, past: Past) -> Story:
    if past.row and pool.now - past.failed_at > RECENT:
        return Story(Status.IMPAIRED, "It did not work when last tried", FAILING[past.cause][1])
    buts = [*_refused(pool.keys), *_resting(pool, lanes, models, max_wait)]
    if past.row:
        buts.append(But("the last request failed", FAILING[past.cause][1]))
    if buts:
        start = "Working" if past.served_at else "Not tried yet"
        notes = [detail for _, _, detail in buts if detail] + [f"Also: {told}." for told, _, _ in buts[1:]]
        return Story(Status.IMPAIRED, f"{start}, but {buts[0].told}", buts[0].advice, notes)
    if past.served_at:
        return Story(Status.WORKING, "Working")
    return ACCEPTED if all(key.proved for key in pool.keys) else UNTRIED


class But(NamedTuple):
    """What is not as it should be, while enhancements are served."""

    told: str
    advice: Advice
    detail: str = ""


def _refused(keys: Sequence[KeyView]) -> list[But]:
    refused = [key for key in keys if key.refused]
    if not refused:
        return []
    labels, advice = [key.label for key in refused], REPLACE[refused[0].refused or Refusal.REVOKED]
    if len(labels) == 1:
        return [But(f"key {labels[0]} was refused by Groq: replace it", advice)]
    return [But(f"keys {', '.join(labels[:-1])} and {labels[-1]} were refused by Groq: replace them", advice)]


def _resting(pool: Snapshot, lanes: Lanes, models: Sequence[str], max_wait: float) -> list[But]:
    """That no key has room for the model that comes first, so that another one serves."""
    waits = {model: min(_waits(pool, lanes[model]), key=lambda wait: wait.seconds) for model in models}
    rests, serves = waits[models[0]], min(models, key=lambda model: waits[model].seconds)
    if rests.seconds <= max_wait:
        return []
    detail = f"{models[0]} rests for {spell(rests.seconds)}: {rests.reason}."
    advice = UPGRADE if rests.dimension in USED_UP else NOTHING if rests.limited else FAILING[Cause.KEYS][1]
    return [But(f"only with {serves}", advice, detail)]


def _waits(pool: Snapshot, lanes: Mapping[str, Lane]) -> list[Wait]:
    return [wait(key, lanes, pool.now) for key in pool.keys if not key.refused]


def spell(seconds: float) -> str:
    """A duration in its two largest units: ``26 s``, ``1 min 5 s``, ``3 h 2 min``."""
    left = math.ceil(seconds)
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if left >= size:
            rest = left % size // smaller
            return f"{left // size} {unit}" + (f" {rest} {name}" if rest else "")
    return f"{left} s"
