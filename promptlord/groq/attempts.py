"""Attempts: reserve, send, judge the answer, settle; then the next one."""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import IO, Generic, Protocol, TypeVar

from promptlord import errors
from promptlord.groq import policy
from promptlord.groq.admission import Admission
from promptlord.groq.deadline import Client, Deadline
from promptlord.groq.failure import failure
from promptlord.groq.policy import Fault, Verdict
from promptlord.groq.transport import Answer, Transport
from promptlord.pool.state import NO_TRACE, Demand, Key, News, Outcome, Promise, Reservation

log = logging.getLogger("promptlord")

SLICE = 0.5  # seconds; how often one that waits looks whether its slot has moved or its client has hung up
LATE = 1.0  # seconds by which a slot may come later than the wait allows, once it was promised
LONGEST_WAIT = 0.8  # of a request's time; the call needs the rest

NONE = "none"  # an answer that could be used
CUT_OFF = "cut_off"  # one for which we had reserved too little: no outage
TIMEOUT = "timeout"  # the request was sent, and no answer came in time
DISCONNECTED = "disconnected"  # the client hung up meanwhile
FAULTS = (NONE, *(fault.name.lower() for fault in Fault), CUT_OFF, TIMEOUT, DISCONNECTED)

_TIME_IS_UP = "Groq did not answer in time"
_HUNG_UP = "The client has disconnected"

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Pool(Protocol):
    """Who gives leave to make a call; see ``KeyPool``, which is one."""

    def __len__(self) -> int: ...

    def reserve(
        self,
        demand: Demand,
        *,
        after: Key | None = None,
        tried: Collection[tuple[Key, str]] = (),
        max_wait: float = 0.0,
        put_off: float = 0.0,
    ) -> Reservation: ...

    def due_in(self, reservation: Reservation) -> float: ...

    def start(self, reservation: Reservation) -> bool: ...

    def settle(self, reservation: Reservation, outcome: Outcome = NO_TRACE) -> News: ...

    def ready_in(self, demand: Demand) -> float: ...

    def turn_away(self, fingerprint: bytes, ready_in: float, apart: float = 0.0, *, roomier: bool = False) -> float: ...

    def returns(self, fingerprint: Callable[[], bytes]) -> Promise | None: ...


class Tally(Protocol):
    """Who counts what attempts came to (one of ``FAULTS``), and what they cost."""

    def attempted(self, label: str, fault: str) -> None: ...

    def spent(self, model: str, tokens: int) -> None: ...


class Uncounted:
    """Counts nothing."""

    def attempted(self, label: str, fault: str) -> None:
        pass

    def spent(self, model: str, tokens: int) -> None:
        pass


class Call(Protocol[T_co]):
    """What is asked of Groq, whichever key and model serves it."""

    @property
    def method(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def demand(self) -> Demand:
        """Models in order of preference; the prompt's tokens, estimated with caution, and those for the answer."""

    @property
    def passthrough(self) -> Collection[Fault]:
        """Whose faults are the caller's to know: such answers are read like good ones."""

    def fingerprint(self) -> bytes:
        """The same for the same request, so that one that comes back is known; empty where it can't be told."""

    def body(self, model: str) -> bytes | IO[bytes] | None: ...

    def read(self, answer: Answer) -> T_co:
        """Return what was asked for; raise ``Unusable`` if the answer lacks it, ``CutOff`` if for want of room.

        Raise ``Lost`` if parts are missing that it was to keep.
        """

    def counted(self, answer: Answer) -> int:
        """Tokens that Groq has counted for what was read, as it says; 0 if it does not."""

    def roomier(self) -> "Call[T_co] | None":
        """The same with more room for the answer; ``None`` if it has had more or less already.

        May raise ``TooLarge``, to say what can be done.
        """

    def smaller(self, excess: int, most: int) -> "Call[T_co] | None":
        """The same, smaller by ``excess`` tokens, so that it takes ``most`` (0: unknown); ``None`` if that can't be.

        May raise ``TooLarge``, to say what can be done.
        """


class _Failed(Exception, Generic[T]):
    """One attempt failed; ``next_call`` is what to try next, ``None`` if nothing would help."""

    def __init__(self, verdict: Verdict, next_call: "Call[T] | None") -> None:
        super().__init__(verdict.reason)
        self.verdict, self.next_call = verdict, next_call


@dataclass
class Run(Generic[T]):
    """One request on its way through its attempts. Instants are the clock's."""

    call: Call[T]
    began: float
    deadline: float  # for the whole of it
    wait_until: float  # for slots
    put_off_until: float  # for those of bulk requests, where presses come between
    client: Client | None = None
    last: Key | None = None
    promised: bool = False  # it was told to come back, and does
    roomier: bool = False  # its answer was cut off, so that it needs more room
    failed: set[tuple[Key, str]] = field(default_factory=set)  # is not asked again
    suspects: list[Reservation] = field(default_factory=list)  # met what looks like Groq's own trouble
    verdicts: list[Verdict] = field(default_factory=list)  # that attempts met with the call as it is now
    mended: list[Verdict] = field(default_factory=list)  # for which it was last resized

    def enlarge(self) -> Call[T] | None:
        """The call with more room for the answer, which is noted; ``None`` if it has had that."""
        call = self.call.roomier()
        self.roomier = self.roomier or call is not None
        return call

    @property
    def lossy(self) -> list[Verdict]:
        """That an answer lacked parts, if it did: who comes back when told to is asked for all of it anew."""
        return [verdict for verdict in self.mended if verdict.fault is Fault.LOST]

    def note(self, verdict: Verdict, next_call: Call[T] | None) -> None:
        """Note what an attempt met, and the call to go on with, if there is one."""
        if next_call is None or next_call is self.call:
            self.verdicts.append(verdict)
        else:  # which is another request
            self.call, self.verdicts, self.mended = next_call, [], [verdict]


class Upstream:
    """Makes calls to Groq with the keys of a pool. Safe to share between threads."""

    def __init__(
        self,
        pool: Pool,
        transport: Transport,
        admission: Admission,
        *,
        max_attempts: int,
        timeout: float,
        max_wait: float,
        tally: Tally | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``timeout``: seconds of a whole request, ``max_wait``: of waiting for a slot."""
        self._pool = pool
        self._transport = transport
        self._admission = admission
        self._max_attempts = max_attempts
        self._timeout = timeout
        self._longest_wait = LONGEST_WAIT * timeout
        self._max_wait = min(max_wait, self._longest_wait)
        self._tally = tally or Uncounted()
        self._clock = clock
        self._sleep = sleep

    @property
    def in_flight(self) -> int:
        """Requests that are under way, waiting ones and streams included."""
        return self._admission.in_flight

    def fetch(self, call: Call[T], client: Client | None = None) -> T:
        """Return what ``call`` reads from Groq's answer; if that is the answer itself, close it.

        Raises an ``UpstreamError``.
        """
        if not len(self._pool):
            raise errors.NotConfigured("No Groq API key is configured")
        with self._admission.enter(bulk=call.demand.bulk) as inside:
            now = self._clock()
            put_off = self._longest_wait if call.demand.bulk else self._max_wait
            run = Run(call, now, now + self._timeout, now + self._max_wait, now + put_off, client)
            self._keep_promise(run)
            result = self._attempts(run)
            if isinstance(result, Answer):  # which is in flight until it is closed
                result.on_close(inside.pop_all().close)
            return result

    def _attempts(self, run: Run[T]) -> T:
        for _ in range(self._max_attempts):
            try:
                reservation = self._reserve(run)
            except errors.NoKeyReady as error:
                verdicts = run.verdicts or run.lossy
                raise self._turned_away(run, verdicts, error.ready_in, error.apart) from error
            try:
                return self._attempt(run, reservation)
            except _Failed as failed:
                run.note(failed.verdict, failed.next_call)
                if failed.next_call is None:
                    break
        raise self._turned_away(run, run.verdicts or run.mended, self._pool.ready_in(run.call.demand))

    def _turned_away(
        self, run: Run[T], verdicts: Sequence[Verdict], ready_in: float, apart: float = 0.0
    ) -> errors.UpstreamError:
        """What to tell a client, who is known again if that is to come back."""
        told = failure(verdicts, ready_in)
        if isinstance(told, errors.Exhausted) and (fingerprint := run.call.fingerprint()):
            told.ready_in = self._pool.turn_away(fingerprint, ready_in, apart, roomier=run.roomier)
        return told

    def _keep_promise(self, run: Run[T]) -> bool:
        """Let one that comes back when told to wait longer, for others have come meanwhile; false if it is none."""
        promise = self._pool.returns(run.call.fingerprint)
        if promise:
            run.promised, run.wait_until = True, run.began + self._longest_wait
            run.put_off_until = run.wait_until
            if promise.roomier:  # it was cut off, and would be again
                run.call = run.enlarge() or run.call
        return promise is not None

    def _reserve(self, run: Run[T]) -> Reservation:
        """Take a turn, and wait until its call may be made. Raises ``NoKeyReady`` or ``ClientDisconnected``."""
        while True:
            now = self._clock()
            try:
                reservation = self._pool.reserve(
                    run.call.demand,
                    after=run.last,
                    tried=run.failed,
                    max_wait=max(0.0, run.wait_until - now),
                    put_off=max(0.0, run.put_off_until - now),
                )
            except errors.NoKeyReady:
                # It may have been another process that promised, of which this one has only heard by now.
                if run.promised or not self._keep_promise(run):
                    raise
                continue
            run.last = reservation.key
            if not reservation.booked or self._wait(run, reservation):
                return reservation

    def _wait(self, run: Run[T], reservation: Reservation) -> bool:
        """Wait for a booked slot; false if it has moved out of reach, and the reservation is given back."""
        try:
            if not self._pool.due_in(reservation) and self._pool.start(reservation):
                return True
            with self._admission.wait(self._pool.due_in(reservation), bulk=reservation.bulk):
                while not self._pool.start(reservation):
                    due_in = self._pool.due_in(reservation)
                    if self._clock() + due_in > run.put_off_until + LATE:
                        return False
                    # Those ahead may leave; that is soon enough noticed when half the time is over.
                    self._doze(run.client, max(due_in / 2, min(due_in, SLICE)))
                return True
        finally:
            if reservation.booked:
                self._pool.settle(reservation)

    def _doze(self, client: Client | None, seconds: float) -> None:
        """Sleep, while the client is there. Raises ``ClientDisconnected``."""
        until = self._clock() + seconds
        while (left := until - self._clock()) > 0:
            if client and client.disconnected():
                raise errors.ClientDisconnected(_HUNG_UP)
            self._sleep(min(left, SLICE))

    def _attempt(self, run: Run[T], reservation: Reservation) -> T:
        """Make one call. Raises ``_Failed``, ``DeadlineExceeded`` or ``ClientDisconnected``."""
        try:
            answer = self._send(run, reservation)
            with ExitStack() as unread:
                unread.callback(answer.close)
                result = self._read(run, reservation, answer)
                unread.pop_all()
            return result
        except errors.ReadTimeout as error:
            self._count(reservation, TIMEOUT)
            raise errors.DeadlineExceeded(_TIME_IS_UP) from error
        except errors.Disconnected as error:
            self._count(reservation, DISCONNECTED)
            raise errors.ClientDisconnected(_HUNG_UP) from error
        except errors.Broken as error:
            raise self._suspect(run, reservation, policy.UNREACHABLE) from error
        finally:
            self._pool.settle(reservation)  # without a trace, unless its answer has settled it

    def _send(self, run: Run[T], reservation: Reservation) -> Answer:
        call, left = run.call, run.deadline - self._clock()
        if left <= 0:
            raise errors.DeadlineExceeded(_TIME_IS_UP)
        if run.client and run.client.disconnected():  # while a turn was waited for
            raise errors.ClientDisconnected(_HUNG_UP)
        headers = {**call.headers, "Authorization": f"Bearer {reservation.key.secret}"}
        deadline = Deadline(time.monotonic() + left, self._timeout, run.client)
        return self._transport.send(call.method, call.path, headers, call.body(reservation.model), deadline)

    def _read(self, run: Run[T], reservation: Reservation, answer: Answer) -> T:
        """Judge an answer, settle its call, and return what was asked for, if it is there."""
        if not policy.is_good(answer.status):
            return self._refused(run, reservation, answer)
        outcome = Outcome(admitted=True, allowances=policy.allowances(answer.headers))
        try:
            result = run.call.read(answer)
            tokens = run.call.counted(answer)
            outcome = replace(outcome, served=True, tokens=tokens, blamed=run.suspects)
            log.info("✅ Request successful with API Key %s", reservation.key.label)
            self._count(reservation, NONE)
            return result
        except errors.Lost as error:
            outcome = replace(outcome, tokens=run.call.counted(answer))
            raise self._lossy(reservation, error) from error
        except errors.CutOff as error:
            if roomier := run.enlarge():
                self._count(reservation, CUT_OFF)
                raise _Failed(policy.CUT_OFF, roomier) from error
            raise self._suspect(run, reservation, policy.CUT_OFF) from error
        except (errors.Unusable, errors.Broken) as error:
            raise self._suspect(run, reservation, policy.unusable(error)) from error
        finally:
            announce(self._pool.settle(reservation, outcome))
            self._tally.spent(reservation.model, outcome.tokens or reservation.tokens)

    def _refused(self, run: Run[T], reservation: Reservation, answer: Answer) -> T:
        """Let the right one pay; return the answer all the same if the caller wants to see such ones."""
        verdict = policy.judge(answer.status, answer.headers, answer.read())
        self._complain(reservation, verdict)
        news = self._pool.settle(reservation, verdict.outcome(answer.headers))
        announce(news)
        if news.retired:
            verdict = replace(verdict, fault=Fault.MODEL)
        if verdict.fault in run.call.passthrough:
            return run.call.read(answer)
        if news.retired and not news.known:
            log.warning("⚠️  %s: %s. Take it out of GROQ_MODELS", verdict.reason, reservation.model)
        match verdict.fault:
            case Fault.REQUEST | Fault.NETWORK:
                raise _Failed(verdict, None)
            case Fault.SIZE:
                raise _Failed(verdict, run.call.smaller(verdict.excess, verdict.most))
            case Fault.GROQ:
                run.suspects.append(reservation)
        if verdict.fault is not Fault.LIMIT:  # which says itself when it may be asked again
            run.failed.add((reservation.key, reservation.model))
        raise _Failed(verdict, run.call)

    def _lossy(self, reservation: Reservation, error: errors.Lost) -> "_Failed[T]":
        verdict = policy.lossy(error)
        self._count(reservation, verdict.fault.name.lower())
        if error.again:
            log.info("API Key %s: %s. Asking once more", reservation.key.label, verdict.reason)
        return _Failed(verdict, error.again)

    def _suspect(self, run: Run[T], reservation: Reservation, verdict: Verdict) -> "_Failed[T]":
        """What looks like Groq's own trouble: the key pays if another one then serves the same request."""
        self._complain(reservation, verdict)
        run.suspects.append(reservation)
        run.failed.add((reservation.key, reservation.model))
        return _Failed(verdict, run.call)

    def _complain(self, reservation: Reservation, verdict: Verdict) -> None:
        complain(reservation.key, verdict)
        self._count(reservation, CUT_OFF if verdict is policy.CUT_OFF else verdict.fault.name.lower())

    def _count(self, reservation: Reservation, fault: str) -> None:
        self._tally.attempted(reservation.key.label, fault)


def announce(news: News) -> None:
    """Log what followed from an outcome."""
    for key, fails in news.marked:
        log.warning("⚠️  API Key %s marked as failed (fail count: %d)", key.label, fails)
    if shared := news.shared:
        labels = ", ".join(key.label for key in shared.keys)
        log.warning("⚠️  API Keys %s share organization %s: together they have one's capacity", labels, shared.name)


def complain(key: Key, verdict: Verdict) -> None:
    """Log what is wrong with an answer to a call with this key."""
    log.error("❌ Groq API Error (Key %s): %s", key.label, verdict.reason)
