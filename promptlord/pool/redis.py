"""What processes and machines share through Redis: each decides on what it knows; Redis accepts that, or tells better.

A decision is made at once, on the state as it is known here. One thread takes what was decided to Redis, all of it in
one round trip, where it holds if nobody has written meanwhile; else it is made again on what Redis tells. Where Redis
fails or is slow, the process goes on alone: what was decided here holds, and is reunited with what the others know.
"""

import atexit
import hashlib
import json
import logging
import random
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from redis import ConnectionPool, RedisError
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError
from redis.retry import Retry

from promptlord.pool import parts
from promptlord.pool.clients import Limit, Used, Windows
from promptlord.pool.memory import Decision
from promptlord.pool.reunion import reunite
from promptlord.pool.state import Part, State, digest

log = logging.getLogger("promptlord")

NAME = "promptlord:pool:3"  # with the number of its format, so that old and new releases run side by side
LONGEST = 0.3  # seconds of an operation, after which the process goes on alone
RETRY = 1.0  # seconds after which one that is alone asks Redis again, while nobody waits for it
LEASE, LONGEST_LEASE = 15, 200  # milliseconds for which one that was refused comes next; more where Redis is far away
TRIES = 60  # to have a decision accepted
LAZY = 0.02  # seconds after which what nobody waits for is taken to Redis, if nothing else was before
STALE = 1.0  # seconds after which one that is only looked at asks Redis for news
CALLS = "promptlord:calls"
FORGOTTEN = 2 * 86400  # seconds; by then every bucket is full again
TOLD_AGAIN = 60.0  # seconds between two warnings
NEVER = -1  # the version that one knows who has not heard of Redis yet

EMPTIED = "⚠️  Redis was emptied: it is told what is known here"
UNREADABLE = "⚠️  Redis holds what this release has not written: it is ignored, and written anew"

_SCRIPT = Path(__file__).with_suffix(".lua").read_text()
_SHA = hashlib.sha1(_SCRIPT.encode()).hexdigest()

T = TypeVar("T")


class Timekeeper(Protocol):
    """Tells the time that all agree on, in seconds."""

    def __call__(self) -> float: ...

    def follow(self, told: float, sent: float, heard: float) -> float:
        """Take Redis' word, asked for and heard at these instants of the monotonic clock; return by what it jumps."""


class RedisTime:
    """Redis' clock, followed on this machine's monotonic one: what the wall clocks of machines say is of no matter."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self._ahead

    def follow(self, told: float, sent: float, heard: float) -> float:
        """See ``Timekeeper``. It was told between the two, so as long as that can be true nothing changes."""
        before, self._ahead = self._ahead, min(max(self._ahead, told - heard), told - sent)
        return self._ahead - before


class _Wish(Generic[T]):
    """A decision on its way: made already, and to be made again until Redis accepts it."""

    def __init__(self, decision: Decision[T]) -> None:
        self.decision = decision
        self.confirmed = threading.Event()

    def make(self, state: State, now: float) -> None:
        self.result = self.decision(state, now)


class _Count(_Wish[list[Used]]):
    """A client's call, which Redis counts once, whatever becomes of the decisions beside it."""

    def __init__(self, windows: Windows, client: str, limits: Sequence[Limit]) -> None:
        super().__init__(lambda state, now: windows.count(client, limits, time.monotonic()))
        self.client, self.limits, self.windows, self.told = client, limits, windows, False

    def make(self, state: State, now: float) -> None:
        if not hasattr(self, "result"):
            super().make(state, now)

    def hear(self, used: list[Used]) -> None:
        self.told, self.result = True, used
        self.windows.learn(self.client, self.limits, used, time.monotonic())


class _Reply(NamedTuple):
    """What the script answers, and between which instants of the monotonic clock."""

    accepted: int
    next: int
    version: int
    born: int
    discarded: int
    seconds: bytes
    microseconds: bytes
    complete: int
    told: Sequence[bytes]
    counts: Sequence[Sequence[Sequence[int]]]
    sent: float
    heard: float

    @property
    def time(self) -> float:
        return int(self.seconds) + int(self.microseconds) / 1e6


class _Log:
    """Keeps what there is to say until no lock is held, and does not repeat itself."""

    def __init__(self) -> None:
        self._lines: list[tuple[int, str]] = []
        self._warned_at = -TOLD_AGAIN
        self._warned = False

    def alone(self, why: str) -> None:
        if not self._warned and time.monotonic() > self._warned_at + TOLD_AGAIN:
            self._warned, self._warned_at = True, time.monotonic()
            self.warn(f"⚠️  Redis does not answer ({why}): the pool goes on alone and tries again")

    def shared(self) -> None:
        if self._warned:
            self._warned = False
            self._lines.append((logging.INFO, "✅ Redis answers again: the pool is shared"))

    def warn(self, line: str) -> None:
        if (logging.WARNING, line) not in self._lines:
            self._lines.append((logging.WARNING, line))

    def write(self) -> None:
        while self._lines:
            log.log(*self._lines.pop(0))


class RedisStorage:
    """Keeps what processes share. Safe to share between threads, of which one of its own talks to Redis."""

    def __init__(self, url: str, clock: Timekeeper | None = None, **options: Any) -> None:
        """``options``: how to connect. Nothing does before the first decision."""
        options |= {"socket_timeout": LONGEST, "socket_connect_timeout": LONGEST, "retry": Retry(NoBackoff(), 0)}
        self._connection = ConnectionPool.from_url(url, **options).make_connection()
        self._script = ("EVAL", _SCRIPT)
        self._clock = clock or RedisTime()
        self._state = State(self._clock())
        self._windows = Windows()
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._thread = threading.Thread()
        self._wishes: list[_Wish[Any]] = []  # made, in this order, and not accepted yet
        self._sent: set[Part] = set()  # changed parts on their way
        self._known: dict[Part, bytes] = {}  # parts as Redis has them, in this version
        self._version, self._born = NEVER, 0
        self._name, self._lease = secrets.token_hex(4), LEASE
        self._alone = self._closed = False
        self._ask_at = 0.0  # instants of the monotonic clock: from when on what was decided is taken to Redis,
        self._heard_at = -STALE  # when Redis was last heard
        self._log = _Log()

    def decide(self, decision: Decision[T], *, wait: bool = True) -> T:
        """Return what ``decision`` makes of the state, which it may change; nobody else does meanwhile.

        Without ``wait``, as far as is known here; it is made again where others turn out to have been faster.
        """
        return self._fulfil(_Wish(decision), wait=wait)

    def count(self, client: str, limits: Sequence[Limit]) -> list[Used]:
        """Count a client's call; see ``Windows``."""
        return self._fulfil(_Count(self._windows, client, limits))

    def look(self, question: Decision[T]) -> T:
        """Answer a question, which changes nothing, from what is known here; who looks again has news by then."""
        if time.monotonic() > self._heard_at + STALE:
            self.decide(_nothing, wait=False)
        with self._lock:
            return question(self._state, self._clock())

    def close(self) -> None:
        """Have accepted what was decided here, and end."""
        self.decide(_nothing)
        with self._lock:
            self._closed = True
            self._work.notify()

    def _fulfil(self, wish: _Wish[T], *, wait: bool = True) -> T:
        with self._lock:
            if not self._thread.is_alive() and not self._closed:
                self._begin()
            wish.make(self._state, self._clock())
            if self._alone:
                return wish.result
            asked = time.monotonic()
            self._wishes.append(wish)
            if wait or len(self._wishes) == 1:
                self._ask_at = asked if wait else asked + LAZY
                self._work.notify()
        while wait and not wish.confirmed.wait(LONGEST):
            with self._lock:
                # Later by far, it was this process that stood still, and Redis has better news.
                if not wish.confirmed.is_set() and time.monotonic() < asked + 2 * LONGEST:
                    self._go_alone("too slow", RETRY)
            asked = time.monotonic()
        return wish.result

    def _begin(self) -> None:
        """Not earlier: a process that forks would leave its thread behind."""
        self._thread = threading.Thread(target=self._run, name="redis", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    # What the thread does

    def _run(self) -> None:
        while self._wait():
            try:
                self._come_back() if self._alone else self._agree()
            except RedisError as error:
                with self._lock:
                    self._go_alone(type(error).__name__, RETRY)
            self._log.write()

    def _wait(self) -> bool:
        """Wait for something to do; false where there will be no more."""
        with self._lock:
            while not self._closed:
                pause = self._ask_at - time.monotonic() if self._wishes or self._alone else None
                if pause is not None and pause <= 0:
                    return True
                self._work.wait(pause)
            return False

    def _agree(self) -> None:
        """Have accepted what was decided, deciding it again where others were faster."""
        for _ in range(TRIES):
            with self._lock:
                wishes, writes = self._wishes[:], self._changes()
            counts = [wish for wish in wishes if isinstance(wish, _Count) and not wish.told]
            reply = self._ask(writes, counts)
            with self._lock:
                if self._alone:  # somebody could not wait: what was decided holds, and will be told again
                    self._state.changed |= self._sent
                    return
                for count, calls in zip(counts, reply.counts, strict=True):
                    count.hear([Used(number, left / 1000) for number, left in calls])
                if self._hear(reply, writes):
                    del self._wishes[: len(wishes)]
                    for wish in wishes:
                        wish.confirmed.set()
                    return
                if self._is_another(reply):
                    self._start_anew()
                    return
                self._decide_again(reply)
            _give_way(reply)
        with self._lock:
            self._go_alone()

    def _come_back(self) -> None:
        """Reunite what was learnt alone with what the others know."""
        for _ in range(TRIES):
            with self._lock:
                writes = self._changes()
            reply = self._ask(writes, ())
            with self._lock:
                if self._hear(reply, writes):
                    self._alone = bool(self._state.changed)
                elif self._is_another(reply):
                    self._start_anew()
                else:
                    self._reunite(reply)
                if not self._alone:
                    self._log.shared()
                    return
            _give_way(reply)
        with self._lock:
            self._go_alone("too busy", RETRY)

    def _ask(self, writes: Mapping[Part, bytes | None], counts: Sequence[_Count]) -> _Reply:
        """Take it to Redis. Raises ``RedisError``."""
        keys = [NAME, f"{NAME}:changed", *(f"{CALLS}:{digest(count.client)}" for count in counts)]
        pairs = [text for part, value in writes.items() for text in (parts.name(part), value or b"")]
        limits = [json.dumps(count.limits) for count in counts]
        arguments = [len(keys), *keys, self._name, self._lease, FORGOTTEN, self._version, len(writes), *pairs, *limits]
        sent = time.monotonic()
        try:
            answer = self._call(*self._script, *arguments)
        except NoScriptError:  # Redis was started anew
            answer = self._call("EVAL", _SCRIPT, *arguments)
        self._script = ("EVALSHA", _SHA)
        return _Reply._make([*answer, sent, time.monotonic()])

    def _call(self, *command: Any) -> Any:
        self._connection.send_command(*command)  # type: ignore[no-untyped-call]
        return self._connection.read_response()  # type: ignore[no-untyped-call]

    # What it hears, under the lock

    def _changes(self) -> dict[Part, bytes | None]:
        """What has to be told of the state: the parts that are not as Redis has them."""
        texts = {part: parts.encode(self._state, part) for part in self._state.changed}
        self._state.changed.clear()
        writes = {part: text for part, text in texts.items() if text != self._known.get(part)}
        self._sent = {*writes}
        return writes

    def _hear(self, reply: _Reply, writes: Mapping[Part, bytes | None]) -> bool:
        """Take the time from a reply; return whether it accepts what was written, which is known to Redis then."""
        self._lease = min(LEASE + round(2000 * (reply.heard - reply.sent)), LONGEST_LEASE)
        jump, self._heard_at = self._clock.follow(reply.time, reply.sent, reply.heard), reply.heard
        if self._version == NEVER or self._is_another(reply):  # what is known here was told by another clock
            self._state.shift(jump)
        if reply.discarded:
            self._log.warn(UNREADABLE)
        elif self._is_another(reply):
            self._log.warn(EMPTIED)
        if reply.accepted:
            self._version, self._born, self._sent = reply.version, reply.born, set()
            self._know(writes)
        return bool(reply.accepted)

    def _is_another(self, reply: _Reply) -> bool:
        """Whether this is not the state that was known: Redis was emptied, or somebody else wrote there."""
        return bool(self._born) and reply.born != self._born

    def _start_anew(self) -> None:
        self._known.clear()
        self._version, self._born = NEVER, 0
        self._state.changed = self._state.parts()
        self._go_alone()

    def _decide_again(self, reply: _Reply) -> None:
        if reply.version == self._version:  # somebody else comes next, and nothing has changed yet
            self._state.changed |= self._sent
            return
        told = self._take(reply)
        for part in self._state.changed | self._sent | told.keys():
            self._put(part, self._known.get(part))
        self._state.changed.clear()
        for wish in self._wishes:
            wish.make(self._state, self._clock())

    def _reunite(self, reply: _Reply) -> None:
        known = self._known.copy()
        mine = self._state.changed = self._state.changed | self._sent
        for part, text in self._take(reply).items():
            if part in mine:
                here = parts.value(self._state, part)
                both = reunite(part, self._read(part, known.get(part)), here, self._read(part, text), self._clock())
                parts.place(self._state, part, both)
            else:
                self._put(part, text)

    def _take(self, reply: _Reply) -> dict[Part, bytes | None]:
        """What a reply tells of the parts is known then."""
        told: dict[Part, bytes | None] = {}
        if reply.complete:
            told = dict.fromkeys(self._known)
        for name, text in zip(reply.told[::2], reply.told[1::2], strict=True):
            if part := parts.named(name):
                told[part] = text or None
        self._version, self._born = reply.version, reply.born
        self._know(told)
        return told

    def _know(self, texts: Mapping[Part, bytes | None]) -> None:
        for part, text in texts.items():
            if text is None:
                self._known.pop(part, None)
            else:
                self._known[part] = text

    def _read(self, part: Part, text: bytes | None) -> Any:
        """What a text says; what nobody can read is as good as none."""
        try:
            return None if text is None else parts.decode(part, text)
        except parts.Malformed:
            self._known.pop(part, None)
            self._log.warn(UNREADABLE)
            return None

    def _put(self, part: Part, text: bytes | None) -> None:
        parts.place(self._state, part, self._read(part, text))

    def _go_alone(self, why: str = "", pause: float = 0.0) -> None:
        """Let what was decided hold, and go on with what is known here; Redis is asked again after ``pause``."""
        self._alone, self._ask_at = True, time.monotonic() + pause
        self._state.changed |= self._sent
        self._sent = set()
        for wish in self._wishes:
            wish.confirmed.set()
        self._wishes.clear()
        self._work.notify()
        if why:
            self._log.alone(why)


def _give_way(reply: _Reply) -> None:
    """Let one that comes next be the next."""
    if not reply.next:
        time.sleep(random.uniform(0.001, 0.004))


def _nothing(state: State, now: float) -> None:
    """A decision that only brings news."""
