"""The settings: defaults, notations, and one line without secrets for each malformed one."""

import os
import shutil
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import certifi
import pytest

from promptlord import config, errors, typos
from promptlord.config import EXTENSIONS_AND_LOCALHOST, Config
from promptlord.errors import ConfigError

DEFAULTS = {
    "GROQ_API_KEYS": (),
    "GROQ_BASE_URL": "https://api.groq.com",
    "GROQ_MODELS": ("openai/gpt-oss-20b", "openai/gpt-oss-120b"),
    "KEY_COOLDOWN_SECONDS": 60,
    "KEY_REQUESTS_PER_MINUTE": None,
    "MAX_ATTEMPTS": 3,
    "MAX_WAIT_SECONDS": 10,
    "REQUEST_TIMEOUT_SECONDS": 25,
    "ALLOWED_ORIGINS": EXTENSIONS_AND_LOCALHOST,
    "CLIENT_LIMITS": "1 per 2 seconds;100 per minute",
    "ACCESS_TOKENS": (),
    "CHECK_KEYS": True,
    "TRUSTED_HOPS": 0,
    "REDIS_URL": None,
    "WEB_CONCURRENCY": 1,
    "PORT": 3000,
    "THREADS": 256,
    "LOG_LEVEL": "INFO",
}
NAMES = {field.metadata["env"]: field.name for field in fields(Config) if "env" in field.metadata}


def read(name: str, text: str) -> object:
    return getattr(Config.from_env({name: text}), NAMES[name])


def test_these_are_the_settings_and_their_defaults():
    settings = Config.from_env({})

    assert {name: getattr(settings, field) for name, field in NAMES.items()} == DEFAULTS
    assert settings == Config(check_keys=True)  # whoever makes one by hand asks for it


@pytest.mark.parametrize("name", sorted(DEFAULTS.keys() - {"CLIENT_LIMITS"}))
@pytest.mark.parametrize("blank", ["", "  ", "\n"])
def test_a_blank_setting_has_its_default(name, blank):
    assert read(name, blank) == DEFAULTS[name]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", []),
        ("1 per 2 seconds;100 per minute", [(1, 2), (100, 60)]),
        ("5/minute, 100 per 2 hours|1/SECOND", [(1, 1), (5, 60), (100, 7200)]),
        (" 7per3days ; 1 / month ", [(7, 3 * 86400), (1, 30 * 86400)]),
        ("9 per 0 year", [(9, 360 * 86400)]),
    ],
)
def test_limits_are_told_in_flask_limiters_notation(text, named):
    assert config.limits(text) == named


@pytest.mark.parametrize("blank", ["", "  "])
def test_blank_client_limits_are_none_at_all(blank):
    assert read("CLIENT_LIMITS", blank) == ""


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("GROQ_BASE_URL", "http://127.0.0.1:4000", "http://127.0.0.1:4000"),
        ("GROQ_BASE_URL", "https://api.groq.com/", "https://api.groq.com"),
        ("GROQ_BASE_URL", "https://api.groq.com/openai/v1", "https://api.groq.com"),
        ("GROQ_BASE_URL", "https://api.groq.com/openai/v1/", "https://api.groq.com"),
        ("GROQ_BASE_URL", "https://gateway.example.com/a-b/groq/", "https://gateway.example.com/a-b/groq"),
        ("GROQ_BASE_URL", "http://[::1]:4000", "http://[::1]:4000"),
        ("GROQ_BASE_URL", "http://groq_sim:80", "http://groq_sim:80"),
        ("GROQ_MODELS", "a/b, 'c' ,a/b,", ("a/b", "c")),
        ("KEY_COOLDOWN_SECONDS", " 0.5 ", 0.5),
        ("MAX_ATTEMPTS", "1", 1),
        ("REQUEST_TIMEOUT_SECONDS", "7.25", 7.25),
        ("ALLOWED_ORIGINS", "*", ("*",)),
        ("ALLOWED_ORIGINS", "https://a.example/,\nhttp://[::1]:*", ("https://a.example", "http://[::1]:*")),
        ("CLIENT_LIMITS", "5/minute, 100 per 2 hours", "5/minute, 100 per 2 hours"),
        ("TRUSTED_HOPS", "10", 10),
        ("REDIS_URL", "rediss://:p%40ss@cache.example:6380/0", "rediss://:p%40ss@cache.example:6380/0"),
        ("PORT", "65535", 65535),
        ("THREADS", "2", 2),
        ("LOG_LEVEL", "debug", "DEBUG"),
    ],
)
def test_settings_are_read(name, text, value):
    assert read(name, text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("GROQ_API_KEYS", "gsk_a,gsk_\u00e4_secret"),
        ("GROQ_API_KEYS", "gsk_secret\x00"),
        ("GROQ_BASE_URL", "api.secret.com"),
        ("GROQ_BASE_URL", "ftp://secret"),
        ("GROQ_BASE_URL", "https://"),
        ("GROQ_BASE_URL", "https:secret"),
        ("GROQ_BASE_URL", "https://[secret]"),
        ("GROQ_BASE_URL", "https://sec\u2100ret"),
        ("GROQ_BASE_URL", "https://secret s"),
        ("GROQ_BASE_URL", "https://secr\net"),
        ("GROQ_BASE_URL", "https://*.secret"),
        ("GROQ_BASE_URL", "https://.secret"),
        ("GROQ_BASE_URL", "https://secret:99999"),
        ("GROQ_BASE_URL", "https://secret:port"),
        ("GROQ_BASE_URL", "https://secret?a=b"),
        ("GROQ_BASE_URL", "https://user:secret@host"),
        ("GROQ_MODELS", ", '' ,"),
        ("KEY_COOLDOWN_SECONDS", "0"),
        ("KEY_COOLDOWN_SECONDS", "-60"),
        ("KEY_COOLDOWN_SECONDS", "nan"),
        ("KEY_COOLDOWN_SECONDS", "inf"),
        ("KEY_COOLDOWN_SECONDS", "secret"),
        ("MAX_ATTEMPTS", "0"),
        ("MAX_ATTEMPTS", "2.5"),
        ("MAX_ATTEMPTS", "9" * 5000),
        ("REQUEST_TIMEOUT_SECONDS", "25s"),
        ("REQUEST_TIMEOUT_SECONDS", "1e9"),
        ("ALLOWED_ORIGINS", "secret.example"),
        ("ALLOWED_ORIGINS", "null"),
        ("ALLOWED_ORIGINS", "https://a.example/secret"),
        ("ALLOWED_ORIGINS", ","),
        ("CLIENT_LIMITS", "secret"),
        ("CLIENT_LIMITS", "5"),
        ("CLIENT_LIMITS", "5 per secret"),
        ("CLIENT_LIMITS", "5 per minute;secret"),
        ("CLIENT_LIMITS", "5 per minute;"),
        ("CLIENT_LIMITS", "٥ per minute"),
        ("ACCESS_TOKENS", "secret,secr\u00e9t"),
        ("ACCESS_TOKENS", "secret\x00"),
        ("TRUSTED_HOPS", "-1"),
        ("TRUSTED_HOPS", "true"),
        ("REDIS_URL", "localhost:6379"),
        ("REDIS_URL", "http://secret"),
        ("REDIS_URL", "redis:secret"),
        ("REDIS_URL", "redis://:se[secret]cret@cache"),
        ("REDIS_URL", "redis://:secret\u2100@cache"),
        ("REDIS_URL", "redis://:sec/ret@cache"),
        ("REDIS_URL", "redis://cache:secret"),
        ("REDIS_URL", "redis://cache?db=secret"),
        ("REDIS_URL", "redis://cache?secret=secret"),
        ("PORT", "65536"),
        ("PORT", "secret"),
        ("THREADS", "1"),
        ("LOG_LEVEL", "secret"),
    ],
)
def test_a_malformed_setting_is_named_in_one_line_and_never_quoted(name, text):
    with pytest.raises(ConfigError, match=rf"\A{name} must be [^\n]{{5,150}}\Z") as caught:
        Config.from_env({name: text})

    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("text", "keys", "repeated"),
    [
        ("gsk_a", ("gsk_a",), 0),
        ("gsk_a,gsk_b", ("gsk_a", "gsk_b"), 0),
        ("gsk_a\ngsk_b\r\n\ngsk_c", ("gsk_a", "gsk_b", "gsk_c"), 0),
        (" 'gsk_a' , \"gsk_b\"\n", ("gsk_a", "gsk_b"), 0),
        ('"gsk_a,gsk_b"', ("gsk_a", "gsk_b"), 0),
        (",,'', gsk_a,\"\" ,", ("gsk_a",), 0),
        ("gsk_b,gsk_a,'gsk_b'\ngsk_b", ("gsk_b", "gsk_a"), 2),
        (" , ", (), 0),
        ("gsk_a;gsk_b; gsk_c", ("gsk_a", "gsk_b", "gsk_c"), 0),
        ('["gsk_a", "gsk_b"]', ("gsk_a", "gsk_b"), 0),
        ("<gsk_a>,{gsk_b} (gsk_c)", ("gsk_a", "gsk_b", "gsk_c"), 0),
        ("\u201cgsk_a\u201d, \u2018gsk_b\u2019, `gsk_c`", ("gsk_a", "gsk_b", "gsk_c"), 0),
        ("gsk_agsk_b", ("gsk_a", "gsk_b"), 0),
        ("gsk_agsk_bgsk_a", ("gsk_a", "gsk_b"), 1),
        ("GROQ_API_KEYS=gsk_a", ("gsk_a",), 0),
        ("export groq_api_key: gsk_a", ("gsk_a",), 0),
        ("gsk_a\uff0cgsk_b\u200b|\u00abgsk_c\u00bb", ("gsk_a", "gsk_b", "gsk_c"), 0),
    ],
)
def test_keys_are_separated_stripped_and_counted_once(text, keys, repeated):
    settings = Config.from_env({"GROQ_API_KEYS": text})

    assert (settings.keys, settings.repeated_keys) == (keys, repeated)


KEY = "gsk_" + "aB3" * 17 + "x"  # as long as Groq's are


def test_groqs_own_name_for_one_key_is_read_too():
    one, both = f"{KEY}2", {"GROQ_API_KEYS": f"{KEY},{KEY}1", "GROQ_API_KEY": f"{KEY}2"}

    assert Config.from_env({"GROQ_API_KEY": one}) == Config.from_env({"GROQ_API_KEYS": one})
    assert Config.from_env(both).keys == (KEY, f"{KEY}1", f"{KEY}2")
    assert Config.from_env(both).warnings == ()


def test_a_key_under_both_names_is_no_repetition():
    assert Config.from_env({"GROQ_API_KEYS": KEY, "GROQ_API_KEY": KEY}).warnings == ()


@pytest.mark.parametrize("fine", [KEY, f"{KEY},{KEY}1", f"{KEY}\n{KEY}1;", f"[{KEY}]", f"export GROQ_API_KEYS = {KEY}"])
def test_keys_as_groq_makes_them_raise_no_eyebrow(fine):
    assert Config.from_env({"GROQ_API_KEYS": fine}).warnings == ()


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (f"{KEY}{KEY}1", "GROQ_API_KEYS lacks 1 comma"),
        (f"{KEY}{KEY}1,{KEY}2{KEY}3", "GROQ_API_KEYS lacks 2 comma"),
        (f"{KEY},{KEY}", "GROQ_API_KEYS repeats 1 key"),
        (f"{KEY},your_key_here", "API Key #2 does not look like one of Groq's"),
        ("gsk_your_key_here_secret", "API Key #1 does not look like one of Groq's"),
        ("gsk_...", "API Key #1 does not look like one of Groq's"),
        ("gsk_" + "x" * 52, "API Key #1 does not look like one of Groq's"),
        ("sk-proj-secret", "API Key #1 does not look like one of Groq's"),
        (KEY.upper(), "API Key #1 does not look like one of Groq's"),
        (KEY[:20], "API Key #1 does not look like one of Groq's"),
    ],
)
def test_what_is_odd_about_the_keys_is_told_without_them(text, warning):
    (told,) = Config.from_env({"GROQ_API_KEYS": text}).warnings

    assert told.startswith(warning)
    assert not any(word in told for word in ("aB3", "AB3", "your_key", "xxx", "secret"))


def test_other_hosts_may_have_keys_of_another_kind():
    elsewhere = {"GROQ_API_KEYS": "secret", "GROQ_BASE_URL": "https://gateway.example"}

    assert Config.from_env(elsewhere).warnings == ()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("GROQ_API_KEYZ", "GROQ_API_KEYS"),
        ("GROQ_KEYS", "GROQ_API_KEYS"),
        ("GROQAPIKEY", "GROQ_API_KEYS"),
        ("groq_api_keys", "GROQ_API_KEYS"),
        ("GROQ_MODEL", "GROQ_MODELS"),
        ("KEY_COOLDOWN", "KEY_COOLDOWN_SECONDS"),
        ("MAX_WAIT", "MAX_WAIT_SECONDS"),
        ("REQUEST_TIMEOUT", "REQUEST_TIMEOUT_SECONDS"),
        ("ALLOWED_ORIGIN", "ALLOWED_ORIGINS"),
        ("ACCESS_TOKEN", "ACCESS_TOKENS"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("REDIS_URI", "REDIS_URL"),
    ],
)
def test_a_name_that_looks_like_a_setting_is_told_with_the_one_that_is_meant(name, meant):
    (told,) = Config.from_env({name: "secret"}).warnings

    assert told == f"{name} is no setting, and is passed over: did you mean {meant}?"


@pytest.mark.parametrize("name", ["GROQ_API_KEYS:a1", "GROQ-API-KEYS-123", "GROQ_API_KEY\u00e9"])
def test_a_name_that_may_hold_a_key_is_not_repeated(name):
    (told,) = Config.from_env({name: ""}).warnings

    assert told == "A variable is no setting, and is passed over: did you mean GROQ_API_KEYS?"


def test_what_platforms_and_shells_set_is_no_typing_error():
    ours = "PORT DYNO SSL_CERT_FILE REQUESTS_CA_BUNDLE GUNICORN_CMD_ARGS FLASK_RUN_PORT PYTHON_DOTENV_DISABLED"
    platforms = "REDIS_TLS_URL RENDER_EXTERNAL_URL WEB_MEMORY MALLOC_ARENA_MAX HTTPS_PROXY MAIL_PORT LOG_DIR LOGNAME"
    shells = "PATH HOME TERM SSH_CLIENT XDG_RUNTIME_DIR NPM_CONFIG_LOGLEVEL OMP_NUM_THREADS CLIENT_ID API_KEY"
    others = "AWS_MAX_ATTEMPTS DD_LOG_LEVEL GH_ACCESS_TOKEN GROQ_LOG GROQ_ORG_ID GROQ_TOKEN REDIS_HOST REQUEST_METHOD"
    env = dict.fromkeys(f"{ours} {platforms} {shells} {others}".split(), "")

    assert Config.from_env(env).warnings == ()


def test_a_malformed_key_is_named_by_its_number():
    with pytest.raises(ConfigError, match="#2"):
        Config.from_env({"GROQ_API_KEYS": "gsk_a,gsk_\u00e4,gsk_c"})


@pytest.mark.parametrize(
    ("env", "hops"),
    [
        ({"DYNO": "web.1"}, 1),
        ({"RENDER": "true"}, 3),
        ({"DYNO": "web.1", "TRUSTED_HOPS": "2"}, 2),
        ({"RENDER": "true", "TRUSTED_HOPS": "0"}, 0),
        ({"RENDER": "true", "TRUSTED_HOPS": ""}, 3),
    ],
)
def test_the_platform_says_how_many_hops_to_trust(env, hops):
    assert Config.from_env(env).trusted_hops == hops


CERTIFI = certifi.where()


@pytest.mark.parametrize(
    ("env", "path"),
    [
        ({"REQUESTS_CA_BUNDLE": f" {CERTIFI} "}, CERTIFI),
        ({"SSL_CERT_FILE": CERTIFI}, CERTIFI),
        ({"REQUESTS_CA_BUNDLE": "/", "SSL_CERT_FILE": CERTIFI}, "/"),
        ({"REQUESTS_CA_BUNDLE": "", "SSL_CERT_FILE": CERTIFI}, CERTIFI),
        ({"REQUESTS_CA_BUNDLE": CERTIFI, "SSL_CERT_FILE": "missing"}, CERTIFI),
        ({"SSL_CERT_FILE": " "}, None),
    ],
)
def test_the_environment_names_another_authority(env, path):
    assert Config.from_env(env).ca_bundle == path


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
@pytest.mark.parametrize("path", ["/missing/secret", __file__, "\0secret"])
def test_an_authority_that_cannot_be_read_is_named_in_one_line(name, path):
    with pytest.raises(ConfigError, match=rf"\A{name} must be a file [^\n]*\Z") as caught:
        Config.from_env({name: path})

    assert path not in str(caught.value)
    assert caught.value.__suppress_context__


def test_only_requests_takes_a_directory_of_authorities(tmp_path):
    with pytest.raises(ConfigError, match="SSL_CERT_FILE must be a file of"):
        Config.from_env({"SSL_CERT_FILE": str(tmp_path)})


def test_secrets_are_not_shown():
    settings = Config.from_env({"GROQ_API_KEYS": "gsk_secret", "REDIS_URL": "redis://:secret@cache"})

    assert "secret" not in f"{settings} {settings!r}"


@pytest.mark.parametrize(("env", "stamps"), [({}, True), ({"DYNO": "web.1"}, False), ({"RENDER": "true"}, False)])
def test_the_log_is_stamped_where_the_platform_does_not(env, stamps):
    assert Config.from_env(env).stamps_log is stamps


def test_settings_never_change():
    with pytest.raises(FrozenInstanceError):
        Config().port = 1  # type: ignore[misc]


# .env, read by a process of its own beside a copy of config.py


def load_in_process(folder: Path, content: bytes | None, **env: str) -> subprocess.CompletedProcess[str]:
    package = folder / "promptlord"
    package.mkdir()
    for module in (config, errors, typos):
        shutil.copy(str(module.__file__), package)
    if content is not None:
        (folder / ".env").write_bytes(content)
    show = (
        "from promptlord.config import Config\nfrom promptlord.errors import ConfigError\n"
        "try: settings = Config.load(); print(settings.keys, settings.port, *settings.warnings, sep='\\n')\n"
        "except ConfigError as error: print(error)"
    )
    inherited = {name: value for name, value in os.environ.items() if name not in {*NAMES, "PYTHON_DOTENV_DISABLED"}}
    return subprocess.run(
        [sys.executable, "-c", show], cwd=folder, env=inherited | env, capture_output=True, text=True, check=True
    )


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_the_env_file_is_read_with_and_without_a_byte_order_mark(tmp_path, mark):
    done = load_in_process(tmp_path, mark + b'GROQ_API_KEYS="gsk_a\r\ngsk_b"\r\nPORT=1234\r\n')

    assert done.stdout.splitlines()[:2] == ["('gsk_a', 'gsk_b')", "1234"]


def test_the_environment_beats_the_env_file(tmp_path):
    done = load_in_process(tmp_path, b"GROQ_API_KEYS=gsk_a\nPORT=1234\n", PORT="5678")

    assert done.stdout.splitlines()[:2] == ["('gsk_a',)", "5678"]


@pytest.mark.parametrize("content", ["GROQ_API_KEYS=gsk_secret".encode("utf-16"), b"GROQ_API_KEYS=gsk_secret\xff\n"])
def test_an_env_file_that_is_not_utf_8_is_said_to_be_so(tmp_path, content):
    done = load_in_process(tmp_path, content)

    assert (done.stdout.strip(), done.stderr) == (".env must be a text file in UTF-8", "")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (f"PORT=1\nGROQ_API_KEYS='{KEY}', 'secret'\n", ["line 2: passed over, put all of the value into one pair"]),
        (f"\n# keys\n\nGROQ_API_KEYS={KEY},\n\nsecret\n", ["line 6: passed over, without NAME= in front"]),
        (f"GROQ_API_KEYS: {KEY}\nset PORT=1\n", [f"line {n}: passed over, without NAME= in front" for n in (1, 2)]),
        (f"GROQ_API_KEYS=secret\nGROQ_API_KEYS={KEY}\n", ["line 2 sets GROQ_API_KEYS again: line 1 is passed over"]),
        ("secret=\nsecret=\nGROQ_API_KEYS='secret\n", ["line 3: passed over, put all of the value"]),
        ("A=1\n\nB='secret\nACCESS_TOKENS=secret\n\nC='d'\n# e\n", ["lines 3 to 6: passed over, put all of the value"]),
    ],
)
def test_the_lines_of_the_env_file_that_are_lost_are_named_by_their_numbers(tmp_path, content, told):
    done = load_in_process(tmp_path, content.encode())

    lines = done.stdout.splitlines()[2:]
    assert [line.startswith(f".env, {each}") for line, each in zip(lines, told, strict=True)] == [True] * len(told)
    assert "secret" not in "".join(lines)
    assert done.stderr == ""


def test_an_env_file_that_cannot_be_read_is_said_to_be_so(tmp_path):
    (tmp_path / "endless").symlink_to(tmp_path / ".env")
    (tmp_path / ".env").symlink_to(tmp_path / "endless")

    done = load_in_process(tmp_path, None)

    assert (done.stdout.strip(), done.stderr) == (".env can't be read: Too many levels of symbolic links", "")


def test_a_virtual_environment_may_have_that_name(tmp_path):
    (tmp_path / ".env").mkdir()

    assert load_in_process(tmp_path, None, PORT="1234").stdout.splitlines() == ["()", "1234"]


def test_an_env_file_that_is_disabled_is_not_judged(tmp_path):
    done = load_in_process(tmp_path, b"gsk_b\n", PYTHON_DOTENV_DISABLED="1")

    assert done.stdout.splitlines()[2:] == []
