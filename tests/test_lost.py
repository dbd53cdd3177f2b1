"""Nothing of the user's is lost: an answer that lacks parts of the prompt is asked for once more, then refused."""

import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
from completions import draft_of
from conftest import KEYS, Clock
from flask.testing import FlaskClient
from groqsim import GroqSim, Limits, Trouble
from werkzeug.test import TestResponse

PROMPT = "see https://example.com/secret-page and fix `rm -rf /tmp/secret` for {{secret_name}}, 4711 files"
GOOD = f"You are an expert. {PROMPT} Be brief."
LOSSY = Trouble.content("You are an expert. Fix it.")
LOST = "Could not improve this prompt without losing parts of it"
ONE_MODEL: dict[str, Any] = {"models": ("openai/gpt-oss-20b",)}

Serve = Callable[..., FlaskClient]


def enhance(client: FlaskClient, prompt: str = PROMPT) -> TestResponse:
    return client.post("/enhance", json={"prompt": prompt})


def told(call: Any) -> str:
    """What a model was told beside the draft."""
    text: str = call.json["messages"][-1]["content"]
    return text.rpartition("</typed>\n")[2]


def test_an_answer_that_lacks_parts_is_asked_for_once_more_and_told_which(serve: Serve, sim: GroqSim) -> None:
    sim.order(LOSSY)
    sim.reply = lambda request: GOOD
    client = serve(**ONE_MODEL)
    response = enhance(client)

    assert (response.status_code, response.get_json()) == (200, {"enhancedPrompt": GOOD})
    first, second = sim.calls
    assert [draft_of(call.json["messages"][-1]) for call in (first, second)] == [PROMPT, PROMPT]
    assert "had lost" not in told(first)
    assert told(second).startswith(
        "<typed-parts>\n`rm -rf /tmp/secret`\nhttps://example.com/secret-page\n{{secret_name}}\n4711\n</typed-parts>\n"
    )
    assert client.get("/health").get_json()["failedKeys"] == []


def test_one_that_lacks_them_again_is_refused_and_the_extension_keeps_what_was_typed(
    serve: Serve, sim: GroqSim, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    sim.order(LOSSY, times=None)
    client = serve()
    response = enhance(client)

    assert response.status_code == 502
    assert response.get_json()["error"].startswith(LOST)
    assert len(sim.calls) == 2
    assert client.get("/health").get_json()["failedKeys"] == []
    lines = "\n".join(record.getMessage() for record in caplog.records)
    assert re.search(r"API Key #1: The answer lacks parts .* 1 × inline code, 1 × link, .*\. Asking once more", lines)
    assert re.search(r"⛔ 502 POST /enhance after .*: The answer lacks parts of the prompt: ", lines)
    for secret in ("secret", "4711", "expert"):
        assert secret not in lines + response.get_data(as_text=True)


def test_it_is_no_outage_and_no_success(serve: Serve, sim: GroqSim) -> None:
    sim.order(LOSSY, times=None)
    client = serve()
    for _ in range(4):
        assert enhance(client).status_code == 502
    sim.clear()
    assert enhance(client).status_code == 200

    status = client.get("/status").get_json()
    assert [status["hours"][-1][name] for name in ("enhancements", "refusals", "failures")] == [1, 4, 0]
    assert status["status"] == "working"


@pytest.mark.parametrize("prompt", ["write a poem about rain", "1 poem: rain, please (short!)", "Gedicht über Regen"])
def test_a_prompt_without_such_parts_costs_one_call_whatever_is_answered(
    serve: Serve, sim: GroqSim, prompt: str
) -> None:
    sim.order(LOSSY, times=None)

    assert enhance(serve(), prompt).status_code == 200
    assert len(sim.calls) == 1


def test_an_answer_in_another_script_is_asked_for_once_more(serve: Serve, sim: GroqSim) -> None:
    sim.order(LOSSY)

    assert "напиши стихи" in enhance(serve(), "напиши стихи").get_json()["enhancedPrompt"]
    assert "language: stay in it" in told(sim.calls[1])


@pytest.mark.parametrize("attempts", [1, 2])
def test_with_few_attempts_it_is_refused_just_the_same(serve: Serve, sim: GroqSim, attempts: int) -> None:
    sim.order(LOSSY, times=None)
    response = enhance(serve(max_attempts=attempts))

    assert (response.status_code, len(sim.calls)) == (502, attempts)
    assert response.get_json()["error"].startswith(LOST)


def test_what_the_second_call_meets_is_met_as_ever(serve: Serve, sim: GroqSim) -> None:
    for fault in (LOSSY, Trouble.status(500)):
        sim.order(fault)

    assert enhance(serve(**ONE_MODEL)).status_code == 200
    assert [call.key for call in sim.calls] == list(KEYS)
    assert "had lost" in told(sim.calls[2])


def test_a_second_call_that_is_cut_off_gets_more_room_and_still_insists(serve: Serve, sim: GroqSim) -> None:
    for fault in (LOSSY, Trouble.length("You are")):
        sim.order(fault)

    assert enhance(serve()).status_code == 200
    assert told(sim.calls[1]) == told(sim.calls[2]) != told(sim.calls[0])
    assert sim.calls[2].reserve > sim.calls[1].reserve


def test_one_with_more_room_that_lost_parts_is_asked_for_once_more_with_that_room(serve: Serve, sim: GroqSim) -> None:
    for fault in (Trouble.length("You are"), LOSSY):
        sim.order(fault)

    assert enhance(serve()).status_code == 200
    assert [call.reserve for call in sim.calls][1:] == [3 * sim.calls[0].reserve] * 2


def test_where_there_is_no_room_for_a_second_call_nobody_is_told_to_come_back_for_the_same(
    serve: Serve, clock: Clock
) -> None:
    with GroqSim({"gsk_one": "org"}, Limits(tpm=1000), clock=clock) as sim:
        sim.order(LOSSY)
        response = enhance(serve(base_url=sim.url, keys=("gsk_one",), **ONE_MODEL))

        assert (response.status_code, len(sim.calls)) == (502, 1)
        assert response.get_json()["error"].startswith(LOST)


def test_no_more_is_told_than_there_is_room_for(serve: Serve, sim: GroqSim, clock: Clock) -> None:
    sim.clock = clock
    prompt = " ".join(f"`{chr(0x4E00 + number) * 90}`" for number in range(36))
    client = serve(**ONE_MODEL)
    for _ in sim.keys:
        assert enhance(client, "write a poem").status_code == 200
    clock.advance(60)
    sim.order(LOSSY)

    assert enhance(client, prompt).status_code == 200
    first, second = sim.calls[-2:]
    assert first.reserve == second.reserve > 3000
    assert 1 <= told(second).count("`\n") < 30


def test_both_answers_are_paid_for(serve: Serve, sim: GroqSim) -> None:
    sim.order(LOSSY)
    client = serve(**ONE_MODEL)
    enhance(client)

    metrics = client.get("/metrics").get_data(as_text=True)
    paid = sum(call.tokens for call in sim.calls)
    assert f'promptlord_tokens_total{{model="openai/gpt-oss-20b"}} {paid}.0' in metrics
    assert 'promptlord_upstream_attempts_total{fault="lost",key="#1"} 1.0' in metrics
    assert 'promptlord_upstream_attempts_total{fault="none",key="#2"} 1.0' in metrics


def test_hyphens_that_do_not_break_are_made_usual_ones(serve: Serve, sim: GroqSim) -> None:
    sim.order(Trouble.content("Explain `git rebase \u2011i` at https://a\u2011b.example/ today"))

    response = enhance(serve(), "what is `git rebase -i`, see https://a-b.example")

    assert response.get_json() == {"enhancedPrompt": "Explain `git rebase -i` at https://a-b.example/ today"}
    assert len(sim.calls) == 1
