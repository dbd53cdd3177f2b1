"""Server-sent events from Groq to the client: whole, as they come, without organization ids in errors."""

import errno
import json
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from promptlord.errors import Broken, Disconnected, ReadTimeout
from promptlord.groq.policy import mask
from promptlord.groq.transport import Answer

EVENT_ENDS = (b"\n\n", b"\n\r\n")
BETWEEN_EVENTS = re.compile(rb"(?<=\n\n)|(?<=\n\r\n)")
# Responses have "error": null in good events; quotes in what a model says are escaped, so that none of it looks so.
ERROR = re.compile(
    rb'"error"\s*:\s*[{"]|"type"\s*:\s*"error"|^event: ?(?:error|response\.failed)\b',
    re.MULTILINE,
)
NUMBER = re.compile(rb'"sequence_number"\s*:\s*(\d{1,9})\b')
HELD_MAX = 1 << 20  # bytes of an event that has not ended; one that is larger is passed on in parts
ID_MAX = 64  # bytes of an organization's id, which no part ends within
ID_BYTES = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
LAST = 3  # pieces that show how a stream has ended: behind a chat's reason to finish comes its usage, then [DONE]
BROKE_OFF = "The stream from Groq broke off"


@dataclass(frozen=True)
class Ending:
    """How one kind of stream ends. ``strict``: one that ends without this sign has broken off."""

    sign: re.Pattern[bytes]
    strict: bool = True

    def seen(self, *last: bytes | bytearray) -> bool:
        return bool(self.sign.search(b"".join(last)))

    def broken(self, *last: bytes) -> bytes:
        """The event for a client whose stream has broken off after these."""
        return _event({"error": {"message": BROKE_OFF, "type": "server_error", "code": "upstream_error"}})


class ResponseEnding(Ending):
    """The same for responses, whose events are numbered, and whose errors are their own event's."""

    def broken(self, *last: bytes) -> bytes:
        number = int((NUMBER.findall(b"".join(last)) or [-1])[-1]) + 1
        told = {"type": "error", "code": "upstream_error", "message": BROKE_OFF, "param": None}
        return _event(told | {"sequence_number": number})


CHAT = Ending(re.compile(rb'^data: ?\[DONE\]|"finish_reason"\s*:\s*"|' + ERROR.pattern, re.MULTILINE))
RESPONSE = ResponseEnding(
    re.compile(
        rb"^event: ?(?:error|response\.(?:completed|incomplete|failed|cancelled))\b"
        rb'|"type"\s*:\s*"(?:error|response\.(?:completed|incomplete|failed|cancelled))"',
        re.MULTILINE,
    )
)
OTHER = Ending(
    re.compile(rb'^data: ?\[DONE\]|"type"\s*:\s*"(?:speech\.audio|transcript\.text)\.done"', re.MULTILINE),
    strict=False,
)


def events(answer: Answer, ending: Ending) -> Iterator[bytes]:
    """A stream's events, each whole, so that one cut in two is not taken for bad JSON but for what it is.

    One that breaks off before its end is ended with the event that tells so.
    """
    held, last = _Held(), deque[bytes](maxlen=LAST)
    rest = held.rest
    try:
        for chunk in answer.chunks():
            if piece := _masked(chunk) if not rest and chunk.endswith(EVENT_ENDS) else held.add(chunk):
                last.append(piece)
                yield piece
        whole = ending.seen(*last, rest) or not ending.strict
        if whole and rest:
            yield held.take(len(rest))
    except (Broken, ReadTimeout):
        whole = ending.seen(*last)
    except Disconnected as hung_up:
        raise ConnectionResetError(errno.ECONNRESET, "the client has disconnected") from hung_up
    if not whole:
        yield held.separator + ending.broken(*last)


class _Held:
    """The beginning of an event that has not ended yet."""

    def __init__(self) -> None:
        self.rest = bytearray()
        self.separator = b""  # what ends the event, where a part of it has been passed on
        self._tells_error = False  # that part

    def add(self, chunk: bytes) -> bytes:
        """Hold these bytes too; return what may be passed on: whole events, a part of a very large one, or nothing."""
        rest = self.rest
        fresh = max(len(rest) - 2, 0)  # where an end not yet seen may begin
        rest += chunk
        if end := len(rest) if chunk.endswith(EVENT_ENDS) else _end(rest, fresh):
            events = self.take(end)
            self.separator, self._tells_error = b"", False
            return events
        if len(rest) <= HELD_MAX:
            return b""
        part = self.take(len(rest[:-ID_MAX].rstrip(ID_BYTES)) or len(rest) - ID_MAX)
        self.separator, self._tells_error = b"\n\n", self._tells_error or bool(ERROR.search(part))
        return part

    def take(self, size: int) -> bytes:
        """The first bytes of what is held, which are held no longer."""
        taken = bytes(self.rest[:size])
        del self.rest[:size]
        if not self._tells_error:
            return _masked(taken)
        first, *others = BETWEEN_EVENTS.split(taken, 1)
        return mask(first) + _masked(b"".join(others))


def _end(data: bytearray, start: int) -> int:
    """Where the last whole event ends, whose end is found behind ``start``; 0 if there is none."""
    lf, crlf = data.rfind(b"\n\n", start), data.rfind(b"\n\r\n", start)
    return max(lf + 2 if lf >= 0 else 0, crlf + 3 if crlf >= 0 else 0)


def _masked(events: bytes) -> bytes:
    """The same without organization ids in those that tell an error; what a model says is left alone."""
    if b"error" not in events and b"response.failed" not in events:  # which takes a tenth of the search
        return events
    if not ERROR.search(events):
        return events
    return b"".join(mask(event) if ERROR.search(event) else event for event in BETWEEN_EVENTS.split(events))


def _event(told: dict[str, object]) -> bytes:
    return b"event: error\ndata: %b\n\n" % json.dumps(told).encode()
