"""What processes and machines share through Redis: each decides on what it knows; Redis accepts that, or tells better.

One thread takes what was decided to Redis, all of it in one round trip, where it holds if nobody has written meanwhile;
else it is decided again, on what Redis tells. Where Redis fails or is slow the process goes on alone: what was decided
holds, and is reunited later with what the others know.
"""

import atexit
import logging
import random
import threading
import time
from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

from redis import RedisError

from promptlord.pool.clients import Limit, Used, Windows
from promptlord.pool.replica import UNKNOWN, Replica
from promptlord.pool.script import LONGEST, Reply, Script
from promptlord.pool.state import Decision, State

log = logging.getLogger("promptlord")

LINGER = 0.02  # seconds after which what nobody waits for is taken to Redis, if nothing else was before
RETRY = 1.0  # seconds after which one that is alone asks again, while nobody waits for it
STALE = 1.0  # seconds after which one that is only looked at asks for news
TRIES = 60  # to have a decision accepted
PAUSE = 0.001, 0.004  # seconds between which one that has no lease asks again
TOLD_AGAIN = 60.0  # seconds between two warnings

T = TypeVar("T")


class Timekeeper(Protocol):
    """Tells the time that all agree on, in seconds."""

    def __call__(self) -> float: ...

    def follow(self, told: float, asked: float, heard: float) -> float:
        """Take Redis' word, asked for and heard at these instants of the monotonic clock; return by what it jumps."""


class RedisTime:
    """Redis' clock, followed on this machine's monotonic one: what the wall clocks of machines say is of no matter."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self._ahead

    def follow(self, told: float, asked: float, heard: float) -> float:
        """See ``Timekeeper``. It was told between the two, so as long as that can be true nothing changes."""
        before, self._ahead = self._ahead, min(max(self._ahead, told - heard), told - asked)
        return self._ahead - before


class _Proposal(Generic[T]):
    """A decision that Redis has to accept: made already, and made again where others were faster."""

    def __init__(self, decision: Decision[T]) -> None:
        self.decision = decision
        self._gate = threading.Lock()  # an Event has one inside, and takes five times as long
        self._gate.acquire()

    def make(self, state: State, now: float) -> None:
        self.result = self.decision(state, now)

    def accept(self) -> None:
        self._gate.release()

    def accepted(self, within: float) -> bool:
        """Whether it is, after so many seconds at the most."""
        return self._gate.acquire(timeout=within)


class _Count(_Proposal[list[Used]]):
    """A client's call, which Redis counts once, whatever becomes of the decisions beside it."""

    def __init__(self, windows: Windows, client: str, limits: Sequence[Limit]) -> None:
        super().__init__(lambda state, now: windows.count(client, limits, time.monotonic()))
        self.client, self.limits, self.windows, self.told = client, limits, windows, False

    def make(self, state: State, now: float) -> None:
        if not hasattr(self, "result"):
            super().make(state, now)

    def hear(self, calls: Sequence[Sequence[int]]) -> None:
        self.told, self.result = True, [Used(number, left / 1000) for number, left in calls]
        self.windows.learn(self.client, self.limits, self.result, time.monotonic())


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

    def together(self) -> None:
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
        self._script = Script(url, **options)
        self._clock = clock or RedisTime()
        self._log = _Log()
        self._replica = Replica(self._clock(), self._log.warn)
        self._windows = Windows()
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._thread = threading.Thread()
        self._proposals: list[_Proposal[Any]] = []  # in the order in which they were made
        self._alone = self._closed = False
        self._returning = False  # alone, but Redis answers: who decides waits again, and need not be reunited
        self._ask_at = 0.0  # instants of the monotonic clock: from when on Redis is to be asked,
        self._heard_at = -STALE  # when it was last heard

    def decide(self, decision: Decision[T], *, wait: bool = True) -> T:
        """Return what ``decision`` makes of the state, which it may change; nobody else does meanwhile.

        Without ``wait``, as far as is known here; it is made again where others turn out to have been faster.
        """
        return self._propose(_Proposal(decision), wait=wait)

    def count(self, client: str, limits: Sequence[Limit]) -> list[Used]:
        """Count a client's call; see ``Windows``."""
        return self._propose(_Count(self._windows, client, limits))

    def look(self, question: Decision[T]) -> T:
        """Answer a question, which changes nothing, from what is known here; who looks again has news by then."""
        if time.monotonic() > self._heard_at + STALE:
            self.decide(_nothing, wait=False)
        with self._lock:
            return question(self._replica.state, self._clock())

    def close(self) -> None:
        """Have accepted what was decided here, and end."""
        self.decide(_nothing)
        with self._lock:
            self._closed = True
            self._work.notify()

    def _propose(self, proposal: _Proposal[T], *, wait: bool = True) -> T:
        with self._lock:
            if not self._thread.is_alive() and not self._closed:
                self._begin()
            proposal.make(self._replica.state, self._clock())
            if self._alone and not self._returning:
                return proposal.result
            asked = time.monotonic()
            self._proposals.append(proposal)
            if wait or len(self._proposals) == 1:
                self._ask_at = asked if wait else asked + LINGER
                self._work.notify()
        while wait and not proposal.accepted(LONGEST):
            self._waited_long(proposal, asked)
            asked = time.monotonic()
        return proposal.result

    def _waited_long(self, proposal: _Proposal[Any], asked: float) -> None:
        """Go alone, unless it is accepted, or it was this process that stood still: Redis has better news then."""
        with self._lock:
            now = time.monotonic()
            if proposal in self._proposals and now < asked + 2 * LONGEST:
                if now < self._heard_at + LONGEST:  # others were faster, again and again
                    self._go_alone()
                else:
                    self._go_alone("too slow", RETRY)

    def _begin(self) -> None:
        """Not earlier: a process that forks would leave its thread behind."""
        self._thread = threading.Thread(target=self._run, name="redis", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def _go_alone(self, why: str = "", pause: float = 0.0) -> None:
        """Let what was decided hold, and go on with what is known here; Redis is asked again after ``pause``."""
        self._alone, self._returning, self._ask_at = True, False, time.monotonic() + pause
        self._replica.lose()
        self._accept(self._proposals[:])
        self._work.notify()
        if why:
            self._log.alone(why)

    def _accept(self, proposals: Sequence[_Proposal[Any]]) -> None:
        del self._proposals[: len(proposals)]
        for proposal in proposals:
            proposal.accept()

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
                pause = self._ask_at - time.monotonic() if self._proposals or self._alone else None
                if pause is not None and pause <= 0:
                    return True
                self._work.wait(pause)
            return False

    def _agree(self) -> None:
        """Have accepted what was decided, deciding it again where others were faster."""
        replica = self._replica
        for _ in range(TRIES):
            with self._lock:
                proposals, writes = self._proposals[:], replica.changes()
            counts = [each for each in proposals if isinstance(each, _Count) and not each.told]
            reply = self._script.ask(replica.version, writes, [(each.client, each.limits) for each in counts])
            with self._lock:
                if self._alone:  # somebody could not wait: what was decided holds
                    replica.accept(reply, writes) if reply.accepted else replica.keep()
                    return
                for count, calls in zip(counts, reply.counts, strict=True):
                    count.hear(calls)
                self._hear(reply)
                if reply.accepted:
                    replica.accept(reply, writes)
                    self._accept(proposals)
                    return
                if replica.is_another(reply):
                    replica.forget()
                    self._go_alone()
                    return
                self._decide_again(reply)
            _give_way(reply)
        with self._lock:
            self._go_alone()

    def _decide_again(self, reply: Reply) -> None:
        if reply.version == self._replica.version:  # somebody else comes next, and has not written yet
            self._replica.keep()
            return
        self._replica.give_in(reply)
        for proposal in self._proposals:
            proposal.make(self._replica.state, self._clock())

    def _come_back(self) -> None:
        """Reunite what was decided alone with what the others know; ask first, if it may be with them already."""
        replica = self._replica
        for attempt in range(TRIES):
            with self._lock:
                self._accept(self._proposals[:])  # what was decided until now holds
                writes = {} if replica.unheard and not attempt else replica.changes()
            reply = self._script.ask(replica.version, writes)
            with self._lock:
                self._hear(reply)
                if replica.is_another(reply):
                    replica.forget()
                elif not reply.accepted:
                    replica.reunite(reply, self._clock())
                else:
                    replica.accept(reply, writes)
                    self._alone = bool(replica.state.changed) and not self._returning
                self._returning = self._alone and replica.version != UNKNOWN
                if not self._alone:
                    self._log.together()
                    return
            _give_way(reply)
        with self._lock:
            self._go_alone("too busy", RETRY)

    def _hear(self, reply: Reply) -> None:
        self._heard_at = reply.heard
        self._replica.hear(reply, self._clock.follow(reply.time, reply.asked, reply.heard))


def _give_way(reply: Reply) -> None:
    """Let one that has a lease be the next."""
    if not reply.leased:
        time.sleep(random.uniform(*PAUSE))


def _nothing(state: State, now: float) -> None:
    """A decision that only brings news."""
