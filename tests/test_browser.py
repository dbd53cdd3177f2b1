"""Real Chromium: the status page as people meet it, and an extension that calls /enhance as the real one does."""

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from conftest import KEYS, ROOT, Server, starting
from groqsim import GroqSim, Trouble
from playwright.sync_api import Browser, BrowserType, Locator, Page, ViewportSize, Worker, expect, sync_playwright

AXE = (files("axe_playwright_python") / "axe.min.js").read_text()
EXTENSION = ROOT / "tests" / "extension"
FOREIGN = "evil.example"
FLAGS = [
    "--disable-background-networking",  # or it looks for hosts that tests have no business with
    "--disable-quic",
    f"--host-resolver-rules=MAP {FOREIGN} 127.0.0.1",
]
# What the console says when a server ends, whatever a page does.
LOST = re.compile("net::ERR_(CONNECTION_|EMPTY_RESPONSE|CONTENT_LENGTH_MISMATCH|INCOMPLETE_CHUNKED_ENCODING)")
WIDE, NARROW = ViewportSize(width=1280, height=800), ViewportSize(width=320, height=640)
SCHEMES: list[Literal["light", "dark"]] = ["light", "dark"]
Start = Callable[..., Server]
pytestmark = pytest.mark.xdist_group("browser")  # those of a group share a browser and a server
readable, called = pytest.mark.xdist_group("readable"), pytest.mark.xdist_group("called")
expect.set_options(timeout=15_000)  # ms


@pytest.fixture(scope="module")
def chromium() -> Iterator[BrowserType]:
    """Debian's Chromium; its absence is a reason to skip, but for CI a failure."""
    path = shutil.which("chromium")
    if not path:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("there is no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        yield playwright.chromium


def options(**more: Any) -> dict[str, Any]:
    args = [*FLAGS, *more.pop("args", [])]
    return {"executable_path": shutil.which("chromium"), "args": args, "chromium_sandbox": os.geteuid() != 0} | more


@pytest.fixture(scope="module")
def browser(chromium: BrowserType) -> Iterator[Browser]:
    browser = chromium.launch(**options())
    yield browser
    browser.close()


@pytest.fixture
def start(start: Start) -> Start:
    """The service as the others start it, but that a request never waits."""
    return partial(start, MAX_WAIT_SECONDS="0")


@pytest.fixture(scope="module")
def upstream() -> Iterator[GroqSim]:
    """The Groq of ``server``."""
    with GroqSim(KEYS) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def server(upstream: GroqSim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for those who change nothing in it; it logs who calls."""
    with starting(upstream, tmp_path_factory.mktemp("server")) as start:
        yield start(GUNICORN_CMD_ARGS="--access-logfile -")


class Visit:
    """A page in a window of its own, with all that its console said and all hosts that it asked."""

    def __init__(self, browser: Browser, url: str, **window: Any) -> None:
        self.context = browser.new_context(**window)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("response", lambda got: self.complaints.extend([got.url] if got.status >= 400 else []))
        self.page.goto(url)


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open the status page. In the end no console has complained and no other host was asked."""
    visits: list[tuple[str, Visit]] = []

    def visit(server: Server, **window: Any) -> Page:
        visits.append((server.url, Visit(browser, server.url, **window)))
        return visits[-1][1].page

    yield visit
    for url, made in visits:
        made.context.close()
        assert [complaint for complaint in made.complaints if not LOST.search(complaint)] == []
        assert {urlsplit(asked).netloc for asked in made.asked} == {urlsplit(url).netloc}


def look(page: Page) -> None:
    """Let it look now, and not in two seconds."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def row(page: Page, label: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=label))


# The status page


def test_a_key_that_cools_counts_down_and_comes_back(sim: GroqSim, start: Start, visit: Callable[..., Page]) -> None:
    server = start(KEY_COOLDOWN_SECONDS="5")
    page = visit(server)
    expect(page.get_by_role("heading", level=1)).to_have_text("Not tried yet")

    sim.order(Trouble.named("model_permission_blocked_org"), key="gsk_one", times=2)
    server.enhance()
    look(page)
    expect(row(page, "#1")).to_contain_text("partly ready")
    expect(row(page, "#1")).to_contain_text(re.compile("Model not allowed: .*, tried again in [1-5] s"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Working")
    before = row(page, "#1").inner_text()
    expect(row(page, "#1")).not_to_have_text(before)
    expect(row(page, "#1").get_by_role("listitem")).to_have_count(0)


def test_numbers_and_meters_follow(sim: GroqSim, start: Start, visit: Callable[..., Page]) -> None:
    server = start()
    page = visit(server)
    meters = page.get_by_role("meter", name="requests per day")
    expect(page.get_by_text("known after the first answer").first).to_be_visible()

    for _ in range(3):
        server.enhance()

    expect(row(page, "#3").get_by_role("cell").nth(1)).to_have_text("1")
    expect(meters.first).to_have_attribute("max", "3000")
    assert meters.first.evaluate("meter => meter.value") == 2997
    expect(page.get_by_text("2,997 of 3,000 left").first).to_be_visible()
    expect(page.get_by_text("3 enhanced", exact=True)).to_be_visible()
    expect(page.locator("rect[data-kind=enhancements]")).to_have_count(1)


def test_what_is_in_use_stays_while_the_page_changes(start: Start, visit: Callable[..., Page]) -> None:
    server = start()
    page = visit(server)
    page.get_by_role("button").focus()
    page.evaluate("getSelection().selectAllChildren(document.querySelector('#keys'))")

    server.enhance()
    expect(page.get_by_role("heading", level=1)).to_have_text("Working")
    assert page.evaluate("document.activeElement.textContent") == "Ask Groq about each key"
    assert page.evaluate("getSelection().toString()") == "Keys"


@pytest.mark.parametrize("scripts", [True, False])
def test_the_button_says_which_key_groq_refuses(
    scripts: bool, sim: GroqSim, start: Start, visit: Callable[..., Page]
) -> None:
    sim.order(Trouble.named("invalid_api_key"), key="gsk_two", times=None)
    page = visit(start(), java_script_enabled=scripts)
    page.get_by_role("button", name="Ask Groq about each key").press("Enter")

    expect(row(page, "#2")).to_contain_text("refused")
    expect(row(page, "#2")).to_contain_text("When asked: revoked (401): create a new one")
    expect(row(page, "#2")).not_to_contain_text(re.compile(r"\d+ (s|min)"))
    expect(row(page, "#1")).to_contain_text("ready")
    expect(page.get_by_role("heading", level=1)).to_have_text(
        "Not tried yet, but key #2 was refused by Groq: replace it"
    )


def test_an_instant_is_told_by_the_readers_clock(sim: GroqSim, start: Start, visit: Callable[..., Page]) -> None:
    server = start(GROQ_API_KEYS="gsk_one")
    sim.order(Trouble.named("rate_limit", retry_after=10_380, dimension="TPD"), times=None)
    server.enhance()
    local = visit(server, timezone_id="Asia/Kolkata", locale="en-GB").locator("time").inner_text()
    utc = visit(server, java_script_enabled=False).locator("time").inner_text()

    assert re.fullmatch(r"\d\d:\d\d UTC", utc)
    apart = (minutes(local) - minutes(utc.removesuffix(" UTC"))) % (24 * 60)
    assert apart in (330, 331, 329)


def minutes(clock: str) -> int:
    hour, minute = clock.split(":")
    return int(hour) * 60 + int(minute)


def test_a_closed_page_opens_with_a_token_and_goes_on(start: Start, visit: Callable[..., Page], sim: GroqSim) -> None:
    server = start(ACCESS_TOKENS="letmein")
    page = visit(server, http_credentials={"username": "me", "password": "letmein"})

    server.enhance()
    expect(page.get_by_role("heading", level=1)).to_have_text("Working")
    page.get_by_role("button").click()
    expect(row(page, "#1")).to_contain_text("When asked: works")


def test_a_page_opened_with_its_token_in_the_address_goes_on(start: Start, browser: Browser, sim: GroqSim) -> None:
    server = start(ACCESS_TOKENS="letmein")
    page = browser.new_page()
    page.goto(server.url.replace("://", "://me:letmein@"))

    server.enhance()

    expect(page.get_by_role("heading", level=1)).to_have_text("Working")
    page.close()


def test_it_says_since_when_the_server_is_unreachable_and_recovers(start: Start, visit: Callable[..., Page]) -> None:
    server = start()
    page = visit(server)
    figures = page.get_by_text("Requests to Groq")
    expect(figures).to_be_visible()

    server.end()
    expect(page.get_by_role("alert")).to_contain_text(re.compile(r"Unreachable since \d\d:\d\d:\d\d"))
    expect(figures).to_be_hidden()
    assert page.title() == "Unreachable · PromptLord"
    since = page.get_by_role("alert").inner_text()
    page.wait_for_timeout(2500)
    assert page.get_by_role("alert").inner_text() == since

    start(PORT=str(server.port))
    expect(figures).to_be_visible()
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page).to_have_title("Not tried yet · PromptLord")


def test_what_is_no_answer_of_ours_counts_as_unreachable(server: Server, visit: Callable[..., Page]) -> None:
    page = visit(server)
    page.route("**/", lambda route: route.fulfill(status=200, content_type="text/html", body="<h1>asleep</h1>"))

    expect(page.get_by_role("alert")).to_be_visible()


def test_unconfigured_it_tells_the_steps_and_notices_the_keys(start: Start, visit: Callable[..., Page]) -> None:
    server = start(GROQ_API_KEYS="")
    page = visit(server)
    expect(page.get_by_role("heading", level=1)).to_have_text("No key is configured")
    expect(page.get_by_role("listitem")).to_have_count(3)
    expect(page.get_by_role("link", name="console.groq.com/keys")).to_be_visible()

    server.end()
    start(PORT=str(server.port))
    expect(page.get_by_role("heading", level=1)).to_have_text("Not tried yet")
    expect(page.get_by_role("table")).to_be_visible()


def test_a_hidden_tab_does_not_ask(server: Server, visit: Callable[..., Page]) -> None:
    page = visit(server)
    hide = """hidden => {
        Object.defineProperty(document, "hidden", {configurable: true, value: hidden});
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.wait_for_timeout(500)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate(hide, True)
    page.wait_for_timeout(2500)
    assert asked == []

    with page.expect_request("**/", timeout=1000):
        page.evaluate(hide, False)


def test_countdowns_are_not_read_out(sim: GroqSim, start: Start, visit: Callable[..., Page]) -> None:
    server = start()
    sim.order(Trouble.named("rate_limit", retry_after=50, dimension="TPM"), times=None)
    for _ in range(2):
        server.enhance()
    page = visit(server)
    expect(page.get_by_text("The first is back in")).to_be_visible()
    page.wait_for_timeout(500)

    said = page.evaluate("""async () => {
        const said = [];
        const live = document.querySelectorAll("[role=status], [role=alert], [aria-live]");
        const watcher = new MutationObserver((changes) => said.push(...changes));
        live.forEach((each) => watcher.observe(each, {subtree: true, childList: true, characterData: true}));
        await new Promise((done) => setTimeout(done, 2500));
        return [live.length, said.length];
    }""")
    assert said == [2, 0]


def test_without_javascript_the_page_says_the_same(sim: GroqSim, start: Start, visit: Callable[..., Page]) -> None:
    server = start()
    sim.order(Trouble.named("rate_limit", retry_after=50, dimension="TPM"), key="gsk_one")
    server.enhance()
    page = visit(server, java_script_enabled=False)

    expect(row(page, "#1")).to_contain_text("tokens per minute used up, back in")
    expect(row(page, "#1")).to_contain_text("organization A")


REVOKED, DOWN = Trouble.named("invalid_api_key"), Trouble.status(503)
DAY = Trouble.named("rate_limit", retry_after=10_380, dimension="TPD")
MINUTE = Trouble.named("rate_limit", retry_after=600, dimension="TPM")
# The headline, after so many presses; what a key meets, and how often.
STATES: dict[str, tuple[str, int, dict[str, Trouble], int | None]] = {
    "unconfigured": ("No key is configured", 0, {}, None),
    "untried": ("Not tried yet", 0, {}, None),
    "working": ("Working", 4, {}, None),
    "revoked": ("Not working: no key is valid", 1, dict.fromkeys(KEYS, REVOKED), None),
    "down": ("Not working: Groq does not answer", 4, dict.fromkeys(KEYS, DOWN), None),
    "used up": ("Not working: the day's tokens are used up", 2, dict.fromkeys(KEYS, DAY), None),
    "resting": ("Working, but only with openai/gpt-oss-120b", 2, dict.fromkeys(KEYS, MINUTE), 1),
    "one revoked": ("Working, but key #2 was refused by Groq: replace it", 4, {"gsk_two": REVOKED}, None),
    "unreachable": ("Unreachable since", 1, {}, None),
}


@readable
@pytest.mark.parametrize("state", STATES)
def test_every_state_is_readable_for_all(state: str, sim: GroqSim, start: Start, visit: Callable[..., Page]) -> None:
    headline, presses, troubles, times = STATES[state]
    server = start(GROQ_API_KEYS="") if state == "unconfigured" else start()
    for key, trouble in troubles.items():
        sim.order(trouble, key=key, times=times)
    for _ in range(presses):
        server.enhance()
    page = visit(server, reduced_motion="reduce")
    if state == "unreachable":
        server.end()
        expect(page.get_by_role("alert")).to_be_visible()

    expect(page.locator("h1:visible")).to_contain_text(headline)
    for window, scheme in product([WIDE, NARROW], SCHEMES):
        page.set_viewport_size(window)
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        assert page.evaluate("document.documentElement.scrollWidth") <= window["width"]
        assert serious(page) == [], (window, scheme)
        dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(21, 22, 20)"
        assert dark == (scheme == "dark")
    motion = page.evaluate("getComputedStyle(document.querySelector('h1'), '::before').transitionDuration")
    assert float(motion.removesuffix("s")) == 0


def serious(page: Page) -> list[str]:
    """What axe-core finds, beyond trifles."""
    page.evaluate(AXE)
    found = page.evaluate("axe.run()")["violations"]
    return [json.dumps(each["nodes"], indent=1) for each in found if each["impact"] in ("serious", "critical")]


@readable
def test_a_failing_page_would_be_noticed(browser: Browser) -> None:
    page = browser.new_page()
    page.set_content("<html><body><img src=''><p style='color: #aaa; background: #fff'>faint</p></body></html>")

    assert len(serious(page)) >= 2
    page.close()


# The extension


def extension(chromium: BrowserType, home: Path, permission: bool) -> Iterator[Worker]:
    """The service worker of our extension, with or without the host permission."""
    folder = shutil.copytree(EXTENSION, home / "extension")
    if not permission:
        manifest = json.loads((folder / "manifest.json").read_text())
        del manifest["host_permissions"]
        (folder / "manifest.json").write_text(json.dumps(manifest))
    args = [f"--disable-extensions-except={folder}", f"--load-extension={folder}"]
    settings = options(args=args, ignore_default_args=["--disable-extensions"])
    context = chromium.launch_persistent_context(home / "profile", **settings)
    yield context.service_workers[0] if context.service_workers else context.wait_for_event("serviceworker")
    context.close()


@pytest.fixture
def permitted(chromium: BrowserType, tmp_path: Path) -> Iterator[Worker]:
    """The extension as people have it, which needs no CORS."""
    yield from extension(chromium, tmp_path, permission=True)


@pytest.fixture(scope="module")
def worker(chromium: BrowserType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """The extension without its permission, whose calls are preflighted and which reads only what CORS lets it."""
    yield from extension(chromium, tmp_path_factory.mktemp("worker"), permission=False)


def enhance(worker: Worker, server: Server, prompt: str = "write a poem about rain") -> dict[str, Any]:
    told: dict[str, Any] = worker.evaluate("([backend, prompt]) => enhance(backend, prompt)", [server.url, prompt])
    return told


@called
def test_the_permitted_extension_gets_a_better_prompt_without_a_preflight(permitted: Worker, server: Server) -> None:
    preflights = server.output.count('"OPTIONS /enhance')

    told = enhance(permitted, server)

    assert told["status"] == 200
    assert "Task: write a poem about rain" in told["sees"]
    assert server.output.count('"OPTIONS /enhance') == preflights


@called
def test_the_extension_gets_a_better_prompt_after_a_preflight(worker: Worker, start: Start) -> None:
    server = start(GUNICORN_CMD_ARGS="--access-logfile -")

    told = enhance(worker, server)

    assert told["status"] == 200
    assert "Task: write a poem about rain" in told["sees"]
    server.wait_for('"POST /enhance')  # which is logged after it is answered
    assert server.output.count('"OPTIONS /enhance') == 1
    assert server.output.count('"POST /enhance') == 1


@called
def test_the_extensions_ping_keeps_the_server_awake(worker: Worker, server: Server, upstream: GroqSim) -> None:
    before = len(upstream.calls)

    assert enhance(worker, server, "ping")["sees"] == "ping"
    assert len(upstream.calls) == before


@called
def test_the_extension_sees_its_quota_used_up(worker: Worker, start: Start) -> None:
    server = start(CLIENT_LIMITS="100 per second;1 per minute")
    enhance(worker, server)
    told = enhance(worker, server)

    assert (told["status"], told["sees"]) == (402, "Limit reached")
    assert 0 < int(told["retryAfter"]) <= 61


@called
def test_the_extension_sees_that_no_key_is_ready_and_when_one_will_be(
    worker: Worker, sim: GroqSim, start: Start
) -> None:
    server = start()
    sim.order(Trouble.named("rate_limit", retry_after=30), times=None)
    enhance(worker, server)
    told = enhance(worker, server)

    assert (told["status"], told["sees"]) == (503, "Error")
    assert 25 <= int(told["retryAfter"]) <= 30


@called
def test_the_extension_reads_health(worker: Worker, server: Server) -> None:
    assert worker.evaluate("backend => health(backend)", server.url)["activeKeys"] == 3


class Nothing(BaseHTTPRequestHandler):
    """A web page without content, of whatever host it is asked as."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><link rel=icon href=data:,><title>elsewhere</title>")

    def log_message(self, *_: object) -> None:
        """Be silent."""


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The address of a foreign web page."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Nothing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://{FOREIGN}:{server.server_port}/"
        server.shutdown()
        thread.join()


POST = """async ([backend, options]) => {
    try {
        const response = await fetch(`${backend}/enhance`, {method: "POST", body: '{"prompt": "a poem"}', ...options});
        return response.type === "opaque" ? "opaque" : await response.text();
    } catch (error) {
        return error.name;
    }
}"""


def test_a_foreign_web_page_is_refused(elsewhere: str, browser: Browser, server: Server, upstream: GroqSim) -> None:
    refused, calls = r'"(OPTIONS|POST) /enhance HTTP/1.1" 403', len(upstream.calls)
    before = len(re.findall(refused, server.output))
    page = browser.new_page()
    page.goto(elsewhere)

    json, plain = ({"headers": {"Content-Type": kind}} for kind in ("application/json", "text/plain"))
    results = [page.evaluate(POST, [server.url, options]) for options in (json, plain, {"mode": "no-cors"})]

    assert results == ["TypeError", "TypeError", "opaque"]
    server.wait_for(f"(?s)({refused}.*){{{before + 3}}}")
    assert len(upstream.calls) == calls
    page.close()


def test_the_status_page_cannot_be_framed(elsewhere: str, browser: Browser, server: Server) -> None:
    page = browser.new_page()
    page.goto(elsewhere)
    page.evaluate(
        "url => { document.body.append(Object.assign(document.createElement('iframe'), {src: url})) }", server.url
    )
    page.wait_for_timeout(500)

    assert "Ask Groq about each key" not in "".join(frame.content() for frame in page.frames)
    page.close()


def test_a_page_of_this_machine_may_call(browser: Browser, elsewhere: str, server: Server) -> None:
    page = browser.new_page()
    page.goto(elsewhere.replace(FOREIGN, "localhost"))

    answer = page.evaluate(POST, [server.url, {"headers": {"Content-Type": "application/json"}}])
    assert json.loads(answer)["enhancedPrompt"]
    page.close()
