"""Has each refused request logged, with the reason that whoever refused it has told."""

import logging
import time
from collections.abc import Callable
from http.client import responses

from flask import Flask, Response, g, request

from promptlord.refusals import Refusals, shown


def because(reason: str) -> None:
    """Tell the log why this request is refused, in the operator's words; of several the first, which knows most."""
    g.setdefault("refused_because", reason)


def log_refusals(app: Flask, clock: Callable[[], float] = time.monotonic) -> None:
    """Log each response of the app's whose status is 400 or more."""
    refusals = Refusals(logging.getLogger("promptlord"), clock)

    @app.before_request
    def begin() -> None:
        g.began = clock()

    @app.after_request
    def log(response: Response) -> Response:
        if response.status_code >= 400:
            reason = g.get("refused_because") or responses.get(response.status_code, "unknown")
            refusals.tell(response.status_code, shown(request.method, request.path), reason, clock() - g.began)
        return response
