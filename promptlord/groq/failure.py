"""What a client is told of a request that failed: the most telling verdict, in words for whoever called. Pure."""

from collections.abc import Sequence

from promptlord import errors
from promptlord.groq.policy import Fault, Verdict

# What happened, and what whoever called can do; what only the operator can mend stands in the log. From the least
# telling to the most: that a key of ours was refused does not say why the request failed with the others too.
TOLD = {
    Fault.KEY: "This service could not use its keys for Groq: try again later",
    Fault.KEY_FOR_MODEL: "This service could not use its keys for this model: try again later",
    Fault.LACKING: "This service could not use its keys for this model: try again later",
    Fault.MODEL: "Groq does not serve this model any more: tell whoever runs this service",
    Fault.LIMIT: "Groq's rate limit is reached: wait, then try again",
    Fault.GROQ: "Groq has trouble: try again in a moment",
    Fault.NETWORK: "Groq does not let this service in: tell whoever runs it",
    Fault.SIZE: "Request too large for the model's tokens per minute",
    Fault.REQUEST: "Groq refuses this request: try another prompt",
}
_ORDER = list(TOLD)


def failure(verdicts: Sequence[Verdict], ready_in: float) -> errors.UpstreamError:
    """What to tell after attempts that met these, if any; ``ready_in``: seconds until a key will be ready."""
    if not verdicts:
        return errors.Exhausted("All API keys are busy or cooling down", ready_in)
    verdict = most_telling(verdicts)
    words = verdict.told or TOLD[verdict.fault]
    match verdict.fault:
        case Fault.LIMIT | Fault.KEY | Fault.KEY_FOR_MODEL | Fault.LACKING:
            return errors.Exhausted(words, ready_in)
        case Fault.SIZE:
            return errors.TooLarge(words)
    return errors.Unavailable(words, verdict.answer)


def most_telling(verdicts: Sequence[Verdict]) -> Verdict:
    """The one that says most of why the request failed; of several the last, rather one with Groq's own words."""
    return max(reversed(verdicts), key=lambda verdict: (_ORDER.index(verdict.fault), bool(verdict.answer)))
