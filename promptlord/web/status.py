"""What is told of the pool: ``/health``, ``/ready``, ``/status`` and the status page. All but the routes is pure."""

import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from promptlord.errors import Exhausted, NotConfigured
from promptlord.pool.quota import PERIODS, RPM, TOKENS, TPD, Bucket, Lane
from promptlord.pool.state import Demand, KeyView, Snapshot
from promptlord.web.enhance import Enhancement
from promptlord.web.service import service

routes = Blueprint("status", __name__)

LEAST = Enhancement.of("", ()).demand.tokens  # tokens; with room for so many a key is ready
USUAL = Enhancement.of("x" * 200, ()).demand.tokens  # tokens; what the forecast counts in
UNKNOWN = {TPD: "known once Groq has refused for it"}  # no header tells it
SPAN = 60.0  # seconds that the forecast looks ahead


@routes.get("/health")
def health() -> tuple[Response, int]:
    found = service().pool.health(service().config.models)
    return jsonify(found), 503 if found["status"] == "unconfigured" else 200


@routes.get("/ready")
def ready() -> Response:
    """For monitors: whether an enhancement would be served now, or after a wait that is not too long."""
    config, pool = service().config, service().pool
    if not config.keys:
        raise NotConfigured("No Groq API key is configured")
    ready_in = pool.ready_in(Demand(config.models, LEAST))
    if ready_in > config.max_wait:
        raise Exhausted("All API keys are busy or cooling down", ready_in)
    return jsonify(status="ready")


@routes.get("/status")
def as_json() -> Response:
    return jsonify(_report())


@routes.get("/")
def page() -> str:
    return render_template("status.html", **_report(), spell=spell)


@routes.get("/metrics")
def metrics() -> BaseResponse:
    """For Prometheus, whose library is imported when it first asks: most operators have none."""
    from promptlord.web.metrics import Scrape, response

    now, config = service(), service().config
    worker = str(os.getpid()) if config.workers > 1 else ""
    told = now.pool.snapshot(), now.traffic.totals(), now.upstream.in_flight
    return response(Scrape(*told, config.models, worker), request.environ)


@routes.get("/favicon.ico")
def favicon() -> Response:
    return current_app.send_static_file("favicon.svg")


def _report() -> dict[str, Any]:
    return report(service().pool.snapshot(), service().config.models)


def report(pool: Snapshot, models: Sequence[str]) -> dict[str, Any]:
    """Describe the pool; ``models``: those of ``/enhance``. Others are shown once Groq has told their limits."""
    told = {model for (_, model), lane in pool.lanes.items() if lane.buckets.keys() - {RPM}}
    lanes = {model: _lanes(pool, model) for model in (*models, *sorted(told.difference(models)))}
    # An owner whose every key cools for a fault of its own has nothing: whether it will be any better is not known.
    able = {key.owner for key in pool.keys if key.cooling.until <= pool.now}
    keys = [_key(key, {model: lanes[model][key.owner] for model in lanes}, models, pool.now) for key in pool.keys]
    ready = sum(not key["readyIn"] for key in keys)
    return {
        "status": "healthy" if ready else "exhausted" if keys else "unconfigured",
        "headline": _headline(ready, len(keys)),
        "readyIn": min((key["readyIn"] for key in keys), default=None),
        "nextMinute": sum(_forecast(lanes[model], able, pool.now) for model in models) if told else None,
        "waiting": sum(len(lane.queue) for lane in pool.lanes.values()),
        "requests": sum(key.requests for key in pool.keys),
        "failures": sum(key.failures for key in pool.keys),
        "uptime": round(pool.uptime, 1),
        "shared": _shared(pool.keys),
        "keys": keys,
        "models": [
            {"name": model, "buckets": [_bar(name, lanes[model], able, pool.now) for name in PERIODS]}
            for model in lanes
        ],
    }


def spell(seconds: float) -> str:
    """A duration in its two largest units: ``26 s``, ``1 min 5 s``, ``3 h 2 min``; ``status.js`` counts down alike."""
    left = math.ceil(seconds)
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if left >= size:
            rest = left % size // smaller
            return f"{left // size} {unit}" + (f" {rest} {name}" if rest else "")
    return f"{left} s"


def _lanes(pool: Snapshot, model: str) -> dict[str, Lane]:
    """The model's lane of each owner. Of a bucket not known yet we believe that it is full, and as large as others'."""
    same = [lane for (_, other), lane in pool.lanes.items() if other == model]
    limits = {RPM: float(pool.per_minute)} if pool.per_minute else {}
    for lane in (*pool.lanes.values(), *same):  # those of the same model come last, and count most
        limits |= {name: bucket.limit for name, bucket in lane.buckets.items() if name != TPD}  # nobody knows its level
    usual = {name: Bucket(limit, PERIODS[name]) for name, limit in limits.items()}
    lanes = {key.owner: pool.lanes.get((key.owner, model), Lane()) for key in pool.keys}
    return {owner: replace(lane, buckets=usual | lane.buckets) for owner, lane in lanes.items()}


def _key(key: KeyView, lanes: Mapping[str, Lane], models: Sequence[str], now: float) -> dict[str, Any]:
    waits = {model: round(max(0.0, lane.ready_at(now, LEAST) - now), 1) for model, lane in lanes.items()}
    pauses = [_pause(model, *_why(lanes[model], now), wait) for model, wait in waits.items() if wait]
    ready_in, cools = min(waits[model] for model in models), any(lane.until > now for lane in lanes.values())
    if key.cooling.until > now:
        ready_in, cools = round(key.cooling.until - now, 1), True
        pauses = [_pause("", key.cooling.reason, key.cooling.limited, ready_in)]
    return {
        "label": key.label,
        "state": ("cooling" if cools else "used up") if ready_in else "partly ready" if pauses else "ready",
        "readyIn": ready_in,
        "organization": "" if key.owner == key.label else key.owner,
        "requests": key.requests,
        "failures": key.failures,
        "pauses": pauses,
    }


def _pause(model: str, reason: str, limited: bool, seconds: float) -> dict[str, Any]:
    then = "back in" if limited else "tried again in"
    return {"model": model, "reason": reason, "then": then, "seconds": seconds}


def _why(lane: Lane, now: float) -> tuple[str, bool]:
    """The reason why a lane is not ready, and whether it will be, once that is over."""
    if lane.until > now:
        return lane.reason, lane.limited
    alone = (replace(lane, buckets={name: bucket}) for name, bucket in lane.buckets.items())
    (scarcest,) = max(alone, key=lambda lane: lane.ready_at(now, LEAST)).buckets
    return f"{scarcest} used up", True


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
        total += max(0, int(min(room)) - len(lane.queue)) if begin < end else 0
    return total


def _bar(name: str, lanes: Mapping[str, Lane], able: Collection[str], now: float) -> dict[str, Any]:
    """What all together have left in the bucket ``name``."""
    buckets = {owner: lane.buckets[name] for owner, lane in lanes.items() if name in lane.buckets}
    if not buckets:
        return {"name": name, "left": None, "limit": None, "text": UNKNOWN.get(name, "known after the first answer")}
    limit = int(sum(bucket.limit for bucket in buckets.values()))
    left = int(sum(max(0.0, bucket.left(now)) for owner, bucket in buckets.items() if owner in able))
    return {"name": name, "left": left, "limit": limit, "text": f"{left:,} of {limit:,} left"}


def _headline(ready: int, keys: int) -> str:
    if not ready:
        return "No key is ready" if keys else "No key is configured"
    if ready == keys:
        return {1: "The key is ready", 2: "Both keys are ready"}.get(keys, f"All {keys} keys are ready")
    return f"{ready} of {keys} keys {'is' if ready == 1 else 'are'} ready"


def _shared(keys: Sequence[KeyView]) -> str:
    owners: dict[str, list[str]] = {}
    for key in keys:
        owners.setdefault(key.owner, []).append(key.label)
    return " ".join(
        f"Keys {', '.join(labels[:-1])} and {labels[-1]} are of one organization ({owner}) and share its limits."
        for owner, labels in owners.items()
        if len(labels) > 1
    )
