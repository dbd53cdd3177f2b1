"""What clients send: bodies of bounded size, JSON objects, forms."""

import io
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from shutil import copyfileobj
from typing import IO, Any

from flask import request
from werkzeug.exceptions import BadRequest
from werkzeug.formparser import FormDataParser

BODY_MAX = 128 * 1024  # bytes; 5,000 characters of any script take 60,000 when JSON-escaped
UPLOAD_MAX = 25 * 1024 * 1024 + 64 * 1024  # bytes: Whisper's 25 MB, and the form around them
IN_MEMORY = 1024 * 1024  # bytes of an upload; what is beyond waits on disk
CHUNK_MAX = 1 << 16  # bytes read at once


def whole_body() -> bytes:
    """The request's body. One in chunks that is too large raises, where ``get_data`` would return its beginning."""
    return b"".join(iter(lambda: request.stream.read(CHUNK_MAX), b""))


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body must be; raises ``BadRequest``."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise BadRequest("Request body must be a JSON object")
    return data


@contextmanager
def spooled() -> Iterator[IO[bytes]]:
    """The request's body in a file: it may be large, and may have to be sent again."""
    with tempfile.SpooledTemporaryFile(IN_MEMORY) as file:
        copyfileobj(request.stream, file)
        yield file


class _Nowhere(io.RawIOBase):
    """Where the files of a form go that is read for a field only."""

    def write(self, data: Any) -> int:
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return 0


def form_field(file: IO[bytes], name: str) -> str:
    """A field of the form that the file holds, empty if it has none."""
    file.seek(0)
    parser = FormDataParser(stream_factory=lambda **_: _Nowhere(), silent=True)  # type: ignore[arg-type]
    _, form, _ = parser.parse(file, request.mimetype, None, dict(request.mimetype_params))
    return form.get(name, "")
