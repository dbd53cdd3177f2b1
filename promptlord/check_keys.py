"""``flask check-keys``: asks Groq about each key, which costs no tokens, and says which keys work."""

import json
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import click

from promptlord.config import Config
from promptlord.groq.check import AT_ONCE, Finding, KeyCheck
from promptlord.groq.transport import Transport
from promptlord.typos import CONSOLE

FREE_PLAN = {"perMinute": {"requests": 30, "tokens": 8000}, "perDay": {"requests": 1000, "tokens": 200_000}}
SUM = """
On Groq's free plan they add up, for each model, to at most
  {perMinute[requests]:,} requests and {perMinute[tokens]:,} tokens a minute,
  {perDay[requests]:,} requests and {perDay[tokens]:,} tokens a day,
if each is of an organization of its own, but for those that are named as sharing one.
Keys of one organization add nothing: its limits hold for all of them together.
And Groq's terms forbid using several organizations to get around its limits."""


def tell(config: Config, *, as_json: bool) -> bool:
    """Print what Groq says of the keys of ``config``; return whether some work, and all models exist."""
    for warning in config.warnings:
        click.echo(f"⚠️  {warning}", err=True)
    if not config.keys:
        click.echo(f"❌ No Groq API key is configured: set GROQ_API_KEYS to keys from {CONSOLE}", err=True)
    told = _told(config, _ask_all(config))
    click.echo(json.dumps(told, indent=2) if as_json else _table(told))
    return bool(told["ok"])


def _ask_all(config: Config) -> list[Finding]:
    transport = Transport(config.base_url, connections=AT_ONCE, ca_bundle=config.ca_bundle)
    check, hidden = KeyCheck(transport, config.keys, config.models), not sys.stderr.isatty()
    asked = check.ask_all(strangers=check.keys)
    with click.progressbar(asked, len(check.keys), "Asking Groq", file=sys.stderr, hidden=hidden) as bar:
        return sorted(bar, key=lambda finding: finding.key.number)


def _told(config: Config, findings: Sequence[Finding]) -> dict[str, Any]:
    working = [finding for finding in findings if finding.works]
    models = [_model(name, working) for name in config.models]
    organizations = _organizations(working)
    return {
        "ok": bool(working) and all(model["exists"] for model in models),
        "keys": [{"label": each.key.label, "works": each.works, "result": each.words} for each in findings],
        "shared": [labels for labels in organizations if len(labels) > 1],
        "repeated": config.repeated_keys,
        "models": models,
        "atMost": {
            period: {what: limit * len(organizations) for what, limit in limits.items()}
            for period, limits in FREE_PLAN.items()
        },
    }


def _organizations(working: Sequence[Finding]) -> list[list[str]]:
    """The labels of each organization's keys; one that Groq has not named is an organization of its own."""
    owners: dict[str, list[str]] = {}
    for finding in working:
        owners.setdefault(finding.outcome.organization or finding.key.label, []).append(finding.key.label)
    return list(owners.values())


def _model(name: str, working: Sequence[Finding]) -> dict[str, Any]:
    lacking = [finding.key.label for finding in working if name not in finding.models]
    if not working:
        words = "unknown: no key works"
    elif len(lacking) == len(working):
        words = f"not served: {_instead(name, working)}"
    else:
        words = f"exists, but not for {', '.join(lacking)}" if lacking else "exists"
    return {"name": name, "exists": len(lacking) < len(working), "result": words}


def _instead(name: str, working: Sequence[Finding]) -> str:
    """What to write for ``name``, where it lacks its owner or is a letter off."""
    served = sorted({model for finding in working for model in finding.models})
    short = [model for model in served if model.rpartition("/")[2].casefold() == name.rpartition("/")[2].casefold()]
    if meant := short or get_close_matches(name, served):
        return f"write it {' or '.join(meant)} in GROQ_MODELS"
    return "set GROQ_MODELS to models that Groq serves"


def _rows(told: Sequence[dict[str, Any]], name: str, good: str) -> list[str]:
    width = max((len(each[name]) for each in told), default=0)
    colors = {True: "green", False: "red"}
    return [f"{each[name]:{width}}  {click.style(each['result'], fg=colors[each[good]])}" for each in told]


def _table(told: dict[str, Any]) -> str:
    lines = [*_rows(told["keys"], "label", "works"), "", *_rows(told["models"], "name", "exists")]
    count, working = len(told["keys"]), sum(key["works"] for key in told["keys"])
    lines += ["", f"{working} of {count} keys work{'s' if working == 1 else ''}."]
    lines += [f"{' and '.join(labels)} are of one organization, and share its limits." for labels in told["shared"]]
    return "\n".join([*lines, SUM.format(**told["atMost"])] if working else lines)
