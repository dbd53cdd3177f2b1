"""An answer as it comes in: its head and its body, each until the deadline, and strict about where they end."""

import http.client
import re
from collections.abc import Sequence
from typing import Any

from promptlord.errors import Broken
from promptlord.groq.deadline import Reader

FIELDS_MAX = 100  # of a header
LINE_MAX = 1 << 16  # bytes of one of them

_LENGTH = re.compile("[0-9]{1,18}")
_FIELD = re.compile(rb"([!#-'*+.^-z|~0-9A-Z-]+):([^\r\n\0]*)\r?\n")


class TimedResponse(http.client.HTTPResponse):
    """http.client's, reading until the deadline of the request that its thread has sent, and strict about its end.

    Where an answer ends in doubt, the rest of it would be taken for the next one, which is somebody else's.
    """

    def __init__(self, sock: Any, **kwargs: Any) -> None:
        super().__init__(sock, **kwargs)
        self._reader: Reader = self.fp.raw  # type: ignore[assignment]

    def begin(self) -> None:
        """Read up to the body, past interim answers (RFC 9110, 15.2). http.client's reads it as e-mail, at length."""
        status = 0
        while status < 200:
            version, status, reason = self._read_status()  # type: ignore[attr-defined]
            fields = self._read_fields()
        if not version.startswith("HTTP/1."):
            raise Broken("of another protocol")
        self.version = 10 if version == "HTTP/1.0" else 11
        self.code, self.status, self.reason = status, status, reason.strip()
        lengths, codings = fields.get("content-length", []), fields.get("transfer-encoding", [])
        if not _ends_plainly(lengths, codings):
            raise Broken("nobody can tell where it ends")
        self.chunked, self.chunk_left = bool(codings), None
        self.length = 0 if status in (204, 304) else int(lengths[0]) if lengths else None
        kept = ",".join(fields.get("connection", [])).lower()
        closes = "close" in kept if self.version == 11 else "keep-alive" not in kept
        self.will_close = closes or not (self.chunked or self.length is not None)

    def _read_fields(self) -> dict[str, list[str]]:
        """The header, by names in lower case, of which ``headers`` tells the same. Raises ``Broken``."""
        self.headers = self.msg = http.client.HTTPMessage()
        fields: dict[str, list[str]] = {}
        for _ in range(FIELDS_MAX):
            line = self.fp.readline(LINE_MAX)
            if line in (b"\r\n", b"\n"):
                return fields
            if not (field := _FIELD.fullmatch(line)):
                raise Broken("its header is malformed")
            name, value = field[1].decode(), field[2].strip(b" \t").decode("latin-1")
            self.headers.set_raw(name, value)
            fields.setdefault(name.lower(), []).append(value)
        raise Broken("its header has too many fields")

    def _read_next_chunk_size(self) -> int:
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]
        if size < 0:
            raise ValueError("negative")  # as for what is no number
        return size

    def _close_conn(self) -> None:
        """Let go of the connection, for good if more has come than this answer."""
        self._reader.ended = True
        if self._reader.pending() or self.fp.peek():
            self._reader.refuse_more()
        super()._close_conn()  # type: ignore[misc]


def _ends_plainly(lengths: Sequence[str], codings: Sequence[str]) -> bool:
    """Whether one length says where the body ends, or its chunks, or the connection's end (RFC 9112, 6.3)."""
    if codings:
        return not lengths and [coding.lower() for coding in codings] == ["chunked"]
    return not lengths or (len(lengths) == 1 and bool(_LENGTH.fullmatch(lengths[0])))
