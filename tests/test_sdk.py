"""The SDKs that people use, unchanged, against the real server: they notice nothing of the pool."""

import functools
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import groq
import openai
import pytest
from conftest import KEYS, ROOT, Server, starting
from groqsim import MODELS, End, GroqSim, Limits, Trouble, chunk, tone
from openai.types.responses import ResponseErrorEvent

TOKEN = "let-me-in"
CHAT: Any = {
    "model": MODELS[0],
    "messages": [{"role": "user", "content": "write a poem about rain"}],
    "max_tokens": 500,
}
SOUND = b"RIFF\r\n" + bytes(range(256)) * 8000  # two megabytes, so that it waits on disk
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SDKS = {"openai": openai, "groq": groq}
SETTINGS = {"ACCESS_TOKENS": TOKEN, "KEY_REQUESTS_PER_MINUTE": "0", "MAX_WAIT_SECONDS": "0"}
ONE_PLACE, ONE_SECOND = {"THREADS": "5"}, {"REQUEST_TIMEOUT_SECONDS": "1"}
pytestmark = pytest.mark.xdist_group("sdk")


@pytest.fixture(scope="module")
def upstream() -> Iterator[GroqSim]:
    with GroqSim(KEYS, Limits(rpm=None, tpm=None, rpd=None)) as upstream:
        yield upstream


@pytest.fixture
def sim(upstream: GroqSim) -> GroqSim:
    """The one Groq, as if new."""
    upstream.clear()
    upstream.forget()
    upstream.chunk_pause = 0.0
    return upstream


@pytest.fixture(scope="module")
def serve(upstream: GroqSim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """One server for all who want these settings; they leave every key ready and every place free."""
    with starting(upstream, tmp_path_factory.mktemp("servers")) as start:
        yield functools.cache(lambda **env: start(**SETTINGS | env))


@pytest.fixture(params=SDKS)
def sdk(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def connect() -> Iterator[Callable[..., Any]]:
    """Make an SDK's client as its users do, but that it tries only once."""
    clients: list[openai.OpenAI | groq.Groq] = []

    def connect(sdk: str, server: Server, **options: Any) -> Any:
        options = {"api_key": TOKEN, "max_retries": 0, **options}
        if sdk == "openai":
            clients.append(openai.OpenAI(base_url=f"{server.url}/v1", **options))
        else:
            clients.append(groq.Groq(base_url=server.url, **options))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def client(sdk: str, serve: Callable[..., Server], connect: Callable[..., Any]) -> Any:
    return connect(sdk, serve())


def text_of(stream: Any) -> str:
    return "".join(part.choices[0].delta.content or "" for part in stream if part.choices)


class Flow:
    """A stream that goes on for ever, as fast as it is read or with pauses; ``ended`` once its connection is freed."""

    def __init__(self, pause: float = 0.0) -> None:
        self.ended = threading.Event()
        self._pause = pause

    def __call__(self, pieces: list[bytes]) -> Any:
        try:
            yield from pieces[:2]
            while True:
                yield pieces[2]
                yield self._pause
        finally:
            self.ended.set()


# What they ask for, they get


def test_the_readmes_clients_work_as_they_are_written(serve: Callable[..., Server], sdk: str) -> None:
    lines = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert lines
    (line,) = [line for line in lines[1].splitlines() if f" {sdk}." in line]
    names: dict[str, Any] = dict(SDKS)

    exec(line.replace("https://<your app>", serve().url).replace("<token>", TOKEN), names)

    with names["client"] as client:
        assert [model.id for model in client.models.list().data] == list(MODELS)


def test_a_completion(client, sim):
    whole = client.chat.completions.create(**CHAT)

    assert whole.choices[0].message.content == sim.reply(CHAT)
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage.prompt_tokens > 0
    assert len(sim.calls) == 1


def test_a_stream(client, sim):
    with client.chat.completions.create(**CHAT, stream=True) as stream:
        parts = list(stream)

    assert len(parts) > 5
    assert text_of(parts) == sim.reply(CHAT)
    assert parts[-1].choices[0].finish_reason == "stop"


def test_each_event_arrives_when_it_is_sent(client, sim):
    seen = threading.Semaphore(0)

    def script(pieces: list[bytes]) -> Any:
        for number, piece in enumerate(pieces):
            yield piece
            if 0 < number < len(pieces) - 2 and not seen.acquire(timeout=5):  # neither the head nor [DONE]
                yield End.RESET

    sim.order(Trouble(script=script))

    parts = []
    with client.chat.completions.create(**CHAT, stream=True) as stream:
        for part in stream:
            parts.append(part)
            seen.release()

    assert text_of(parts) == sim.reply(CHAT)


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called(client, sim, stream):
    answer = client.chat.completions.create(**CHAT, tools=[WEATHER], tool_choice="auto", stream=stream)

    if stream:
        (function,) = [
            part.choices[0].delta.tool_calls[0].function for part in answer if part.choices[0].delta.tool_calls
        ]
    else:
        function = answer.choices[0].message.tool_calls[0].function
    assert function.name == "get_weather"
    assert json.loads(function.arguments).keys() == {"city"}
    assert sim.calls[0].json["tools"] == [WEATHER]


def test_json_mode(client, sim):
    answer = client.chat.completions.create(**CHAT, response_format={"type": "json_object"})

    assert json.loads(answer.choices[0].message.content) == {"answer": sim.reply(CHAT)}
    assert sim.calls[0].json["response_format"] == {"type": "json_object"}


def test_models(client):
    assert {model.id for model in client.models.list().data} == set(MODELS)
    assert client.models.retrieve(MODELS[0]).id == MODELS[0]


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # what openai says of translations
@pytest.mark.parametrize("kind", ["transcriptions", "translations"])
def test_sound_is_heard(client, sim, kind):
    heard = getattr(client.audio, kind).create(model="whisper-large-v3", file=("rain.wav", SOUND))

    (call,) = sim.calls
    assert call.path == f"/openai/v1/audio/{kind}"
    assert SOUND in call.body
    assert heard.text == f" {len(call.body)} bytes of sound."


def test_text_is_spoken(client):
    spoken = client.audio.speech.create(model="canopylabs/orpheus-v1-english", voice="troy", input="rain")

    assert spoken.read() == tone("rain")


def test_embeddings(client, sdk):
    answer = client.embeddings.create(model="nomic-embed-text-v1_5", input=["rain", "sun"])

    assert [each.index for each in answer.data] == [0, 1]
    assert all(answer.data[number].embedding for number in (0, 1))


def test_responses(serve, connect, sim):
    client = connect("openai", serve())  # Groq's own SDK has none

    assert client.responses.create(model=MODELS[0], input="rain").output_text
    with client.responses.create(model=MODELS[0], input="rain", stream=True) as stream:
        assert {event.type for event in stream} >= {"response.created", "response.completed"}


# What they need not know


@pytest.mark.parametrize("stream", [False, True])
def test_a_429_of_one_key_is_not_seen(start, connect, sim, stream):
    client = connect("openai", start(**SETTINGS))
    sim.order(Trouble.rate_limit(), key="gsk_one")

    answer = client.chat.completions.create(**CHAT, stream=stream)

    assert (text_of(answer) if stream else answer.choices[0].message.content) == sim.reply(CHAT)
    assert [call.status for call in sim.calls] == [429, 200]


# What they are told


def test_all_keys_exhausted_raises_with_the_wait_and_who_waits_is_served(sdk, start, connect, sim):
    client = connect(sdk, start(**SETTINGS))
    for key in KEYS:
        sim.order(Trouble.rate_limit(2.0), key=key)

    with pytest.raises(SDKS[sdk].InternalServerError) as raised:
        client.chat.completions.create(**CHAT)
    answer = client.with_options(max_retries=1).chat.completions.create(**CHAT)

    assert raised.value.status_code == 503
    assert 1 <= int(raised.value.response.headers["Retry-After"]) <= 2
    assert answer.choices[0].message.content == sim.reply(CHAT)
    assert [call.status for call in sim.calls] == [429] * 3 + [200]
    assert sim.calls[3].at - sim.calls[0].at >= 2.0


def test_a_wrong_token_fails_to_authenticate(sdk, serve, connect, sim):
    client = connect(sdk, serve(), api_key="let-me-out")

    with pytest.raises(SDKS[sdk].AuthenticationError, match="Wrong or missing access token"):
        client.models.list()

    assert sim.calls == []


@pytest.mark.parametrize(
    ("sdk", "path"), [("openai", ""), ("openai", "/openai"), ("groq", "/openai/v1"), ("groq", "/v1")]
)
def test_a_wrong_base_url_is_told_the_right_one(sdk, serve, connect, path):
    server = serve()
    client = connect(sdk, server).with_options(base_url=f"{server.url}{path}")

    with pytest.raises(SDKS[sdk].NotFoundError, match=f"Set the base URL to {server.url}/v1, or .* to {server.url}"):
        client.chat.completions.create(**CHAT)


def test_a_bad_request_is_told_as_groq_tells_it(sdk, client):
    with pytest.raises(SDKS[sdk].BadRequestError, match="max_completion_tokens"):
        client.chat.completions.create(**CHAT | {"max_tokens": -1})


def test_a_model_that_is_gone_is_not_found(sdk, client):
    with pytest.raises(SDKS[sdk].NotFoundError, match="does not exist"):
        client.chat.completions.create(**CHAT | {"model": "llama-3.1-8b-instant"})


def test_groqs_silence_is_no_connection_of_theirs_that_failed(serve, connect, sim):
    client = connect("openai", serve(**ONE_PLACE, **ONE_SECOND))
    sim.order(Trouble.stall(10))

    with pytest.raises(openai.InternalServerError) as raised:
        client.chat.completions.create(**CHAT)

    assert raised.value.status_code == 504


# What breaks, and who leaves


@pytest.mark.parametrize("end", [End.CLOSE, End.RESET])
def test_a_stream_that_is_cut_raises_after_what_came(sdk, client, sim, end):
    sim.order(Trouble(script=lambda pieces: [*pieces[:5], end]))
    parts: list[str] = []

    with pytest.raises(SDKS[sdk].APIError, match="broke off"):
        parts.extend(text_of([part]) for part in client.chat.completions.create(**CHAT, stream=True))

    assert sim.reply(CHAT).startswith("".join(parts))
    assert any(parts) or end is End.RESET  # which may overtake what was sent before it


def test_a_stream_that_ends_before_its_end_raises_too(sdk, client, sim):
    sim.order(Trouble(script=lambda pieces: [*pieces[:5], pieces[-1]]))  # which says that there is no more

    with pytest.raises(SDKS[sdk].APIError, match="broke off"):
        text_of(client.chat.completions.create(**CHAT, stream=True))


@pytest.mark.parametrize("steps", [[End.CLOSE], [chunk(b"")]], ids=["cut", "ended"])
def test_a_response_that_breaks_off_tells_an_error_in_its_next_event(serve, connect, sim, steps):
    client = connect("openai", serve())
    sim.order(Trouble(script=lambda pieces: [*pieces[:4], *steps]))

    with client.responses.create(model=MODELS[0], input="rain", stream=True) as stream:
        *events, last = stream

    assert isinstance(last, ResponseErrorEvent)
    assert (last.type, last.code, last.param) == ("error", "upstream_error", None)
    assert "broke off" in last.message
    assert last.sequence_number == events[-1].sequence_number + 1


def test_a_stream_may_take_longer_than_a_request_but_not_fall_silent(serve, connect, sim):
    client = connect("openai", serve(**ONE_PLACE, **ONE_SECOND))
    sim.order(Trouble(script=lambda pieces: [*(step for piece in pieces[:6] for step in (piece, 0.3)), *pieces[6:]]))
    sim.order(Trouble(script=lambda pieces: [*pieces[:8], 10.0]))

    assert text_of(client.chat.completions.create(**CHAT, stream=True)) == sim.reply(CHAT)
    began = time.monotonic()
    with pytest.raises(openai.APIError, match="broke off"):
        text_of(client.chat.completions.create(**CHAT, stream=True))

    assert time.monotonic() - began < 5


@pytest.mark.parametrize("pause", [0.01, 30.0], ids=["flowing", "silent"])
def test_a_client_that_leaves_frees_the_connection_and_its_place(serve, connect, sim, pause):
    client = connect("openai", serve(**ONE_PLACE))
    flow = Flow(pause)
    sim.order(Trouble(script=flow))

    with client.chat.completions.create(**CHAT, stream=True) as stream:
        next(iter(stream))

    assert answers_within(5, client)
    if pause < 1:  # a silent simulator notices nothing
        assert flow.ended.wait(5)


def test_a_client_that_leaves_before_the_answer_frees_its_place(serve, connect, sim):
    client = connect("openai", serve(**ONE_PLACE))
    sim.order(Trouble.stall(30))

    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=2).chat.completions.create(**CHAT)

    assert answers_within(5, client)


def answers_within(seconds: float, client: Any) -> bool:
    """Whether it is answered before so long, while other places may still be taken."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(openai.InternalServerError, groq.InternalServerError):
            return bool(client.with_options(timeout=seconds).chat.completions.create(**CHAT).choices)
        time.sleep(0.05)
    return False


def test_sixty_streams_flow_at_a_time_beside_a_health_check(serve, connect, sim):
    server = serve()
    before = len(server.output)
    client = connect("openai", server, timeout=60)
    all_flow = threading.Barrier(61)
    sim.chunk_pause = 0.02

    def read(_: int) -> str:
        with client.chat.completions.create(**CHAT, stream=True) as stream:
            first = next(iter(stream))
            all_flow.wait(30)
            return text_of([first]) + text_of(stream)

    with ThreadPoolExecutor(60) as pool:
        texts = [pool.submit(read, number) for number in range(60)]
        all_flow.wait(30)
        health = server.health(timeout=5)

        assert [text.result() for text in texts] == [sim.reply(CHAT)] * 60

    assert health.json()["activeKeys"] == 3
    assert re.findall(r"Traceback|❌", server.output[before:]) == []
