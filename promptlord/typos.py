"""What was probably meant: typing errors in the settings and in ``.env``, each told so that it can be mended."""

import re
from collections.abc import Collection, Iterator
from io import StringIO

from dotenv.parser import parse_stream

CONSOLE = "https://console.groq.com/keys"
LIKE = 0.85  # of difflib: REDIS_URI is as like REDIS_URL; REDIS_TLS_URL, which Heroku sets, is not
BEGINNING = 4  # letters that a misspelt name shares with the right one; others', as DD_LOG_LEVEL, begin otherwise

# What stands between keys, and around them where they were copied with it, seen or unseen.
_AROUND = re.compile(r"[\s,;|'\"`“”„‘’«»‹›()<>{}\[\]，、；\u200b\ufeff]+")
_OWN_NAME = re.compile(r"(?:\bexport\s+)?\bGROQ_API_KEYS?\s*[:=]", re.IGNORECASE)
_GLUED = re.compile(r"(?<=.)(?=gsk_)")
_GROQS = re.compile(r"gsk_(?![xX]+\Z)[A-Za-z0-9]{20,}")  # not gsk_your_key_here, gsk_xxxx or one that was cut off
_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?[A-Za-z_]\w*\s*=")


def keys(text: str) -> list[str]:
    """Return every key in ``text``, as often as it is there; two that are glued together are two."""
    return [key for word in _words(text) for key in _GLUED.split(word)]


def _words(text: str) -> list[str]:
    return [word for word in _AROUND.split(_OWN_NAME.sub(" ", text)) if word]


def about_keys(text: str, *, groqs: bool) -> Iterator[str]:
    """Tell what is odd about the keys in ``text``, by their numbers; ``groqs``: they are for Groq's own address."""
    found = keys(text)
    if glued := len(found) - len(_words(text)):
        yield f"GROQ_API_KEYS lacks {glued} comma(s): keys that were glued together are taken apart"
    if repeated := len(found) - len(set(found)):
        yield f"GROQ_API_KEYS repeats {repeated} key(s): each counts once"
    for number, key in enumerate(dict.fromkeys(found), 1):
        if groqs and not _GROQS.fullmatch(key):
            yield f"API Key #{number} does not look like one of Groq's (gsk_ and 52 letters): copy it from {CONSOLE}"


def about_names(names: Collection[str], settings: Collection[str]) -> Iterator[str]:
    """Tell which of ``names`` is no setting, but looks as if it were meant for one of ``settings``."""
    for name in sorted(set(names) - set(settings)):
        if meant := _meant(name, settings):
            shown = name if re.fullmatch("[A-Za-z_]+", name) else "A variable"  # a key may have slipped into it
            yield f"{shown} is no setting, and is passed over: did you mean {meant}?"


def _meant(name: str, settings: Collection[str]) -> str | None:
    letters = _letters(name)
    alike = {_letters(each): each for each in settings if _letters(each)[:BEGINNING] == letters[:BEGINNING]}
    if not alike:
        return None
    from difflib import get_close_matches  # rarely needed, and nothing else in gunicorn's master imports it

    begun = [each for each in alike if "_" in name and each.startswith(letters)]
    like = 0.8 if letters.startswith("GROQ") else LIKE  # nothing else has that beginning
    found = begun or get_close_matches(letters, alike, 1, like)
    return alike[found[0]] if found else None


def _letters(name: str) -> str:
    return re.sub(r"[^A-Z]", "", name.upper())


def about_lines(text: str) -> Iterator[str]:
    """Tell which lines of a ``.env`` are lost, by their numbers alone: there may be keys in them."""
    lines: dict[str, int] = {}
    for binding in parse_stream(StringIO(text)):
        statement = binding.original.string
        last = binding.original.line + statement.rstrip().count("\n")
        first = last - statement.strip().count("\n")
        where = f".env, line {first}" if first == last else f".env, lines {first} to {last}"
        if binding.error and _ASSIGNMENT.match(statement):
            yield f"{where}: passed over, put all of the value into one pair of quotes, or use none"
        elif binding.error or (binding.key and binding.value is None):
            yield f"{where}: passed over, without NAME= in front; keys on several lines need quotes around all of them"
        elif binding.key in lines and binding.key.isupper():
            yield f"{where} sets {binding.key} again: line {lines[binding.key]} is passed over"
        if binding.key:
            lines[binding.key] = first
