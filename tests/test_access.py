"""What is the operator's alone: the pages, where there are tokens, and what the page's own button does."""

from base64 import b64encode
from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient

from promptlord.config import Config
from promptlord.web.access import guard_origins, same_origin

Serve = Callable[..., FlaskClient]

# The pages


def basic(text: str) -> str:
    return f"Basic {b64encode(text.encode()).decode()}"


OPEN = ["/health", "/ready", "/favicon.ico", "/static/status.css"]
RIGHT = [
    "Bearer a-token",
    "bearer  another",
    basic("anyone:a-token"),
    basic(":another"),
    basic(":a-token").replace("Basic", "bAsIc"),
]
WRONG = [
    None,
    "",
    "Bearer",
    "Bearer a-toke",
    "Bearer é",
    "a-token",
    "Basic",
    "Basic a-token",
    "Basic \x00",
    basic("a-token"),
    basic("a-token:"),
    basic(":a-token "),
    basic(":é"),
    f"Basic {b64encode(b':' + bytes([255])).decode()}",
    f"Bearer {b64encode(b':a-token').decode()}",
    "Digest a-token",
    'Digest password="a-token"',
]


def pages(client: FlaskClient) -> list[tuple[str, str]]:
    """The method and path of each page that is the operator's."""
    rules = [rule for rule in client.application.url_map.iter_rules() if rule.endpoint.startswith("status.")]
    found = [("POST" if "POST" in (rule.methods or ()) else "GET", rule.rule) for rule in rules]
    return [(method, path) for method, path in found if path not in OPEN]


@pytest.mark.parametrize("authorization", WRONG)
def test_the_operators_pages_ask_for_a_token_where_there_is_one(serve: Serve, authorization: str | None) -> None:
    client = serve(access_tokens=("another", "a-token"))
    headers = {} if authorization is None else {"Authorization": authorization}

    assert {("GET", "/"), ("GET", "/status")} <= set(pages(client))
    for method, path in pages(client):
        response = client.open(path, method=method, headers=headers)
        assert response.status_code == 401
        assert response.headers.getlist("WWW-Authenticate") == ['Basic realm="PromptLord"', "Bearer"]
        assert response.get_json()["error"].startswith("Wrong or missing access token: ")


@pytest.mark.parametrize("authorization", RIGHT)
def test_each_token_opens_them_as_a_bearers_and_as_a_password(serve: Serve, authorization: str) -> None:
    client = serve(access_tokens=("another", "a-token"))

    for path in ("/", "/status"):
        assert client.get(path, headers={"Authorization": authorization}).status_code == 200


def test_v1_takes_no_password(serve: Serve) -> None:
    response = serve(access_tokens=("a-token",)).get("/v1/models", headers={"Authorization": basic(":a-token")})

    assert response.status_code == 401
    assert response.headers.getlist("WWW-Authenticate") == ["Bearer"]


@pytest.mark.parametrize("path", OPEN)
def test_what_monitors_and_browsers_ask_for_is_open_all_the_same(serve: Serve, path: str) -> None:
    assert serve(access_tokens=("a-token",)).get(path, buffered=True).status_code == 200


def test_without_tokens_the_pages_are_open(serve: Serve) -> None:
    assert [serve().get(path).status_code for path in ("/", "/status")] == [200, 200]


def test_an_allowed_page_passes_the_preflight_without_a_token(serve: Serve) -> None:
    asks = {"Origin": "http://localhost:5000", "Access-Control-Request-Method": "GET"}

    assert serve(access_tokens=("a-token",)).options("/status", headers=asks).status_code == 200


# The button


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 204),
        ({"Origin": "http://localhost"}, 204),
        ({"Origin": "https://LOCALHOST"}, 204),
        ({"Origin": "http://localhost:3000"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "chrome-extension://" + "abcdefghijklmnop" * 2}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, 204),
        ({"Sec-Fetch-Site": "none"}, 204),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}, 403),
        ({"Sec-Fetch-Site": ""}, 403),
    ],
)
def test_only_the_services_own_page_may_press_its_button(headers: dict[str, str], status: int) -> None:
    def check() -> tuple[str, int]:
        same_origin()
        return "", 204

    app = Flask(__name__)
    guard_origins(app, Config())
    app.add_url_rule("/check", "status.check", check, methods=["POST"])

    assert app.test_client().post("/check", headers=headers).status_code == status
