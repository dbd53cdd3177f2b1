"""Wires everything; errors become statuses here and nowhere else."""

import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import ClientDisconnected, HTTPException, NotFound, RequestEntityTooLarge
from werkzeug.middleware.proxy_fix import ProxyFix

from keypool import KeyPool
from promptlord import errors
from promptlord.config import Config
from promptlord.errors import ConfigError, PromptError, TooOften, UpstreamError
from promptlord.groq.admission import Admission
from promptlord.groq.attempts import Upstream
from promptlord.groq.check import AFTER_START, KeyCheck
from promptlord.groq.transport import Transport
from promptlord.pool.memory import MemoryStorage
from promptlord.typos import CONSOLE
from promptlord.web import enhance, status
from promptlord.web import openai as v1
from promptlord.web.access import guard_origins, limit_clients
from promptlord.web.body import BODY_MAX, in_words
from promptlord.web.refusals import because, log_refusals
from promptlord.web.service import Service
from promptlord.web.traffic import Traffic, watch

if TYPE_CHECKING:
    from promptlord.pool.redis import RedisStorage

log = logging.getLogger("promptlord")

STAMPED = "[%(asctime)s] [%(process)d] [%(levelname)s] %(message)s"  # as gunicorn's own lines
SPARE_THREADS = 4  # never wait for Groq, so that /health is answered whatever else goes on
WHAT_TO_SET = f"Set GROQ_API_KEYS to one or more keys from {CONSOLE}, then restart."


class App(Flask):
    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """The same: nothing here is asynchronous, which Flask would look for nine times a request."""
        return func


def create_app(config: Config | None = None, clock: Callable[[], float] | None = None) -> Flask:
    """Wire the service; ``clock`` is the pool's, in seconds. A malformed setting ends the process with one line."""
    if config is None:
        try:
            config = Config.load()
        except ConfigError as error:
            sys.exit(f"❌ {error}")
        _keep_to_port(config.port)
    app = App(__name__, template_folder="promptlord/web/templates", static_folder="promptlord/web/static")
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.config["MAX_CONTENT_LENGTH"] = BODY_MAX
    if config.trusted_hops:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=config.trusted_hops)  # type: ignore[method-assign]
    storage = _storage(config, clock)
    pool = KeyPool(config.keys, config.key_cooldown, config.per_minute, storage=storage, timeout=config.request_timeout)
    traffic = Traffic(config.models)
    transport = Transport(config.base_url, connections=config.threads, ca_bundle=config.ca_bundle)
    groq = _upstream(config, pool, transport, traffic)
    check = KeyCheck(transport, config.keys, config.models)
    _set_up_log(config)
    if _serves():
        _announce(config)
    watch(app, traffic, clock or time.monotonic)
    log_refusals(app, clock or time.monotonic)
    guard_origins(app, config)
    if config.check_keys:
        _check_once(app, partial(check.teach, pool, AFTER_START))
    limited = limit_clients(storage, config.client_limits, groq.fetch)
    app.extensions["promptlord"] = Service(config, pool, groq, limited, traffic, partial(check.teach, pool))
    app.register_blueprint(enhance.routes)
    app.register_blueprint(status.routes)
    app.cli.add_command(_check_keys(config))
    for prefix in v1.PREFIXES:
        app.register_blueprint(v1.routes, name=prefix.strip("/").replace("/", "-"), url_prefix=prefix)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(PromptError, lambda error: _error(400, str(error)))
    app.register_error_handler(UpstreamError, _upstream_error)
    app.register_error_handler(TooOften, _too_often)
    return app


def _storage(config: Config, clock: Callable[[], float] | None) -> "MemoryStorage | RedisStorage":
    """Where the pool and the clients' counts are kept: here, or where processes and machines share them."""
    if config.redis_url:
        from promptlord.pool.redis import RedisStorage  # for those who have one: it takes as long as Flask

        return RedisStorage(config.redis_url, **config.redis_options)
    return MemoryStorage(clock or time.monotonic)


def _upstream(config: Config, pool: KeyPool, transport: Transport, traffic: Traffic) -> Upstream:
    return Upstream(
        pool,
        transport,
        Admission(max(1, config.threads - SPARE_THREADS)),
        max_attempts=config.max_attempts,
        timeout=config.request_timeout,
        max_wait=config.max_wait,
        tally=traffic,
    )


def _check_once(app: Flask, check: Callable[[], object]) -> None:
    """Ask about the keys behind the first response: that delays no start, and no thread begins at import."""
    begun = threading.Lock()  # whoever takes it keeps it

    @app.after_request
    def begin(response: Response) -> Response:
        if not begun.locked() and begun.acquire(blocking=False):
            response.call_on_close(threading.Thread(target=check, name="check", daemon=True).start)
        return response


def _check_keys(config: Config) -> click.Command:
    """The command for the keys of ``config``."""

    @click.command("check-keys")
    @click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
    def check_keys(as_json: bool) -> None:
        """Ask Groq which of the keys work, whose they are, and which of GROQ_MODELS they may use. Costs no tokens."""
        from promptlord.check_keys import tell  # which no server needs

        sys.exit(0 if tell(config, as_json=as_json) else 1)

    return check_keys


def _set_up_log(config: Config) -> None:
    logging.basicConfig(format=STAMPED if config.stamps_log else "%(message)s", datefmt="%Y-%m-%d %H:%M:%S %z")
    log.setLevel(config.log_level)


def _serves() -> bool:
    """Whether this is a server: flask makes an app for ``flask --help`` and each of its commands too."""
    command = click.get_current_context(silent=True)
    return command is None or command.info_name == "run"


def _keep_to_port(port: int) -> None:
    """Begin ``flask run`` again where it serves a default, which it has chosen before it knew of PORT."""
    run = click.get_current_context(silent=True)
    if not run or run.info_name != "run" or run.params["port"] == port:
        return
    source = run.get_parameter_source("port")
    ours = source is ParameterSource.ENVIRONMENT and run.params["port"] == Config.port  # as .flaskenv says
    if ours or source is ParameterSource.DEFAULT:
        os.environ["FLASK_RUN_PORT"] = str(port)
        os.execv(sys.executable, sys.orig_argv)


def _announce(config: Config) -> None:
    for warning in config.warnings:
        log.warning("⚠️  %s", warning)
    if config.processes > config.workers:
        log.info("WEB_CONCURRENCY=%d is passed over: without REDIS_URL the pool is in one process", config.processes)
    if config.keys:
        log.info("✅ Loaded %d Groq API key(s)", len(config.keys))
    else:
        log.error("❌ No Groq API key is configured. %s", WHAT_TO_SET)


def _error(status: int, error: str, details: str = "", retry_after: float | None = None) -> Response:
    because(error)
    seconds = None if retry_after is None else max(1, math.ceil(retry_after))
    if v1.is_called(request.path):
        response = jsonify(error=v1.error(status, f"{error}. {details}".rstrip(". ")))
    else:
        told = {"error": error, "details": details or None, "retryAfter": seconds}
        response = jsonify({name: value for name, value in told.items() if value is not None})
    response.status_code = status
    if seconds:
        response.headers["Retry-After"] = str(seconds)
    return response


def _too_often(error: TooOften) -> Response:
    because(f"This client {'has used up its limit' if error.used_up else 'calls too fast'}: {error.wait:.0f} s left")
    if error.used_up:
        return _error(402, "FREE_LIMIT_REACHED", retry_after=error.wait)
    return _error(429, "Too many requests: wait a moment", retry_after=error.wait)


def _http_error(error: HTTPException) -> Response:
    """The same as JSON, whatever raised it; its headers (405's ``Allow``) stay."""
    if isinstance(error, NotFound):  # whose words may quote the request
        because(error.name)
    body = _error(error.code or 500, *_words(error))
    response = Response(body.get_data(), error.code, mimetype="application/json")
    for name, value in error.get_headers():
        if name != "Content-Type":
            response.headers.add(name, value)
    return response


def _words(error: HTTPException) -> tuple[str, str]:
    """What an error says, and its details: in our own words, where we have some."""
    told = str(error.description)
    if isinstance(error, ClientDisconnected):
        return "The request's body broke off or is malformed", ""
    if isinstance(error, RequestEntityTooLarge):
        return "The request's body is too large", f"At most {in_words(request.max_content_length or 0)} are read here"
    if error.description != type(error).description:
        return told, ""
    if isinstance(error, NotFound) and v1.is_called(request.path):
        return v1.not_found(request.path), ""
    return error.name, told


def _upstream_error(error: UpstreamError) -> Response:
    because(error.reason, error.cause)
    match error:
        case errors.NotConfigured():
            return _error(503, str(error), WHAT_TO_SET)
        case errors.Exhausted():
            return _error(503, str(error), retry_after=error.ready_in)
        case errors.TooLarge():
            return _error(413, str(error))
        case errors.DeadlineExceeded():
            return _error(504, str(error))
        case errors.ClientDisconnected():
            return _error(499, str(error))
        case errors.Unavailable(answer=(status, body)) if v1.is_called(request.path):
            return Response(body, status, mimetype="application/json")
    return _error(502, str(error))


app = create_app()
