"""Server-sent events from Groq to the client: whole, as they come, without organization ids in errors."""

import errno
import re
from collections.abc import Iterator

from promptlord.errors import Broken, Disconnected, ReadTimeout
from promptlord.groq.policy import mask
from promptlord.groq.transport import Answer

EVENT_ENDS = (b"\n\n", b"\n\r\n")
BETWEEN_EVENTS = re.compile(rb"(?<=\n\n)|(?<=\n\r\n)")
ERROR = re.compile(rb'"error"\s*:\s*[{"]')  # responses have "error": null in good events, and the text beside it


def events(answer: Answer, broken: bytes) -> Iterator[bytes]:
    """A stream's events, each whole, so that one cut in two is not taken for bad JSON but for what it is.

    ``broken``: the event that ends a stream which breaks off.
    """
    rest = bytearray()
    try:
        for chunk in answer.chunks():
            fresh = max(len(rest) - 2, 0)  # where an end not yet seen may begin
            rest += chunk
            if ends := [at + len(end) for end in EVENT_ENDS if (at := rest.rfind(end, fresh)) >= 0]:
                yield _masked(bytes(rest[: max(ends)]))
                del rest[: max(ends)]
        yield bytes(rest)
    except (Broken, ReadTimeout):
        yield broken
    except Disconnected as hung_up:
        raise ConnectionResetError(errno.ECONNRESET, "the client has disconnected") from hung_up


def _masked(events: bytes) -> bytes:
    """The same without organization ids in those that tell an error; what a model says is left alone."""
    if not ERROR.search(events):
        return events
    return b"".join(mask(event) if ERROR.search(event) else event for event in BETWEEN_EVENTS.split(events))
