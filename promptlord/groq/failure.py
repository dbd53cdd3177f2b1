"""What a client is told of a request that failed: the most telling verdict, in words for whoever called. Pure."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from promptlord import errors
from promptlord.errors import Cause
from promptlord.groq.policy import Fault, Verdict


class Told(NamedTuple):
    """How a request has failed: in words for whoever called, and as the operator has to see it."""

    words: str
    cause: Cause


# What happened, and what whoever called can do; what only the operator can mend is the verdict's reason. From the least
# telling to the most: that a key of ours was refused does not say why the request failed with the others too.
TOLD = {
    Fault.KEY: Told("This service could not use its keys for Groq: try again later", Cause.KEYS),
    Fault.KEY_FOR_MODEL: Told("This service could not use its keys for this model: try again later", Cause.KEYS),
    Fault.LACKING: Told("This service could not use its keys for this model: try again later", Cause.MODEL),
    Fault.MODEL: Told("Groq does not serve this model any more: tell whoever runs this service", Cause.MODEL),
    Fault.LIMIT: Told("Groq's rate limit is reached: wait, then try again", Cause.BUSY),
    Fault.GROQ: Told("Groq has trouble: try again in a moment", Cause.GROQ),
    Fault.LOST: Told(
        "Could not improve this prompt without losing parts of it: use it as it is, or try again", Cause.REQUEST
    ),
    Fault.NETWORK: Told("Groq does not let this service in: tell whoever runs it", Cause.NETWORK),
    Fault.SIZE: Told("The request is too large for the model", Cause.REQUEST),
    Fault.REQUEST: Told("Groq refuses this request: try another prompt", Cause.REQUEST),
}
_ORDER = list(TOLD)


def failure(verdicts: Sequence[Verdict], ready_in: float) -> errors.UpstreamError:
    """What to tell after attempts that met these, if any; ``ready_in``: seconds until a key will be ready."""
    when = f"ready in {math.ceil(ready_in):,} s"
    if not verdicts:
        return errors.Exhausted(
            "All API keys are busy or cooling down", ready_in, reason=f"No key is ready: the first is {when}"
        )
    verdict = most_telling(verdicts)
    words, cause = TOLD[verdict.fault]
    words = verdict.told or words
    match verdict.fault:
        case Fault.LIMIT:
            return errors.Exhausted(words, ready_in, cause=cause, reason=f"{verdict.reason}: {when}")
        case Fault.KEY | Fault.KEY_FOR_MODEL | Fault.LACKING:
            return errors.Exhausted(words, ready_in, cause=cause, reason=verdict.reason)
        case Fault.LOST:
            return errors.Lossy(words, cause=cause, reason=verdict.reason)
        case Fault.SIZE:
            return errors.TooLarge(words, cause=cause, reason=verdict.reason)
    return errors.Unavailable(words, verdict.answer, cause=cause, reason=verdict.reason)


def most_telling(verdicts: Sequence[Verdict]) -> Verdict:
    """The one that says most of why the request failed; of several the last, rather one with Groq's own words."""
    return max(reversed(verdicts), key=lambda verdict: (_ORDER.index(verdict.fault), bool(verdict.answer)))
