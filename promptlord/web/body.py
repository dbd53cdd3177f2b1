"""What clients send: bodies of bounded size, JSON objects, forms."""

import io
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from shutil import copyfileobj
from typing import IO, Any, TypeVar

from flask import request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

BODY_MAX = 128 * 1024  # bytes; 5,000 characters of any script take 60,000 when JSON-escaped
JSON_MAX = 8 * 1024 * 1024  # bytes: what conversations with pictures need
UPLOAD_MAX = 25 * 1024 * 1024 + 64 * 1024  # bytes: Whisper's 25 MB, and the form around them
IN_MEMORY = 1024 * 1024  # bytes of a body; a larger one waits on disk
CHUNK_MAX = 1 << 16  # bytes read at once
LARGE = 1 << 16  # bytes of JSON that take more memory than any number of threads may at once
PAUSE = 0.05  # seconds after one beyond ``IN_MEMORY``, for others: it may hold the interpreter for twice as long
PARTS_MAX = 1000  # of a form
VALUES_MAX = 250_000  # of a large body; each takes 40 to 200 bytes of memory

T = TypeVar("T")

_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{,]', re.DOTALL)
_large = ThreadPoolExecutor(1, "json")  # whose thread starts with the first


def in_words(size: int) -> str:
    """So many bytes, rounded down: what is beyond is for a form around a file."""
    return f"{size >> 20} MB" if size >> 20 else f"{size >> 10} KB"


def whole_body() -> bytes:
    """The request's body. One in chunks that is too large raises, where ``get_data`` would return its beginning."""
    return b"".join(iter(lambda: request.stream.read(CHUNK_MAX), b""))


def json_file(file: IO[bytes], use: Callable[[dict[str, Any]], T]) -> tuple[bytes | IO[bytes], T]:
    """The body that the file holds, out of the memory if it is large, and what ``use`` makes of its JSON object.

    Raises like ``json_object``.
    """
    size = file.tell()
    if size <= LARGE:
        return _used(file, use)
    # One at a time, for JSON takes up to eight times its size; in one thread, for the allocator keeps what a thread
    # has freed for that thread: with eight of them the process grew to 226 MB.
    parsed = _large.submit(_used, file, use)
    if size > IN_MEMORY:
        _large.submit(time.sleep, PAUSE)
    if error := parsed.exception():
        raise error.with_traceback(None)  # which would hold the body
    return parsed.result()


def _used(file: IO[bytes], use: Callable[[dict[str, Any]], T]) -> tuple[bytes | IO[bytes], T]:
    file.seek(0)
    body = file.read()
    return body if len(body) <= IN_MEMORY else file, use(json_object(body))


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body must be; raises ``BadRequest``."""
    if len(body) > LARGE and _has_too_many_values(body):
        raise BadRequest(f"Request body must not have more than {VALUES_MAX:,} values")
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise BadRequest("Request body must be a JSON object")
    return data


def _has_too_many_values(body: bytes) -> bool:
    """Whether ``VALUES_MAX`` is passed; commas and brackets within texts are sorted out only where there are many."""
    if sum(body.count(sign) for sign in (b"[", b"{", b",")) <= VALUES_MAX:
        return False
    return any(count > 2 * VALUES_MAX for count, _ in enumerate(_TOKEN.finditer(body)))  # with a text or key for each


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
    """A field of the form that the file holds, empty if it has none. Raises ``BadRequest``."""
    file.seek(0)
    parser = FormDataParser(
        stream_factory=lambda **_: _Nowhere(),  # type: ignore[arg-type]
        max_form_memory_size=IN_MEMORY,
        max_form_parts=PARTS_MAX,
        silent=True,
    )
    try:
        _, form, _ = parser.parse(file, request.mimetype, None, dict(request.mimetype_params))
    except RequestEntityTooLarge as error:
        raise BadRequest("The form has too many fields, or too large ones") from error
    return form.get(name, "")
