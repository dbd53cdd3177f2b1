"""A real Redis, what may become of it, and what may stand in it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from faraway import faraway
from redis import Redis
from rig import RedisServer, redis_url


class RealRedis(RedisServer):
    """A real one, and what else may become of it."""

    def client(self) -> Redis:
        return Redis.from_url(self.url)

    @contextmanager
    def emptied(self) -> Iterator[None]:
        with self.client() as client:
            client.flushall()
        yield

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """A replica of a server that is not there."""
        with self.client() as client:
            client.replicaof("127.0.0.1", "1")
            yield
            client.replicaof("NO", "ONE")

    @contextmanager
    def full(self) -> Iterator[None]:
        """Without memory for anything more."""
        with self.client() as client:
            client.config_set("maxmemory", "1mb")
            yield
            client.config_set("maxmemory", "0")

    @contextmanager
    def away(self, seconds: float) -> Iterator[str]:
        """Its address where a way there and back takes so many seconds."""
        with faraway(self.port, seconds) as way:
            yield redis_url(way.port)


def spoil(store: RealRedis, garbage: str | None) -> Iterator[bytes]:
    """Put garbage in place of each key in turn, and of each of a hash's or sorted set's values. ``None``: a list."""
    with store.client() as client:
        for name in sorted(client.scan_iter("promptlord:*")):
            kind = client.type(name)
            if kind == b"hash" and garbage is not None:
                for field in client.hkeys(name):
                    client.hset(name, field, garbage)
                yield name
            if kind == b"zset" and garbage is not None:
                scores: list[tuple[bytes, float]] = client.zrange(name, 0, -1, withscores=True)
                client.delete(name)
                client.zadd(name, {f"{garbage}{place}": score for place, (_, score) in enumerate(scores)})
                yield name
            client.delete(name)
            if garbage is None:
                client.rpush(name, "x")
            else:
                client.set(name, garbage)
            yield name


def half_right(text: bytes) -> Iterator[bytes]:
    """The beginnings of a value; if it is JSON, the same with each of its parts, large or small, replaced in turn."""
    yield from (text[: len(text) * part // 4] for part in (1, 2, 3))
    with suppress(ValueError):
        whole = json.loads(text)
        for inner, place in [*parts(whole)]:
            for wrong in (None, "x", -1):
                was, inner[place] = inner[place], wrong
                yield json.dumps(whole).encode()
                inner[place] = was


def parts(value: Any) -> Iterator[tuple[Any, Any]]:
    for place in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, place
        yield from parts(value[place])
