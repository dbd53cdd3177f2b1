"""``flask check-keys``: what it says of each key and model, its exit code, and that it shows no key."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from conftest import KEYS
from groqsim import GroqSim, Limits, Trouble

from app import create_app
from promptlord.config import Config
from promptlord.groq.check import KeyCheck
from promptlord.groq.transport import Transport

ROOT = Path(__file__).parent.parent
MODELS = ("openai/gpt-oss-20b", "openai/gpt-oss-120b")


def check(sim: GroqSim, *options: str, **settings: Any) -> Result:
    settings = {"keys": tuple(KEYS), "base_url": sim.url} | settings
    return create_app(Config(**settings)).test_cli_runner().invoke(args=["check-keys", *options])


def lines(result: Result) -> dict[str, str]:
    """The table, each first word with the rest of its line."""
    return {line.split()[0]: line.partition(" ")[2].strip() for line in result.stdout.splitlines() if line}


def test_keys_that_work_and_models_that_exist(sim: GroqSim) -> None:
    result = check(sim)

    assert result.exit_code == 0
    assert [lines(result)[label] for label in ("#1", "#2", "#3", *MODELS)] == ["works"] * 3 + ["exists"] * 2
    assert "3 of 3 keys work." in result.stdout
    assert "90 requests and 24,000 tokens a minute" in result.stdout
    assert "3,000 requests and 600,000 tokens a day" in result.stdout
    assert "Keys of one organization add nothing" in result.stdout


def test_each_key_costs_two_calls_and_nothing_of_any_allowance(sim: GroqSim) -> None:
    check(sim)

    asked = [(call.key, call.method, call.path, call.status) for call in sim.calls]
    models, probe = ("GET", "/openai/v1/models", 200), ("POST", "/openai/v1/chat/completions", 413)
    assert sorted(asked) == sorted((key, *call) for key in KEYS for call in (models, probe))


def test_keys_of_one_organization_are_named_and_add_nothing() -> None:
    with GroqSim(KEYS | {"gsk_four": "org_two"}) as sim:
        result = check(sim, keys=(*KEYS, "gsk_four"))
        told = json.loads(check(sim, "--json", keys=(*KEYS, "gsk_four")).stdout)

    assert "#2 and #4 are of one organization, and share its limits." in result.stdout
    assert "90 requests and 24,000 tokens a minute" in result.stdout
    assert told["shared"] == [["#2", "#4"]]
    assert "org_" not in result.output


def test_a_paid_plan_and_another_host_say_nothing_of_the_organization() -> None:
    with GroqSim(KEYS, Limits(1000, 250_000, 500_000, None)) as sim:
        result = check(sim)
        probes = [call for call in sim.calls if call.method == "POST"]

    assert [lines(result)[label] for label in ("#1", "#2", "#3")] == ["works"] * 3
    assert "of one organization," not in result.stdout
    assert [call.status for call in probes] == [200] * 3


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Trouble.named("blocked_api_access"), "Spend limit reached (400): raise it in the Groq console"),
        (Trouble.named("rate_limit"), "works"),
        (Trouble.status(500), "works"),
        (Trouble.named("model_permission_blocked_org"), "works"),
    ],
)
def test_the_second_call_counts_only_where_it_tells_of_the_key(fault: Trouble, words: str, sim: GroqSim) -> None:
    sim.order(Trouble(), key="gsk_two")  # the first call
    sim.order(fault, key="gsk_two", times=None)

    assert lines(check(sim))["#2"] == words


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Trouble.named("invalid_api_key"), "revoked (401): create a new one"),
        (Trouble.named("organization_restricted"), "the organization is restricted: ask Groq's support why"),
        (Trouble.named("spend_limit_reached"), "Spend limit reached (400): raise it in the Groq console"),
        (
            Trouble.named("cloudflare_1010"),
            "Groq refuses this server's network address or user agent, whatever the key (403): not the key",
        ),
        (Trouble.named("rate_limit"), "Rate limit exceeded on requests per minute (429): not the key"),
        (Trouble.named("bad_gateway_html"), "Groq answered 502: not the key"),
        (Trouble.named("garbage"), "unusable answer (200): not the key"),
        (Trouble.named("reset"), "Groq is unreachable: not the key"),
        (Trouble.status(418), "Request refused: 418 .*"),
    ],
)
def test_a_key_that_does_not_work_says_why(fault: Trouble, words: str, sim: GroqSim) -> None:
    sim.order(fault, key="gsk_two", times=None)
    result = check(sim)

    assert re.fullmatch(words.replace("(", r"\(").replace(")", r"\)"), lines(result)["#2"])
    assert lines(result)["#3"] == "works"
    assert "2 of 3 keys work." in result.stdout
    assert result.exit_code == 0


def test_what_is_no_key_of_groqs_is_recognized(sim: GroqSim) -> None:
    assert "begin with gsk_" in lines(check(sim, keys=("sk-other",)))["#1"]


def test_whoever_waits_does_not_wait_for_ever(sim: GroqSim) -> None:
    keys = KeyCheck(Transport(sim.url, 8), tuple(KEYS), MODELS)

    assert {finding.words for finding in keys.ask_all(keys.keys, 0.0)} == {"not asked for want of time: ask again"}
    assert sim.calls == []
    sim.order(Trouble(script=lambda pieces: [1.0, *pieces]), times=None)
    assert {finding.words for finding in keys.ask_all([], 0.1)} == {"no answer in time: not the key"}


def test_no_key_works(sim: GroqSim) -> None:
    sim.order(Trouble.named("invalid_api_key"), times=None)
    result = check(sim)

    assert result.exit_code == 1
    assert "0 of 3 keys work." in result.stdout
    assert lines(result)[MODELS[0]] == "unknown: no key works"
    assert "add up" not in result.stdout


def test_no_key_is_configured(sim: GroqSim) -> None:
    result = check(sim, keys=())

    assert result.exit_code == 1
    assert "0 of 0 keys work." in result.stdout
    assert "set GROQ_API_KEYS to keys from https://console.groq.com/keys" in result.stderr


def test_a_model_that_groq_does_not_serve(sim: GroqSim) -> None:
    result = check(sim, models=("llama-3.1-8b-instant", *MODELS))

    assert result.exit_code == 1
    assert lines(result)["llama-3.1-8b-instant"] == "not served: set GROQ_MODELS to models that Groq serves"
    assert lines(result)[MODELS[0]] == "exists"


def test_a_model_that_is_not_for_every_key(sim: GroqSim) -> None:
    sim.order(Trouble.status(200, {"object": "list", "data": [{"id": MODELS[0]}]}), key="gsk_two")
    result = check(sim)

    assert lines(result)[MODELS[1]] == "exists, but not for #2"
    assert result.exit_code == 0


def test_repeated_keys_are_mentioned_and_asked_once(sim: GroqSim) -> None:
    config = Config.from_env({"GROQ_API_KEYS": "gsk_one,gsk_two,gsk_one", "GROQ_BASE_URL": sim.url})
    result = create_app(config).test_cli_runner().invoke(args=["check-keys"])

    assert "GROQ_API_KEYS repeats 1 key(s): each counts once" in result.stderr
    assert len(sim.calls) == 4


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("gpt-oss-20b", "write it openai/gpt-oss-20b in GROQ_MODELS"),
        ("GPT-OSS-120B", "write it openai/gpt-oss-120b in GROQ_MODELS"),
        ("groq/gpt-oss-20b", "write it openai/gpt-oss-20b in GROQ_MODELS"),
        ("openai/gpt-oss-20", "write it openai/gpt-oss-20b or openai/gpt-oss-120b in GROQ_MODELS"),
        ("llama-3.1-8b-instant", "set GROQ_MODELS to models that Groq serves"),
    ],
)
def test_a_model_that_is_not_served_is_told_with_the_id_that_may_be_meant(sim: GroqSim, name: str, meant: str) -> None:
    result = check(sim, models=(name,))

    assert lines(result)[name] == f"not served: {meant}"
    assert result.exit_code == 1


def test_a_check_that_meets_the_end_of_its_process_says_nothing() -> None:
    program = """
import threading
from promptlord.groq.check import KeyCheck
from promptlord.groq.transport import Transport
check = KeyCheck(Transport("http://127.0.0.1:9", connections=1), ["gsk_one"], ["a"])
def late():
    threading.main_thread().join()
    print([*check.ask_all([])])
threading.Thread(target=late).start()
"""

    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=20)

    assert (ended.stdout, ended.stderr) == ("[]\n", "")


def test_json(sim: GroqSim) -> None:
    sim.order(Trouble.named("invalid_api_key"), key="gsk_three")
    result = check(sim, "--json", models=MODELS[:1])

    assert json.loads(result.stdout) == {
        "ok": True,
        "keys": [
            {"label": "#1", "works": True, "result": "works"},
            {"label": "#2", "works": True, "result": "works"},
            {"label": "#3", "works": False, "result": "revoked (401): create a new one"},
        ],
        "shared": [],
        "repeated": 0,
        "models": [{"name": MODELS[0], "exists": True, "result": "exists"}],
        "atMost": {
            "perMinute": {"requests": 60, "tokens": 16000},
            "perDay": {"requests": 2000, "tokens": 400000},
        },
    }


def test_no_key_is_ever_printed(sim: GroqSim) -> None:
    sim.order(Trouble.named("invalid_api_key"), key="gsk_one")
    sim.order(Trouble.status(500, "gsk_two"), key="gsk_two")
    for options in ([], ["--json"]):
        assert not re.search("gsk_(one|two|three)|org_", check(sim, *options).output)


def flask(sim: GroqSim, **env: str) -> dict[str, Any]:
    env = {"PYTHON_DOTENV_DISABLED": "1", "PATH": os.defpath, "GROQ_BASE_URL": sim.url} | env
    return {"args": [Path(sys.executable).with_name("flask"), "check-keys"], "cwd": ROOT, "env": env}


def test_flask_finds_it_by_itself(sim: GroqSim) -> None:
    done = subprocess.run(**flask(sim, GROQ_API_KEYS="gsk_one"), capture_output=True, text=True, timeout=30)

    assert done.returncode == 0, done.stderr
    assert "1 of 1 keys works." in done.stdout
    assert "Asking" not in done.stdout + done.stderr
    assert "\033" not in done.stdout


def test_a_malformed_key_ends_it_with_one_line(sim: GroqSim) -> None:
    env = {"GROQ_API_KEYS": "gsk_one,gsk_zwö"}
    done = subprocess.run(**flask(sim, **env), capture_output=True, text=True, timeout=30)

    assert done.returncode == 1
    assert re.fullmatch(r"❌ GROQ_API_KEYS must be .* #2 is not: copy it again\n", done.stderr)
    assert "gsk_" not in done.stderr


def test_a_terminal_sees_how_far_it_is(sim: GroqSim) -> None:
    ours, theirs = pty.openpty()
    done = subprocess.Popen(**flask(sim, GROQ_API_KEYS=",".join(KEYS)), stdout=theirs, stderr=theirs)
    assert done.wait(timeout=30) == 0
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)

    assert re.search(r"Asking Groq .*100%", shown)
    assert "\033[32mworks" in shown
