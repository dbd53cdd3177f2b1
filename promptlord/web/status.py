"""What is told of the pool over HTTP: ``/health``, ``/ready``, ``/status``, the page, and its one button."""

import os
import time
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from promptlord.errors import Exhausted, NotConfigured
from promptlord.web.access import require_operator, same_origin
from promptlord.web.headline import spell
from promptlord.web.report import EMPTY, LOW, ready_in, report
from promptlord.web.service import service

routes = Blueprint("status", __name__)

OPEN_TO_ALL = {"status.health", "status.ready", "status.favicon"}  # the rest is the operator's


@routes.before_request
def admit() -> None:
    """Let in who has a token, where one is set. Preflights carry none."""
    if request.endpoint not in OPEN_TO_ALL and request.method != "OPTIONS":
        require_operator(service().config.access_tokens)


@routes.get("/health")
def health() -> tuple[Response, int]:
    found = service().pool.health(service().config.models)
    return jsonify(found), 503 if found["status"] == "unconfigured" else 200


@routes.get("/ready")
def ready() -> Response:
    """For monitors: whether an enhancement would be served now, or after a wait that is not too long."""
    config = service().config
    if not config.keys:
        raise NotConfigured("No Groq API key is configured")
    why_not, seconds = ready_in(service().pool.snapshot(), config.models, config.max_wait)
    if why_not:
        raise Exhausted(why_not, seconds)
    return jsonify(status="ready")


@routes.get("/status")
def as_json() -> Response:
    return jsonify(_report())


@routes.get("/")
def page() -> str:
    return render_template("status.html", **_report(), spell=spell, low=LOW, empty=EMPTY)


@routes.post("/check")
def check() -> BaseResponse:
    """Ask Groq about each key. Who asks too soon sees what was found before."""
    same_origin()
    service().check()
    return redirect(url_for("status.page"), 303)


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
    config = service().config
    told = report(service().pool.snapshot(), config.models, config.max_wait, time.time())
    if told["advice"]:
        told["advice"]["command"] = told["advice"]["command"].format(url=request.url_root)
    return told
