"""The pool as an OpenAI-compatible endpoint: bytes pass through both ways, with another key in between."""

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any, NamedTuple
from urllib.parse import quote

from flask import Blueprint, Response, request
from werkzeug.exceptions import MethodNotAllowed, NotFound

from promptlord.errors import Unusable
from promptlord.groq import policy
from promptlord.groq.policy import Fault
from promptlord.groq.transport import Answer
from promptlord.pool.state import Demand
from promptlord.tokens import estimate_all
from promptlord.web import answers
from promptlord.web.access import require_token
from promptlord.web.body import JSON_MAX, UPLOAD_MAX, form_field, json_file, spooled
from promptlord.web.client import connection
from promptlord.web.service import service
from promptlord.web.sse import CHAT, OTHER, RESPONSE

PREFIXES = ("/v1", "/openai/v1")

METHODS = {
    "chat/completions": "POST",
    "responses": "POST",
    "embeddings": "POST",
    "audio/transcriptions": "POST",
    "audio/translations": "POST",
    "audio/speech": "POST",
    "models": "GET",
}
RESERVES = ("max_completion_tokens", "max_tokens", "max_output_tokens")  # of which Groq counts the largest
# Tokens that Groq reserves where none is named; it does not say how many: reports have 1,024 or 2,048.
DEFAULT_RESERVES = {"chat/completions": 1024, "responses": 1024}
NEED_MAX = 1 << 20  # tokens, more than any model takes: a client may name any number, and it is counted with
NAME_MAX = 200  # characters of a model's name; a longer one is Groq's to refuse, and not ours to remember
ENDINGS = {"chat/completions": CHAT, "responses": RESPONSE}  # of streams
FORM = "multipart/form-data"
STATEFUL = ("files", "batches", "fine_tuning")
CODES = {
    400: "bad_request",
    401: "invalid_api_key",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "request_too_large",
    503: "no_key_ready",
    504: "timeout",
}
_CALLED = re.compile(r"/(?:chat/completions|completions|responses|embeddings|audio/\w+|models(?:/.+)?)\Z")

routes = Blueprint("v1", __name__)


class Asked(NamedTuple):
    """What a request asks for: of which model, for how many tokens, and whether as a stream."""

    model: str = ""
    need: int = 0
    streams: bool = False


@dataclass(frozen=True)
class PassThrough:
    """A client's request, as it is, for whichever key is next. Its answer is the client's too: close it."""

    method: str
    path: str
    headers: Mapping[str, str]
    demand: Demand
    payload: bytes | IO[bytes] | None
    passthrough: Collection[Fault] = field(default=frozenset({Fault.REQUEST, Fault.SIZE, Fault.MODEL}))

    def fingerprint(self) -> bytes:
        if not self.payload or self.headers.get("Content-Type", "").lower().startswith("multipart/"):
            return b""  # forms have another boundary each time
        start = hashlib.blake2b(self.path.encode() + b"\n", digest_size=16)
        if isinstance(self.payload, bytes):
            start.update(self.payload)
            return start.digest()
        self.payload.seek(0)
        return hashlib.file_digest(self.payload, lambda: start).digest()  # type: ignore[arg-type]

    def body(self, model: str) -> bytes | IO[bytes] | None:
        return self.payload

    def read(self, answer: Answer) -> Answer:
        """Return the answer once its first bytes are here, until when another key could still be tried."""
        if policy.is_good(answer.status):
            if answers.is_stream(answer) and answer.headers.get("Content-Encoding", "identity") != "identity":
                raise Unusable("a compressed stream")  # in which no error could be masked, and which nobody asked for
            if not answer.begin():
                raise Unusable("empty")
        return answer

    def counted(self, answer: Answer) -> int:
        return 0  # it passes by unread

    def roomier(self) -> None:
        return None

    def smaller(self, excess: int, most: int) -> None:
        return None


def is_called(path: str) -> bool:
    """Whether an SDK calls this path, with the right base URL or a wrong one: it reads only OpenAI's errors."""
    return path.startswith(PREFIXES) or bool(_CALLED.search(path))


def not_found(path: str) -> str:
    """What to say of a path that is not there, nor was meant to be where an SDK calls it under a wrong base URL."""
    if not _CALLED.search(path):
        return f"Only these are passed on: {', '.join(METHODS)}"
    scheme = "https" if request.headers.get("X-Forwarded-Proto") == "https" else request.scheme
    url = f"{scheme}://{request.host}"
    return f"Nothing is here. Set the base URL to {url}/v1, or in Groq's own SDK to {url}"


def error(status: int, message: str) -> dict[str, str]:
    """An error as OpenAI's clients know it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"message": message, "type": kind, "code": CODES.get(status, "upstream_error")}


@routes.before_request
def admit() -> None:
    """Let in who has a token. Preflights carry none."""
    request.max_content_length = UPLOAD_MAX if request.mimetype == FORM else JSON_MAX
    if request.method != "OPTIONS":
        require_token(service().config.access_tokens)


@routes.route("/<path:path>", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
def forward(path: str) -> Response:
    _check(path)
    with ExitStack() as unsent:
        with _payload(path) as (payload, asked):
            demand = Demand([asked.model], asked.need, bulk=True)
            call = PassThrough(request.method, _upstream_path(path), _headers_up(asked), demand, payload)
            answer: Answer = service().upstream.fetch(call, connection())
            unsent.callback(answer.close)
        response = answers.response(answer, ENDINGS.get(path, OTHER))
        unsent.pop_all()
    return response


def _check(path: str) -> None:
    method = "GET" if path.startswith("models/") else METHODS.get(path)
    if path.split("/")[0] in STATEFUL:
        raise NotFound("What is stored under this path belongs to one organization, and the next key may be another's")
    if method is None or {".", ".."} & set(path.split("/")):  # which would lead elsewhere
        raise NotFound(not_found(path))
    if request.method != method:
        raise MethodNotAllowed([method])


def _upstream_path(path: str) -> str:
    query = request.query_string.decode("latin-1")
    return f"/openai/v1/{quote(path)}" + (f"?{query}" if query else "")


def _headers_up(asked: Asked) -> dict[str, str]:
    """Of the client's headers only what Groq needs; of encodings only what we could read an error in."""
    encoding = "gzip" if request.accept_encodings["gzip"] and not asked.streams else "identity"
    headers = {name: request.headers[name] for name in ("Content-Type", "Accept") if name in request.headers}
    return {**headers, "Accept-Encoding": encoding}


@contextmanager
def _payload(path: str) -> Iterator[tuple[bytes | IO[bytes] | None, Asked]]:
    """The request's body as it came, and what it asks for."""
    if request.method == "GET":
        yield None, Asked()
        return
    with spooled() as file:
        if request.mimetype == FORM:
            yield file, Asked(_name(form_field(file, "model")), streams=True)  # or not; its answer is small
        else:
            yield json_file(file, partial(_asked, path))


def _asked(path: str, data: dict[str, Any]) -> Asked:
    reserves = [data[name] for name in RESERVES if isinstance(data.get(name), int)]
    reserve = max(0, *reserves) if reserves else DEFAULT_RESERVES.get(path, 0)
    need = min(estimate_all(data) + reserve, NEED_MAX)
    return Asked(_name(data.get("model")), need, bool(data.get("stream") or data.get("stream_format")))


def _name(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= NAME_MAX else ""
