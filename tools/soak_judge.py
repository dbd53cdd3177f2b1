"""Whether a soak's client got exactly its own well-formed answer, or why not, and all in good time. Pure."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from soak_clients import Heard, Response
from soak_groq import COOLS, ILLS, LATENCY, LISTED, ORGANIZATION, WHOLE_TIME, Means, Met, text_for

ATTEMPTS = 3  # that a request has
OK, AS_SENT, TOLD, CUT, LEFT = "its answer", "as Groq sent it", "an error, told why", "broken off, and shown", "left"
WRONG, WHOLE, EARLY, HUNG, LEAKED = "WRONG", "LOOKS WHOLE", "FAILED EARLY", "NO RESPONSE", "LEAKED"
BAD = (WRONG, WHOLE, EARLY, HUNG, LEAKED)
MISBEHAVE = {"hangs up", "hangs up in a stream", "half a request", "garbage", "bad chunks", "never reads"}
PRESSES = {"press", "press, closing", "never closes"}
NOTICES = 0.5  # seconds within which a client's leaving is noticed, and a refusal known to all
OVERDUE = 1.0  # seconds that a response may come after the request's whole time
AGAIN = 2.0  # seconds after which processes share again
OUR_ERRORS = {413, 502, 503, 504}  # of /enhance; on /v1 Groq's own are passed on


class Told(NamedTuple):
    """What a stream tells: its text, whether it has come to its end, an error, something after the end."""

    text: str
    reason: str  # why it ends; "" if it does not say
    done: bool
    error: bool
    spoilt: bool


def judge(heard: Heard, met: Sequence[str]) -> str:
    """Say what became of a request whose calls ``met`` this, "" where nothing went wrong."""
    response = heard.response
    if ORGANIZATION.encode() in response.body:
        return LEAKED
    if heard.kind in MISBEHAVE:
        return _answer_to_nonsense(response)
    if not response.status:
        return HUNG
    if response.status != 200:
        return _failure(heard, met)
    means = [ILLS[name].means for name in met if name]
    last = means[-1] if means and met[-1] else Means.NOTHING
    if heard.kind in PRESSES:
        return OK if _is_enhanced(heard) else WRONG
    if heard.kind.endswith("streamed") and response.kind.startswith("text/event-stream"):
        return _stream(heard, last)
    if response.cut:
        return CUT if Means.CUT in last else EARLY
    if _is_own(heard):
        return OK
    return AS_SENT if Means.PASS in last else WRONG


def _answer_to_nonsense(response: Response) -> str:
    if response.status in (0, 200):
        return LEFT
    refused = 400 <= response.status < 500 or response.status == 501  # an encoding that we do not know
    return TOLD if refused and _is_error(response) else WRONG


def _failure(heard: Heard, met: Sequence[str]) -> str:
    """What became of one that failed: all its attempts met something, or it met what ends it."""
    response, press = heard.response, heard.kind in PRESSES
    if response.cut or not _is_error(response) or (press and response.status not in OUR_ERRORS):
        return WRONG
    means = [ILLS[name].means for name in met if name]
    tried = [each for each in means if each != Means.NOTHING]
    return TOLD if len(tried) >= ATTEMPTS or any(Means.END in each for each in means) else EARLY


def _is_error(response: Response) -> bool:
    error = _json(response.body).get("error")
    return isinstance(error, str) or (isinstance(error, dict) and isinstance(error.get("message"), str))


def _is_enhanced(heard: Heard) -> bool:
    return not heard.response.cut and _json(heard.response.body) == {"enhancedPrompt": text_for(heard.word)}


def _is_own(heard: Heard) -> bool:
    told = _json(heard.response.body)
    if heard.kind == "models":
        return told == LISTED
    if heard.kind == "upload":
        return told.get("text") == f" {heard.word} {heard.sent} bytes of sound."
    try:
        choice = told["choices"][0]
        return bool(choice["message"]["content"] == text_for(heard.word) and choice["finish_reason"] == "stop")
    except (LookupError, TypeError):
        return False


def _json(body: bytes) -> Mapping[str, Any]:
    try:
        told = json.loads(body)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _stream(heard: Heard, last: Means) -> str:
    """A stream is whole, or looks as if it were not."""
    try:
        told = tell(heard.response.body)
    except (ValueError, LookupError, TypeError):
        return CUT if heard.response.cut and Means.CUT in last else WRONG
    broken, whole = told.error or heard.response.cut, told.text == text_for(heard.word)
    if told.spoilt or (not text_for(heard.word).startswith(told.text) and Means.PASS not in last):
        return WRONG
    if broken and not told.done:
        return CUT if last & (Means.CUT | Means.END) else EARLY
    if (told.done or told.reason == "stop") and whole:
        return OK
    return AS_SENT if told.done and Means.PASS in last else WHOLE


def tell(body: bytes) -> Told:
    """Read a stream of either kind. Raises ``ValueError``, ``LookupError`` or ``TypeError`` where it is none."""
    text, reason, done, error, spoilt = "", "", False, False, False
    for event in filter(None, re.split(rb"\r?\n\r?\n", body)):
        name, data = (re.search(rb"(?m)^%b: (.*)$" % field, event) for field in (b"event", b"data"))
        spoilt |= done
        if not data:
            raise ValueError("no data")
        if data[1].strip() == b"[DONE]":
            done = True
            continue
        said = json.loads(data[1])
        error |= bool(said.get("error")) or said.get("type") == "error" or (name is not None and name[1] == b"error")
        for choice in said.get("choices", ()):
            text += choice["delta"].get("content") or ""
            reason = choice["finish_reason"] or reason
        if said.get("type") == "response.output_text.delta":
            text += said["delta"]
        done |= said.get("type") in ("response.completed", "response.incomplete")
    return Told(text, reason, done, error, spoilt)


# In good time: each yields what was not


def for_nobody(heard: Iterable[Heard], met: Mapping[str, Sequence[Met]]) -> Iterator[str]:
    """Calls begun when their client had left."""
    for each in heard:
        for number, call in enumerate(met.get(each.word, ()), 1):
            if call.at > each.left + NOTICES:
                late = call.at - each.left
                yield f"{each.kind}, {each.response.status}: call {number} began {late:.2f} s after its client left"


def overdue(heard: Iterable[Heard], met: Mapping[str, Sequence[Met]]) -> Iterator[str]:
    """Responses that came after the request's whole time."""
    for each in heard:
        if (late := each.response.seconds - WHOLE_TIME) > OVERDUE:
            names = ", ".join(call.name or "nothing" for call in met.get(each.word, ()))
            yield f"{each.kind}, {each.response.status}: {late:.2f} s late, met {names or 'no call'}"


def while_cooling(met: Iterable[Met], away: Sequence[tuple[float, float]]) -> Iterator[str]:
    """Calls with a key that had been refused; ``away``: between which instants nothing was shared."""
    refused: dict[tuple[str, str], float] = {}
    calls = sorted(met)
    for call in calls:
        since = call.at - LATENCY - refused.get((call.key, call.model), 0.0)
        alone = any(gone <= call.at <= back + AGAIN for gone, back in away)
        if NOTICES < since < COOLS and not alone:
            at = call.at - calls[0].at
            yield f"{call.key} for {call.model or 'no model'}: called {since:.2f} s after its refusal, at {at:.1f} s"
        if call.name.startswith("429"):
            refused[call.key, call.model] = call.at
