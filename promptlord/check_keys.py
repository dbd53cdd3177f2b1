"""``flask check-keys``: asks Groq for its models with each key, which spends no tokens, and says which keys work."""

import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import click

from promptlord.config import Config
from promptlord.errors import Broken, ReadTimeout
from promptlord.groq import policy
from promptlord.groq.deadline import Deadline
from promptlord.groq.policy import Fault, Verdict
from promptlord.groq.transport import Transport
from promptlord.pool.state import Key

AT_ONCE = 8
SECONDS = 10.0  # for an answer
FREE_PLAN = {"perMinute": {"requests": 30, "tokens": 8000}, "perDay": {"requests": 1000, "tokens": 200_000}}
WORDS = {
    policy.REVOKED: "revoked (401): create a new one",
    policy.RESTRICTED: "the organization is restricted: ask Groq's support why",
    policy.REFUSED_NETWORK: "this server's network is refused",
}
SUM = """
On Groq's free plan they add up, for each model, to at most
  {perMinute[requests]:,} requests and {perMinute[tokens]:,} tokens a minute,
  {perDay[requests]:,} requests and {perDay[tokens]:,} tokens a day,
if each is of an organization of its own. Keys of one organization add nothing:
its limits hold for all of them together. And Groq's terms forbid using several
organizations to get around its limits."""


@dataclass(frozen=True)
class Result:
    """What Groq says to a key; ``models``: the names of those it may use."""

    key: Key
    words: str
    works: bool = False
    models: frozenset[str] = frozenset()


def command(config: Config) -> click.Command:
    """Return the command for the keys of ``config``."""

    @click.command("check-keys")
    @click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
    def check_keys(as_json: bool) -> None:
        """Ask Groq which of the keys work, and which of GROQ_MODELS they may use. Spends no tokens."""
        findings = _findings(config, _ask_all(config))
        click.echo(json.dumps(findings, indent=2) if as_json else _table(findings))
        sys.exit(0 if findings["ok"] else 1)

    return check_keys


def _ask_all(config: Config) -> list[Result]:
    transport = Transport(config.base_url, connections=AT_ONCE, ca_bundle=config.ca_bundle)
    keys = [Key(number, secret) for number, secret in enumerate(config.keys, 1)]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = [threads.submit(_ask, transport, key) for key in keys]
        done, hidden = as_completed(answers), not sys.stderr.isatty()
        with click.progressbar(done, len(keys), "Asking Groq", file=sys.stderr, hidden=hidden) as bar:
            list(bar)
    return [answer.result() for answer in answers]


def _ask(transport: Transport, key: Key) -> Result:
    headers = {"Accept": "application/json", "Authorization": f"Bearer {key.secret}"}
    try:
        deadline = Deadline(time.monotonic() + SECONDS)
        with closing(transport.send("GET", "/openai/v1/models", headers, None, deadline)) as answer:
            status, body = answer.status, answer.read()
    except ReadTimeout:
        return Result(key, f"no answer within {SECONDS:g} s: not the key")
    except Broken:
        return Result(key, f"{policy.UNREACHABLE.reason}: not the key")
    if not policy.is_good(status):
        return Result(key, _words(policy.judge(status, answer.headers, body), status, key))
    try:
        models = frozenset(str(model["id"]) for model in json.loads(body)["data"])
    except (ValueError, RecursionError, LookupError, TypeError):
        return Result(key, f"unusable answer ({status}): not the key")
    return Result(key, "works", True, models)


def _words(verdict: Verdict, status: int, key: Key) -> str:
    words = WORDS.get(verdict.reason, verdict.reason)
    if verdict.reason not in WORDS and str(status) not in words:
        what, colon, advice = words.partition(":")
        words = f"{what} ({status}){colon}{advice}"
    if verdict.fault in (Fault.LIMIT, Fault.GROQ, Fault.NETWORK):
        return f"{words}: not the key"
    mistaken = verdict.fault is Fault.KEY and not key.secret.startswith("gsk_")
    return f"{words}; Groq's keys begin with gsk_" if mistaken else words


def _findings(config: Config, results: Sequence[Result]) -> dict[str, Any]:
    working = [result for result in results if result.works]
    models = [_model(name, working) for name in config.models]
    return {
        "ok": bool(working) and all(model["exists"] for model in models),
        "keys": [{"label": result.key.label, "works": result.works, "result": result.words} for result in results],
        "repeated": config.repeated_keys,
        "models": models,
        "atMost": {
            period: {what: limit * len(working) for what, limit in limits.items()}
            for period, limits in FREE_PLAN.items()
        },
    }


def _model(name: str, working: Sequence[Result]) -> dict[str, Any]:
    lacking = [result.key.label for result in working if name not in result.models]
    if not working:
        words = "unknown: no key works"
    elif len(lacking) == len(working):
        words = "not served: set GROQ_MODELS to models that Groq serves"
    else:
        words = f"exists, but not for {', '.join(lacking)}" if lacking else "exists"
    return {"name": name, "exists": len(lacking) < len(working), "result": words}


def _rows(findings: Sequence[dict[str, Any]], name: str, good: str) -> list[str]:
    width = max((len(finding[name]) for finding in findings), default=0)
    colors = {True: "green", False: "red"}
    return [f"{each[name]:{width}}  {click.style(each['result'], fg=colors[each[good]])}" for each in findings]


def _table(findings: dict[str, Any]) -> str:
    lines = [*_rows(findings["keys"], "label", "works"), "", *_rows(findings["models"], "name", "exists")]
    count, working = len(findings["keys"]), sum(key["works"] for key in findings["keys"])
    lines += ["", f"{working} of {count} keys work{'s' if working == 1 else ''}."]
    if findings["repeated"]:
        lines.append(f"GROQ_API_KEYS repeats {findings['repeated']}: each counts once.")
    return "\n".join([*lines, SUM.format(**findings["atMost"])] if working else lines)
