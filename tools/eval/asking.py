"""Asks models for better prompts, in three ways side by side, and remembers what they said. It may stop and go on."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from eval.corpus import Draft
from promptlord import errors
from promptlord.errors import Cause
from promptlord.groq.attempts import Call, Upstream
from promptlord.pool.quota import FREE_PLAN, PERIODS, TPD, TPM
from promptlord.pool.state import Demand
from promptlord.rewrite.wording import parameters
from promptlord.tokens import estimate
from promptlord.web.enhance import MORE_ROOM, TEMPLATE, Enhancement, Readable, completion

OURS, ORIGINAL, BARE = "ours", "original", "bare"
CALL = 1.0  # seconds that one takes
ROW = 3  # failures of Groq's one after the other, after which there is no use in going on
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

    def roomier(self) -> "Plain | None":
        most = MORE_ROOM * self.options["max_completion_tokens"]
        options = {**self.options, "max_completion_tokens": most}
        return None if self.resized else replace(self, options=options, resized=True)

    def smaller(self, excess: int, most: int) -> None:
        return None


def call(way: str, text: str, model: str) -> Call[str]:
    """The call that asks ``model`` in one of the three ways."""
    if way == OURS:
        return Enhancement.of(text, [model])
    options = {**parameters(model), "max_completion_tokens": ROOM + estimate(text)}
    del options["temperature"]
    if way == BARE:
        return Plain([{"role": "user", "content": f"Improve this prompt:\n\n{text}"}], [model], options)
    messages = [{"role": "system", "content": _ORIGINAL}, {"role": "user", "content": text}]
    return Plain(messages, [model], {**options, "temperature": 0.3})


WAYS = (OURS, ORIGINAL, BARE)


class Asked(NamedTuple):
    """A draft to be asked for in one way of one model, which somebody serves at ``host``."""

    draft: Draft
    way: str
    model: str
    host: str = ""

    @property
    def call(self) -> Call[str]:
        return call(self.way, self.draft.text, self.model)

    @property
    def name(self) -> str:
        """The same for the same words to the same model of the same host: when these change, it is asked anew."""
        body = self.call.body(self.model)
        assert isinstance(body, bytes)
        return hashlib.blake2b(self.host.encode() + body, digest_size=16).hexdigest()


class Answer(NamedTuple):
    """What came back: a text, or why there is none; how many calls it took; and the day."""

    text: str
    refused: str = ""
    calls: int = 1
    day: str = ""


def plan(drafts: Sequence[Draft], models: Sequence[str], host: str = "") -> list[Asked]:
    """All there is to ask: each draft in all ways one after the other, so that a part of it compares them too."""
    return [Asked(draft, way, model, host) for draft in drafts for model in models for way in WAYS]


def cost(asked: Sequence[Asked], organizations: int) -> tuple[int, float]:
    """Tokens that Groq will count at the most, second calls aside; and the minutes that takes on its free plan.

    As if nothing had been asked for today.
    """
    needs: dict[str, int] = {}
    for each in asked:
        tokens = each.call.demand.tokens
        if tokens <= FREE_PLAN[TPM]:  # a larger one is refused, and costs nothing
            needs[each.model] = needs.get(each.model, 0) + tokens
    longest = max(needs.values(), default=0) / max(1, organizations)
    minutes = [max(0.0, longest - FREE_PLAN[name]) / FREE_PLAN[name] * PERIODS[name] / 60 for name in (TPM, TPD)]
    return sum(needs.values()), max(*minutes, len(asked) * CALL / 60)


class Memory:
    """The answers so far, a line each in a file: whoever stops may go on."""

    def __init__(self, file: Path) -> None:
        """Reads what is there. A line that was cut off is as good as none."""
        self.file = file
        self._answers: dict[str, Answer] = {}
        text = file.read_text("utf-8", "replace") if file.exists() else ""
        for line in text.split("\n"):
            with suppress(ValueError, TypeError, RecursionError):
                name, *told = json.loads(line)
                if [*map(type, told)] == [str, str, int, str]:
                    self._answers[name] = Answer(*told)
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


class Attempts:
    """Counts the attempts of one request."""

    def __init__(self) -> None:
        self.count = 0

    def attempted(self, label: str, fault: str) -> None:
        self.count += fault != "limit"

    def spent(self, model: str, tokens: int) -> None:
        pass


def ask(
    upstream: Upstream,
    attempts: Attempts,
    asked: Sequence[Asked],
    memory: Memory,
    wait: Callable[[float], None] = time.sleep,
) -> Iterator[tuple[Asked, Answer | float]]:
    """Ask for what is not in memory yet, one after the other; yields each answer, and the seconds of each long wait.

    What is Groq's trouble, and says nothing of the draft, is not remembered. Raises ``UpstreamError`` where asking on
    would be in vain.
    """
    row = 0
    for each in asked:
        while each not in memory:
            attempts.count = 0
            try:
                answer = Answer(upstream.fetch(each.call))
            except errors.Exhausted as error:
                if error.cause is not Cause.BUSY:
                    raise
                yield each, error.ready_in
                wait(error.ready_in)
                continue
            except (errors.TooLarge, errors.Lossy) as error:
                answer = Answer("", error.reason)
            except errors.UpstreamError as error:
                row += 1
                if error.cause is not Cause.GROQ or row == ROW:
                    raise
                yield each, Answer("", error.reason)
                break
            row, answer = 0, answer._replace(calls=max(1, attempts.count), day=str(date.today()))
            memory.add(each, answer)
            yield each, answer
