"""``make eval``: what Groq's models make of the corpus. Needs a key; says first what it costs; may be stopped.

python tools/eval --limit 30 --models openai/gpt-oss-20b
"""

import argparse
import math
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:1] = [str(ROOT), str(ROOT / "tools")]  # in place of this folder

from eval.asking import Asked, Counter, Memory, ask, cost, plan
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
    try:
        config = Config.load()
    except ConfigError as error:
        sys.exit(f"❌ {error}")
    asked = plan(some(corpus(), options.limit), options.models or config.models)
    options.into.mkdir(parents=True, exist_ok=True)
    memory = Memory(options.into / "answers.jsonl")
    if not options.report:
        _ask_all(config, asked, memory)
    results = [Result(each, memory[each]) for each in asked if each in memory]
    groqs = config.base_url == Config.base_url
    page = ROOT / "docs" / "eval.md" if groqs else options.into / "eval.md"
    whom = "Groq" if groqs else config.base_url
    page.write_text(report(results, f"{whom}, {date.today()}, {len(results)} of {len(asked)}"), encoding="utf-8")
    print(f"{len(results)} of {len(asked)} answers, told in {page}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Ask Groq for better prompts, and judge them.")
    parser.add_argument("--models", type=lambda text: text.split(","), help="instead of those of GROQ_MODELS")
    parser.add_argument("--limit", type=int, help="drafts to ask for, spread over the corpus (default: all)")
    parser.add_argument("--into", type=Path, default=ROOT / ".eval", help="where answers are kept (default: .eval)")
    parser.add_argument("--report", action="store_true", help="ask nobody, only tell what is known")
    return parser.parse_args()


def _ask_all(config: Config, asked: Sequence[Asked], memory: Memory) -> None:
    left = [each for each in asked if each not in memory]
    if not config.keys:
        sys.exit("❌ No Groq API key is configured: put one into .env as GROQ_API_KEYS, or see --report")
    pool, counter = KeyPool(config.keys, config.key_cooldown, config.per_minute, timeout=TIMEOUT), Counter()
    transport = Transport(config.base_url, connections=4, ca_bundle=config.ca_bundle)
    KeyCheck(transport, config.keys, config.models).teach(pool)
    keys = pool.snapshot().keys
    working = [key for key in keys if key.proved]
    if not working:
        sys.exit("\n".join(f"❌ Key {key.label}: {key.finding}" for key in keys))
    organizations = len({key.owner for key in working})
    tokens, minutes = cost(left, organizations)
    print(
        f"{len(left)} of {len(asked)} answers are to be asked for: some {tokens:,} tokens at the most, and on the free "
        f"plan of {organizations} organization(s) about {_span(minutes * MINUTE)}.\nCtrl-C stops it, and the same "
        f"command goes on. Answers are kept in {memory.file}.",
        flush=True,
    )
    upstream = Upstream(
        pool, transport, Admission(4), max_attempts=config.max_attempts, timeout=TIMEOUT, max_wait=WAIT, tally=counter
    )
    done = len(asked) - len(left)
    try:
        for each, answer in ask(upstream, counter, left, memory):
            if isinstance(answer, float):
                print(f"No key is ready for {_span(answer)}: waiting", flush=True)
                continue
            done += 1
            print(f"{done} of {len(asked)}: {each.draft.id}, {each.way}, {each.model} {answer.refused}", flush=True)
    except UpstreamError as error:
        sys.exit(f"❌ {error.reason}. The same command goes on from here")
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from here", file=sys.stderr)


def _span(seconds: float) -> str:
    """Rounded up: nobody minds that it is sooner."""
    hours, minutes = divmod(math.ceil(seconds / MINUTE), MINUTE)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


if __name__ == "__main__":
    sys.exit(main())
