"""``make eval``: what Groq's models make of the corpus. Needs a key; says first what it costs; may be stopped.

python tools/eval --limit 30 --models openai/gpt-oss-20b
"""

import argparse
import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:1] = [str(ROOT), str(ROOT / "tools")]  # in place of this folder

from eval.asking import Asked, Attempts, Memory, ask, cost, plan
from eval.corpus import corpus, some
from eval.report import Result, report
from keypool import KeyPool
from promptlord.config import Config
from promptlord.errors import ConfigError, UpstreamError
from promptlord.groq.admission import Admission
from promptlord.groq.attempts import Upstream
from promptlord.groq.check import KeyCheck
from promptlord.groq.transport import Transport

TIMEOUT = 120.0  # seconds of a request,
WAIT = 90.0  # and of its wait for a slot; longer ones are told
MINUTE = 60  # seconds, and minutes of an hour


def main() -> int:
    options = _options()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        config = Config.load()
        models = options.models or config.models
        asked = plan(some(corpus(), options.limit), models, config.base_url)
        options.into.mkdir(parents=True, exist_ok=True)
        memory = Memory(options.into / "answers.jsonl")
        if not options.report:
            _ask_all(config, models, asked, memory)
        _tell(config.base_url == Config.base_url, asked, memory, options.into)
    except (ConfigError, OSError) as error:
        sys.exit(f"❌ {error}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Ask Groq for better prompts, and judge them.")
    parser.add_argument("--models", type=_models, help="instead of those of GROQ_MODELS, commas between them")
    parser.add_argument("--limit", type=_positive, help="drafts to ask for, spread over the corpus (default: all)")
    parser.add_argument("--into", type=Path, default=ROOT / ".eval", help="where answers are kept (default: .eval)")
    parser.add_argument("--report", action="store_true", help="ask nobody, only tell what is known")
    return parser.parse_args()


def _models(text: str) -> list[str]:
    if not (models := [*dict.fromkeys(text.replace(",", " ").split())]):
        raise ValueError
    return models


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def _tell(groqs: bool, asked: Sequence[Asked], memory: Memory, into: Path) -> None:
    """Write the page: into ``docs`` only what Groq has said of all drafts."""
    results = [Result(each, memory[each]) for each in asked if each in memory]
    print(f"{len(results)} of {len(asked)} answers are known", flush=True)
    if not results:
        return
    drafts = len({result.asked.draft.id for result in results})
    whole = groqs and len(results) == len(asked) and drafts == len(corpus())
    page = ROOT / "docs" / "eval.md" if whole else into / "eval.md"
    days = sorted({result.answer.day for result in results})
    whom = "Groq" if groqs else asked[0].host
    page.write_text(report(results, f"{whom}, {' to '.join({days[0]: 0, days[-1]: 0})}, {drafts} drafts"), "utf-8")
    print(f"What they are worth stands in {page}")


def _ask_all(config: Config, models: Sequence[str], asked: Sequence[Asked], memory: Memory) -> None:
    left = [each for each in asked if each not in memory]
    if not config.keys:
        sys.exit("❌ No Groq API key is configured: put one into .env as GROQ_API_KEYS, or see --report")
    pool, attempts = KeyPool(config.keys, config.key_cooldown, config.per_minute, timeout=TIMEOUT), Attempts()
    transport = Transport(config.base_url, connections=4, ca_bundle=config.ca_bundle)
    tokens, minutes = cost(left, _organizations(KeyCheck(transport, config.keys, models), pool, models))
    print(
        f"{len(left)} of {len(asked)} answers are to be asked for: some {tokens:,} tokens at the most, and on the free "
        f"plan about {_span(minutes * MINUTE)}, or more if its tokens of today are used up.\nCtrl-C stops it, and the "
        f"same command goes on. Answers are kept in {memory.file}.",
        flush=True,
    )
    upstream = Upstream(
        pool, transport, Admission(4), max_attempts=config.max_attempts, timeout=TIMEOUT, max_wait=WAIT, tally=attempts
    )
    done = len(asked) - len(left)
    try:
        for each, answer in ask(upstream, attempts, left, memory):
            if isinstance(answer, float):
                print(f"No key is ready for {_span(answer)}: waiting", flush=True)
                continue
            done += 1
            print(f"{done} of {len(asked)}: {each.draft.id}, {each.way}, {each.model} {answer.refused}", flush=True)
    except UpstreamError as error:
        sys.exit(f"❌ {error.reason}. Once that is mended, the same command goes on from here")
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from here", file=sys.stderr)


def _organizations(check: KeyCheck, pool: KeyPool, models: Sequence[str]) -> int:
    """How many organizations the keys are of, which the pool learns too. Ends the program where none would answer."""
    findings = sorted(check.ask_all(check.keys), key=lambda finding: finding.key.number)
    for finding in findings:
        pool.learn(finding.key, models[0], finding.outcome, finding.words)
    if all(key.refused for key in pool.snapshot().keys):
        sys.exit("\n".join(f"❌ Key {finding.key.label}: {finding.words}" for finding in findings))
    served = frozenset[str]().union(*(finding.models for finding in findings))
    if served and (lacking := [model for model in models if model not in served]):
        sys.exit(f"❌ Not served: {', '.join(lacking)}. There are: {', '.join(sorted(served))}")
    return len({key.owner for key in pool.snapshot().keys if not key.refused})


def _span(seconds: float) -> str:
    """Rounded up: nobody minds that it is sooner."""
    hours, minutes = divmod(math.ceil(seconds / MINUTE), MINUTE)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


if __name__ == "__main__":
    sys.exit(main())
