"""What an answer from Groq means: whose fault it is, and for how long its bearer cools. Pure."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from promptlord.pool.quota import PERIODS, RPD, TPM, Allowance
from promptlord.pool.state import Outcome, Refusal, Scope

DAY = 86400.0  # no limit of Groq's is longer, so no cooldown is

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = r"(\d++(?:\.\d++)?)(h|ms|us|µs|ns|m|s)"
_DURATION = re.compile(f"(?:{_PART}){{1,4}}")  # Go prints three at most
_TRY_AGAIN = re.compile(r"try again in ([0-9.hmsuµn]+)", re.IGNORECASE)
_ORGANIZATION = re.compile(r"in organization `?(org_\w+)")
_ORGANIZATION_BYTES = re.compile(rb"\borg_\w+")
_DIMENSION = re.compile(r"\bon ((?:(?:in|out)put |audio )?(?:tokens|requests|seconds) per (?:minute|hour|day))\b")
_LIMIT = re.compile(r"Limit (\d{1,12}),(?: Used (\d{1,12}),)? Requested (\d{1,12})\b")
_MESSAGE_MAX = 2000  # characters; Groq's sentences have about 400
_ANSWER_MAX = 1 << 16  # bytes; its errors have some hundreds


class Fault(Enum):
    """Whose fault an answer is; what follows for the key and for the request."""

    LIMIT = auto()  # the organization's lane for the model cools; next key
    KEY = auto()  # the key cools for every model; next key
    KEY_FOR_MODEL = auto()  # the lane cools; next key, then next model
    LACKING = auto()  # the same, unless every organization asked lacks the model: then it is the model's
    MODEL = auto()  # no key cools; next model
    REQUEST = auto()  # no key cools; answered at once
    SIZE = auto()  # the same: larger than a whole minute's tokens
    LOST = auto()  # no key cools; asked once more: the answer lacks parts of the prompt
    GROQ = auto()  # the key is marked as failed only if another one then succeeds; next key
    NETWORK = auto()  # no key cools; answered at once, for all would fail


@dataclass(frozen=True)
class Verdict:
    """What an answer means: whose fault it is, why, and for how long its bearer cools, in seconds (0: unsaid)."""

    fault: Fault
    reason: str  # our words for the operator, safe to log
    cooldown: float = 0.0
    organization: str = field(default="", repr=False)
    dimension: str = ""  # which limit, in Groq's words: "tokens per minute"
    level: Mapping[str, Allowance] = field(default_factory=dict)  # of that limit, as its refusal tells it
    limits: Mapping[str, float] = field(default_factory=dict)  # likewise, where no level is told
    refusal: Refusal | None = None  # of the key
    excess: int = 0  # tokens by which the request is too large, if that was told,
    most: int = 0  # and those that it may have
    told: str = ""  # our words for whoever called, where there are better ones than the fault's
    answer: tuple[int, bytes] | None = field(default=None, repr=False)  # status and JSON of Groq's own trouble, masked

    def outcome(self, headers: Mapping[str, str]) -> Outcome:
        """What a call is settled with that met this, and these headers."""
        limited = self.fault is Fault.LIMIT
        return Outcome(
            cools=_COOLS.get(self.fault, Scope.NOTHING),
            seconds=self.cooldown,
            limited=limited,
            reason=f"{self.dimension or 'limit'} used up" if limited else self.reason,
            refusal=self.refusal,
            dimension=self.dimension,
            lacks=self.fault is Fault.LACKING,
            retires=self.fault is Fault.MODEL,
            organization=self.organization,
            allowances={**allowances(headers), **self.level},
            limits=self.limits,
        )


_COOLS = {
    Fault.LIMIT: Scope.LANE,
    Fault.KEY: Scope.KEY,
    Fault.KEY_FOR_MODEL: Scope.LANE,
    Fault.LACKING: Scope.LANE,
}
_REFUSED = {
    Refusal.REVOKED: "Invalid API key: create a new one in the Groq console",
    Refusal.RESTRICTED: "Organization restricted: ask Groq's support why",
    Refusal.SPENT: "Spend limit reached: raise it in the Groq console",
}
_REFUSED_NETWORK = "Groq refuses this server's network address or user agent, whatever the key"

_REFUSALS = {
    "organization_restricted": Refusal.RESTRICTED,
    "blocked_api_access": Refusal.SPENT,
    "spend_": Refusal.SPENT,
    "invalid_api_key": Refusal.REVOKED,
}
_BY_CODE = {
    "model_permission_blocked": (Fault.KEY_FOR_MODEL, "Model not allowed: allow it in the Groq console"),
    "model_decommissioned": (Fault.MODEL, "Model decommissioned"),
    "model_not_found": (Fault.LACKING, "Model not found"),
}
UNREACHABLE = Verdict(Fault.GROQ, "Groq is unreachable", told="Groq is unreachable: try again in a moment")
CUT_OFF = Verdict(
    Fault.GROQ, "Unusable answer: cut off for want of room", told="Groq's answer was cut off: try again, or ask less"
)


def is_good(status: int) -> bool:
    return 200 <= status < 300


def judge(status: int, headers: Mapping[str, str], body: bytes) -> Verdict:
    """Say what is wrong with an answer whose status is not good. ``headers`` must ignore case."""
    error = _error(body)
    message, code = str(error.get("message", ""))[:_MESSAGE_MAX], _code(error)
    organization = (_ORGANIZATION.findall(message) or [""])[-1]  # the model's name, before it, is the client's
    numbers = _LIMIT.search(message)
    limit, used, requested = (int(number or 0) for number in numbers.groups()) if numbers else (0, 0, 0)
    if status == 429:
        dimension = match[1] if (match := _DIMENSION.search(message)) else ""
        reason = f"Rate limit exceeded on {dimension}" if dimension else "Rate limit exceeded"
        level = _level(dimension, limit, used)
        return Verdict(Fault.LIMIT, reason, _cooldown(headers, message), organization, dimension, level)
    if status == 413:  # its code says rate_limit_exceeded, yet waiting never helps
        reason = "Request too large for the model's tokens per minute"
        limits = {TPM: float(limit)} if limit and "(TPM)" in message else {}
        excess = max(0, requested - limit)
        return Verdict(Fault.SIZE, reason, organization=organization, limits=limits, excess=excess, most=limit)
    if not 400 <= status < 500 or status == 498:
        answer = (status, mask(body)) if error and 498 <= status < 600 and len(body) <= _ANSWER_MAX else None
        return Verdict(Fault.GROQ, f"Groq answered {status}", answer=answer)
    if refusal := _refusal(status, code):
        return Verdict(Fault.KEY, _REFUSED[refusal], refusal=refusal)
    for sign, (fault, reason) in _BY_CODE.items():
        if code.startswith(sign):
            return Verdict(fault, reason)
    if status == 403 and (not error or "network settings" in message):
        return Verdict(Fault.NETWORK, _REFUSED_NETWORK)
    return Verdict(Fault.REQUEST, f"Request refused: {status} {code}".rstrip())


def _refusal(status: int, code: str) -> Refusal | None:
    told = (refusal for sign, refusal in _REFUSALS.items() if code.startswith(sign))
    return next(told, Refusal.REVOKED if status == 401 else None)


def _level(dimension: str, limit: int, used: int) -> dict[str, Allowance]:
    """What a refusal tells of the bucket that refused, to the unit; nothing of one that the pool does not keep."""
    if dimension not in PERIODS or not limit or not used:
        return {}
    return {dimension: Allowance(limit, min(used / limit, 1.0) * PERIODS[dimension])}


def unusable(error: Exception) -> Verdict:
    """What an answer means whose status was good and whose body was not."""
    return Verdict(Fault.GROQ, f"Unusable answer: {error}", told="Groq answered what can't be used: try again")


def lossy(error: Exception) -> Verdict:
    """What an answer means that lacks what it was to keep."""
    return Verdict(Fault.LOST, f"The answer lacks parts of the prompt: {error}")


def allowances(headers: Mapping[str, str]) -> dict[str, Allowance]:
    """What an answer's headers say of the lane's buckets; nothing of one that they do not describe plausibly."""
    told = {}
    for name, suffix in ((RPD, "requests"), (TPM, "tokens")):
        limit, left = (_number(headers.get(f"x-ratelimit-{what}-{suffix}")) for what in ("limit", "remaining"))
        full_in = duration(headers.get(f"x-ratelimit-reset-{suffix}", ""))
        if not limit or limit < 1:
            continue
        if full_in is None and left is not None:
            full_in = PERIODS[name] * (1 - left / limit)
        if full_in is not None:
            told[name] = Allowance(limit, min(max(full_in, 0.0), PERIODS[name]))
    return told


def mask(body: bytes) -> bytes:
    """The same without organization ids, which are the operator's to know."""
    return _ORGANIZATION_BYTES.sub(b"org_***", body)


def duration(text: str) -> float | None:
    """Seconds of a duration as Go prints it (``1m26.4s``, ``540ms``), a day at most; ``None`` if it is none."""
    if not _DURATION.fullmatch(text):
        return None
    return min(sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, text)), DAY)


def _number(text: str | None) -> float | None:
    """A number from the wire, if it is one that makes sense: finite and not negative."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _cooldown(headers: Mapping[str, str], message: str) -> float:
    told = _number(headers.get("retry-after"))
    if not told and (match := _TRY_AGAIN.search(message)):
        told = duration(match[1].rstrip("."))
    return min(told or 0.0, DAY)


def _error(body: bytes) -> dict[str, Any]:
    """The ``error`` object of a body, empty if it has none: bodies may be HTML, plain text or nothing."""
    try:
        error = json.loads(body)["error"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return {}
    return error if isinstance(error, dict) else {}


def _code(error: Mapping[str, Any]) -> str:
    """Groq's word for the error, if it looks like one: it is logged, so nothing else may pass."""
    for word in (error.get("code"), error.get("type")):
        if isinstance(word, str) and re.fullmatch(r"(?!org_|gsk_)[a-z_]{1,64}", word):
            return word
    return ""
