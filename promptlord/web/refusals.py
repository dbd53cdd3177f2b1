"""Has each refused request logged and counted, with the reason that whoever refused it has told."""

import logging
from collections.abc import Callable
from http.client import responses

from flask import Flask, Response, g, request

from promptlord.errors import Cause
from promptlord.refusals import Refusals, shown
from promptlord.web.service import service

PRESS = "enhance.enhance"  # the endpoint
HUNG_UP = 499  # the status for nobody: the client has disconnected
GROQS = {Cause.GROQ, Cause.NETWORK}  # that fail for all, and not only for who asks for another model


def because(reason: str, cause: Cause = Cause.REQUEST) -> None:
    """Tell the log why this request is refused, in the operator's words; of several the first, which knows most."""
    g.setdefault("refused_because", (reason, cause))


def log_refusals(app: Flask, clock: Callable[[], float]) -> None:
    """Log each response of the app's whose status is 400 or more, and have the pool remember what it tells of Groq.

    ``clock`` is that by which a request ``began``; see ``traffic``.
    """
    refusals = Refusals(logging.getLogger("promptlord"), clock)

    @app.after_request
    def log(response: Response) -> Response:
        if response.status_code >= 400:
            unsaid = responses.get(response.status_code, "unknown"), Cause.REQUEST
            reason, cause = g.get("refused_because", unsaid)
            refusals.tell(response.status_code, shown(request.method, request.path), reason, clock() - g.began)
            press = request.endpoint == PRESS
            if response.status_code != HUNG_UP and (press or cause in GROQS):
                service().pool.unserved(cause, reason, press=press)
        return response
