"""What can be asked of Groq, and what the asker is told when it is not answered."""

from collections.abc import Collection, Mapping, Sequence
from typing import IO, Protocol, TypeVar

from promptlord.groq.policy import Fault, Verdict
from promptlord.groq.transport import Answer

T_co = TypeVar("T_co", covariant=True)


class Call(Protocol[T_co]):
    """What is asked of Groq, whichever key and model serves it."""

    @property
    def method(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def models(self) -> Sequence[str]:
        """In order of preference."""

    @property
    def need(self) -> int:
        """Tokens that Groq will count: the prompt's, estimated with caution, and those reserved for the answer."""

    @property
    def mark(self) -> int:
        """The same for the same request, so that one that comes back is known."""

    @property
    def tells(self) -> Collection[Fault]:
        """Whose faults are the caller's to know: such answers are read like good ones."""

    def body(self, model: str) -> bytes | IO[bytes] | None: ...

    def read(self, answer: Answer) -> T_co:
        """Return what was asked for; raise ``Unusable`` if the answer lacks it, ``CutOff`` if for want of room."""

    def roomier(self) -> "Call[T_co] | None":
        """The same with more room for the answer; ``None`` if it has had more or less already."""

    def smaller(self, excess: int | None) -> "Call[T_co] | None":
        """The same, smaller by ``excess`` tokens (if known); ``None`` if that can't be."""


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


class ClientGone(UpstreamError):
    """Nobody waits for the response any more."""


def failure(verdict: Verdict | None, ready_in: float) -> UpstreamError:
    """What to tell the client, from the last attempt's verdict, if there was an attempt."""
    if verdict is None:
        return Exhausted("All API keys are busy or cooling down", ready_in)
    match verdict.fault:
        case Fault.LIMIT | Fault.KEY | Fault.KEY_FOR_MODEL:
            return Exhausted(verdict.reason, ready_in)
        case Fault.SIZE:
            return TooLarge(verdict.reason)
        case Fault.MODEL:
            return Unavailable(f"{verdict.reason}: set GROQ_MODELS to models that Groq serves")
    return Unavailable(verdict.reason)
