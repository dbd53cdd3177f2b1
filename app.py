"""The service: who calls, what they may send, what they get back."""

import logging
import math
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from flask import Blueprint, Flask, Response, current_app, jsonify, request
from flask_cors import CORS
from flask_limiter import Limiter, RateLimitExceeded
from limits import parse_many
from werkzeug.exceptions import BadRequest, Forbidden, HTTPException, UnsupportedMediaType
from werkzeug.middleware.proxy_fix import ProxyFix

import upstream
from config import Config, ConfigError
from enhance import Enhancement, PromptError, checked
from keypool import KeyPool
from transport import Transport
from upstream import Upstream, UpstreamError

log = logging.getLogger("promptlord")

BODY_MAX = 128 * 1024  # bytes; 5,000 characters of any script take 60,000 when JSON-escaped
SPARE_THREADS = 4  # never wait for Groq, so that /health is answered whatever else goes on
REDIS_TIMEOUT = 0.5  # seconds; then clients are counted in memory
WHAT_TO_SET = "Set GROQ_API_KEYS to one or more keys from https://console.groq.com/keys, then restart."
OPEN_PATHS = {"/health"}

routes = Blueprint("routes", __name__)


@dataclass(frozen=True)
class Service:
    """What the routes work with."""

    config: Config
    pool: KeyPool
    fetch: Callable[[Enhancement], str]


def create_app(config: Config | None = None, clock: Callable[[], float] = time.monotonic) -> Flask:
    """Wire the service; ``clock`` is the pool's, in seconds. A malformed setting ends the process with one line."""
    if config is None:
        try:
            config = Config.load()
        except ConfigError as error:
            sys.exit(f"❌ {error}")
    app = Flask(__name__)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.config["MAX_CONTENT_LENGTH"] = BODY_MAX
    if config.trusted_hops:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=config.trusted_hops)  # type: ignore[method-assign]
    pool = KeyPool(config.keys, config.key_cooldown, config.per_minute, clock)
    _announce(config)
    _guard_origins(app, config)
    app.extensions["promptlord"] = Service(config, pool, _limited(app, config, _upstream(config, pool).fetch))
    app.register_blueprint(routes)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(PromptError, lambda error: _error(400, str(error)))
    app.register_error_handler(UpstreamError, _upstream_error)
    return app


@routes.post("/enhance")
def enhance() -> Response:
    data = _json_object()
    prompt = checked(data.get("prompt"))
    if prompt == "ping":  # what every installed extension sends now and then to keep a free server awake
        return jsonify(enhancedPrompt=prompt)
    service = _service()
    return jsonify(enhancedPrompt=service.fetch(Enhancement.of(prompt, service.config.models)))


@routes.get("/health")
def health() -> tuple[Response, int]:
    report = _service().pool.health()
    return jsonify(report), 503 if report["status"] == "unconfigured" else 200


def _service() -> Service:
    service: Service = current_app.extensions["promptlord"]
    return service


def _json_object() -> dict[str, Any]:
    if not request.is_json:
        raise UnsupportedMediaType("Send the body as JSON, with Content-Type: application/json")
    try:
        data = request.get_json(silent=True)
    except RecursionError:  # thousands of brackets in each other
        data = None
    if not isinstance(data, dict):
        raise BadRequest("Request body must be a JSON object")
    return data


def _upstream(config: Config, pool: KeyPool) -> Upstream:
    return Upstream(
        pool,
        Transport(config.base_url, connections=config.threads),
        max_attempts=config.max_attempts,
        timeout=config.request_timeout,
        max_wait=config.max_wait,
        at_once=max(1, config.threads - SPARE_THREADS),
    )


def _announce(config: Config) -> None:
    logging.basicConfig(format="%(message)s")
    log.setLevel(config.log_level)
    if config.repeated_keys:
        log.warning("⚠️  GROQ_API_KEYS repeats %d key(s): each counts once", config.repeated_keys)
    if config.keys:
        log.info("✅ Loaded %d Groq API key(s)", len(config.keys))
    else:
        log.error("❌ No Groq API key is configured. %s", WHAT_TO_SET)


def _guard_origins(app: Flask, config: Config) -> None:
    """Let only allowed web pages in. Flask-Cors answers preflights, yet leaves refusing to us."""
    allowed = re.compile(rf"(?:{'|'.join(map(_wildcards, config.allowed_origins))})\Z", re.IGNORECASE | re.ASCII)
    CORS(
        app,
        origins=[allowed],
        methods=["GET", "POST"],
        expose_headers=["Retry-After"],
        max_age=86400,
        vary_header=False,
    )

    @app.before_request
    def refuse() -> None:
        origin = request.headers.get("Origin")
        if origin is not None and request.path not in OPEN_PATHS and not allowed.match(origin):
            raise Forbidden("This web page's origin is not allowed: add it to ALLOWED_ORIGINS")

    @app.after_request
    def vary(response: Response) -> Response:
        response.vary.add("Origin")  # Flask-Cors says so only where it allows one
        return response


def _wildcards(origin: str) -> str:
    """A regular expression for ``origin``, whose ``*`` is any origin, any port, or anything within a host's name."""
    if origin == "*":
        return ".*"
    return re.escape(origin).replace(r":\*", r":\d+").replace(r"\*", r"[\w.-]+")


def _limited(app: Flask, config: Config, fetch: Callable[[Enhancement], str]) -> Callable[[Enhancement], str]:
    """Hold each client to its limits: the shortest window answers 429, the longer ones 402."""
    if not config.client_limits:
        return fetch
    limiter = Limiter(
        _client,
        app=app,
        storage_uri=config.redis_url or "memory://",
        storage_options=_redis_options(config.redis_url),
        in_memory_fallback_enabled=bool(config.redis_url),
        key_prefix="promptlord",
    )
    shortest = min(limit.get_expiry() for limit in parse_many(config.client_limits))

    @app.errorhandler(RateLimitExceeded)
    def refuse(error: RateLimitExceeded) -> Response:
        wait = limiter.current_limit.window[0] - time.time() if limiter.current_limit else 1.0
        wait += 0.5 if config.redis_url else 0.0  # Redis rounds to whole seconds, down too
        if error.limit.limit.get_expiry() == shortest:
            return _error(429, "Too many requests: wait a moment", retry_after=wait)
        return _error(402, "FREE_LIMIT_REACHED", retry_after=wait)

    @limiter.limit(config.client_limits)
    def limited(call: Enhancement) -> str:
        return fetch(call)

    return limited


def _redis_options(url: str | None) -> dict[str, Any]:
    if not url:
        return {}
    # Without these, a Redis that falls silent would hold every request for ever.
    options: dict[str, Any] = {"socket_connect_timeout": REDIS_TIMEOUT, "socket_timeout": REDIS_TIMEOUT}
    # Heroku's Redis shows a certificate of its own.
    return options | ({"ssl_cert_reqs": "none"} if url.startswith("rediss") else {})


def _client() -> str:
    """The client's address; of IPv6 the network that one customer is given, within which addresses are free."""
    told = request.remote_addr or "unknown"
    try:
        address = ip_address(told)
    except ValueError:
        return told
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or ip_network((address, 64), strict=False))
    return told


def _error(status: int, error: str, details: str = "", retry_after: float | None = None) -> Response:
    body: dict[str, Any] = {"error": error}
    if details:
        body["details"] = details
    if retry_after is not None:
        body["retryAfter"] = max(1, math.ceil(retry_after))
    response = jsonify(body)
    response.status_code = status
    if retry_after is not None:
        response.headers["Retry-After"] = str(body["retryAfter"])
    return response


def _http_error(error: HTTPException) -> Response:
    """The same as JSON, whatever raised it; its headers (405's ``Allow``) stay."""
    ours = error.description != type(error).description
    body = (
        _error(error.code or 500, str(error.description))
        if ours
        else _error(error.code or 500, error.name, str(error.description))
    )
    response = Response(body.get_data(), error.code, mimetype="application/json")
    for name, value in error.get_headers():
        if name != "Content-Type":
            response.headers.add(name, value)
    return response


def _upstream_error(error: UpstreamError) -> Response:
    match error:
        case upstream.NotConfigured():
            return _error(503, str(error), WHAT_TO_SET)
        case upstream.Exhausted():
            return _error(503, str(error), retry_after=error.ready_in)
        case upstream.TooLarge():
            return _error(413, str(error), "Shorten the prompt")
        case upstream.OutOfTime():
            return _error(504, str(error))
    return _error(502, str(error))


app = create_app()
