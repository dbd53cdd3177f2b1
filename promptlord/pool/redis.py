"""The pool's state in Redis, so that processes and machines take turns together."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any, TypeVar

from redis import Redis, RedisError
from redis.exceptions import LockError

from promptlord.pool.quota import Booking, Bucket, Cooling, Flight, Lane
from promptlord.pool.state import KeyRecord, Presses, State

log = logging.getLogger("promptlord")

NAME = "promptlord:pool:2"  # with the number of its format, so that old and new releases run side by side
LOCK_MAX = 2.0  # seconds after which another may take the lock of one that died with it
RETRY = 10.0  # seconds that a pool goes on alone after Redis failed it
FORGOTTEN = 2 * 86400  # seconds; by then every bucket is full again

T = TypeVar("T")


class RedisStorage:
    """Keeps the state of a pool that processes share: brought from Redis for each decision, and taken back.

    While Redis fails, each goes on with what it knows. The instants are the wall clock's, which machines keep in step.
    """

    def __init__(self, state: State, url: str, **options: Any) -> None:
        self._state = state
        self._redis = Redis.from_url(url, **options)
        self._together = self._redis.lock(f"{NAME}:lock", timeout=LOCK_MAX, sleep=0.002, blocking_timeout=LOCK_MAX)
        self._threads = threading.Lock()
        self._retry_at = 0.0

    def decide(self, decision: Callable[[State], T]) -> T:
        """Return what ``decision`` makes of the state, which it may change; nobody else does meanwhile."""
        with self._threads, self._shared():
            return decision(self._state)

    @contextmanager
    def _shared(self) -> Iterator[None]:
        together = time.monotonic() >= self._retry_at and self._bring()
        try:
            yield
        finally:
            if together:
                self._take_back()

    def _bring(self) -> bool:
        """Fetch the state; false where Redis fails."""
        try:
            if not self._together.acquire():
                raise LockError("its lock is taken")  # type: ignore[no-untyped-call]
            text: Any = self._redis.get(NAME)
        except RedisError as error:
            self._go_alone(error)
            return False
        # What somebody else wrote there is no use: it is written anew afterwards.
        with suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
            self._state = decode(text or "")
        return True

    def _take_back(self) -> None:
        try:
            self._redis.set(NAME, encode(self._state), ex=FORGOTTEN)
            self._together.release()
        except RedisError as error:
            self._go_alone(error)

    def _go_alone(self, error: Exception) -> None:
        self._retry_at = time.monotonic() + RETRY
        log.warning("⚠️  Redis does not answer (%s): the pool goes on alone and tries again", type(error).__name__)


def encode(state: State) -> str:
    """The state as JSON."""
    fields = asdict(state)
    fields["lanes"] = [[*name, lane] for name, lane in fields["lanes"].items()]
    return json.dumps(fields, separators=(",", ":"))


def decode(text: str | bytes) -> State:
    """The state that ``encode`` wrote; raises all sorts of errors for anything else."""
    fields = json.loads(text)
    keys = {name: KeyRecord(**{**key, "cooling": Cooling(**key["cooling"])}) for name, key in fields["keys"].items()}
    lanes = {(owner, model): _lane(lane) for owner, model, lane in fields["lanes"]}
    return State(**{**fields, "keys": keys, "lanes": lanes, "presses": Presses(**fields["presses"])})


def _lane(fields: dict[str, Any]) -> Lane:
    buckets = {name: Bucket(**bucket) for name, bucket in fields["buckets"].items()}
    flights = [Flight(**flight) for flight in fields["flights"]]
    queue = [Booking(**booking) for booking in fields["queue"]]
    return Lane(**{**fields, "buckets": buckets, "flights": flights, "queue": queue})
