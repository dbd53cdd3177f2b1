"""All that ``/status`` and the page tell of the pool. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from promptlord.pool.books import HOURS
from promptlord.pool.quota import FREE_PLAN, PERIODS, RPM, TOKENS, TPD, Bucket, Lane
from promptlord.pool.state import HOUR, Hour, KeyView, Snapshot
from promptlord.web.enhance import Enhancement
from promptlord.web.headline import Lanes, Past, Status, Story, Wait, tell, wait

USUAL = Enhancement.of("x" * 200, ()).demand.tokens  # tokens; what the forecast counts in
SPAN = 60.0  # seconds that the forecast looks ahead
ASK_AGAIN = 60.0  # seconds, where nobody knows when it will be better
LOW, EMPTY = 0.25, 0.1  # of a bucket


def report(pool: Snapshot, models: Sequence[str], max_wait: float, wall: float) -> dict[str, Any]:
    """Describe the pool; ``models``: those of ``/enhance``. Others are shown once Groq has told their limits.

    ``max_wait``: seconds that a request waits for its slot; ``wall``: seconds since 1970, now.
    """
    told = {model for (_, model), lane in pool.lanes.items() if lane.buckets.keys() - {RPM}}
    lanes = {model: _lanes(pool, model) for model in (*models, *sorted(told.difference(models)))}
    # An owner whose every key cools for a fault of its own has nothing: whether it will be any better is not known.
    able = {key.owner for key in pool.keys if key.cooling.until <= pool.now and not key.refused}
    dead = {key.owner for key in pool.keys} - {key.owner for key in pool.keys if not key.refused}
    living = {model: {owner: lane for owner, lane in lanes[model].items() if owner not in dead} for model in lanes}
    keys = [_key(key, lanes, models, pool.now) for key in pool.keys]
    return {
        **_story(tell(pool, lanes, models, max_wait), wall),
        **_past(pool),
        "readyIn": min((key["readyIn"] for key in keys if key["readyIn"] is not None), default=None),
        "nextMinute": sum(_forecast(living[model], able, pool.now) for model in models) if told else None,
        "waiting": sum(len(lane.queue) for lane in pool.lanes.values()),
        "requests": sum(key.requests for key in pool.keys),
        "failures": sum(key.failures for key in pool.keys),
        "uptime": round(pool.uptime, 1),
        "shared": _shared(pool.keys),
        "keys": keys,
        "models": [
            {"name": model, "buckets": [_bar(name, living[model], able, pool.now) for name in PERIODS]}
            for model in lanes
            if living[model]
        ],
        "hours": _hours(pool, wall),
    }


def ready_in(pool: Snapshot, models: Sequence[str], max_wait: float) -> tuple[str, float]:
    """Why no enhancement would be served now or after a wait of ``max_wait``, and the seconds until one may be.

    An empty reason: one would be.
    """
    story = tell(pool, {model: _lanes(pool, model) for model in models}, models, max_wait)
    late = story.back_in is not None and story.back_in > max_wait
    return (story.headline, story.back_in or ASK_AGAIN) if story.status is Status.FAILING or late else ("", 0.0)


def _story(story: Story, wall: float) -> dict[str, Any]:
    back_at = None if story.back_in is None else _clock_time(wall + story.back_in)
    return {
        "status": story.status.value,
        "headline": story.headline,
        "notes": list(story.notes),
        "advice": story.advice and story.advice._asdict(),
        "backIn": story.back_in,
        "backAt": back_at,
    }


def _clock_time(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _past(pool: Snapshot) -> dict[str, Any]:
    """When a request was last served, when one last failed and why, when Groq was last asked about the keys."""
    past = Past.of(pool.hours)
    return {
        "lastSuccess": _ago(pool, past.served_at),
        "lastError": {"ago": _ago(pool, past.failed_at), "reason": past.reason} if past.failed_at else None,
        "checked": _ago(pool, pool.checked_at),
    }


def _ago(pool: Snapshot, instant: float) -> float | None:
    return round(max(0.0, pool.now - instant), 1) if instant else None


def _hours(pool: Snapshot, wall: float) -> list[dict[str, Any]]:
    """The last 24, the present one at the end."""
    last = int(pool.now // HOUR)
    return [
        {
            "from": _clock_time(wall - (pool.now - number * HOUR)),
            "enhancements": hour.served,
            "refusals": hour.refused,
            "failures": hour.failed,
        }
        for number in range(last - HOURS + 1, last + 1)
        for hour in [pool.hours.get(number, Hour())]
    ]


def _key(key: KeyView, lanes: Lanes, models: Sequence[str], now: float) -> dict[str, Any]:
    waits = {model: wait(key, lanes[model], now) for model in lanes}
    pauses = [_pause(model, each) for model, each in waits.items() if each.seconds]
    if key.cooling.until > now:
        pauses = [_pause("", waits[models[0]])]
    if key.refused:
        pauses = [{"model": "", "reason": key.cooling.reason, "then": "", "seconds": None}]
    ready_in = None if key.refused else min(waits[model].seconds for model in models)
    cools = key.cooling.until > now or any(of_model[key.owner].until > now for of_model in lanes.values())
    return {
        "label": key.label,
        "state": _state(key, ready_in, cools=cools, pauses=bool(pauses)),
        "readyIn": ready_in,
        "organization": "" if key.owner == key.label else key.owner,
        "requests": key.requests,
        "failures": key.failures,
        "finding": key.finding,
        "pauses": pauses,
    }


def _state(key: KeyView, ready_in: float | None, *, cools: bool, pauses: bool) -> str:
    if key.refused:
        return "refused"
    if ready_in:
        return "cooling" if cools else "used up"
    if pauses:
        return "partly ready"
    return "ready" if key.proved else "unknown"


def _pause(model: str, wait: Wait) -> dict[str, Any]:
    then = "back in" if wait.limited else "tried again in"
    return {"model": model, "reason": wait.reason, "then": then, "seconds": wait.seconds}


def _lanes(pool: Snapshot, model: str) -> dict[str, Lane]:
    """The model's lane of each owner. Of a bucket not known yet we believe that it is full, and as large as others'."""
    same = [lane for (_, other), lane in pool.lanes.items() if other == model]
    limits = {RPM: float(pool.per_minute)} if pool.per_minute else {}
    for lane in (*pool.lanes.values(), *same):  # those of the same model come last, and count most
        limits |= {name: bucket.limit for name, bucket in lane.buckets.items() if name != TPD}  # nobody knows its level
    usual = {name: Bucket(limit, PERIODS[name]) for name, limit in limits.items()}
    lanes = {key.owner: pool.lanes.get((key.owner, model), Lane()) for key in pool.keys}
    return {owner: replace(lane, buckets=usual | lane.buckets) for owner, lane in lanes.items()}


def _forecast(lanes: Mapping[str, Lane], able: Collection[str], now: float) -> int:
    """Enhancements that the lanes can still begin within ``SPAN``, from what is left and what refills."""
    total, end = 0, now + SPAN
    for lane in (lane for owner, lane in lanes.items() if owner in able):
        begin = max(lane.until, now)
        room = [
            (bucket.left(begin) + bucket.limit * (end - begin) / bucket.period)
            // (min(USUAL, bucket.limit) if name in TOKENS else 1)
            for name, bucket in lane.buckets.items()
        ]
        total += max(0, int(min(room, default=0)) - len(lane.queue)) if begin < end else 0
    return total


def _bar(name: str, lanes: Mapping[str, Lane], able: Collection[str], now: float) -> dict[str, Any]:
    """What all together have left in the bucket ``name``."""
    buckets = {owner: lane.buckets[name] for owner, lane in lanes.items() if name in lane.buckets}
    if not buckets:
        return {"name": name, "left": None, "limit": None, "level": "unknown", "text": _unknown(name, len(lanes))}
    limit = int(sum(bucket.limit for bucket in buckets.values()))
    left = int(sum(max(0.0, bucket.left(now)) for owner, bucket in buckets.items() if owner in able))
    level = "empty" if left < EMPTY * limit else "low" if left < LOW * limit else "good"
    others = len(lanes) - len(buckets)
    text = f"{left:,} of {limit:,} left" + (f", and of {others} more unknown" if others else "")
    return {"name": name, "left": left, "limit": limit, "level": level, "text": text}


def _unknown(name: str, organizations: int) -> str:
    if name == TPD:  # which no header tells
        return f"known once Groq refuses for it; {FREE_PLAN[name] * organizations:,} on the free plan"
    return "known after the first answer"


def _shared(keys: Sequence[KeyView]) -> str:
    owners: dict[str, list[str]] = {}
    for key in keys:
        owners.setdefault(key.owner, []).append(key.label)
    return " ".join(
        f"Keys {', '.join(labels[:-1])} and {labels[-1]} are of one organization ({owner}) and share its limits."
        for owner, labels in owners.items()
        if len(labels) > 1
    )
