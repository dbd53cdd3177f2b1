"""``/enhance``: prompt in, chat request out; completion in, enhanced prompt out. All but the route is pure."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import UnsupportedMediaType

from promptlord.errors import CutOff, Lost, PromptError, TooLarge, Unusable
from promptlord.groq.policy import Fault
from promptlord.pool.quota import FREE_PLAN, TPM
from promptlord.pool.state import Demand
from promptlord.rewrite.cleaning import clean
from promptlord.rewrite.kept import Loss, in_words, losses
from promptlord.rewrite.wording import SYSTEM, framed, messages, parameters
from promptlord.tokens import estimate
from promptlord.web.body import json_object, whole_body
from promptlord.web.client import connection
from promptlord.web.service import service

routes = Blueprint("enhance", __name__)

LONGEST = 5000  # characters
SHORTEST = 2

# Tokens, as Groq counts them: the template around the messages, and what an answer may take beyond the prompt's own.
# Reserved too much, a minute's tokens admit fewer enhancements; too little, an answer is cut off and paid for twice.
# `make bench`, one lane, for plausible answers (to short prompts: median 190), half as long again, and twice as long:
# 300 makes 11.3, 8.0, 5.7 enhancements a minute, and cuts off 3, 23, 53 %; 200: 10.0, 6.3, 5.2 and 23, 65, 88 %;
# 400: 10.4, 9.2, 6.7 and 1, 6, 24 %. With three times the room hardly one in a thousand is cut off again.
TEMPLATE = 80
LEAST_RESERVE = 300
MORE_ROOM = 3
TIGHT = 0.75  # of a reserve, which is worth a try where there is no room for all: tokens are estimated with caution
TELLING = 100  # characters; to shorten a prompt to fewer helps nobody
FRAME = TEMPLATE + -(-len(SYSTEM + framed("")) // 4)  # English prose has four characters a token or more

_PROMPT_TOKENS = re.compile(rb'"prompt_tokens"\s*:\s*(\d{1,7})')  # with such quotes in no text


def checked(prompt: object) -> str:
    """Return the prompt, trimmed; raise ``PromptError``."""
    if not isinstance(prompt, str) or not prompt:
        raise PromptError("Prompt must be a non-empty string")
    # JSON can carry half of a character's surrogate pair; UTF-8, and so Groq, can't.
    prompt = prompt.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()
    if not prompt:
        raise PromptError("Prompt cannot be empty or whitespace only")
    if len(prompt) < SHORTEST:
        raise PromptError("Prompt too short (minimum 2 characters)")
    if len(prompt) > LONGEST:
        raise PromptError("Prompt too long (max 5,000 characters)")
    return prompt


class Readable(Protocol):
    def read(self) -> bytes: ...


@dataclass(frozen=True)
class Enhancement:
    """The call that turns ``prompt`` into a better one.

    ``most``: tokens that it may take in all; ``losses``: what an answer had lost, on which it insists; ``shrunk``: its
    reserve was made smaller, for Groq had found it too large.
    """

    prompt: str
    models: Sequence[str]
    reserve: int
    most: float = FREE_PLAN[TPM]
    losses: Sequence[Loss] = ()
    shrunk: bool = False
    method: str = "POST"
    path: str = "/openai/v1/chat/completions"
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    passthrough: Collection[Fault] = ()

    @classmethod
    def of(cls, prompt: str, models: Sequence[str]) -> "Enhancement":
        return cls(prompt, models, LEAST_RESERVE + estimate(prompt))

    @property
    def is_long(self) -> bool:
        """Whether it matters how much it may take: it might not fit, or not with more room."""
        return self._own + self.reserve * MORE_ROOM > FREE_PLAN[TPM] / 4  # and no model has less

    def within(self, most: float) -> "Enhancement":
        """The same where a request may take ``most`` tokens. Raises ``TooLarge`` if it can't, however it is counted."""
        if TIGHT * (self._own + self.reserve) > most:
            raise self._too_long(most)
        reserve = max(TIGHT * self.reserve, min(self.reserve, most - self._own))
        return replace(self, most=most, reserve=int(reserve))

    @cached_property
    def demand(self) -> Demand:
        return Demand(self.models, self._own + self.reserve)

    @cached_property
    def _estimate(self) -> int:
        return estimate(self.prompt)

    @property
    def _usual(self) -> int:
        """The reserve to begin with."""
        return LEAST_RESERVE + self._estimate

    @cached_property
    def _own(self) -> int:
        """Tokens of what is sent."""
        told = estimate(framed("", self.losses)) - estimate(framed("")) if self.losses else 0
        return FRAME + self._estimate + told

    def fingerprint(self) -> bytes:
        return hashlib.blake2b(self.prompt.encode(), digest_size=16).digest()

    def counted(self, answer: Readable) -> int:
        usage = _PROMPT_TOKENS.search(answer.read())
        return int(usage[1]) + self.reserve if usage else 0

    def roomier(self) -> "Enhancement | None":
        if self.reserve * TIGHT > self._usual:
            return None
        reserve = int(min(self.reserve * MORE_ROOM, self.most - self._own))
        if reserve * TIGHT <= self._usual:  # nor would it fit: a minute's tokens hold no more
            raise self._too_long(self.most, cut_off=True)
        return replace(self, reserve=reserve)

    def smaller(self, excess: int, most: int) -> "Enhancement":
        reserve = self.reserve - excess
        if excess and not self.shrunk and reserve >= TIGHT * self._usual:
            return replace(self, most=most, reserve=reserve, shrunk=True)
        raise self._too_long(most, excess)

    def _too_long(self, most: float, excess: int = 0, *, cut_off: bool = False) -> TooLarge:
        """How far to shorten it, if that is known, so that it fits as Groq has counted it, and as we do."""
        counted = max(1, most + excess - self.reserve - FRAME) if excess else self._estimate
        room = most - FRAME - LEAST_RESERVE
        share = min(room / (counted + self._estimate), (room + most / TIGHT - most) / (2 * self._estimate))
        fits = (TIGHT * min(share, 1) if cut_off else share) * len(self.prompt)
        words = f" to about {_round(fits):,} characters" if most and fits > TELLING else ""
        return TooLarge(f"The prompt is too long for the model: shorten it{words}")

    def _insisting(self, lost: Sequence[Loss]) -> "Enhancement":
        """Told as many of what was lost as there is room for."""
        while len(lost) > 1 and replace(self, losses=lost).demand.tokens > min(self.most, FREE_PLAN[TPM]):
            lost = lost[: len(lost) // 2]
        return replace(self, losses=lost)

    def body(self, model: str) -> bytes:
        """The chat request. What never changes comes first, where Groq's prompt cache can find it."""
        request = {
            "model": model,
            "messages": messages(self.prompt, self.losses),
            "max_completion_tokens": self.reserve,
            **parameters(model),
        }
        return json.dumps(request, ensure_ascii=False).encode()

    def read(self, answer: Readable) -> str:
        text = completion(answer.read(), self.prompt)
        if lost := losses(self.prompt, text):
            raise Lost(in_words(lost), None if self.losses else self._insisting(lost))
        return text


def _round(number: float) -> int:
    """Down to the two digits that tell something, of three or more."""
    scale: int = 10 ** (len(str(int(number))) - 2)
    return int(number) // scale * scale


def completion(body: bytes, draft: str = "") -> str:
    """Return the enhanced prompt of a chat completion, never empty. Raises ``CutOff`` or ``Unusable``."""
    try:
        choice = json.loads(body)["choices"][0]
        text = choice["message"]["content"] or ""
        finish = choice.get("finish_reason")
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        raise Unusable("not a chat completion") from error
    if finish == "length":
        raise CutOff("cut off for want of room")
    if not isinstance(text, str):
        raise Unusable("its content is not text")
    if not (enhanced := clean(text, draft)):
        raise Unusable("empty")
    return enhanced.replace("\u2011", "-")  # gpt-oss likes hyphens that do not break, on which code and links do


@routes.post("/enhance")
def enhance() -> Response:
    if not request.is_json:
        raise UnsupportedMediaType("Send the body as JSON, with Content-Type: application/json")
    prompt = checked(json_object(whole_body()).get("prompt"))
    if prompt == "ping":  # what every installed extension sends now and then to keep a free server awake
        return jsonify(enhancedPrompt=prompt)
    call = Enhancement.of(prompt, service().config.models)
    if call.is_long:
        call = call.within(service().pool.most(call.models))
    return jsonify(enhancedPrompt=service().enhance(call, connection()))
