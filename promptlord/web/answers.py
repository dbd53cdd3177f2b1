"""Groq's answers as the client gets them: bytes as they come, and let go of whatever happens."""

import errno
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

from flask import Response

from promptlord.errors import Broken, Disconnected, ReadTimeout
from promptlord.groq import policy
from promptlord.groq.policy import mask
from promptlord.groq.transport import Answer
from promptlord.web.refusals import because
from promptlord.web.sse import Ending, events


class PassedOn(Response):
    """An answer on its way to the client, past Werkzeug's own generators.

    Where the server refuses its headers, nobody else would close it.
    """

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        with ExitStack() as refused:
            refused.callback(self.close)
            body = super().__call__(environ, start_response)
            refused.pop_all()
        return _Body(body, self.close)


class _Body:
    """A response's bytes, as a server takes and then closes them."""

    def __init__(self, pieces: Iterable[bytes], close: Callable[[], None]) -> None:
        self._pieces, self.close = pieces, close

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)


def response(answer: Answer, ending: Ending) -> Response:
    """What the client gets: of Groq's headers only what it needs, and bytes as they come."""
    names = ["Content-Type", "X-Request-Id"]
    if not policy.is_good(answer.status):
        because("Passed on from Groq")
        body: Any = mask(answer.read())
    elif is_stream(answer):
        body = events(answer, ending)  # whose length may change
    else:
        names += ["Content-Encoding", "Content-Length"]
        body = _bytes(answer)
    response = PassedOn(body, answer.status, mimetype="application/json", direct_passthrough=True)
    response.call_on_close(answer.close)  # a generator that never starts runs no finally
    for name in names:
        value = answer.headers.get(name)
        if value and value.isprintable():  # gunicorn refuses others
            response.headers[name] = value
    return response


def is_stream(answer: Answer) -> bool:
    return answer.headers.get("Content-Type", "").lower().startswith("text/event-stream")


def _bytes(answer: Answer) -> Iterator[bytes]:
    try:
        yield from answer.chunks()
    except (Broken, ReadTimeout, Disconnected) as error:
        # gunicorn cuts the connection, so that the client sees what it has is not all; other errors it would log.
        raise ConnectionResetError(errno.ECONNRESET, "the answer broke off") from error
