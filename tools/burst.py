"""A burst: many presses at the same instant. Whether all are served, how soon, and at what cost of memory."""

import threading
import time
from collections.abc import Sequence

from groqsim import MODELS
from latency import table, verdict
from rig import enhance, groq, health, pss, service
from workload import PROMPTS, reply

PRESSES = 200
KEYS = {f"gsk_burst_{number}": f"org_{number}" for number in range(10)}
LATENCY = 0.3  # seconds of each of Groq's answers
LOOKS = 0.1  # seconds between two looks at /health
LAST = 2.0  # seconds within which the last one must be served
HEALTHY = 1.0  # seconds within which /health must answer meanwhile


def burst() -> tuple[str, bool]:
    """Measure; return a table, and whether all is as it must be."""
    prompts = [f"{PROMPTS[number % len(PROMPTS)]} ({number})" for number in range(PRESSES)]
    settings = {"keys": KEYS, "latency": LATENCY, "reply": reply, "reasoning_tokens": 0}
    with groq(settings, {}) as sim, service(sim.url, [*KEYS], MODELS) as ours:
        before = pss(ours.worker)
        answers, looks = together(prompts, ours.port)
        after = pss(ours.worker)
    served = sum(status == 200 for status, _ in answers)
    last, slowest = max(seconds for _, seconds in answers), max(looks)
    musts = [
        (f"{PRESSES} served", served == PRESSES),
        (f"the last within {LAST:.0f} s", last <= LAST),
        (f"/health under {HEALTHY:.0f} s", slowest < HEALTHY),
    ]
    head = ("presses at once", "served", "the last after, s", "/health meanwhile, ms", "PSS in MB before, then", "must")
    cells = [f"{PRESSES}", f"{served}", f"{last:.2f}", f"{slowest * 1000:.0f}", f"{before:.0f}, {after:.0f}"]
    row = [*cells, "; ".join(verdict(*must) for must in musts)]
    about = f"{len(KEYS)} keys of as many organizations, answers after {LATENCY} s:"
    return f"{about}\n\n{table(head, [row])}", all(holds for _, holds in musts)


def together(prompts: Sequence[str], port: int) -> tuple[list[tuple[int, float]], list[float]]:
    """Have all press at the same instant; return their statuses and seconds, and those of ``/health`` meanwhile."""
    answers: list[tuple[int, float]] = []
    looks: list[float] = []
    gate = threading.Barrier(len(prompts) + 1)

    def client(prompt: str) -> None:
        gate.wait()
        began = time.monotonic()
        status, _, _ = enhance(port, prompt)
        answers.append((status, time.monotonic() - began))

    threads = [threading.Thread(target=client, args=(prompt,), daemon=True) for prompt in prompts]
    for thread in threads:
        thread.start()
    gate.wait()
    while len(answers) < len(prompts) and any(thread.is_alive() for thread in threads):
        looks.append(health(port))
        time.sleep(LOOKS)
    return answers, looks
