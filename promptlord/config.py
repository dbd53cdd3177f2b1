"""The settings, read once from the environment (or ``.env``) and never changed."""

import logging
import math
import os
import re
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import cache
from io import StringIO
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dotenv import load_dotenv

from promptlord import typos
from promptlord.errors import ConfigError

KEY_NAMES = ("GROQ_API_KEYS", "GROQ_API_KEY")  # the second is Groq's own SDK's
DOTENV_SWITCH = "PYTHON_DOTENV_DISABLED"  # its own

EXTENSIONS_AND_LOCALHOST = (
    "chrome-extension://*",
    "moz-extension://*",
    "safari-web-extension://*",
    "http://localhost:*",
    "https://localhost:*",
    "http://127.0.0.1:*",
    "http://[::1]:*",
)

_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "month": 30 * 86400, "year": 360 * 86400}
_LIMIT = re.compile(rf"\s*(\d+)\s*(?:/|per)\s*(\d*)\s*({'|'.join(_UNITS)})s?\s*", re.ASCII | re.IGNORECASE)
_HOST = re.compile(r"[\w-]+(?:\.[\w-]+)*|[0-9a-f:.]+", re.ASCII)  # a name, or an IPv6 address without its brackets


def _split(text: str) -> tuple[str, ...]:
    words = (word.strip("'\"") for word in re.split(r"[,\s]+", text))
    return tuple(dict.fromkeys(word for word in words if word))


def _plain(secrets: tuple[str, ...], remedy: str) -> tuple[str, ...]:
    for number, secret in enumerate(secrets, 1):
        if not re.fullmatch(r"[!-~]+", secret):
            raise ValueError(f"made of plain ASCII characters, and #{number} is not: {remedy}")
    return secrets


def _keys(text: str) -> tuple[str, ...]:
    return _plain(tuple(dict.fromkeys(typos.keys(text))), "copy it again")


def _joined_keys(many: str, one: str) -> str:
    return ",".join([many, *(key for key in typos.keys(one) if key not in typos.keys(many))])


def _tokens(text: str) -> tuple[str, ...]:
    return _plain(_split(text), "choose another")


def _models(text: str) -> tuple[str, ...]:
    if not (models := _split(re.sub(r"[;\[\]]", ",", text))):
        raise ValueError("one or more model names, separated by commas")
    return models


def _is_address(text: str, *schemes: str) -> bool:
    """Whether ``text`` is a URL with one of ``schemes`` and a host. What urllib says of others may quote a password."""
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and parts.port != 0 and bool(_HOST.fullmatch(parts.hostname or ""))
    except ValueError:
        return False


def _url(text: str) -> str:
    """The base without a path: Groq's own SDK takes it so, and some write OpenAI's ``/openai/v1`` behind it."""
    url = text.rstrip("/").removesuffix("/openai/v1")
    if not _is_address(url, "http", "https") or re.search(r"[\s@?#]", url):
        raise ValueError("an address such as https://api.groq.com")
    return url


def _number(kind: type[int] | type[float], low: float, high: float) -> Callable[[str], Any]:
    def parse(text: str) -> int | float:
        try:
            number = kind(text)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise ValueError(f"a {'whole ' if kind is int else ''}number from {low:g} to {high:g}")
        return number

    return parse


def _switch(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("0 or 1")
    return text == "1"


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(origin.rstrip("/") for origin in _split(text))
    if not origins or not all(re.fullmatch(r"\*|[a-z][a-z0-9+.-]*://[^/\s]+", origin) for origin in origins):
        raise ValueError("origins such as https://example.com or chrome-extension://*, separated by commas")
    return origins


def limits(text: str) -> list[tuple[int, int]]:
    """The limits that ``text`` names in Flask-Limiter's notation, calls and seconds each, the shortest first.

    Raises ``ValueError``.
    """
    found = [_LIMIT.fullmatch(part) for part in re.split("[,;|]", text)] if text else []
    if not all(found):
        raise ValueError("limits such as '1 per 2 seconds;100 per minute', or nothing")
    named = [(int(match[1]), (int(match[2] or 1) or 1) * _UNITS[match[3].lower()]) for match in found if match]
    return sorted(named, key=itemgetter(1))


def _limits(text: str) -> str:
    limits(text)
    return text


def _redis(text: str) -> str:
    if _is_address(text, "redis", "rediss"):
        from redis import Redis  # which takes as long to import as Flask, for those who have one

        with suppress(ValueError, TypeError):  # of a query that redis does not know
            Redis.from_url(text).connection_pool.make_connection()  # which does not connect
            return text
    raise ValueError("an address such as redis://localhost:6379")


def _level(text: str) -> str:
    if text.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        raise ValueError("DEBUG, INFO, WARNING, ERROR or CRITICAL")
    return text.upper()


@cache  # a worker inherits what gunicorn's master has read
def tls(ca_bundle: str) -> ssl.SSLContext:
    """TLS for clients that trust the authorities in this file or directory. Raises ``OSError``."""
    kind = "capath" if os.path.isdir(ca_bundle) else "cafile"
    return ssl.create_default_context(ssl.Purpose.SERVER_AUTH, **{kind: ca_bundle})


def _ca_bundle(env: Mapping[str, str]) -> str | None:
    """Whom to trust instead of requests' own authorities, as everything on requests and on OpenSSL is told."""
    for name, kinds in {"REQUESTS_CA_BUNDLE": "a file or a directory", "SSL_CERT_FILE": "a file"}.items():
        if path := env.get(name, "").strip():
            try:
                if name == "SSL_CERT_FILE" and os.path.isdir(path):
                    raise IsADirectoryError
                tls(path)
            except (OSError, ValueError):
                raise ConfigError(f"{name} must be {kinds} of certificates in PEM that can be read") from None
            return path
    return None


def _dotenv() -> str:
    try:
        off = os.environ.get(DOTENV_SWITCH, "").lower() in ("1", "true", "t", "yes", "y")
        return "" if off else (Path(__file__).parents[1] / ".env").read_text("utf-8")
    except (FileNotFoundError, IsADirectoryError):  # some name a virtual environment so
        return ""
    except UnicodeDecodeError:
        raise ConfigError(".env must be a text file in UTF-8") from None
    except OSError as error:
        raise ConfigError(f".env can't be read: {error.strerror}") from None


def _setting(name: str, parse: Callable[[str], Any], default: Any, *, secret: bool = False, blank: bool = False) -> Any:
    """A field read from the variable ``name``; ``blank``: an empty value is a value, not a missing one."""
    return field(default=default, repr=not secret, metadata={"env": name, "parse": parse, "blank": blank})


@dataclass(frozen=True)
class Config:
    """Every setting of the service. Durations are in seconds."""

    keys: tuple[str, ...] = _setting("GROQ_API_KEYS", _keys, (), secret=True)
    base_url: str = _setting("GROQ_BASE_URL", _url, "https://api.groq.com")
    models: tuple[str, ...] = _setting("GROQ_MODELS", _models, ("openai/gpt-oss-20b", "openai/gpt-oss-120b"))
    key_cooldown: float = _setting("KEY_COOLDOWN_SECONDS", _number(float, 0.1, 86400), 60.0)
    per_minute: int | None = _setting("KEY_REQUESTS_PER_MINUTE", _number(int, 0, 1_000_000), None)
    max_attempts: int = _setting("MAX_ATTEMPTS", _number(int, 1, 100), 3)
    max_wait: float = _setting("MAX_WAIT_SECONDS", _number(float, 0, 3600), 10.0)
    request_timeout: float = _setting("REQUEST_TIMEOUT_SECONDS", _number(float, 0.1, 3600), 25.0)
    allowed_origins: tuple[str, ...] = _setting("ALLOWED_ORIGINS", _origins, EXTENSIONS_AND_LOCALHOST)
    client_limits: str = _setting("CLIENT_LIMITS", _limits, "1 per 2 seconds;100 per minute", blank=True)
    access_tokens: tuple[str, ...] = _setting("ACCESS_TOKENS", _tokens, (), secret=True)
    trusted_hops: int = _setting("TRUSTED_HOPS", _number(int, 0, 10), 0)
    check_keys: bool = _setting("CHECK_KEYS", _switch, False)
    redis_url: str | None = _setting("REDIS_URL", _redis, None, secret=True)
    processes: int = _setting("WEB_CONCURRENCY", _number(int, 1, 1000), 1)
    port: int = _setting("PORT", _number(int, 0, 65535), 3000)
    threads: int = _setting("THREADS", _number(int, 2, 1000), 256)
    log_level: str = _setting("LOG_LEVEL", _level, "INFO")
    ca_bundle: str | None = None  # none: requests' own
    repeated_keys: int = 0
    warnings: tuple[str, ...] = ()  # what is odd in them, a line each, without a secret
    stamps_log: bool = True  # with time and level; Heroku and Render stamp each line themselves

    @property
    def workers(self) -> int:
        """Processes that may serve: one has the pool for itself, several must share it."""
        return self.processes if self.redis_url else 1

    @property
    def redis_options(self) -> dict[str, Any]:
        """How to connect to Redis: Heroku's shows a certificate of its own."""
        return {"ssl_cert_reqs": "none"} if (self.redis_url or "").startswith("rediss") else {}

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Config":
        """Read the settings from ``env``; raise ``ConfigError`` for a malformed one, without quoting its value."""
        env = dict(env, GROQ_API_KEYS=_joined_keys(*(env.get(name, "") for name in KEY_NAMES)))
        hops = 1 if "DYNO" in env else 3 if "RENDER" in env else 0
        values: dict[str, Any] = {"trusted_hops": hops, "stamps_log": not hops, "check_keys": True}
        for setting in fields(cls):
            name = setting.metadata.get("env", "")
            text = env.get(name, "").strip()
            if text or (name in env and setting.metadata["blank"]):
                try:
                    values[setting.name] = setting.metadata["parse"](text)
                except ValueError as error:
                    raise ConfigError(f"{name} must be {error}") from None
        values["ca_bundle"] = _ca_bundle(env)
        groqs = values.get("base_url", cls.base_url) == cls.base_url
        odd = typos.about_keys(env["GROQ_API_KEYS"], groqs=groqs), typos.about_names(env.keys() - KEY_NAMES, NAMES)
        repeated = len(typos.keys(env["GROQ_API_KEYS"])) - len(values.get("keys", ()))
        return cls(**values, repeated_keys=repeated, warnings=tuple(chain(*odd)))

    @classmethod
    def load(cls) -> "Config":
        """Read the settings from the environment, and from ``.env`` beside ``app.py`` what it lacks."""
        logging.getLogger("dotenv").setLevel(logging.ERROR)  # its warnings say neither what is lost nor what to do
        text = _dotenv()
        load_dotenv(stream=StringIO(text))
        config = cls.from_env(os.environ)
        return replace(config, warnings=(*typos.about_lines(text), *config.warnings))


NAMES = [setting.metadata["env"] for setting in fields(Config) if "env" in setting.metadata]
