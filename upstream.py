"""Attempts: take a key, send, judge the answer, try the next one."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import policy
from keypool import KeyPool, NoKeyReady, Turn
from policy import CutOff, Fault, Unusable, Verdict
from transport import Broken, Silence, Transport

log = logging.getLogger("promptlord")

_TIME_IS_UP = "Groq did not answer in time"

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Call(Protocol[T_co]):
    """What is asked of Groq, whichever key and model serves it."""

    @property
    def path(self) -> str: ...

    @property
    def models(self) -> Sequence[str]:
        """In order of preference."""

    def body(self, model: str) -> bytes: ...

    def read(self, body: bytes) -> T_co:
        """Return what was asked for; raise ``Unusable`` if the answer lacks it, ``CutOff`` if for want of room."""

    def roomier(self) -> "Call[T_co]":
        """The same with more room for the answer."""


class UpstreamError(Exception):
    """A request that Groq did not answer. The message is safe to show."""


class NotConfigured(UpstreamError):
    """There is no key at all."""


class Exhausted(UpstreamError):
    """No key is ready; one will be in ``ready_in`` seconds."""

    def __init__(self, message: str, ready_in: float) -> None:
        super().__init__(message)
        self.ready_in = ready_in


class Unavailable(UpstreamError):
    """Groq is unreachable, refuses the request, or answers what cannot be used."""


class TooLarge(UpstreamError):
    """The request is larger than a minute's tokens; waiting never helps."""


class OutOfTime(UpstreamError):
    """The request's whole time is used up."""


class Failed(Exception):
    """One attempt failed; ``verdict`` says whose fault it was."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


class Upstream:
    """Makes calls to Groq with the keys of a pool. Safe to share between threads."""

    def __init__(
        self,
        pool: KeyPool,
        transport: Transport,
        *,
        max_attempts: int,
        timeout: float,
        at_once: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``timeout``: seconds of a whole call. ``at_once``: calls under way, beyond which further ones are refused."""
        self._pool = pool
        self._transport = transport
        self._max_attempts = max_attempts
        self._timeout = timeout
        self._places = threading.BoundedSemaphore(at_once)
        self._clock = clock
        self._gone: set[str] = set()

    def fetch(self, call: Call[T]) -> T:
        """Return what ``call`` reads from Groq's answer. Raises an ``UpstreamError``."""
        if not len(self._pool):
            raise NotConfigured("No Groq API key is configured")
        if not self._places.acquire(blocking=False):
            raise Exhausted("Too many requests are under way", ready_in=1.0)
        try:
            return self._attempts(call, self._clock() + self._timeout)
        finally:
            self._places.release()

    def _attempts(self, call: Call[T], deadline: float) -> T:
        asked, turn, verdict = call, None, None  # type: Call[T], Turn | None, Verdict | None
        suspects: list[Turn] = []  # met what looks like Groq's own trouble
        for _ in range(self._max_attempts):
            try:
                turn = self._pool.take(self._standing(asked.models), after=turn, without=suspects)
            except NoKeyReady:
                break
            try:
                answer = self._ask(asked, turn, deadline)
            except CutOff:
                verdict = policy.STILL_CUT_OFF
                asked = asked.roomier()
            except Failed as failed:
                verdict = failed.verdict
                self._blame(turn, verdict, suspects)
                if verdict.fault in (Fault.REQUEST, Fault.SIZE, Fault.NETWORK):
                    break
            else:
                self._credit(turn, suspects)
                return answer
        raise self._failure(call, verdict)

    def _ask(self, call: Call[T], turn: Turn, deadline: float) -> T:
        """Make one attempt. Raises ``Failed``, ``CutOff`` or ``OutOfTime``."""
        left = deadline - self._clock()
        if left <= 0:
            raise OutOfTime(_TIME_IS_UP)
        try:
            status, headers, body = self._transport.post(call.path, call.body(turn.model), turn.key.secret, left)
        except Silence as error:
            raise OutOfTime(_TIME_IS_UP) from error
        except Broken as error:
            raise Failed(policy.UNREACHABLE) from error
        if verdict := policy.judge(status, headers, body):
            raise Failed(verdict)
        try:
            return call.read(body)
        except CutOff:
            raise
        except Unusable as error:
            raise Failed(policy.unusable(error)) from error

    def _blame(self, turn: Turn, verdict: Verdict, suspects: list[Turn]) -> None:
        log.error("❌ Groq API Error (Key %s): %s", turn.key.label, verdict.reason)
        match verdict.fault:
            case Fault.LIMIT:
                self._mark(turn, lane=True, seconds=verdict.cooldown)
            case Fault.KEY:
                self._mark(turn, lane=False, grows=True)
            case Fault.KEY_FOR_MODEL:
                self._mark(turn, lane=True, grows=True)
            case Fault.MODEL:
                self._retire(turn.model, verdict)
            case Fault.GROQ:
                suspects.append(turn)

    def _credit(self, turn: Turn, suspects: list[Turn]) -> None:
        """The call succeeded, so those that failed it are to blame, and not Groq."""
        self._pool.succeed(turn)
        log.info("✅ Request successful with API Key %s", turn.key.label)
        for suspect in {suspect.key: suspect for suspect in suspects if suspect.key != turn.key}.values():
            self._mark(suspect, lane=False)

    def _mark(self, turn: Turn, *, lane: bool, seconds: float | None = None, grows: bool = False) -> None:
        fails = self._pool.fail(turn, lane=lane, seconds=seconds, grows=grows)
        log.warning("⚠️  API Key %s marked as failed (fail count: %d)", turn.key.label, fails)

    def _retire(self, model: str, verdict: Verdict) -> None:
        if model not in self._gone:
            self._gone.add(model)
            log.warning("⚠️  %s: %s. Take it out of GROQ_MODELS", verdict.reason, model)

    def _standing(self, models: Sequence[str]) -> Sequence[str]:
        """The models not known to be gone; all of them when none is left, for one may be back."""
        return [model for model in models if model not in self._gone] or models

    def _failure(self, call: Call[T], verdict: Verdict | None) -> UpstreamError:
        if verdict is None:
            return Exhausted("All API keys are cooling down", self._pool.ready_in(call.models))
        match verdict.fault:
            case Fault.LIMIT | Fault.KEY | Fault.KEY_FOR_MODEL:
                return Exhausted(verdict.reason, self._pool.ready_in(call.models))
            case Fault.SIZE:
                return TooLarge(verdict.reason)
            case Fault.MODEL:
                return Unavailable(f"{verdict.reason}: set GROQ_MODELS to models that Groq serves")
        return Unavailable(verdict.reason)
