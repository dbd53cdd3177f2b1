"""Asks Groq about each key, which costs no tokens: does it work, what may it use, and of which organization is it?"""

import json
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from promptlord.errors import Broken, ReadTimeout
from promptlord.groq import policy
from promptlord.groq.attempts import announce, complain
from promptlord.groq.deadline import Deadline
from promptlord.groq.policy import Fault, Verdict
from promptlord.groq.transport import Transport
from promptlord.pool.quota import Allowance
from promptlord.pool.state import NO_TRACE, Key, News, Outcome, Refusal

AT_ONCE = 8
TIMEOUT = 10.0  # seconds for an answer
LONGEST = 20.0  # seconds for all, where somebody waits before a page: Heroku gives up after 30
APART = 10.0  # seconds between two checks
AFTER_START = 600.0  # seconds for which one is enough: processes that share a pool start together
# Tokens for an answer, the most that a model gives. That is more than a minute of the free plan has, so Groq refuses,
# counts nothing, and names the organization and its limit. On a plan where it is not refused it is a word or two long.
PROBE = 65_536
WORDS = {
    Refusal.REVOKED: "revoked ({}): create a new one",
    Refusal.RESTRICTED: "the organization is restricted: ask Groq's support why",
    Refusal.SPENT: "Spend limit reached ({}): raise it in the Groq console",
}


class Pool(Protocol):
    """What learns from a check; see ``KeyPool``, which is one."""

    def begin_check(self, apart: float) -> bool: ...

    def strangers(self, model: str, tokens: int) -> Sequence[Key]: ...

    def learn(self, key: Key, model: str, outcome: Outcome, finding: str) -> News: ...


@dataclass(frozen=True)
class Finding:
    """What Groq says to a key. ``models``: the names of those it may use; ``outcome``: what a pool learns of it."""

    key: Key
    words: str
    works: bool = False
    models: frozenset[str] = frozenset()
    outcome: Outcome = NO_TRACE


class _Said(NamedTuple):
    """An answer's status, what is wrong with it, if anything is; else its body, and what its headers say."""

    status: int
    verdict: Verdict | None
    body: bytes = b""
    allowances: Mapping[str, Allowance] = {}


class KeyCheck:
    """Asks about these keys, and whether they may use these models."""

    def __init__(self, transport: Transport, secrets: Sequence[str], models: Sequence[str]) -> None:
        self.keys = [Key(number, secret) for number, secret in enumerate(secrets, 1)]
        self._transport = transport
        self._models = models

    def teach(self, pool: Pool, apart: float = APART) -> bool:
        """Let the pool know what Groq says; false if it was asked less than ``apart`` seconds ago."""
        if not self.keys or not pool.begin_check(apart):
            return False
        model = self._models[0]
        findings = self.ask_all(pool.strangers(model, PROBE), LONGEST)
        for finding in sorted(findings, key=lambda finding: finding.key.number):  # so that #1 is of organization A
            announce(pool.learn(finding.key, model, finding.outcome, finding.words))
        return True

    def ask_all(self, strangers: Collection[Key], within: float = math.inf) -> Iterator[Finding]:
        """What is found, as it comes in, after so many seconds at the most; of ``strangers`` the organization too."""
        end = time.monotonic() + within
        with ThreadPoolExecutor(AT_ONCE, "check") as threads:
            try:
                asked = [threads.submit(self._ask, key, key in strangers, end) for key in self.keys]
            except RuntimeError:  # no thread starts any more: the process is ending
                return
            for each in as_completed(asked):
                yield each.result()

    def _ask(self, key: Key, stranger: bool, end: float) -> Finding:
        if time.monotonic() >= end:
            return Finding(key, "not asked for want of time: ask again")
        said = self._send(key, end, "GET", "/openai/v1/models")
        if said.verdict:
            return _refused(key, said.status, said.verdict)
        try:
            models = frozenset(str(model["id"]) for model in json.loads(said.body)["data"])
        except (ValueError, RecursionError, LookupError, TypeError):
            return Finding(key, f"unusable answer ({said.status}): not the key")
        finding = Finding(key, _works(self._models, models), True, models, Outcome(served=True))
        return self._identified(finding, end) if stranger and self._models[0] in models else finding

    def _identified(self, finding: Finding, end: float) -> Finding:
        """Ask for more than a minute's tokens: only the refusal that names the organization says whose the key is."""
        asked = {
            "model": self._models[0],
            "messages": [{"role": "user", "content": "Say ok."}],
            "max_completion_tokens": PROBE,
        }
        body = json.dumps(asked).encode()
        said = self._send(finding.key, end, "POST", "/openai/v1/chat/completions", body)
        match said.verdict:
            case None:  # it was charged, and will not be asked again
                return replace(finding, outcome=Outcome(served=True, allowances=said.allowances))
            case Verdict(fault=Fault.KEY):
                return _refused(finding.key, said.status, said.verdict)
            case Verdict(fault=Fault.SIZE):
                return replace(finding, outcome=replace(said.verdict.outcome({}), served=True))
        return finding

    def _send(self, key: Key, end: float, method: str, path: str, body: bytes | None = None) -> _Said:
        headers = {"Accept": "application/json", "Authorization": f"Bearer {key.secret}"}
        if body:
            headers["Content-Type"] = "application/json"
        deadline = Deadline(min(time.monotonic() + TIMEOUT, end))
        try:
            with closing(self._transport.send(method, path, headers, body, deadline)) as answer:
                content = answer.read()
        except ReadTimeout:
            return _Said(0, Verdict(Fault.GROQ, "no answer in time"))
        except Broken:
            return _Said(0, policy.UNREACHABLE)
        if policy.is_good(answer.status):
            return _Said(answer.status, None, content, policy.allowances(answer.headers))
        return _Said(answer.status, policy.judge(answer.status, answer.headers, content))


def _refused(key: Key, status: int, verdict: Verdict) -> Finding:
    """The key does not work, or nobody can tell: only what is the key's own fault is to be learnt."""
    if verdict.fault is not Fault.KEY:
        return Finding(key, _words(verdict, status, key))
    complain(key, verdict)
    return Finding(key, _words(verdict, status, key), outcome=verdict.outcome({}))


def _words(verdict: Verdict, status: int, key: Key) -> str:
    if verdict.refusal:
        words = WORDS[verdict.refusal].format(status)
        return words if key.secret.startswith("gsk_") else f"{words}; Groq's keys begin with gsk_"
    words = verdict.reason if not status or str(status) in verdict.reason else f"{verdict.reason} ({status})"
    return words if verdict.fault is Fault.REQUEST else f"{words}: not the key"


def _works(wanted: Sequence[str], models: Collection[str]) -> str:
    lacking = [model for model in wanted if model not in models]
    return f"works, but not for {' and '.join(lacking)}" if lacking else "works"
