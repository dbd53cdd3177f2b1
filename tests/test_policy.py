"""What Groq's answers mean: every row of the fault table, as they really look, and what an enemy might send."""

import json
from itertools import permutations
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from promptlord.errors import (
    Cause,
    ClientDisconnected,
    DeadlineExceeded,
    Exhausted,
    NotConfigured,
    TooLarge,
    Unavailable,
    UpstreamError,
)
from promptlord.groq import policy
from promptlord.groq.failure import TOLD, failure, most_telling
from promptlord.groq.policy import Fault, Verdict, allowances, duration, is_good, judge
from promptlord.pool.quota import RPD, RPM, TPD, TPM, Allowance
from promptlord.pool.state import Scope

ORG = "org_01k9v83k2bf1zr2nc2pzp9y3ad"
about: Any = pytest.approx
KEY = "gsk_0123456789abcdefghijklmnopqrstuvwxyz"
UPGRADE = "Need more tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing"
LANE = f"Rate limit reached for model `openai/gpt-oss-20b` in organization `{ORG}` service tier `on_demand`"
BAD_GATEWAY = b"<!DOCTYPE html>\n<html><head><title>api.groq.com | 502: Bad gateway</title></head><body/></html>"


def body(message: str, code: str | None = None, kind: str | None = "invalid_request_error") -> bytes:
    fields = {"message": message, "type": kind, "code": code}
    return json.dumps({"error": {name: value for name, value in fields.items() if value}}).encode()


def limited(message: str, retry_after: str | None = None, kind: str = "tokens") -> Verdict:
    headers = CaseInsensitiveDict({} if retry_after is None else {"Retry-After": retry_after})
    return judge(429, headers, body(message, "rate_limit_exceeded", kind))


# Limits


@pytest.mark.parametrize(
    ("kind", "dimension", "numbers", "time", "cooldown"),
    [
        ("requests", "requests per minute (RPM)", "Limit 30, Used 30, Requested 1", "2s", 2),
        ("tokens", "tokens per minute (TPM)", "Limit 8000, Used 6170, Requested 5386", "26.67s", 26.67),
        ("tokens", "tokens per day (TPD)", "Limit 200000, Used 197050, Requested 3619", "9m38.016s", 578.016),
        ("requests", "requests per day (RPD)", "Limit 1000, Used 1000, Requested 1", "1m26.4s", 86.4),
        ("tokens", "input tokens per minute (ITPM)", "Limit 8000, Used 8000, Requested 4", "540ms", 0.54),
        ("seconds", "audio seconds per hour (ASH)", "Limit 7200, Used 7200, Requested 9", "3h12m5s", 11525),
    ],
)
def test_a_rate_limit_says_which_one_of_whom_and_for_how_long(kind, dimension, numbers, time, cooldown):
    verdict = limited(f"{LANE} on {dimension}: {numbers}. Please try again in {time}. {UPGRADE}", kind=kind)

    words = dimension.rpartition(" (")[0]
    reason = f"Rate limit exceeded on {words}"
    assert verdict == Verdict(Fault.LIMIT, reason, about(cooldown), ORG, words, verdict.level)


@pytest.mark.parametrize(
    ("message", "dimension", "organization"),
    [
        (LANE.replace("`", "") + " on tokens per day (TPD): …", "tokens per day", ORG),
        (LANE.split(" service")[0] + " on requests per day", "requests per day", ORG),
        (LANE, "", ORG),
        ("Rate limit reached for model `openai/gpt-oss-20b`", "", ""),
        ("", "", ""),
    ],
)
def test_parts_of_the_rate_limits_sentence_may_be_missing(message, dimension, organization):
    verdict = limited(f"{message} Please try again in 2s. {UPGRADE}")

    reason = f"Rate limit exceeded on {dimension}" if dimension else "Rate limit exceeded"
    assert verdict == Verdict(Fault.LIMIT, reason, 2, organization, dimension)


@pytest.mark.parametrize(
    ("sentence", "level"),
    [
        ("requests per minute (RPM): Limit 30, Used 30, Requested 1.", {RPM: Allowance(30, 60)}),
        ("tokens per minute (TPM): Limit 8000, Used 6170, Requested 5386.", {TPM: Allowance(8000, 46.275)}),
        ("tokens per day (TPD): Limit 200000, Used 199754, Requested 2679.", {TPD: Allowance(200_000, 86293.728)}),
        ("requests per day: Limit 1000, Used 1000, Requested 1.", {RPD: Allowance(1000, 86400)}),
        ("tokens per day (TPD): Limit 200000, Used 999999999, Requested 1.", {TPD: Allowance(200_000, 86400)}),
        ("audio seconds per hour (ASH): Limit 7200, Used 7200, Requested 9.", {}),
        ("tokens per day (TPD): Limit 0, Used 0, Requested 1.", {}),
        ("tokens per day (TPD).", {}),
        ("", {}),
    ],
)
def test_a_refusal_tells_the_level_of_its_bucket_to_the_token(sentence, level):
    verdict = limited(f"{LANE} on {sentence} Please try again in 17m31.056s. {UPGRADE}")

    assert verdict.level == {name: pytest.approx(told) for name, told in level.items()}
    assert dict(verdict.outcome({}).allowances) == verdict.level


@pytest.mark.parametrize(
    ("model", "organization"),
    [("org_x/m", ORG), ("in organization org_x", ORG), ("org_x/m", ""), ("org_x", "")],
)
def test_the_organization_is_what_stands_after_in_organization(model, organization):
    whose = f" in organization `{organization}`" if organization else ""

    assert (
        limited(f"Rate limit reached for model `{model}`{whose} on tokens per day (TPD)").organization == organization
    )


@pytest.mark.parametrize("content", [b"", b"Too Many Requests", BAD_GATEWAY, b'{"error": "slow down"}'])
def test_a_429_is_a_limit_whatever_its_body(content):
    assert judge(429, {"retry-after": "7"}, content) == Verdict(Fault.LIMIT, "Rate limit exceeded", 7)


@pytest.mark.parametrize(
    ("retry_after", "cooldown"),
    [
        ("2", 2),
        ("0.25", 0.25),
        ("1000000", 86400),
        ("-5", 0),
        ("0", 0),
        ("nan", 0),
        ("inf", 0),
        ("-inf", 0),
        ("soon", 0),
        ("2, 3", 0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 0),
        ("", 0),
        (None, 0),
        ("9" * 5000, 0),
    ],
)
def test_retry_after_counts_where_it_makes_sense(retry_after, cooldown):
    assert limited("Slow down.", retry_after).cooldown == cooldown
    assert limited("Please try again in 3s.", retry_after).cooldown == (cooldown or 3)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2s", 2),
        ("540ms", 0.54),
        ("1m26.4s", 86.4),
        ("9m38.016s", 578.016),
        ("3h12m5s", 11525),
        ("12h30m", 45000),
        ("1.984999999s", 1.984999999),
        ("172.799999ms", 0.172799999),
        ("15µs", 15e-6),
        ("800ns", 8e-7),
        ("26h", 86400),
        ("0s", 0),
        ("2", None),
        ("-2s", None),
        ("2x", None),
        ("1..5s", None),
        ("", None),
        ("9" * 400 + "s", 86400),
        ("1s" * 5, None),
    ],
)
def test_durations_are_gos(text, seconds):
    assert duration(text) == (seconds if seconds is None else pytest.approx(seconds))
    assert limited(f"Please try again in {text}. {UPGRADE}").cooldown == pytest.approx(seconds or 0)


# Everything else


ORDINARY = [
    (400, "Organization has been restricted.", "organization_restricted", Fault.KEY),
    (400, "API access is blocked: billing", "blocked_api_access", Fault.KEY),
    (400, "Spend limit", "spend_limit_reached", Fault.KEY),
    (400, "Spend limit", "spend_alert_blocked", Fault.KEY),
    (400, "The model `x` has been decommissioned", "model_decommissioned", Fault.MODEL),
    (400, "Failed to generate JSON.", "json_validate_failed", Fault.REQUEST),
    (400, "Failed to call a function.", "tool_use_failed", Fault.REQUEST),
    (400, "Please reduce the length of the messages", "context_length_exceeded", Fault.REQUEST),
    (400, f"Something of `{ORG}` else. {UPGRADE}", None, Fault.REQUEST),
    (401, "Invalid API Key", "invalid_api_key", Fault.KEY),
    (401, "Who are you?", None, Fault.KEY),
    (403, "Blocked at the organization level.", "model_permission_blocked_org", Fault.KEY_FOR_MODEL),
    (403, "Blocked at the project level.", "model_permission_blocked_project", Fault.KEY_FOR_MODEL),
    (403, "Access denied. Please check your network settings.", None, Fault.NETWORK),
    (403, "Not for you.", "forbidden", Fault.REQUEST),
    (404, "The model `x` does not exist or you do not have access to it.", "model_not_found", Fault.LACKING),
    (404, "Unknown request URL", "unknown_url", Fault.REQUEST),
    (409, "Conflict", None, Fault.REQUEST),
    (413, f"Request too large for model `x` in organization `{ORG}`", "rate_limit_exceeded", Fault.SIZE),
    (422, "Semantic error", None, Fault.REQUEST),
    (498, "Flex tier capacity exceeded", "capacity_exceeded", Fault.GROQ),
    (500, "Internal Server Error", None, Fault.GROQ),
    (502, "Bad gateway", "rate_limit_exceeded", Fault.GROQ),
    (503, "x is currently over capacity.", "organization_restricted", Fault.GROQ),
    (504, "Gateway timeout", None, Fault.GROQ),
    (529, "Overloaded", None, Fault.GROQ),
]


@pytest.mark.parametrize(("status", "message", "code", "fault"), ORDINARY)
def test_every_error_has_its_fault(status, message, code, fault):
    verdict = judge(status, {"retry-after": "5"}, body(message, code))

    assert (verdict.fault, verdict.cooldown) == (fault, 0)


@pytest.mark.parametrize(
    ("status", "content", "fault"),
    [
        (302, b"", Fault.GROQ),
        (400, b"", Fault.REQUEST),
        (401, b"Unauthorized", Fault.KEY),
        (403, b"error code: 1010", Fault.NETWORK),
        (403, BAD_GATEWAY, Fault.NETWORK),
        (403, b"", Fault.NETWORK),
        (404, b"404 page not found", Fault.REQUEST),
        (413, BAD_GATEWAY, Fault.SIZE),
        (500, b"", Fault.GROQ),
        (502, BAD_GATEWAY, Fault.GROQ),
        (503, b"upstream connect error", Fault.GROQ),
        (522, BAD_GATEWAY, Fault.GROQ),
    ],
)
def test_an_error_without_json_has_its_fault_by_its_status(status, content, fault):
    assert judge(status, {}, content).fault is fault


@pytest.mark.parametrize("status", [200, 201, 206])
def test_nothing_is_wrong_with_a_good_status(status):
    assert is_good(status)


@pytest.mark.parametrize(
    ("status", "content", "answer"),
    [
        (500, b'{"error": {"message": "in org_a"}}', (500, b'{"error": {"message": "in org_***"}}')),
        (498, b'{"error": {"a": null}} ', (498, b'{"error": {"a": null}} ')),
        (500, b'{"error": {}}', None),
        (503, b'{"error": "text"}', None),
        (503, b'{"error": {"message": "' + b"x" * (1 << 16) + b'"}}', None),
        (502, BAD_GATEWAY, None),
        (500, b"", None),
        (302, b'{"error": {"message": "x"}}', None),
        (600, b'{"error": {"message": "x"}}', None),
        (429, b'{"error": {"message": "x"}}', None),
        (401, b'{"error": {"message": "x"}}', None),
    ],
)
def test_what_groq_says_of_its_own_trouble_is_kept_if_it_is_short_and_json(status, content, answer):
    assert judge(status, {}, content).answer == answer


def test_the_size_is_the_request_s_own_fault_and_names_the_organization():
    verdict = judge(
        413, {"retry-after": "9"}, body(f"Request too large in organization `{ORG}`", "rate_limit_exceeded", "tokens")
    )

    assert verdict == Verdict(Fault.SIZE, "Request too large for the model's tokens per minute", organization=ORG)


@pytest.mark.parametrize(
    ("fault", "scope", "limited"),
    [
        (Fault.LIMIT, Scope.LANE, True),
        (Fault.KEY, Scope.KEY, False),
        (Fault.KEY_FOR_MODEL, Scope.LANE, False),
        (Fault.LACKING, Scope.LANE, False),
        (Fault.MODEL, Scope.NOTHING, False),
        (Fault.REQUEST, Scope.NOTHING, False),
        (Fault.SIZE, Scope.NOTHING, False),
        (Fault.GROQ, Scope.NOTHING, False),
        (Fault.NETWORK, Scope.NOTHING, False),
    ],
)
def test_each_fault_says_what_cools(fault, scope, limited):
    outcome = Verdict(fault, "reason", 7.0).outcome({})

    assert (outcome.cools, outcome.limited, outcome.seconds) == (scope, limited, 7)
    assert (outcome.lacks, outcome.retires) == (fault is Fault.LACKING, fault is Fault.MODEL)
    assert not outcome.admitted


# What whoever called is told


def told(*faults: Fault) -> UpstreamError:
    return failure([Verdict(fault, "for the log") for fault in faults], 7.0)


@pytest.mark.parametrize("fault", Fault)
def test_each_fault_has_words_for_whoever_called_and_none_for_the_operator(fault):
    words = str(told(fault))

    assert words == TOLD[fault].words
    assert not any(word in words for word in ("GROQ_", "console", "log", "#", "support", " per "))


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Fault.LIMIT, Cause.BUSY),
        (Fault.KEY, Cause.KEYS),
        (Fault.KEY_FOR_MODEL, Cause.KEYS),
        (Fault.LACKING, Cause.MODEL),
        (Fault.MODEL, Cause.MODEL),
        (Fault.SIZE, Cause.REQUEST),
        (Fault.REQUEST, Cause.REQUEST),
        (Fault.NETWORK, Cause.NETWORK),
        (Fault.GROQ, Cause.GROQ),
    ],
)
def test_each_fault_has_its_cause_and_the_operator_is_told_the_verdicts_reason(fault, cause):
    raised = told(fault)

    assert raised.cause is cause
    assert raised.reason == ("for the log: ready in 7 s" if fault is Fault.LIMIT else "for the log")


@pytest.mark.parametrize(
    ("faults", "telling"),
    [
        ([Fault.GROQ, Fault.GROQ, Fault.KEY], Fault.GROQ),
        ([Fault.GROQ, Fault.LIMIT, Fault.LACKING], Fault.GROQ),
        ([Fault.KEY, Fault.LIMIT, Fault.KEY], Fault.LIMIT),
        ([Fault.LIMIT, Fault.MODEL, Fault.KEY], Fault.LIMIT),
        ([Fault.MODEL, Fault.KEY, Fault.KEY], Fault.MODEL),
        ([Fault.KEY_FOR_MODEL, Fault.KEY], Fault.KEY_FOR_MODEL),
    ],
)
def test_the_most_telling_verdict_is_told_whenever_it_came(faults, telling):
    for order in permutations(faults):
        assert str(told(*order)) == TOLD[telling].words


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.LIMIT, Exhausted),
        (Fault.KEY, Exhausted),
        (Fault.KEY_FOR_MODEL, Exhausted),
        (Fault.LACKING, Exhausted),
        (Fault.SIZE, TooLarge),
        (Fault.MODEL, Unavailable),
        (Fault.REQUEST, Unavailable),
        (Fault.NETWORK, Unavailable),
        (Fault.GROQ, Unavailable),
    ],
)
def test_each_fault_has_its_error_and_waiting_is_told_where_it_helps(fault, error):
    raised = told(fault)

    assert type(raised) is error
    assert getattr(raised, "ready_in", None) == (7 if error is Exhausted else None)


def test_without_an_attempt_the_keys_are_busy():
    raised = told()

    assert (str(raised), type(raised)) == ("All API keys are busy or cooling down", Exhausted)
    assert (raised.cause, raised.reason) == (Cause.BUSY, "No key is ready: the first is ready in 7 s")


@pytest.mark.parametrize(
    ("raised", "cause"),
    [
        (NotConfigured("words"), Cause.UNCONFIGURED),
        (Exhausted("words", 1.0), Cause.BUSY),
        (DeadlineExceeded("words"), Cause.GROQ),
        (ClientDisconnected("words"), Cause.REQUEST),
    ],
)
def test_without_a_verdict_the_error_itself_has_a_cause_and_its_words_are_the_reason(raised, cause):
    assert (raised.cause, raised.reason) == (cause, "words")


def test_of_groqs_troubles_the_last_is_told_that_it_put_in_words():
    first, last = (Verdict(Fault.GROQ, "", answer=(500, words)) for words in (b"first", b"last"))

    assert most_telling([first, last, policy.UNREACHABLE, Verdict(Fault.KEY, "")]) is last


# What an enemy might send


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"error": {"message": ' + b"[" * 900 + b"]" * 900 + b"}}",
        b'{"error": {"code": 1' + b"0" * 10_000 + b"}}",
        b'{"error": {"message": 1e999, "code": NaN}}',
        b'{"error": "rate_limit_exceeded"}',
        b'{"error": ["rate_limit_exceeded"]}',
        b'{"error": null}',
        b'{"error": {"message": null, "code": {"a": 1}, "type": []}}',
        b'["error"]',
        b'"error"',
        b"null",
        b"\xff\xfe\x80 error",
        b'{"error": {"message": "\xff"}}',
        b'{"error": {"message": "\\ud83d", "code": "\\ud83d"}}',
    ],
)
def test_a_strange_body_leaves_the_status_to_decide(content):
    faults = [judge(status, {}, content).fault for status in (400, 401, 429, 500)]

    assert faults == [Fault.REQUEST, Fault.KEY, Fault.LIMIT, Fault.GROQ]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 429, 498, 500])
@pytest.mark.parametrize("secret", [ORG, KEY, "org_abc", "gsk_abc", "my secret prompt"])
def test_no_reason_repeats_what_the_body_says(status, secret):
    content = body(f"{secret}: limit on {secret} tokens per minute for {secret}", secret, secret)

    verdict = judge(status, {"retry-after": secret}, content)

    assert secret not in repr(verdict)


def test_a_code_that_groq_documents_is_named():
    verdict = judge(400, {}, body("Failed to generate JSON.", "json_validate_failed"))

    assert verdict.reason == "Request refused: 400 json_validate_failed"


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["message", "code", "type"]) | st.text(), inner),
    max_leaves=10,
)
bodies = st.binary() | anything.map(lambda error: json.dumps({"error": error}).encode())


@given(st.integers(100, 599), bodies, st.text() | st.floats().map(str))
@example(429, body("Please try again in 99999999999999h"), "")
@example(429, body("Please try again in 0.0s"), "1e-320")
def test_any_answer_at_all_has_a_verdict_with_a_bounded_cooldown(status, content, retry_after):
    verdict = judge(status, {"retry-after": retry_after}, content)

    assert 0 <= verdict.cooldown <= 86400
    assert all(0 <= told.full_in <= 86400 and told.limit > 0 for told in verdict.level.values())


FULL = {
    "x-ratelimit-limit-requests": "1000",
    "x-ratelimit-remaining-requests": "999",
    "x-ratelimit-reset-requests": "1m26.4s",
    "x-ratelimit-limit-tokens": "8000",
    "x-ratelimit-remaining-tokens": "3164",
    "x-ratelimit-reset-tokens": "36.27s",
}


def test_headers_say_when_each_bucket_is_full_again():
    assert allowances(FULL) == {RPD: Allowance(1000, 86.4), TPM: Allowance(8000, 36.27)}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"reset": None}, Allowance(8000, about(36.27))),
        ({"reset": "-5s", "remaining": "8000"}, Allowance(8000, 0)),
        ({"reset": "99h"}, Allowance(8000, 60)),
        ({"reset": "0s"}, Allowance(8000, 0)),
        ({"reset": "", "remaining": "9000"}, Allowance(8000, 0)),
        ({"remaining": "nan"}, Allowance(8000, 36.27)),
        ({"reset": None, "remaining": "-1"}, None),
        ({"reset": None, "remaining": None}, None),
        ({"limit": None}, None),
        ({"limit": "0"}, None),
        ({"limit": "-8000"}, None),
        ({"limit": "inf"}, None),
        ({"limit": "many"}, None),
    ],
)
def test_headers_that_vanish_or_lie_are_bounded_or_ignored(changes, told):
    headers = FULL | {f"x-ratelimit-{what}-tokens": text for what, text in changes.items()}

    assert allowances({name: text for name, text in headers.items() if text is not None}).get(TPM) == told


@given(st.dictionaries(st.sampled_from(sorted(FULL)), st.text(max_size=12)))
def test_no_header_breaks_anything(headers):
    for allowance in allowances(headers).values():
        assert allowance.limit > 0
        assert 0 <= allowance.full_in <= 86400
