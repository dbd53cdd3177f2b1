"""What can go wrong, and what whoever catches it may do. ``app.py`` makes statuses of it, and nobody else."""

from enum import Enum, auto
from typing import Any


class PromptLordError(Exception):
    """All that this service raises of its own. The message is safe to show."""


class ConfigError(PromptLordError, ValueError):
    """A setting is malformed. The message is one line that names it; show it and stop."""


class PromptError(PromptLordError, ValueError):
    """The prompt can't be enhanced; the message tells the user why."""


class TooOften(PromptLordError):
    """The client may call again in ``wait`` seconds; ``used_up``: not its shortest limit, but a longer one."""

    def __init__(self, wait: float, *, used_up: bool) -> None:
        super().__init__("used up" if used_up else "too fast")
        self.wait, self.used_up = wait, used_up


class NoKeyReady(PromptLordError):
    """No key may be called now, nor soon enough; one will be in ``ready_in`` seconds, the next ``apart`` later."""

    def __init__(self, ready_in: float, apart: float = 0.0) -> None:
        super().__init__(f"no key is ready for {ready_in:.1f} s")
        self.ready_in, self.apart = ready_in, apart


# The connection to Groq


class ReadTimeout(PromptLordError):
    """Groq took the request and did not answer in time; sending it again might do the work twice."""


class Broken(PromptLordError):
    """No usable answer came over the wire; it is safe to try another key."""


class Disconnected(PromptLordError):
    """The client has hung up: nobody will read the answer."""


class Unusable(PromptLordError):
    """A good status with nothing in it that can be used; another attempt may fare better."""


class CutOff(Unusable):
    """The completion ended for want of room; it may fit when asked for with more."""


class Lost(Unusable):
    """The answer lacks parts that it was to keep; ``again`` is the call that insists on them, ``None`` if this one did.

    The message tells their kinds, and nothing of themselves.
    """

    def __init__(self, message: str, again: Any) -> None:
        super().__init__(message)
        self.again = again


# A whole request


class Cause(Enum):
    """Why a request failed, as the operator has to see it."""

    BUSY = auto()  # no key is ready soon enough, or too many requests are under way
    KEYS = auto()  # Groq refuses our keys
    GROQ = auto()  # it does not answer, or not in time, has trouble, or answers what can't be used
    NETWORK = auto()  # it refuses this server's network
    MODEL = auto()  # it does not serve the model
    REQUEST = auto()  # it is too large, or refused, or its client has disconnected
    UNCONFIGURED = auto()  # there is no key


class UpstreamError(PromptLordError):
    """A request that Groq did not answer. The message is for whoever called, ``reason`` for the operator."""

    cause = Cause.GROQ

    def __init__(self, message: str, *, cause: Cause | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.cause, self.reason = cause or self.cause, reason or message


class NotConfigured(UpstreamError):
    """There is no key at all."""

    cause = Cause.UNCONFIGURED


class Exhausted(UpstreamError):
    """No key is ready; one will be in ``ready_in`` seconds."""

    cause = Cause.BUSY

    def __init__(self, message: str, ready_in: float, *, cause: Cause | None = None, reason: str = "") -> None:
        super().__init__(message, cause=cause, reason=reason)
        self.ready_in = ready_in


class Unavailable(UpstreamError):
    """Groq is unreachable, refuses the request, or answers what cannot be used.

    ``answer``: the status and the JSON body with which Groq told of its own trouble, for those who speak its language.
    """

    def __init__(
        self, message: str, answer: tuple[int, bytes] | None = None, *, cause: Cause | None = None, reason: str = ""
    ) -> None:
        super().__init__(message, cause=cause, reason=reason)
        self.answer = answer


class Lossy(Unavailable):
    """Each answer lacked parts that it was to keep."""


class TooLarge(UpstreamError):
    """The request is larger than a minute's tokens; waiting never helps."""

    cause = Cause.REQUEST


class DeadlineExceeded(UpstreamError):
    """The request's whole time is used up."""


class ClientDisconnected(UpstreamError):
    """Nobody waits for the response any more."""

    cause = Cause.REQUEST
