"""What ``docs/eval.md`` says: who passed which check, and every text that did not."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from latency import table

from eval.asking import OURS, WAYS, Answer, Asked
from eval.checks import CHECKS, failures
from eval.corpus import corpus
from eval.spoilt import found

SHOWN = 1500  # characters of a text
EVERYDAY = "everyday"

ABOUT = """\
# How good the enhanced prompts are

`make eval` asks Groq for a better prompt for each of {count} rough drafts ({languages} languages; a third of them
everyday wishes, the rest with what tempts a model to do something else), in three ways side by side: as the service
does (ours), with the prompt of the service before this one in other words (original), and with a bare "Improve this
prompt" (bare). Rules judge the answers, after labels and the like are taken off; no model judges another. It needs a
key in `.env`, says first what it will cost, and goes on where it was stopped; `make eval ARGS="--limit 30"` asks for
some of the drafts.

| check | passed when |
|---|---|
| keeps all parts | code, links, addresses, placeholders, numbers, script are there, as the service checks it |
| keeps the language | its letters, or its small words, are the draft's |
| nothing around it | no lead-in, label, quotes, fence, or talk behind it |
| still says it | what it refers to ("the text above"), quotes or names, where the draft is one that does |
| does not answer | the answer's word is absent, where the draft is a question or an order with a known one |
| right length | 0.8 to 12 times the draft's; a short one may have 700 characters, a long one 2,500 more |
| no new placeholders | nothing to fill in that the draft does not have |

"Refused": the service says that it could not improve the prompt, or that it is too long; the extension keeps what was
typed. A second call: an answer had lost parts, and was asked for once more. No rule sees whether facts were invented,
or whether a prompt is a good one: read some."""
NEVER = "**It has not been run against Groq yet.** What follows is only what the checks make of the corpus itself."
SELF = """\
## The checks, judged

Each draft of the corpus has a good rewriting, written by hand as a model should make it. Of these {count}, the checks
find fault with {wrong} (false alarms). Of answers that are the good one with one thing made wrong they find as follows;
whoever wrote the checks wrote these too, which shows that each works, and not how often a model slips through:

{found}"""


class Result(NamedTuple):
    asked: Asked
    answer: Answer

    @property
    def failed(self) -> list[str]:
        return ["refused"] if self.answer.refused else failures(self.asked.draft, self.answer.text)


def report(results: Sequence[Result], source: str = "") -> str:
    """The whole page. ``source``: who was asked, and when."""
    drafts = corpus()
    languages = len({draft.language for draft in drafts})
    parts = [ABOUT.format(count=len(drafts), languages=languages)]
    parts += [f"Asked: {source}.", *_tables(results), _failing(results)] if results else [NEVER]
    wrong = sum(bool(failures(draft, draft.good)) for draft in drafts)
    rows = [[how, f"{right} of {made}"] for how, (right, made) in found(drafts).items()]
    parts.append(SELF.format(count=len(drafts), wrong=wrong, found=table(("made wrong", "found"), rows)))
    return "\n\n".join(parts) + "\n"


def _tables(results: Sequence[Result]) -> list[str]:
    parts = []
    for model, own in _by(results, lambda result: [result.asked.model]).items():
        parts.append(f"## {model}")
        traps = _by(own, lambda result: result.asked.draft.traps)
        rows = [[trap, *_passed(traps[trap])] for trap in sorted(traps, key=lambda trap: (trap != EVERYDAY, trap))]
        parts.append(table(("trap", *WAYS), [*rows, ["all", *_passed(own)]]))
        rows = [[name, *_failed(own, name)] for name in (*CHECKS, "refused")]
        parts.append("Did not pass:\n\n" + table(("check", *WAYS), rows))
        calls = [result.answer.calls for result in own if result.asked.way == OURS]
        parts.append(f"Asked for a second time by the service: {sum(count > 1 for count in calls)} of {len(calls)}.")
    return parts


def _by(results: Sequence[Result], key: Callable[[Result], Iterable[str]]) -> dict[str, list[Result]]:
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        for name in key(result):
            groups[name].append(result)
    return groups


def _passed(results: Sequence[Result]) -> list[str]:
    ways = _by(results, lambda result: [result.asked.way])
    return [
        f"{sum(not result.failed for result in ways[way])} of {len(ways[way])}" if ways[way] else "–" for way in WAYS
    ]


def _failed(results: Sequence[Result], name: str) -> list[str]:
    ways = _by(results, lambda result: [result.asked.way])
    return [str(sum(name in result.failed for result in ways[way])) for way in WAYS]


def _failing(results: Sequence[Result]) -> str:
    bad = [result for result in results if result.failed]
    return "\n\n".join([f"## The {len(bad)} that did not pass", *map(_shown, bad)])


def _shown(result: Result) -> str:
    asked, answer = result.asked, result.answer
    head = f"**{asked.draft.id}** · {asked.way} · {asked.model}: {', '.join(result.failed)}"
    return "\n\n".join([head, _quoted(asked.draft.text), answer.refused or _quoted(answer.text)])


def _quoted(text: str) -> str:
    """As it is, within a fence that it can't end."""
    fence = "~" * max(4, 1 + max((len(run) for run in text.split() if set(run) == {"~"}), default=0))
    more = f"\n… {len(text) - SHOWN:,} more characters" if len(text) > SHOWN else ""
    return f"{fence}\n{text[:SHOWN]}{more}\n{fence}"
