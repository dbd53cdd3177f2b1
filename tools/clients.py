"""Who calls the service in a measurement: those who press once, and clients of ``/v1`` that never pause."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from rig import complete, enhance

RETRIED = 3  # of so many clients that are told to come back, one does,
RETURNS_WITHIN = 60  # seconds; who is told to wait longer does not
ASKED = "and " * 55  # of a greedy client: with its number 60 tokens
ANSWERED = 50  # tokens that its answers may have
IMPATIENCE = 1.0  # seconds that it waits at the most


@dataclass
class Visit:
    """One client's request: when it came, what it got after how many seconds; ``again``: what a retry got."""

    at: float
    prompt: str
    status: int = 0
    seconds: float = 0.0
    retry_after: int = 0
    again: int = 0
    again_after: float = 0.0  # seconds after it came, too
    error: str = ""


def press(visit: Visit, port: int, due: float, turned_away: Iterator[int]) -> None:
    """Ask for an enhancement; one in ``RETRIED`` of those that are told to come back does so."""
    visit.status, visit.retry_after, visit.error = enhance(port, visit.prompt)
    visit.seconds = time.monotonic() - due
    if visit.status == 503 and 0 < visit.retry_after <= RETURNS_WITHIN and next(turned_away) % RETRIED == 0:
        time.sleep(visit.retry_after)
        visit.again = enhance(port, visit.prompt)[0]
        visit.again_after = time.monotonic() - due


def is_greedy(prompt: str) -> bool:
    return prompt.startswith(ASKED)


def greedy(port: int, model: str, name: str, until: float, statuses: list[int]) -> None:
    """Ask for one small completion after the other, each until it is answered, and note every status."""
    number = 0
    while time.monotonic() < until:
        status, retry_after, _ = complete(port, model, f"{ASKED}{name} {number:06}", ANSWERED)
        statuses.append(status)
        if status == 503:
            time.sleep(min(retry_after or IMPATIENCE, IMPATIENCE))
        else:
            number += 1
