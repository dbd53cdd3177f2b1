"""What was probably meant: typing errors in the settings and in ``.env``, each told so that it can be mended."""

import re
from collections.abc import Collection, Iterator
from io import StringIO

from dotenv.parser import parse_stream

CONSOLE = "https://console.groq.com/keys"
LIKE = 0.85  # of difflib: GROQ_API_KEYZ is as like GROQ_API_KEYS; REDIS_TLS_URL, which Heroku sets, not REDIS_URL

_AROUND = re.compile(r"[\s,;'\"`“”‘’()<>{}\[\]]+")  # between keys, and around them where they were copied with it
_OWN_NAME = re.compile(r"GROQ_API_KEYS?=")
_GLUED = re.compile(r"(?<=.)(?=gsk_)")
_GROQS = re.compile(r"gsk_(?!your|x+\Z)\w+", re.ASCII | re.IGNORECASE)  # not gsk_your_key_here, gsk_xxxx or gsk_...


def keys(text: str) -> list[str]:
    """Return every key in ``text``, as often as it is there; two that are glued together are two."""
    return [key for word in _words(text) for key in _GLUED.split(word)]


def _words(text: str) -> list[str]:
    return [word for word in _AROUND.split(_OWN_NAME.sub("", text)) if word]


def about_keys(text: str, *, groqs: bool) -> Iterator[str]:
    """Tell what is odd about the keys in ``text``, by their numbers; ``groqs``: they are for Groq's own address."""
    found = keys(text)
    if glued := len(found) - len(_words(text)):
        yield f"GROQ_API_KEYS lacks {glued} comma(s): keys that were glued together are taken apart"
    if repeated := len(found) - len(set(found)):
        yield f"GROQ_API_KEYS repeats {repeated} key(s): each counts once"
    for number, key in enumerate(dict.fromkeys(found), 1):
        if groqs and not _GROQS.fullmatch(key):
            yield f"API Key #{number} does not look like one of Groq's, gsk_ and many letters: get one at {CONSOLE}"


def about_names(names: Collection[str], settings: Collection[str]) -> Iterator[str]:
    """Tell which of ``names`` is no setting, but looks as if it were meant for one of ``settings``."""
    for name in sorted(set(names) - set(settings)):
        if meant := _meant(name.upper(), settings):
            yield f"{name} is no setting, and is passed over: did you mean {meant}?"


def _meant(name: str, settings: Collection[str]) -> str | None:
    parts = {part for setting in settings for part in setting.split("_")}
    if parts.isdisjoint(name.split("_")):
        return None
    begun = [setting for setting in settings if "_" in name and setting.startswith(f"{name}_")]
    from difflib import get_close_matches  # rarely needed, and a start pays for each import

    like = 0.6 if name.startswith("GROQ_") else LIKE  # what else could it be for?
    return next(iter(begun or get_close_matches(name, settings, 1, like)), None)


def about_lines(text: str) -> Iterator[str]:
    """Tell which lines of a ``.env`` are lost, by their numbers alone: there may be keys in them."""
    lines: dict[str, int] = {}
    for binding in parse_stream(StringIO(text)):
        blank = binding.original.string
        line = binding.original.line + blank[: len(blank) - len(blank.lstrip())].count("\n")
        if binding.error:
            yield f".env, line {line} is passed over: put all of its value into one pair of quotes, or use none"
        elif binding.key and binding.value is None:
            yield f".env, line {line} is passed over, for it has no NAME=; keys on several lines need quotes around all"
        elif binding.key in lines and binding.key.isupper():
            yield f".env, line {line} sets {binding.key} again: line {lines[binding.key]} is passed over"
        if binding.key:
            lines[binding.key] = line
