"""An answer as it comes in: its head and its body, each until the deadline, and strict about where they end."""

import http.client
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from promptlord.errors import Broken
from promptlord.groq.deadline import Reader

FIELDS_MAX = 100  # of a header
LINE_MAX = 1 << 16  # bytes of one of them
PIECE_MAX = 1 << 14  # bytes of a body that are read at once: a TLS record; four times as many leave 8 MB more behind

_LENGTH = re.compile("[0-9]{1,18}")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
_FIELD = re.compile(rb"([!#-'*+.^-z|~0-9A-Z-]+):([^\r\n\0]*)\r?\n")


class TimedResponse(http.client.HTTPResponse):
    """http.client's, reading until the deadline of the request that its thread has sent, and strict about its end.

    Where an answer ends in doubt, the rest of it would be taken for the next one, which is somebody else's. Its body is
    read by ``pieces`` alone: by way of http.client, urllib3 and requests it takes several times as long.
    """

    _surplus = b""  # what has come behind it

    def __init__(self, sock: Any, **kwargs: Any) -> None:
        super().__init__(sock, **kwargs)
        self._reader: Reader = self.fp.raw  # type: ignore[assignment]

    def begin(self) -> None:
        """Read up to the body, past interim answers (RFC 9110, 15.2)."""
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
        connection = ",".join(fields.get("connection", [])).lower()
        closes = "close" in connection if self.version == 11 else "keep-alive" not in connection
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

    def pieces(self) -> Iterator[bytes]:
        """What is left of the body, each time all that is there. Raises ``Broken``, ``Disconnected`` or ``OSError``."""
        chunks = Chunks() if self.chunked else None
        read = self._read_with_head
        while self.fp and self.length != 0:
            data = read(PIECE_MAX if self.length is None else min(self.length, PIECE_MAX))
            read = self._reader.take
            if not data and (chunks or self.length):
                raise Broken("it broke off")
            if chunks:
                data = chunks.take(data)
                if chunks.ended:
                    self.length, self._surplus = 0, chunks.rest
            elif self.length is None:
                self.length = None if data else 0
            else:
                self.length -= len(data)
            if data:
                yield data
        if self.fp:
            self._close_conn()

    def _read_with_head(self, size: int) -> bytes:
        """What has come with the last of the head, or what comes next."""
        ended, self._reader.ended = self._reader.ended, True  # for now, so that no more is read than is here
        data: bytes = self.fp.read1(size)
        self._reader.ended = ended
        return data or self._reader.take(size)

    def _close_conn(self) -> None:
        """Let go of the connection, for good if more has come than this answer."""
        self._reader.ended = True
        if self._surplus or self._reader.pending() or self.fp.peek():
            self._reader.refuse_more()
        super()._close_conn()  # type: ignore[misc]


class Chunks:
    """Takes a body out of its chunks (RFC 9112, 7.1), however they come in."""

    def __init__(self) -> None:
        self.rest = b""  # a line that has not ended yet; in the end what comes behind the body
        self.ended = False
        self._left = 0  # bytes that are still to come of the present chunk
        self._line: Callable[[bytes], None] = self._size  # what the next line is

    def take(self, data: bytes) -> bytes:
        """What of the body is in these bytes. Raises ``Broken``."""
        data, at, parts = self.rest + data, 0, []
        while not self.ended:
            if self._left:
                parts.append(part := data[at : at + self._left])
                at, self._left = at + len(part), self._left - len(part)
                if self._left:
                    break
                self._line = self._end
            if (end := data.find(b"\r\n", at)) < 0:
                break
            self._line(data[at:end])
            at = end + 2
        self.rest = data[at:]
        if len(self.rest) > LINE_MAX and not self.ended:
            raise Broken("a line of its chunks does not end")
        return b"".join(parts)

    def _size(self, line: bytes) -> None:
        if not (size := _SIZE.fullmatch(line)):
            raise Broken("a chunk's size is malformed")
        self._left = int(size[1], 16)
        self._line = self._trailer

    def _end(self, line: bytes) -> None:
        if line:
            raise Broken("a chunk is longer than it says")
        self._line = self._size

    def _trailer(self, line: bytes) -> None:
        self.ended = not line


def decoded(pieces: Iterable[bytes], coding: str, most: int) -> Iterator[bytes]:
    """A body's bytes without their content coding, of which gzip alone is ever asked for. Raises ``Broken``.

    Of a piece that makes more than ``most`` bytes, not all are told: whoever bounds them reads no further.
    """
    if coding in ("", "identity"):
        yield from pieces
        return
    decoder = None
    try:
        for piece in pieces:
            decoder = decoder or zlib.decompressobj(zlib.MAX_WBITS | 32)  # which knows gzip and deflate apart
            yield decoder.decompress(piece, most + 1)
    except zlib.error as error:
        raise Broken("it can't be decoded") from error
    if decoder and not decoder.eof:
        raise Broken("it broke off")


def _ends_plainly(lengths: Sequence[str], codings: Sequence[str]) -> bool:
    """Whether one length says where the body ends, or its chunks, or the connection's end (RFC 9112, 6.3)."""
    if codings:
        return not lengths and [coding.lower() for coding in codings] == ["chunked"]
    return not lengths or (len(lengths) == 1 and bool(_LENGTH.fullmatch(lengths[0])))
