"""Asks models for better prompts, in three ways side by side, and remembers what they said. It may stop and go on."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from eval.corpus import Draft
from promptlord import errors
from promptlord.errors import Cause
from promptlord.groq.attempts import Call, Upstream
from promptlord.pool.quota import FREE_PLAN, PERIODS, TPD, TPM
from promptlord.pool.state import Demand
from promptlord.tokens import estimate
from promptlord.web.enhance import TEMPLATE, Enhancement, Readable, completion

OURS, ORIGINAL, BARE = "ours", "original", "bare"
ROOM = 600  # tokens that an answer may take beyond the draft's, where the way of asking is not ours

# What the service before this one told its models, in other words: the text is not ours.
_ORIGINAL = (
    "You are an expert in prompt engineering. Turn the user's rough prompt into a detailed, well-structured prompt "
    "that gets better results from an AI: set a persona, state the task clearly, add the context that is needed, and "
    "say what the output must look like. Return only the enhanced prompt, without explanations."
)


@dataclass(frozen=True)
class Plain:
    """A chat as it is, whose answer is read as ours would be, but for what was to be kept."""

    messages: Sequence[dict[str, str]]
    models: Sequence[str]
    options: dict[str, Any]
    resized: bool = False
    method: str = "POST"
    path: str = Enhancement.path
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    passthrough: tuple[()] = ()

    @cached_property
    def demand(self) -> Demand:
        said = sum(estimate(message["content"]) for message in self.messages)
        return Demand(self.models, TEMPLATE + said + self.options["max_completion_tokens"])

    def fingerprint(self) -> bytes:
        return b""

    def body(self, model: str) -> bytes:
        return json.dumps({"model": model, "messages": self.messages, **self.options}).encode()

    def read(self, answer: Readable) -> str:
        return completion(answer.read())

    def counted(self, answer: Readable) -> int:
        return 0

    def roomier(self) -> None:
        return None

    def smaller(self, excess: int, most: int) -> None:
        return None


def call(way: str, text: str, model: str) -> Call[str]:
    """The call that asks ``model`` in one of the three ways."""
    if way == OURS:
        return Enhancement.of(text, [model])
    effort = {"reasoning_effort": "low", "include_reasoning": False} if model.startswith("openai/gpt-oss") else {}
    options = {"max_completion_tokens": ROOM + estimate(text), **effort}
    if way == BARE:
        return Plain([{"role": "user", "content": f"Improve this prompt:\n\n{text}"}], [model], options)
    messages = [{"role": "system", "content": _ORIGINAL}, {"role": "user", "content": text}]
    return Plain(messages, [model], {**options, "temperature": 0.3})


WAYS = (OURS, ORIGINAL, BARE)


class Asked(NamedTuple):
    """A draft to be asked for in one way of one model."""

    draft: Draft
    way: str
    model: str

    @property
    def call(self) -> Call[str]:
        return call(self.way, self.draft.text, self.model)

    @property
    def name(self) -> str:
        """The same for the same words to the same model: when the wording changes, it is asked anew."""
        return hashlib.blake2b(self.call.body(self.model) or b"", digest_size=16).hexdigest()  # type: ignore[arg-type]


class Answer(NamedTuple):
    """What came back: a text, or why there is none; and how many calls it took."""

    text: str
    refused: str = ""
    calls: int = 1


def plan(drafts: Sequence[Draft], models: Sequence[str]) -> list[Asked]:
    """All there is to ask: each draft in all ways one after the other, so that a part of it compares them too."""
    return [Asked(draft, way, model) for draft in drafts for model in models for way in WAYS]


def cost(asked: Sequence[Asked], organizations: int) -> tuple[int, float]:
    """Tokens that Groq will count at the most, second calls aside; and the minutes that takes on its free plan."""
    needs: dict[str, int] = {}
    for each in asked:
        tokens = each.call.demand.tokens
        if tokens <= FREE_PLAN[TPM]:  # a larger one is refused, and costs nothing
            needs[each.model] = needs.get(each.model, 0) + tokens
    longest = max(needs.values(), default=0) / max(1, organizations)
    minutes = [max(0.0, longest - FREE_PLAN[name]) / FREE_PLAN[name] * PERIODS[name] / 60 for name in (TPM, TPD)]
    return sum(needs.values()), max(minutes)


class Memory:
    """The answers so far, a line each in a file: whoever stops may go on."""

    def __init__(self, file: Path) -> None:
        """Reads what is there. A line that was cut off is as good as none."""
        self.file = file
        self._answers: dict[str, Answer] = {}
        text = file.read_text("utf-8") if file.exists() else ""
        for line in text.split("\n"):
            with suppress(ValueError, TypeError):
                name, *answer = json.loads(line)
                self._answers[name] = Answer(*answer)
        if text and not text.endswith("\n"):
            self._write("\n")

    def __contains__(self, asked: Asked) -> bool:
        return asked.name in self._answers

    def __getitem__(self, asked: Asked) -> Answer:
        return self._answers[asked.name]

    def add(self, asked: Asked, answer: Answer) -> None:
        self._answers[asked.name] = answer
        self._write(json.dumps([asked.name, *answer], ensure_ascii=False) + "\n")

    def _write(self, text: str) -> None:
        with self.file.open("a", encoding="utf-8") as file:
            file.write(text)


class Counter:
    """Counts the attempts of one request."""

    def __init__(self) -> None:
        self.attempts = 0

    def attempted(self, label: str, fault: str) -> None:
        self.attempts += fault != "limit"

    def spent(self, model: str, tokens: int) -> None:
        pass


def ask(
    upstream: Upstream,
    counter: Counter,
    asked: Sequence[Asked],
    memory: Memory,
    wait: Callable[[float], None] = time.sleep,
) -> Iterator[tuple[Asked, Answer | float]]:
    """Ask for what is not in memory yet, one after the other; yields each answer, and the seconds of each long wait.

    Raises ``UpstreamError`` where asking on would be in vain.
    """
    for each in asked:
        while each not in memory:
            counter.attempts = 0
            try:
                answer = Answer(upstream.fetch(each.call), "", max(1, counter.attempts))
            except errors.Exhausted as error:
                if error.cause is not Cause.BUSY:
                    raise
                yield each, error.ready_in
                wait(error.ready_in)
                continue
            except (errors.TooLarge, errors.Unavailable) as error:
                if error.cause not in (Cause.REQUEST, Cause.GROQ) or "unreachable" in error.reason:
                    raise
                answer = Answer("", error.reason, max(1, counter.attempts))
            memory.add(each, answer)
            yield each, answer
