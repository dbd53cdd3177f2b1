"""What Prometheus is told, made when it asks. Its library takes 10 to 60 ms to import: only who asks imports this."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from werkzeug.wrappers import Response

from promptlord.groq.attempts import FAULTS
from promptlord.pool.quota import RPM
from promptlord.pool.state import Snapshot
from promptlord.web.traffic import BUCKETS, Durations, Totals

BOUNDS = (*map(str, BUCKETS), "+Inf")
# A version that is no number would end the library in an error.
_NO_VERSION = re.compile(r"version=(?!\d{1,9}(?:\.\d{1,9}){0,3}\s*(?:;|\Z))", re.ASCII)

Rows = Iterable[tuple[Sequence[str], float]]  # the labels' values, and the series'
Family = TypeVar("Family", CounterMetricFamily, GaugeMetricFamily)


@dataclass(eq=False)  # it is its own: a registry hashes it
class Scrape(Collector):
    """All that is told at one instant. ``models``: those of ``/enhance``.

    ``worker``: the process, where several answer in turn; each has counts of its own, while they share the pool.
    """

    pool: Snapshot
    totals: Totals
    in_flight: int
    models: Sequence[str]
    worker: str = ""

    def collect(self) -> Iterator[Metric]:
        yield from _keys(self.pool)
        yield from _lanes(self.pool, self.models)
        for family in (*self._process(), *ProcessCollector(registry=None).collect()):
            yield _of_worker(family, self.worker) if self.worker else family

    def _process(self) -> Iterator[Metric]:
        yield from _requests(self.totals)
        yield from _upstream(self.totals, [key.label for key in self.pool.keys])
        told = "Requests that call Groq or wait for their turn, streams included"
        yield GaugeMetricFamily("promptlord_requests_in_flight", told, self.in_flight)


def response(scrape: Scrape, environ: Mapping[str, Any]) -> Response:
    """What is told, in the format and encoding that the request of this WSGI environment asks for."""
    registry = CollectorRegistry()
    registry.register(scrape)
    accepted = ",".join(one for one in environ.get("HTTP_ACCEPT", "").split(",") if not _NO_VERSION.search(one))
    # HEAD is answered as GET, and its body left out by whoever sends it; there is no choosing of single metrics.
    asked = {**environ, "REQUEST_METHOD": "GET", "QUERY_STRING": "", "HTTP_ACCEPT": accepted}
    told = Response.from_app(make_wsgi_app(registry), asked, buffered=True)
    told.vary.update(("Accept", "Accept-Encoding"))
    return told


def _requests(totals: Totals) -> Iterator[Metric]:
    yield _filled(
        CounterMetricFamily("promptlord_requests", "Requests by route and status", labels=["route", "status"]),
        (((route, str(status)), count) for (route, status), count in totals.responses.items()),
    )
    told = "How long requests took until the headers of their response were ready; what streams comes after them"
    histogram = HistogramMetricFamily("promptlord_request_duration_seconds", told, labels=["route"])
    for route, durations in totals.durations.items():
        histogram.add_metric([route], _cumulative(durations), durations.total)
    yield histogram


def _cumulative(durations: Durations) -> list[tuple[str, float]]:
    return list(zip(BOUNDS, accumulate(durations.counts), strict=True))


def _upstream(totals: Totals, labels: Sequence[str]) -> Iterator[Metric]:
    told = "Calls to Groq by key and whose fault their failure was: none of those that succeeded or began to stream"
    counts = {(label, fault): 0 for label in labels for fault in FAULTS} | dict(totals.attempts)
    yield _filled(CounterMetricFamily("promptlord_upstream_attempts", told, labels=["key", "fault"]), counts.items())
    told = "Tokens of calls that Groq took, as it counts them: prompt and reserve; estimated where it is silent"
    tokens = (((model,), count) for model, count in totals.tokens.items())
    yield _filled(CounterMetricFamily("promptlord_tokens", told, labels=["model"]), tokens)


def _keys(pool: Snapshot) -> Iterator[Metric]:
    now, keys = pool.now, pool.keys
    yield GaugeMetricFamily("promptlord_keys", "API keys that are configured", len(keys))
    yield _filled(
        GaugeMetricFamily("promptlord_key_info", "The organization of each key", labels=["key", "organization"]),
        (((key.label, key.owner), 1) for key in keys),
    )
    yield _filled(
        CounterMetricFamily("promptlord_key_requests", "Calls to Groq with each key, of all processes", labels=["key"]),
        (((key.label,), key.requests) for key in keys),
    )
    yield _filled(
        CounterMetricFamily("promptlord_key_failures", "Failures of each key, in all processes", labels=["key"]),
        (((key.label,), key.failures) for key in keys),
    )
    told = "For how long each key is out of rotation for every model; 0 if it is not"
    yield _filled(
        GaugeMetricFamily("promptlord_key_cooldown_seconds", told, labels=["key"]),
        (((key.label,), max(0.0, key.cooling.until - now)) for key in keys),
    )


def _lanes(pool: Snapshot, models: Sequence[str]) -> Iterator[Metric]:
    """Of the models of ``/enhance``, and of others whose limits Groq has told: of what names clients try, none."""
    now, owners = pool.now, {key.owner for key in pool.keys}
    lanes = {
        name: lane
        for name, lane in pool.lanes.items()
        if name[0] in owners and (name[1] in models or lane.buckets.keys() - {RPM})
    }
    buckets = {(*name, which): bucket for name, lane in lanes.items() for which, bucket in lane.buckets.items()}
    of_lane = ["organization", "model"]
    of_bucket = [*of_lane, "bucket"]
    told = "Requests or tokens left in each bucket of a lane, which is an organization's for a model"
    yield _filled(
        GaugeMetricFamily("promptlord_lane_left", told, labels=of_bucket),
        ((name, max(0.0, bucket.left(now))) for name, bucket in buckets.items()),
    )
    told = "Requests or tokens that each bucket of a lane can hold"
    yield _filled(
        GaugeMetricFamily("promptlord_lane_limit", told, labels=of_bucket),
        ((name, bucket.limit) for name, bucket in buckets.items()),
    )
    told = "For how long each lane is out of rotation; 0 if it is not"
    yield _filled(
        GaugeMetricFamily("promptlord_lane_cooldown_seconds", told, labels=of_lane),
        ((name, max(0.0, lane.until - now)) for name, lane in lanes.items()),
    )
    waiting = sum(len(lane.queue) for lane in pool.lanes.values())
    yield GaugeMetricFamily("promptlord_waiting_requests", "Requests that wait for their turn", waiting)


def _filled(family: Family, rows: Rows) -> Family:
    for labels, value in rows:
        family.add_metric(labels, value)
    return family


def _of_worker(family: Metric, worker: str) -> Metric:
    family.samples = [sample._replace(labels={**sample.labels, "worker": worker}) for sample in family.samples]
    return family
