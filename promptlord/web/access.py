"""Who may call: which web pages, with which token, how often; and what a browser may do with a response."""

import hmac
import re
from collections.abc import Callable, Collection, Sequence
from ipaddress import IPv6Address, ip_address, ip_network
from typing import ParamSpec, Protocol, TypeVar

from flask import Flask, Response, request
from flask_cors import CORS
from limits import parse_many
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Forbidden, Unauthorized

from promptlord.config import Config
from promptlord.errors import TooOften
from promptlord.pool.clients import Limit, Used
from promptlord.web.refusals import because

OPEN_ENDPOINTS = {"static", "status.health", "status.ready", "status.as_json", "status.page", "status.favicon"}
FOREIGN = "This web page's origin is not allowed here"
CLOSED = "This endpoint is closed: ask whoever runs this service for a token"
WRONG = "Wrong or missing access token: send it as Authorization: Bearer"
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

P = ParamSpec("P")
R = TypeVar("R")


class Counter(Protocol):
    """Where the calls of clients are counted; the pool's storages do."""

    def count(self, client: str, limits: Sequence[Limit]) -> list[Used]: ...


def guard_origins(app: Flask, config: Config) -> None:
    """Let only allowed web pages in. Flask-Cors answers preflights, yet leaves refusing to us."""
    allowed = re.compile(rf"(?:{'|'.join(map(_wildcards, config.allowed_origins))})\Z", re.IGNORECASE | re.ASCII)
    CORS(
        app,
        origins=[allowed],
        methods=["GET", "POST"],
        expose_headers=["Retry-After", "X-Request-Id"],
        max_age=86400,
        vary_header=False,
    )

    @app.before_request
    def refuse() -> None:
        origin = request.headers.get("Origin")
        if origin is not None and request.endpoint not in OPEN_ENDPOINTS and not allowed.match(origin):
            because(f"{FOREIGN}: add it to ALLOWED_ORIGINS if it is yours")
            raise Forbidden(FOREIGN)

    @app.after_request
    def vary(response: Response) -> Response:
        response.vary.add("Origin")  # Flask-Cors says so only where it allows one
        return response


def _wildcards(origin: str) -> str:
    """A regular expression for ``origin``, whose ``*`` is any origin, any or no port, or any part of a host's name."""
    if origin == "*":
        return ".*"
    return re.escape(origin).replace(r":\*", r"(?::\d+)?").replace(r"\*", r"[\w.-]+")


def require_token(tokens: Collection[str]) -> None:
    """Let in who sends one of the tokens; raises ``Forbidden`` where there is none, else ``Unauthorized``."""
    if not tokens:
        because("/v1 is closed: set ACCESS_TOKENS to one or more tokens of your choice, then restart")
        raise Forbidden(CLOSED)
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    token_given = given.strip().encode("latin-1") if scheme.lower() == "bearer" else b""
    # All are compared, each in constant time: neither how much of one is right shows, nor which.
    if not sum(hmac.compare_digest(token_given, token.encode()) for token in tokens):
        raise Unauthorized(WRONG, www_authenticate=WWWAuthenticate("bearer"))


def harden(response: Response) -> Response:
    """Tell browsers, with every response, to load and run nothing foreign, to guess nothing and to keep nothing."""
    response.headers.update(SECURITY_HEADERS)
    if request.endpoint not in ("static", "status.favicon"):  # which are asked for again only if they have changed
        response.headers.setdefault("Cache-Control", "no-store")
    return response


def limit_clients(counter: Counter, limits: str, function: Callable[P, R]) -> Callable[P, R]:
    """The same function, for each client as often as its limits allow. Raises ``TooOften``."""
    parsed = [Limit(limit.amount, limit.get_expiry()) for limit in parse_many(limits)] if limits else []
    parsed.sort(key=lambda limit: limit.seconds)
    if not parsed:
        return function

    def count(*args: P.args, **kwargs: P.kwargs) -> R:
        used = counter.count(_address(), parsed)
        if used[-1].calls > parsed[len(used) - 1].calls:
            raise TooOften(used[-1].left, used_up=parsed[len(used) - 1].seconds > parsed[0].seconds)
        return function(*args, **kwargs)

    return count


def _address() -> str:
    """The client's address; of IPv6 the network that one customer is given, within which addresses are free."""
    told = request.remote_addr or "unknown"
    try:
        address = ip_address(told)
    except ValueError:
        return told
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or ip_network((address, 64), strict=False))
    return told
