"""Attempts: take a key, send, judge the answer, try the next one."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from keypool import KeyPool, NoKeyReady, Turn
from promptlord.errors import Call, ClientGone, Exhausted, NotConfigured, OutOfTime, failure
from promptlord.groq import policy
from promptlord.groq.policy import CutOff, Fault, Unusable, Verdict
from promptlord.groq.transport import Answer, Broken, Client, ClientLeft, Patience, Silence, Transport
from promptlord.pool.state import Key

log = logging.getLogger("promptlord")

SLICE = 0.5  # seconds; how often one that waits looks whether its slot has moved or its client has left
MEMORY = 120.0  # seconds for which a request that was turned away is remembered after it may come back
LATE = 1.0  # seconds by which a slot may come later than the wait allows, once it was promised

_TIME_IS_UP = "Groq did not answer in time"
_GONE = "The client has left"

T = TypeVar("T")


class Failed(Exception):
    """One attempt failed; ``verdict`` says whose fault it was."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


@dataclass
class Errand(Generic[T]):
    """One request on its way through its attempts."""

    call: Call[T]
    deadline: float  # for the whole of it
    wait_until: float  # for booked turns
    client: Client | None = None
    last: Key | None = None
    suspects: list[Turn] = field(default_factory=list)  # met what looks like Groq's own trouble


class Upstream:
    """Makes calls to Groq with the keys of a pool. Safe to share between threads."""

    def __init__(
        self,
        pool: KeyPool,
        transport: Transport,
        *,
        max_attempts: int,
        timeout: float,
        max_wait: float,
        at_once: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``timeout``: seconds of a whole call, ``max_wait``: of waiting for a slot. ``at_once``: calls under way.

        At most half of those may be waiting, so that the others find a place who could be served at once.
        """
        self._pool = pool
        self._transport = transport
        self._max_attempts = max_attempts
        self._timeout = timeout
        self._max_wait = max_wait
        self._places = threading.BoundedSemaphore(at_once)
        self._seats = threading.BoundedSemaphore(max(1, at_once // 2))
        self._clock = clock
        self._sleep = sleep
        self._gone: set[str] = set()
        self._lock = threading.Lock()
        self._turned_away: dict[int, float] = {}  # when each may come back

    def fetch(self, call: Call[T], client: Client | None = None) -> T:
        """Return what ``call`` reads from Groq's answer; if that is the answer itself, close it.

        Raises an ``UpstreamError``.
        """
        with self._place() as place:
            now = self._clock()
            wait_until = now + (self._timeout if self._returns(call, now) else min(self._max_wait, self._timeout))
            result = self._attempts(Errand(call, now + self._timeout, wait_until, client))
            if isinstance(result, Answer):  # which is under way until it is closed
                result.on_close(place.pop_all().close)
            return result

    @contextmanager
    def _place(self) -> Iterator[ExitStack]:
        if not len(self._pool):
            raise NotConfigured("No Groq API key is configured")
        if not self._places.acquire(blocking=False):
            raise Exhausted("Too many requests are under way", ready_in=1.0)
        with ExitStack() as place:
            place.callback(self._places.release)
            yield place

    def _returns(self, call: Call[T], now: float) -> bool:
        """Whether this request was turned away and has come back when it was told to.

        It may then wait as long as it takes: others have come meanwhile, and a ``Retry-After`` is to be true.
        """
        with self._lock:
            for mark in [mark for mark, at in self._turned_away.items() if at + MEMORY < now]:
                del self._turned_away[mark]
            if self._turned_away.get(call.mark, math.inf) > now:
                return False
            del self._turned_away[call.mark]
            return True

    def _attempts(self, errand: Errand[T]) -> T:
        verdict = None
        for _ in range(self._max_attempts):
            try:
                turn = self._take(errand)
            except NoKeyReady as error:
                # A completion that was cut off is no failure: once there is room for all of it, it is served.
                failed = failure(None if verdict is policy.STILL_CUT_OFF else verdict, error.ready_in)
                if isinstance(failed, Exhausted):
                    with self._lock:
                        self._turned_away[errand.call.mark] = self._clock() + failed.ready_in
                raise failed from error
            try:
                return self._ask(errand, turn)
            except CutOff:
                verdict, next_call = policy.STILL_CUT_OFF, errand.call.roomier()
            except Failed as failed:
                verdict, next_call = failed.verdict, self._blame(errand, turn, failed.verdict)
            if next_call is None:
                break
            errand.call = next_call
        raise failure(verdict, self._pool.ready_in(self._standing(errand.call.models), errand.call.need))

    def _take(self, errand: Errand[T]) -> Turn:
        """Take a turn and wait until it may start. Raises ``NoKeyReady`` or ``ClientGone``."""
        while True:
            turn = self._pool.take(
                self._standing(errand.call.models),
                errand.call.need,
                after=errand.last,
                without={(suspect.key, suspect.model) for suspect in errand.suspects},
                patience=max(0.0, errand.wait_until - self._clock()),
            )
            errand.last = turn.key
            if not turn.booked or self._wait(errand, turn):
                return turn

    def _wait(self, errand: Errand[T], turn: Turn) -> bool:
        """Wait for a booked turn; false if its slot has moved out of reach, and the turn is given back."""
        try:
            if not self._seats.acquire(blocking=False):
                raise NoKeyReady(self._pool.due_in(turn))
            try:
                while due := self._pool.due_in(turn):
                    if errand.client and errand.client.left():
                        raise ClientGone(_GONE)
                    if self._clock() + due > errand.wait_until + LATE:
                        return False
                    self._sleep(min(due, SLICE))
                return True
            finally:
                self._seats.release()
        finally:
            self._pool.leave(turn)

    def _ask(self, errand: Errand[T], turn: Turn) -> T:
        """Make one attempt. Raises ``Failed``, ``CutOff``, ``OutOfTime`` or ``ClientGone``."""
        if self._clock() >= errand.deadline:
            raise OutOfTime(_TIME_IS_UP)
        try:
            answer = self._send(errand, turn)
            with ExitStack() as unread:
                unread.callback(answer.close)
                self._judge(errand, turn, answer)
                result = errand.call.read(answer)
                unread.pop_all()
        except Silence as error:
            raise OutOfTime(_TIME_IS_UP) from error
        except ClientLeft as error:
            raise ClientGone(_GONE) from error
        except CutOff:
            raise
        except (Unusable, Broken) as error:
            raise Failed(policy.unusable(error)) from error
        if answer.status < 400:
            self._credit(turn, errand.suspects)
        return result

    def _send(self, errand: Errand[T], turn: Turn) -> Answer:
        call, left = errand.call, errand.deadline - self._clock()
        headers = {**call.headers, "Authorization": f"Bearer {turn.key.secret}"}
        patience = Patience(time.monotonic() + left, self._timeout, errand.client)
        try:
            return self._transport.send(call.method, call.path, headers, call.body(turn.model), patience)
        except Broken as error:
            self._pool.refund(turn)
            raise Failed(policy.UNREACHABLE) from error

    def _judge(self, errand: Errand[T], turn: Turn, answer: Answer) -> None:
        """Learn what an answer tells. Raises ``Failed`` if it is neither good nor one that the caller wants to see."""
        verdict = policy.judge(answer.status, answer.headers, b"" if answer.status < 300 else answer.read())
        self._learn(turn, answer.headers, verdict.organization if verdict else None)
        if verdict:
            self._pool.refund(turn)
            if verdict.fault not in errand.call.tells:
                raise Failed(verdict)
            log.error("❌ Groq API Error (Key %s): %s", turn.key.label, verdict.reason)

    def _learn(self, turn: Turn, headers: Mapping[str, str], organization: str | None) -> None:
        if shared := self._pool.learn(turn, policy.allowances(headers), organization):
            labels = ", ".join(key.label for key in shared.keys)
            log.warning("⚠️  API Keys %s share organization %s: together they have one's capacity", labels, shared.name)

    def _blame(self, errand: Errand[T], turn: Turn, verdict: Verdict) -> Call[T] | None:
        """Let the right one pay for a failed attempt; return what to try next, ``None`` if nothing would help."""
        log.error("❌ Groq API Error (Key %s): %s", turn.key.label, verdict.reason)
        match verdict.fault:
            case Fault.LIMIT:
                self._mark(turn, self._pool.limit(turn, verdict.cooldown, verdict.dimension))
            case Fault.KEY | Fault.KEY_FOR_MODEL:
                lane = verdict.fault is Fault.KEY_FOR_MODEL
                self._mark(turn, self._pool.fail(turn, verdict.reason, lane=lane))
            case Fault.MODEL:
                self._retire(turn.model, verdict)
            case Fault.GROQ:
                errand.suspects.append(turn)
            case Fault.SIZE:
                return errand.call.smaller(verdict.excess)
            case Fault.REQUEST | Fault.NETWORK:
                return None
        return errand.call

    def _credit(self, turn: Turn, suspects: list[Turn]) -> None:
        """The call succeeded, so those that failed it are to blame, and not Groq."""
        self._pool.succeed(turn)
        log.info("✅ Request successful with API Key %s", turn.key.label)
        for suspect in {suspect.key: suspect for suspect in suspects if suspect.key != turn.key}.values():
            self._mark(suspect, self._pool.fail(suspect, "failed where another key succeeded", grows=False))

    def _mark(self, turn: Turn, fails: int) -> None:
        log.warning("⚠️  API Key %s marked as failed (fail count: %d)", turn.key.label, fails)

    def _retire(self, model: str, verdict: Verdict) -> None:
        if model not in self._gone:
            self._gone.add(model)
            log.warning("⚠️  %s: %s. Take it out of GROQ_MODELS", verdict.reason, model)

    def _standing(self, models: Sequence[str]) -> Sequence[str]:
        """The models not known to be gone; all of them when none is left, for one may be back."""
        return [model for model in models if model not in self._gone] or models
