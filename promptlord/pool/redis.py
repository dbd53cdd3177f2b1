"""The pool's state in Redis, so that processes and machines take turns together."""

import json
import logging
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from redis import Redis, RedisError
from redis.exceptions import LockError

from keypool import KeyPool
from promptlord.pool.quota import Booking, Bucket, Cooling, Lane
from promptlord.pool.state import Standing, State

log = logging.getLogger("promptlord")

NAME = "promptlord:pool"
LOCK_MAX = 2.0  # seconds after which another may take the lock of one that died with it
RETRY = 10.0  # seconds that a pool goes on alone after Redis failed it
FORGOTTEN = 2 * 86400  # seconds; by then every bucket is full again


class SharedLock:
    """A lock that brings the pool's state from Redis and takes it back there.

    The pool is the same whether shared or not; this is all that differs. While Redis fails, it goes on with what it
    knows. The instants in the state are the wall clock's, which machines keep in step.
    """

    def __init__(self, pool: KeyPool, url: str, **options: Any) -> None:
        self._pool = pool
        self._redis = Redis.from_url(url, **options)
        self._together = self._redis.lock(f"{NAME}:lock", timeout=LOCK_MAX, sleep=0.002, blocking_timeout=LOCK_MAX)
        self._threads = threading.Lock()
        self._shared = False
        self._retry_at = 0.0

    def __enter__(self) -> None:
        self._threads.acquire()
        if time.monotonic() < self._retry_at:
            return
        try:
            if not self._together.acquire():
                raise LockError("its lock is taken")  # type: ignore[no-untyped-call]
            self._shared = True
            text: Any = self._redis.get(NAME)
        except RedisError as error:
            self._go_alone(error)
            return
        # What another version of this program wrote is no use: it is written anew on the way out.
        with suppress(ValueError, KeyError, TypeError):
            self._pool.adopt(decode(text or "", self._pool.clock()))

    def __exit__(self, *_: object) -> None:
        try:
            if self._shared:
                self._shared = False
                self._redis.set(NAME, encode(self._pool.state), ex=FORGOTTEN)
                self._together.release()
        except RedisError as error:
            self._go_alone(error)
        finally:
            self._threads.release()

    def _go_alone(self, error: Exception) -> None:
        self._shared = False
        self._retry_at = time.monotonic() + RETRY
        log.warning("⚠️  Redis does not answer (%s): the pool goes on alone and tries again", type(error).__name__)


def encode(state: State) -> str:
    """The state as JSON."""
    fields = asdict(state)
    fields["lanes"] = [[*name, lane] for name, lane in fields["lanes"].items()]
    return json.dumps(fields, separators=(",", ":"))


def decode(text: str | bytes, now: float) -> State:
    """The state that ``encode`` wrote, without bookings that have expired: their machines must have died.

    Raises ``ValueError``, ``KeyError`` or ``TypeError`` for anything else.
    """
    fields = json.loads(text)
    keys = {name: Standing(**{**key, "cooling": Cooling(**key["cooling"])}) for name, key in fields["keys"].items()}
    lanes = {(owner, model): _lane(lane, now) for owner, model, lane in fields["lanes"]}
    return State(**{**fields, "keys": keys, "lanes": lanes})


def _lane(fields: dict[str, Any], now: float) -> Lane:
    buckets = {name: Bucket(**bucket) for name, bucket in fields["buckets"].items()}
    queue = [Booking(**booking) for booking in fields["queue"] if booking["expires"] > now]
    return Lane(**{**fields, "buckets": buckets, "queue": queue})
