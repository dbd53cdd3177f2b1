"""Who may call: which web pages, with which token, how often; and what a browser may do with a response."""

import hmac
import re
from collections.abc import Callable, Collection, Sequence
from ipaddress import IPv6Address, ip_network
from typing import ParamSpec, Protocol, TypeVar

from flask import Flask, Response, request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Forbidden, Unauthorized

from promptlord.config import Config, limits
from promptlord.errors import TooOften
from promptlord.pool.clients import Limit, Used
from promptlord.web.refusals import because

OPEN_ENDPOINTS = {"static", "status.health", "status.ready", "status.as_json", "status.page", "status.favicon"}
SAME_ORIGIN_ENDPOINTS = {"status.check"}  # which ``same_origin`` guards
FOREIGN = "This web page's origin is not allowed here"
CLOSED = "This endpoint is closed: ask whoever runs this service for a token"
WRONG = "Wrong or missing access token: send it as Authorization: Bearer"
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
READABLE = {"Access-Control-Expose-Headers": "Retry-After, X-Request-Id"}
CALLABLE = {"Access-Control-Allow-Methods": "GET, POST", "Access-Control-Max-Age": "86400"}  # seconds

P = ParamSpec("P")
R = TypeVar("R")


class Counter(Protocol):
    """Where the calls of clients are counted; the pool's storages do."""

    def count(self, client: str, limits: Sequence[Limit]) -> list[Used]: ...


def guard_origins(app: Flask, config: Config) -> None:
    """Let only allowed web pages in, and tell browsers so (CORS, as the Fetch standard has it).

    With every response they are told to load and run nothing foreign, to guess nothing and to keep nothing.
    """
    allowed = re.compile(rf"(?:{'|'.join(map(_wildcards, config.allowed_origins))})\Z", re.IGNORECASE | re.ASCII)

    @app.before_request
    def refuse() -> None:
        origin, endpoint = request.headers.get("Origin"), request.endpoint
        elsewhere = endpoint in OPEN_ENDPOINTS or endpoint in SAME_ORIGIN_ENDPOINTS
        if origin is not None and not elsewhere and not allowed.match(origin):
            because(f"{FOREIGN}: add it to ALLOWED_ORIGINS if it is yours")
            raise Forbidden(FOREIGN)

    @app.after_request
    def tell(response: Response) -> Response:
        headers, origin = response.headers, request.headers.get("Origin")
        headers["Vary"] = ", ".join([*headers.getlist("Vary"), "Origin"])
        headers.extend(SECURITY_HEADERS)
        if request.endpoint not in ("static", "status.favicon"):  # which are asked for again only if they have changed
            headers.setdefault("Cache-Control", "no-store")
        if origin is not None and allowed.match(origin):
            headers.extend(READABLE)
            headers["Access-Control-Allow-Origin"] = origin
            if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
                headers.extend(CALLABLE)
                if asked := request.headers.get("Access-Control-Request-Headers"):
                    headers["Access-Control-Allow-Headers"] = asked
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
    if not _is_one_of(tokens, _bearer()):
        raise Unauthorized(WRONG, www_authenticate=WWWAuthenticate("bearer"))


def require_operator(tokens: Collection[str]) -> None:
    """Let in who sends one of the tokens, as a bearer's or as HTTP Basic's password, and anyone where there is none.

    Raises ``Unauthorized``, upon which a browser asks for it.
    """
    if tokens and not (_is_one_of(tokens, _bearer()) or _is_one_of(tokens, _password())):
        # As a token, for of a realm Werkzeug leaves out the quotes, which RFC 9110 (11.5) wants.
        basic = WWWAuthenticate("basic", token='realm="PromptLord"')
        raise Unauthorized(f"{WRONG}, or as a password", www_authenticate=[basic, WWWAuthenticate("bearer")])


def same_origin() -> None:
    """Let in what this service's own page sends, and programs; raises ``Forbidden`` for what another page does.

    Browsers tell in ``Sec-Fetch-Site``; of those too old to, the ``Origin`` must be this host. (The others' is "null"
    even from our page, by our Referrer-Policy.)
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    named = origin is None or origin.partition("://")[2].lower() == request.host.lower()
    if not (named if site is None else site in ("same-origin", "none")):
        raise Forbidden("Only this service's own page may do this")


def _bearer() -> bytes:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return given.strip().encode("latin-1") if scheme.lower() == "bearer" else b""


def _password() -> bytes:
    """HTTP Basic's, of whichever user."""
    given = request.authorization
    return (given.password or "").encode() if given and given.type == "basic" else b""


def _is_one_of(tokens: Collection[str], given: bytes) -> bool:
    """Compare all, each in constant time: neither how much of one is right shows, nor which."""
    return bool(sum(hmac.compare_digest(given, token.encode()) for token in tokens))


def limit_clients(counter: Counter, text: str, function: Callable[P, R]) -> Callable[P, R]:
    """The same function, for each client as often as the limits allow that ``text`` names. Raises ``TooOften``."""
    parsed = [Limit(*limit) for limit in limits(text)]
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
    if ":" not in told:
        return told
    try:
        address = IPv6Address(told)
    except ValueError:
        return told
    return str(address.ipv4_mapped or ip_network((address, 64), strict=False))
