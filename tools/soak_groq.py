"""A simulated Groq whose every fifth answer goes wrong in some way, and which keeps a record of who met what."""

import random
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Flag, auto
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from completions import sse
from groqsim import MODELS, GroqSim, Limits, Received, Trouble, begun, chunk, described
from rig import beside

SHARE = 0.2  # of all calls meet some trouble
COOLS = 2.0  # seconds for which a refusal says to wait
WHOLE_TIME = 8.0  # seconds that a request may take, by the service's settings,
TOO_LONG = 10.0  # and that a stall takes
LATENCY = 0.02  # seconds of each answer
PAUSE = 0.001  # seconds between a stream's events
WORD = re.compile(rb"quokka\d{6}[a-z]")  # in every request, another in each
ORGANIZATION = "org_01soak"
KEYS = {f"gsk_soak{number:02}": f"{ORGANIZATION}{number:02}" for number in range(40)}
PLENTY = Limits(rpm=600_000, tpm=10**9, rpd=10**9, tpd=10**12 - 1)  # shown, but reached by nobody


class Means(Flag):
    """What may come of a call's trouble for a request that meets it once."""

    NOTHING = 0  # nobody notices
    RETRY = auto()  # another key serves it
    END = auto()  # it ends with an error
    CUT = auto()  # on /v1, where bytes pass as they come, the response breaks off, and shows it
    PASS = auto()  # on /v1 the client gets what Groq sent


class Met(NamedTuple):
    """A call, and the name of what it brought, "" where nothing went wrong. ``at``: see ``time.monotonic``."""

    at: float
    key: str
    model: str
    word: str
    name: str


class Ill(NamedTuple):
    trouble: Trouble
    weight: float
    means: Means


def _telling(event: bytes) -> Trouble:
    """Half of a stream, then an event that names an organization, then the end; what is no stream is sent whole."""
    return Trouble(script=lambda pieces: [*begun(pieces), chunk(event), chunk(b"")] if len(pieces) > 1 else [*pieces])


SENTENCE = f"Rate limit reached for model `x` in organization `{ORGANIZATION}99` on tokens per minute"
OUTAGE = sse({"error": {"message": SENTENCE, "type": "tokens"}})
RETRY, END, CUT, PASS = Means.RETRY, Means.END, Means.CUT, Means.PASS
ILLS = {
    **{f"429 {name}": Ill(Trouble.rate_limit(COOLS, name), 1, RETRY) for name in ("RPM", "TPM", "RPD", "TPD")},
    **{
        name: Ill(Trouble.named(name), 0.5, RETRY)
        for name in (
            "invalid_api_key", "organization_restricted", "blocked_api_access", "model_permission_blocked_org",
            "model_not_found", "capacity_exceeded",
        )
    },
    **{
        name: Ill(Trouble.named(name), 1, RETRY)
        for name in ("internal_error", "over_capacity", "bad_gateway_html", "empty", "reset", "close")
    },
    **{
        name: Ill(Trouble.named(name), 0.2, END)
        for name in ("bad_request", "semantic_error", "request_too_large", "access_denied", "cloudflare_1010")
    },
    "nothing with 200": Ill(Trouble.status(200, b""), 1, RETRY),
    "length abc": Ill(Trouble.length_says("abc"), 1, RETRY | PASS),
    "two lengths": Ill(Trouble.length_says("5,70000"), 1, RETRY | PASS),
    "too small a length": Ill(Trouble.length_says("50"), 0.5, RETRY | PASS),
    "no JSON": Ill(Trouble.garbage(), 1, RETRY | PASS),
    "HTML with 200": Ill(Trouble.named("html"), 1, RETRY | PASS),
    "no content": Ill(Trouble.content(""), 2, RETRY | PASS),
    "cut off": Ill(Trouble.length("It was a dark and"), 2, RETRY | PASS),
    "silence": Ill(Trouble.stall(TOO_LONG), 0.1, END),
    "silence in the body": Ill(Trouble.stall_body(TOO_LONG), 0.1, END | CUT),
    "truncated": Ill(Trouble.truncate(), 1, RETRY | CUT),
    "reset in the body": Ill(Trouble.reset_body(), 1, RETRY | CUT),
    "bad chunk": Ill(Trouble.bad_chunk(), 1, RETRY | CUT),
    "unfinished stream": Ill(Trouble.unfinished(), 2, CUT),
    "stream without its end": Ill(Trouble.no_done(), 1, CUT),
    "error event": Ill(_telling(b"event: error\n" + OUTAGE), 1, CUT),
    "error event without blank line": Ill(_telling(b"event: error\n" + OUTAGE[:-2]), 0.5, CUT),
    "error event without error": Ill(_telling(b"event: error\n" + sse({"message": SENTENCE})), 0.5, CUT),
    "break after the end": Ill(Trouble.broken_end(), 2, Means.NOTHING),
    "kept-alive closed": Ill(Trouble.hangup(), 2, Means.NOTHING),
    "compressed": Ill(Trouble.zipped(), 2, Means.NOTHING),
}  # fmt: skip
LISTED = {"object": "list", "data": [described(model) for model in MODELS]}


def text_for(word: str) -> str:
    """What the simulated Groq says to who says ``word``."""
    return " ".join(f"{word}-{number}" for number in range(20))


def _reply(request: dict[str, Any]) -> str:
    found = WORD.search(str(request["messages"][-1]["content"]).encode())
    return text_for(found[0].decode()) if found else "Who are you?"


class Troubled(GroqSim):
    """A simulator that throws dice for each call, as often as ``share`` says; ``met``: what they brought."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.dice, self.share = random.Random(), 0.0
        self.met: list[Met] = []
        self._throwing = threading.Lock()

    def receive(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[Received, Trouble]:
        call, fault = super().receive(method, path, headers, body)
        self.forget()  # bodies are large
        with self._throwing:
            if self.dice.random() < self.share:
                (name,) = self.dice.choices([*ILLS], [ill.weight for ill in ILLS.values()])
                fault = ILLS[name].trouble
            else:
                name = ""
            if found := WORD.search(path.encode() + body):
                self.met.append(Met(call.at, call.key, call.model, found[0].decode(), name))
        return call, fault


def _simulate(pipe: Connection, seed: int) -> None:
    sim = Troubled(KEYS, PLENTY, latency=LATENCY, chunk_pause=PAUSE, reply=_reply)
    sim.dice.seed(seed)
    with sim:
        pipe.send(sim.url)
        while True:
            match pipe.recv():
                case float(share):
                    sim.share = share
                    pipe.send(share)
                case "met":
                    pipe.send(sim.met)


class TroubledGroq:
    """A simulator in another process."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.url: str = pipe.recv()

    def trouble(self, share: float) -> None:
        """Have such a share of the calls from now on go wrong."""
        self._ask(share)

    def met(self) -> list[Met]:
        met: list[Met] = self._ask("met")
        return met

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def _ask(self, question: str | float) -> Any:
        self._pipe.send(question)
        return self._pipe.recv()


@contextmanager
def troubled(seed: int) -> Iterator[TroubledGroq]:
    """A simulator in another process, without any trouble at first."""
    with beside(_simulate, seed) as pipe:
        yield TroubledGroq(pipe)
