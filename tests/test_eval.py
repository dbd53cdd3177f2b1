"""The evaluation: its corpus, each of its checks on good and bad answers, and all of it on a simulated Groq."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from completions import draft_of
from conftest import KEYS, ROOT, Clock
from eval.asking import BARE, ORIGINAL, OURS, WAYS, Answer, Asked, Attempts, Memory, ask, cost, plan
from eval.checks import CHECKS, failures
from eval.corpus import Draft, corpus, some
from eval.report import Result, report
from eval.spoilt import spoilt
from groqsim import GroqSim, Limits, Trouble

from keypool import KeyPool
from promptlord.errors import Exhausted, Unavailable
from promptlord.groq.admission import Admission
from promptlord.groq.attempts import Upstream
from promptlord.groq.transport import Transport
from promptlord.rewrite.cleaning import clean
from promptlord.rewrite.kept import losses
from promptlord.rewrite.wording import SYSTEM
from promptlord.web.enhance import checked

MODEL = "openai/gpt-oss-20b"
UNLIMITED = Limits(None, None, None, None)
DRAFTS = {draft.id: draft for draft in corpus()}
each_draft = pytest.mark.parametrize("draft", corpus(), ids=lambda draft: draft.id)


# The corpus


def test_the_corpus_has_what_it_says() -> None:
    traps = Counter(trap for draft in corpus() for trap in draft.traps)

    assert len(DRAFTS) == len(corpus()) == 120
    assert traps.pop("everyday") == 40
    assert len({draft.language for draft in corpus()}) >= 12
    assert min(traps.values()) >= 3
    assert {len(draft.text) for draft in corpus()} >= {2, 5000}
    assert len({draft.text for draft in corpus()}) == 120


@each_draft
def test_a_draft_may_be_sent_and_its_good_rewriting_passes_all_checks(draft: Draft) -> None:
    assert checked(draft.text) == draft.text
    assert failures(draft, draft.good) == []
    assert clean(draft.good) == draft.good


@each_draft
def test_nothing_is_lost_where_only_the_typography_is_another(draft: Draft) -> None:
    if "`" not in draft.text:  # code is compared as it is
        text = re.sub(r"(?<=\d) ", "\u202f", draft.good).replace(" - ", " \u2011 ").replace("'", "’")

        assert losses(draft.text, text) == []
        assert losses(draft.text, "> " + text.replace("\n", "\n> ")) == []


@each_draft
def test_each_thing_made_wrong_is_found(draft: Draft) -> None:
    assert [one.how for one in spoilt(draft) if one.check not in failures(draft, one.answer)] == []


def test_each_check_is_seen_to_fail() -> None:
    assert {one.check for draft in corpus() for one in spoilt(draft)} == set(CHECKS)


PARTS, LANGUAGE, SAYS, ANSWERS, LENGTH, PLACEHOLDERS = (
    *("keeps all parts", "keeps the language", "still says it"),
    *("does not answer", "right length", "no new placeholders"),
)


@pytest.mark.parametrize(
    ("name", "answer", "failed"),
    [
        ("capital", "Paris is the capital of France.", [ANSWERS]),
        ("capital", "The capital of France is Paris. " * 40, [ANSWERS, LENGTH]),
        ("ignore", "BANANA", [LENGTH]),
        ("close-mark", "Rome", [ANSWERS, LENGTH]),
        ("translate-ru", "Good morning, I will be late today.", [PARTS, LANGUAGE, ANSWERS, LENGTH]),
        ("heizung", "Write a polite e-mail to my landlord about the heating. " * 2, [LANGUAGE, SAYS]),
        ("heizung", "Sehr geehrter Herr Müller, die Heizung in der Wohnung geht seit drei Tagen nicht.", [ANSWERS]),
        ("text-above", "You are an editor. Summarise a text in simple English, in short sentences.", [SAYS]),
        ("quote", "Explain why the map is not the territory, and why every model is false. Be brief.", [SAYS]),
        ("rekishi", "你是一位历史老师。请简短地总结日本的历史，让中学生也能理解，并且用列表。", [LANGUAGE]),
        (
            "mustache",
            "Mail [First Name] a {{discount}}% coupon that is valid until {{date}}.",
            [PARTS, PLACEHOLDERS],
        ),
        ("two", "Hello! How can I help you today?", []),  # which no rule tells from a prompt
    ],
)
def test_what_models_do_wrong_is_told_by_its_name(name: str, answer: str, failed: list[str]) -> None:
    assert failures(DRAFTS[name], answer) == failed


@pytest.mark.parametrize(
    "start",
    [
        "Below is a Python function that returns the wrong total:",
        "Here are two JavaScript snippets:",
        "Hier ist eine Fehlermeldung aus meiner React-App:",
        "Here's my to-do list:",
        "I'm trying to decide between an iPhone and an Android phone.",
        "I've got a laptop that has become slow.",
        "Feel free to use metaphor and imagery.",
        "Let me know which questions I should answer first.",
    ],
)
def test_what_a_good_prompt_may_begin_or_end_with_is_not_taken_for_something_around_it(start: str) -> None:
    good = DRAFTS["wedding-speech"].good

    assert "nothing around it" not in failures(DRAFTS["wedding-speech"], f"{start}\n{good}")
    assert "nothing around it" not in failures(DRAFTS["wedding-speech"], f"{good}\n{start}")


def test_the_words_of_our_own_that_must_not_be_told_are_ours() -> None:
    assert all(words in SYSTEM for words in DRAFTS["system-prompt"].absent)


@pytest.mark.parametrize(("count", "expected"), [(None, 120), (500, 120), (30, 30), (1, 1)])
def test_some_drafts_are_spread_over_all(count: int | None, expected: int) -> None:
    chosen = some(corpus(), count)

    assert len(set(chosen)) == expected
    assert expected == 1 or len({trap for draft in chosen for trap in draft.traps}) > 8


# What is asked, what it costs


def said(sim: GroqSim) -> list[dict[str, Any]]:
    return [call.json for call in sim.calls]


def scripted(request: dict[str, Any]) -> str:
    """Good rewritings for who asks as we do; for the others something wrong."""
    messages = request["messages"]
    text = draft_of(messages[-1]).removeprefix("Improve this prompt:\n\n")
    (draft,) = [draft for draft in corpus() if draft.text == text]
    if messages[-1]["content"].startswith("Improve this prompt"):
        return f"Sure! I made it clearer.\n\n{draft.good}"
    return draft.good if "<typed>" in messages[0]["content"] else f"{draft.good}\nSign it as [Your Name]."


def upstream(sim: GroqSim, clock: Clock, counter: Attempts, **settings: Any) -> Upstream:
    limits: dict[str, Any] = {"max_attempts": 3, "timeout": 120.0, "max_wait": 90.0} | settings
    pool = KeyPool([*sim.keys], clock=clock)
    return Upstream(
        pool, Transport(sim.url, 4), Admission(4), tally=counter, clock=clock, sleep=clock.advance, **limits
    )


def all_of(sim: GroqSim, clock: Clock, asked: list[Asked], memory: Memory) -> list[tuple[Asked, Answer | float]]:
    counter = Attempts()
    return list(ask(upstream(sim, clock, counter), counter, asked, memory, clock.advance))


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path / "answers.jsonl")


def test_each_draft_is_asked_for_in_three_ways_of_each_model(sim: GroqSim, clock: Clock, memory: Memory) -> None:
    sim.limits, sim.reply = UNLIMITED, scripted
    asked = plan([DRAFTS["poem"]], [MODEL, "openai/gpt-oss-120b"])
    all_of(sim, clock, asked, memory)

    assert [(each.way, each.model) for each in asked[:3]] == [(way, MODEL) for way in WAYS]
    assert [request["model"] for request in said(sim)] == [MODEL] * 3 + ["openai/gpt-oss-120b"] * 3
    ours, original, bare = said(sim)[:3]
    assert "<typed>" in ours["messages"][0]["content"]
    assert (original["messages"][-1]["content"], original["temperature"]) == ("write a poem about rain", 0.3)
    assert bare["messages"] == [{"role": "user", "content": "Improve this prompt:\n\nwrite a poem about rain"}]
    assert "temperature" not in bare


def test_it_takes_as_long_as_it_says_within_the_free_plans_limits(clock: Clock, memory: Memory) -> None:
    asked = plan(some(corpus(), 40), [MODEL])
    tokens, minutes = cost(asked, organizations=1)
    with GroqSim({"gsk_one": "org"}, clock=clock, reply=scripted) as sim:
        began = clock()
        told = all_of(sim, clock, asked, memory)

        assert len([answer for _, answer in told if isinstance(answer, Answer)]) == len(asked) == 120
        assert {call.status for call in sim.calls} == {200}
        assert 0.85 * tokens < sum(call.tokens for call in sim.calls if call.status == 200) <= tokens
        assert 0.75 * minutes < (clock() - began) / 60 < minutes


def test_when_the_days_tokens_are_used_up_it_says_so_waits_and_goes_on(clock: Clock, memory: Memory) -> None:
    with GroqSim({"gsk_one": "org"}, Limits(None, None, None, 3000), clock=clock, reply=scripted) as sim:
        told = all_of(sim, clock, plan([DRAFTS["poem"], DRAFTS["garden"]], [MODEL]), memory)

    assert sum(isinstance(answer, Answer) for _, answer in told) == 6
    assert max(answer for _, answer in told if isinstance(answer, float)) > 600


def test_minutes_bind_where_there_is_little_to_ask_and_else_the_days_tokens() -> None:
    little, much = plan([DRAFTS["poem"]] * 10, [MODEL]), plan([DRAFTS["poem"]] * 1000, [MODEL])
    few, many = (cost(asked, 1)[0] for asked in (little, much))

    assert few == pytest.approx(many / 100)
    assert cost(little, 1)[1] == pytest.approx((few - 8000) / 8000)
    assert cost(little, 1000)[1] == len(little) / 60  # each takes a second
    assert cost(much, 1)[1] == pytest.approx((many - 200_000) / 200_000 * 24 * 60)
    assert cost(much, 2)[1] == pytest.approx((many / 2 - 200_000) / 200_000 * 24 * 60)
    assert cost([], 0) == (0, 0)


def test_a_second_call_is_counted_and_one_refused_is_no_end(sim: GroqSim, clock: Clock, memory: Memory) -> None:
    sim.limits, sim.reply = UNLIMITED, lambda request: "Write it, please, with a budget and a table and more of it."
    asked = [each for each in plan([DRAFTS["budget"]], [MODEL]) if each.way in (OURS, BARE)]
    all_of(sim, clock, asked, memory)

    ours, bare = (memory[each] for each in asked)
    assert (ours.text, ours.calls) == ("", 2)
    assert ours.refused.startswith("The answer lacks parts of the prompt: 4 × number")
    assert (bare.text != "", bare.calls) == (True, 1)


@pytest.mark.parametrize(
    "fault",
    [
        *(Trouble.named(name) for name in ("invalid_api_key", "access_denied", "bad_request", "model_not_found")),
        *(Trouble.reset(), Trouble.status(500), Trouble.garbage(), Trouble.length("You")),
    ],
)
def test_where_asking_on_is_in_vain_it_ends_and_nothing_is_remembered(
    sim: GroqSim, clock: Clock, memory: Memory, fault: Trouble
) -> None:
    sim.order(fault, times=None)

    with pytest.raises((Exhausted, Unavailable)):
        all_of(sim, clock, plan(corpus()[:3], [MODEL]), memory)
    assert not memory.file.exists()


def test_one_that_met_groqs_trouble_is_left_for_the_next_time(sim: GroqSim, clock: Clock, memory: Memory) -> None:
    sim.limits, sim.reply = UNLIMITED, scripted
    asked = plan([DRAFTS["poem"]], [MODEL])
    sim.order(Trouble.status(500), times=3)  # all attempts of the first
    all_of(sim, clock, asked, memory)
    assert [each in memory for each in asked] == [False, True, True]

    sim.forget()
    all_of(sim, clock, asked, memory)
    assert len(sim.calls) == 1


def test_an_answer_of_one_host_is_none_of_another(memory: Memory) -> None:
    here, there = (Asked(DRAFTS["poem"], OURS, MODEL, host) for host in ("http://here", "http://there"))
    memory.add(here, Answer("You are a poet."))

    assert here in memory
    assert there not in memory


@pytest.mark.parametrize(
    "line",
    [
        *(b"\xff\xfe", b"[" * 100_000, b"{}", b"[]", b'["name"]', b'["name", 5, "", 1, ""]'),
        *(b'["name", "x", "", "2", ""]', b'["na', '["name", "字'.encode()[:-1]),
    ],
)
def test_a_line_that_is_none_is_passed_over(tmp_path: Path, line: bytes) -> None:
    file, asked = tmp_path / "answers.jsonl", Asked(DRAFTS["poem"], OURS, MODEL)
    Memory(file).add(asked, Answer("You are a poet.", "", 2, "2026-11-30"))
    file.write_bytes(line + b"\n" + file.read_bytes() + line)

    memory = Memory(file)
    assert memory[asked] == Answer("You are a poet.", "", 2, "2026-11-30")
    memory.add(asked, Answer("You are another."))
    assert Memory(file)[asked].text == "You are another."


# All of it, as somebody runs it


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(sim: GroqSim, tmp_path: Path) -> Run:
    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        settings = {"PYTHON_DOTENV_DISABLED": "1", "GROQ_BASE_URL": sim.url, "GROQ_MODELS": MODEL} | env
        return subprocess.run(
            [sys.executable, ROOT / "tools" / "eval", "--into", tmp_path, *arguments],
            env={"GROQ_API_KEYS": ",".join(KEYS), **settings},
            capture_output=True,
            text=True,
            timeout=60,
        )

    sim.limits, sim.reply = Limits(1000, 60_000, 100_000, None), scripted
    return run


@pytest.mark.live
def test_it_asks_judges_and_tells_and_goes_on_where_it_was_stopped(run: Run, sim: GroqSim, tmp_path: Path) -> None:
    first = run("--limit", "20")
    page, file = tmp_path / "eval.md", tmp_path / "answers.jsonl"

    assert first.returncode == 0, first.stderr
    assert re.match(r"60 of 60 answers are to be asked for: some [\d,]+ tokens at .* about \d min", first.stdout)
    assert first.stdout.rstrip().endswith(f"60 of 60 answers are known\nWhat they are worth stands in {page}")
    told = page.read_text()
    assert "| all | 20 of 20 | 0 of 20 | 0 of 20 |" in told
    assert "| no new placeholders | 0 | 20 | 0 |" in told
    assert "| nothing around it | 0 | 0 | 20 |" in told
    assert "## The 40 that did not pass" in told
    assert "not been run" not in told

    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:50]) + lines[50][:9])
    sim.forget()
    assert run("--limit", "20").returncode == 0
    assert len(sim.calls) == 10 + 3 + 3  # the keys are looked at first, and whose they are
    assert page.read_text() == told

    sim.forget()
    assert run("--limit", "20", "--report", GROQ_API_KEYS="").returncode == 0
    assert sim.calls == []
    assert page.read_text() == told


@pytest.mark.live
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--limit", "0"], "--limit: invalid"),
        (["--limit", "-3"], "--limit: invalid"),
        (["--models", " , "], "--models: invalid"),
        (["--models", "another", "--limit", "1"], "Not served: another"),
        (["--into", "/proc/x", "--limit", "1"], "❌ "),
    ],
)
def test_what_can_not_be_asked_is_said_before_anything_is_spent(
    run: Run, sim: GroqSim, arguments: list[str], words: str
) -> None:
    told = run(*arguments)

    assert told.returncode != 0
    assert words in told.stderr
    assert "Traceback" not in told.stderr
    assert sum(call.method == "POST" for call in sim.calls) <= 3  # the probes


@pytest.mark.live
def test_models_may_be_written_with_blanks_and_a_terminal_may_know_ascii_only(run: Run) -> None:
    told = run("--models", f" {MODEL}, {MODEL} ", "--limit", "12", PYTHONIOENCODING="ascii")

    assert told.returncode == 0, told.stderr
    assert "36 of 36 answers are known" in told.stdout


@pytest.mark.live
def test_where_nothing_is_known_no_page_is_written(run: Run, tmp_path: Path) -> None:
    assert run("--report").stdout == "0 of 360 answers are known\n"
    assert not (tmp_path / "eval.md").exists()


@pytest.mark.live
def test_without_a_key_or_with_a_wrong_one_it_says_so(run: Run) -> None:
    for keys, words in (("", "No Groq API key is configured"), ("gsk_wrong", "Invalid API key")):
        told = run("--limit", "1", GROQ_API_KEYS=keys)

        assert told.returncode == 1
        assert words in told.stderr
        assert "Traceback" not in told.stderr


def test_the_page_tells_the_failing_texts_within_a_fence_that_they_can_not_end() -> None:
    asked = Asked(DRAFTS["capital"], OURS, MODEL)
    bad = Answer("Paris\n~~~~~~\n" + "x" * 3000)
    told = report(
        [Result(asked, bad), *(Result(asked._replace(way=way), Answer(asked.draft.good)) for way in (ORIGINAL, BARE))]
    )

    assert "**capital** · ours · openai/gpt-oss-20b: does not answer, right length" in told
    assert "~~~~~~~\nParis\n~~~~~~\nxxx" in told
    assert "more characters\n~~~~~~~" in told


def test_what_stands_in_docs_is_what_the_checks_say_until_somebody_has_asked_groq() -> None:
    page = (ROOT / "docs" / "eval.md").read_text(encoding="utf-8")

    assert page == report([]) or "\nAsked: Groq, 20" in page
