"""The soak: what its judge sees, and a small one of the real server."""

import json
import subprocess
import sys

import pytest
from completions import sse
from conftest import ROOT
from soak_clients import Heard, Response
from soak_groq import COOLS, ILLS, LATENCY, LISTED, WHOLE_TIME, WORD, Met, text_for
from soak_judge import (
    AGAIN,
    AS_SENT,
    CUT,
    EARLY,
    HUNG,
    LEAKED,
    LEFT,
    NOTICES,
    OK,
    OVERDUE,
    TOLD,
    WHOLE,
    WRONG,
    for_nobody,
    judge,
    overdue,
    while_cooling,
)

WORD_A, WORD_B = "quokka000001a", "quokka000002a"
SHORT = "It was a dark and"
DONE, ERROR = b"data: [DONE]\n\n", b"event: error\n" + sse({"error": {"message": "It broke off"}})
COMPLETED = b"event: response.completed\n" + sse({"type": "response.completed", "response": {"error": None}})
FAILED = sse({"type": "error", "message": "It broke off"})


def said(text: str, finish: str | None = "stop") -> bytes:
    """A chat's stream that says this."""
    choices = [{"delta": {"content": text}, "finish_reason": None}, {"delta": {}, "finish_reason": finish}]
    return b"".join(sse({"choices": [choice]}) for choice in choices)


def completion(text: str, finish: str = "stop") -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}, "finish_reason": finish}]}).encode()


def delta(text: str) -> bytes:
    return sse({"type": "response.output_text.delta", "delta": text})


def problem(said: str = "All API keys are busy") -> bytes:
    return json.dumps({"error": said}).encode()


def judged(kind: str, body: bytes, *met: str, status: int = 200, cut: bool = False, sent: int = 0) -> str:
    form = "text/event-stream" if kind.endswith("streamed") else "application/json"
    return judge(Heard(kind, WORD_A, Response(status, form, body, cut), sent), met)


OURS = json.dumps({"enhancedPrompt": text_for(WORD_A)}).encode()
FOREIGN = json.dumps({"enhancedPrompt": text_for(WORD_B)}).encode()
HEARD = b'{"text": " quokka000001a 70 bytes of sound."}'


@pytest.mark.parametrize(
    ("kind", "body", "met", "verdict"),
    [
        ("press", OURS, [], OK),
        ("press", OURS, ["no content", "reset", ""], OK),
        ("press", FOREIGN, [], WRONG),
        ("press", OURS[:-3], ["truncated"], WRONG),
        ("press", json.dumps({"enhancedPrompt": SHORT}).encode(), ["cut off"], WRONG),
        ("chat", completion(text_for(WORD_A)), [], OK),
        ("chat", completion(text_for(WORD_B)), [], WRONG),
        ("chat", completion(SHORT, "length"), ["cut off"], AS_SENT),
        ("chat", completion(SHORT, "length"), ["cut off", ""], WRONG),
        ("chat", b"this is not JSON", ["no JSON"], AS_SENT),
        ("models", json.dumps(LISTED).encode(), [], OK),
        ("models", b"{}", [], WRONG),
        ("upload", HEARD, [], OK),
        ("chat", completion("in organization org_01soak07"), [], LEAKED),
    ],
)
def test_an_answer_is_its_own_or_as_groq_sent_it(kind: str, body: bytes, met: list[str], verdict: str) -> None:
    assert judged(kind, body, *met, sent=70) == verdict


@pytest.mark.parametrize(
    ("status", "body", "met", "verdict"),
    [
        (503, problem(), ["429 RPM", "reset", "close"], TOLD),
        (503, problem(), ["429 RPM", "reset"], EARLY),
        (503, problem(), ["429 RPM", "reset", "compressed"], EARLY),
        (502, problem(), ["bad_request"], TOLD),
        (504, problem(), ["", "silence"], TOLD),
        (504, problem(), [], EARLY),
        (500, problem(), ["reset"] * 3, WRONG),
        (503, b"<html>", ["reset"] * 3, WRONG),
        (0, b"", [], HUNG),
    ],
)
def test_a_press_may_fail_once_all_its_attempts_have(status: int, body: bytes, met: list[str], verdict: str) -> None:
    assert judged("press", body, *met, status=status) == verdict


@pytest.mark.parametrize(
    ("body", "cut", "met", "verdict"),
    [
        (said(text_for(WORD_A)) + DONE, False, [], OK),
        (said(text_for(WORD_A)), False, ["stream without its end"], OK),
        (said(text_for(WORD_A)[:50], None), False, ["unfinished stream"], WHOLE),
        (said(text_for(WORD_A)[:50], None) + DONE, False, ["truncated"], WHOLE),
        (said(text_for(WORD_A)[:50], None) + ERROR, False, ["truncated"], CUT),
        (said(text_for(WORD_A)[:50], None), True, ["truncated"], CUT),
        (said(text_for(WORD_A)[:50], None), True, [], EARLY),
        (said(text_for(WORD_A)) + DONE + ERROR, False, ["break after the end"], WRONG),
        (said(text_for(WORD_B)) + DONE, False, [], WRONG),
        (said(SHORT, "length") + DONE, False, ["cut off"], AS_SENT),
        (said(SHORT, "length"), False, ["cut off"], WHOLE),
        (b"<html>", False, [], WRONG),
    ],
)
def test_a_stream_is_whole_or_looks_as_if_it_were_not(body: bytes, cut: bool, met: list[str], verdict: str) -> None:
    assert judged("chat, streamed", body, *met, cut=cut) == verdict


@pytest.mark.parametrize(
    ("body", "met", "verdict"),
    [
        (delta(text_for(WORD_A)) + COMPLETED, [], OK),
        (delta(text_for(WORD_A)), ["stream without its end"], WHOLE),
        (delta(text_for(WORD_A)[:50]) + FAILED, ["unfinished stream"], CUT),
        (delta(text_for(WORD_A)) + COMPLETED + FAILED, ["break after the end"], WRONG),
    ],
)
def test_a_response_has_another_end(body: bytes, met: list[str], verdict: str) -> None:
    assert judged("response, streamed", body, *met) == verdict


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [(0, b"", LEFT), (400, problem(), TOLD), (400, b"<html>", WRONG), (500, problem(), WRONG), (-1, b"?", WRONG)],
)
def test_nonsense_gets_a_well_formed_refusal_or_nothing(status: int, body: bytes, verdict: str) -> None:
    assert judged("garbage", body, status=status) == verdict


def test_a_word_is_known_again_wherever_it_stands() -> None:
    assert WORD.findall(f"{WORD_A}-1 and {WORD_B}".encode()) == [WORD_A.encode(), WORD_B.encode()]
    assert len(ILLS) > 20


@pytest.mark.parametrize(("at", "late"), [(99.0, 0), (100.0 + NOTICES, 0), (100.01 + NOTICES, 1)])
def test_nobody_is_called_for_a_client_who_has_left(at: float, late: int) -> None:
    heard = Heard("hangs up", WORD_A, Response(), left=100.0)

    assert len([*for_nobody([heard], {WORD_A: [met(at)]})]) == late


@pytest.mark.parametrize(("seconds", "late"), [(WHOLE_TIME + OVERDUE, 0), (WHOLE_TIME + OVERDUE + 0.1, 1)])
def test_a_response_is_there_when_its_time_is_up(seconds: float, late: int) -> None:
    assert len([*overdue([Heard("press", WORD_A, Response(504, seconds=seconds))], {})]) == late


@pytest.mark.parametrize(
    ("after", "key", "away", "found"),
    [
        (NOTICES - 0.1, "gsk_a", [], 0),
        (NOTICES + 0.1, "gsk_a", [], 1),
        (COOLS - 0.1, "gsk_a", [], 1),
        (COOLS + 0.1, "gsk_a", [], 0),
        (NOTICES + 0.1, "gsk_b", [], 0),
        (NOTICES + 0.1, "gsk_a", [(100.0, 105.0)], 0),
        (NOTICES + 0.1, "gsk_a", [(90.0, 100.0)], 0),
        (NOTICES + 0.1, "gsk_a", [(90.0, 100.5 - AGAIN)], 1),
    ],
)
def test_a_refused_key_is_called_by_nobody(after: float, key: str, away: list[tuple[float, float]], found: int) -> None:
    calls = [met(100.0 - LATENCY, "gsk_a", "429 RPM"), met(100.0 + after, key)]

    assert len([*while_cooling(calls, away)]) == found


def met(at: float, key: str = "gsk_a", name: str = "") -> Met:
    return Met(at, key, "model", WORD_A, name)


def test_a_small_soak_finds_nothing() -> None:
    assert "| press | " in small_soak()


@pytest.mark.usefixtures("store")  # where there is none, this is skipped
def test_a_small_soak_of_two_processes_whose_redis_fails_finds_nothing() -> None:
    assert "| 2 | after | " in small_soak("--processes", "2")


def small_soak(*more: str) -> str:
    """What it shows."""
    command = [sys.executable, "tools/soak.py", "--requests", "400", "--seed", "3", *more]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout
