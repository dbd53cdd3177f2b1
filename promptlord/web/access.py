"""Who may call: which web pages, with which token, how often; and what a browser may do with a response."""

import hmac
import re
import time
from collections.abc import Callable, Collection
from ipaddress import IPv6Address, ip_address, ip_network
from typing import ParamSpec, TypeVar

from flask import Flask, Response, request
from flask_cors import CORS
from flask_limiter import Limiter, RateLimitExceeded
from limits import parse_many
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Forbidden, Unauthorized

from promptlord.config import Config
from promptlord.errors import TooOften

OPEN_ENDPOINTS = {"static", "status.health", "status.ready", "status.as_json", "status.page", "status.favicon"}
CLOSED = "This endpoint is closed: set ACCESS_TOKENS to one or more tokens of your choice, then restart"
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

P = ParamSpec("P")
R = TypeVar("R")


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
            raise Forbidden("This web page's origin is not allowed: add it to ALLOWED_ORIGINS")

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
        raise Forbidden(CLOSED)
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    token_given = given.strip().encode("latin-1") if scheme.lower() == "bearer" else b""
    # All are compared, each in constant time: neither how much of one is right shows, nor which.
    if not sum(hmac.compare_digest(token_given, token.encode()) for token in tokens):
        wrong = "Wrong or missing access token: send one of ACCESS_TOKENS as Authorization: Bearer"
        raise Unauthorized(wrong, www_authenticate=WWWAuthenticate("bearer"))


def harden(response: Response) -> Response:
    """Tell browsers, with every response, to load and run nothing foreign, to guess nothing and to keep nothing."""
    response.headers.update(SECURITY_HEADERS)
    if request.endpoint not in ("static", "status.favicon"):  # which are asked for again only if they have changed
        response.headers.setdefault("Cache-Control", "no-store")
    return response


def limit_clients(app: Flask, config: Config, function: Callable[P, R]) -> Callable[P, R]:
    """The same function, for each client as often as its limits allow. Raises ``TooOften``."""
    if not config.client_limits:
        return function
    limiter = Limiter(
        _address,
        app=app,
        storage_uri=config.redis_url or "memory://",
        storage_options=config.redis_options if config.redis_url else {},
        in_memory_fallback_enabled=bool(config.redis_url),
        key_prefix="promptlord",
    )
    counted = limiter.limit(config.client_limits)(function)
    shortest = min(limit.get_expiry() for limit in parse_many(config.client_limits))

    def count(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return counted(*args, **kwargs)
        except RateLimitExceeded as error:
            wait = limiter.current_limit.window[0] - time.time() if limiter.current_limit else 1.0
            wait += 0.5 if config.redis_url else 0.0  # Redis rounds to whole seconds, down too
            raise TooOften(wait, used_up=error.limit.limit.get_expiry() > shortest) from error

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
