"""One question to Redis, and its answer: compare a state's version, and set what has changed. See ``redis.lua``."""

import hashlib
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError
from redis.retry import Retry

from promptlord.pool import parts
from promptlord.pool.clients import Limit
from promptlord.pool.state import Part, digest

NAME = "promptlord:pool:4"  # with the number of its format, so that old and new releases run side by side
CALLS = "promptlord:calls"
LONGEST = 0.3  # seconds of an operation, after which a process goes on alone
LEASE, LONGEST_LEASE = 0.05, 0.2  # seconds for which one that was refused comes next; more where Redis is far
FORGOTTEN = 2 * 86400  # seconds; by then every bucket is full again

_SCRIPT = Path(__file__).with_name("redis.lua").read_text()
_SHA = hashlib.sha1(_SCRIPT.encode()).hexdigest()


class Reply(NamedTuple):
    """What the script answers; asked for and heard at these instants of the monotonic clock."""

    accepted: int
    leased: int
    version: int
    epoch: int
    discarded: int
    seconds: bytes
    microseconds: bytes
    complete: int
    told: Sequence[bytes]
    counts: Sequence[Sequence[Sequence[int]]]
    wrote: int
    asked: float
    heard: float

    @property
    def time(self) -> float:
        return int(self.seconds) + int(self.microseconds) / 1e6


class Script:
    """A connection over which one thread asks. It is made with the first question, and anew after a failure."""

    def __init__(self, url: str, **options: Any) -> None:
        """``options``: how to connect."""
        options |= {"socket_timeout": LONGEST, "socket_connect_timeout": LONGEST, "retry": Retry(NoBackoff(), 0)}
        options["driver_info"] = None  # which it would tell, two round trips long
        self._connection = ConnectionPool.from_url(url, **options).make_connection()
        self._script = ("EVAL", _SCRIPT)
        self._caller = ""
        self._lease = LEASE

    def ask(
        self, version: int, writes: Mapping[Part, bytes | None], counts: Sequence[tuple[str, Sequence[Limit]]] = ()
    ) -> Reply:
        """Write what has changed since the version, ``None`` for what is no more; count clients' calls.

        Raises ``RedisError``.
        """
        keys = [NAME, f"{NAME}:changed", *(f"{CALLS}:{digest(client)}" for client, _ in counts)]
        pairs = [text for part, value in writes.items() for text in (parts.name(part), value or b"")]
        limits = [json.dumps(limits) for _, limits in counts]
        self._caller = self._caller or secrets.token_hex(4)  # not earlier: processes may be forked from one
        who = [self._caller, round(self._lease * 1e6), FORGOTTEN]
        arguments = [len(keys), *keys, *who, version, len(writes), *pairs, *limits]
        asked = time.monotonic()
        try:
            answer = self._call(*self._script, *arguments)
        except NoScriptError:  # Redis was started anew
            answer = self._call("EVAL", _SCRIPT, *arguments)
        heard, self._script = time.monotonic(), ("EVALSHA", _SHA)
        self._lease = min(LEASE + 2 * (heard - asked), LONGEST_LEASE)
        return Reply._make([*answer, asked, heard])

    def _call(self, *command: Any) -> Any:
        self._connection.send_command(*command)  # type: ignore[no-untyped-call]
        return self._connection.read_response()  # type: ignore[no-untyped-call]
