"""Takes the README's pictures: the status page, light and dark, and the output of `flask check-keys`.

Needs Debian's chromium and fonts-inter. python tools/screenshots.py
"""

import html
import os
import pty
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from groqsim import GroqSim, Trouble
from playwright.sync_api import Browser, sync_playwright
from urllib3.util import Retry

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
BIN = Path(sys.executable).parent
KEYS = {"gsk_demo_1": "org_demo1", "gsk_demo_2": "org_demo2", "gsk_demo_3": "org_demo3", "gsk_demo_4": "org_demo2"}
COLORS = {"31": "bad", "32": "good"}  # of a terminal
TERMINAL = """<!doctype html><meta charset="utf-8"><style>
  body { margin: 0; background: #151614; color: #eceae3; font: 15px/1.55 ui-monospace, "DejaVu Sans Mono", monospace; }
  pre { margin: 0; padding: 28px 32px; width: max-content; font: inherit; }
  .good { color: #62c79f } .bad { color: #f08b80 }
</style><pre>"""


def environment(sim: GroqSim, *keys: str) -> dict[str, str]:
    own = {
        "GROQ_BASE_URL": sim.url,
        "GROQ_API_KEYS": ",".join(keys),
        "CLIENT_LIMITS": "",
        "CHECK_KEYS": "0",
        "PYTHON_DOTENV_DISABLED": "1",
    }
    return {"PATH": f"{BIN}:{os.defpath}"} | own


@contextmanager
def service(sim: GroqSim) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        ["gunicorn"], cwd=ROOT, env=environment(sim, *KEYS) | {"PORT": str(port)}, executable=BIN / "gunicorn"
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def page(browser: Browser) -> None:
    """Some traffic, a key that is no longer valid, and two of one organization whose tokens are used up."""
    with GroqSim(KEYS) as sim, service(sim) as url, requests.Session() as client:
        client.mount(url, requests.adapters.HTTPAdapter(max_retries=Retry(20, backoff_factor=0.05)))
        client.get(url)
        for number in range(14):
            if number == 5:
                sim.order(Trouble.named("invalid_api_key"), key="gsk_demo_3", times=None)
                for key in ("gsk_demo_2", "gsk_demo_4"):
                    sim.order(Trouble.named("rate_limit", retry_after=26, dimension="TPM"), key=key)
            client.post(f"{url}/enhance", json={"prompt": "write a poem about rain"})
        client.post(f"{url}/check")
        for scheme in ("light", "dark"):
            window = browser.new_page(
                viewport={"width": 1040, "height": 600}, device_scale_factor=2, color_scheme=scheme
            )
            window.goto(url, wait_until="networkidle")
            window.screenshot(path=DOCS / f"status-{scheme}.png", full_page=True)


def check_keys(browser: Browser) -> None:
    """Four keys of which two work, as a terminal shows them."""
    with GroqSim(KEYS) as sim:
        sim.order(Trouble.named("organization_restricted"), key="gsk_demo_4")
        ours, theirs = pty.openpty()
        keys = ("gsk_demo_1", "gsk_demo_2", "gsk_mistyped", "gsk_demo_4")
        subprocess.run(
            [BIN / "flask", "check-keys"],
            cwd=ROOT,
            env=environment(sim, *keys),
            stdout=theirs,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        shown = os.read(ours, 1 << 16).decode().replace("\r\n", "\n")
        os.close(ours)
    window = browser.new_page(viewport={"width": 100, "height": 100}, device_scale_factor=2)
    window.set_content(TERMINAL + as_html(f"$ flask check-keys\n{shown}"))
    window.locator("pre").screenshot(path=DOCS / "check-keys.png")


def as_html(shown: str) -> str:
    """The text with its colors, for a terminal's escape sequences."""

    def span(code: re.Match[str]) -> str:
        return f'<span class="{COLORS[code[1]]}">' if code[1] in COLORS else "</span>"

    return re.sub(r"\x1b\[(\d+)m", span, html.escape(shown).rstrip())


def main() -> None:
    DOCS.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        root = os.geteuid() == 0
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), chromium_sandbox=not root)
        page(browser)
        check_keys(browser)
        browser.close()


if __name__ == "__main__":
    main()
