"""Numbers in texts of many languages: which ones a draft has, and whether an answer still has them. Pure."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_ZEROS = "\u0660\u06f0\u0966\u09e6\u0e50\uff10"  # of Arabic, Persian, Devanagari, Bengali, Thai, and of full width
DIGITS = {chr(ord(zero) + digit): str(digit) for zero in _ZEROS for digit in range(10)}

# How a model may write what the draft has in digits. Of words that mean something else in another of these languages
# (Italian "due", Turkish "on") only one meaning is here.
_WORDS = {
    "2": "two second twice zwei zweite deux dos dois duas два две двух δύο δυο اثنين اثنان שני שתי दो 두",
    "3": "three third drei dritte trois tres três три трёх трех τρεις τρία ثلاث ثلاثة שלוש שלושה तीन 세",
    "4": "four fourth vier quatre cuatro quatro четыре четырёх τέσσερις τέσσερα أربع أربعة ארבע ארבעה चार 네",
    "5": "five fifth fünf cinq cinco пять пяти πέντε خمس خمسة חמש חמישה पाँच पांच 다섯",
    "6": "six sixth sechs seis шесть шести έξι ست ستة שש שישה छह 여섯",
    "7": "seven seventh sieben sept siete sete семь семи επτά εφτά سبع سبعة שבע שבעה सात 일곱",
    "8": "eight eighth acht huit ocho oito восемь восьми οκτώ οχτώ ثمان ثماني ثمانية שמונה आठ 여덟",
    "9": "nine ninth neun neuf nueve nove девять девяти εννέα εννιά تسع تسعة תשע תשעה नौ 아홉",
    "10": "ten tenth zehn dix diez dez десять десяти δέκα عشر عشرة עשר עשרה दस 열",
    "11": "eleven elf onze",
    "12": "twelve dozen zwölf douze doce doze",
}
_MEANS = {word: digits for digits, words in _WORDS.items() for word in words.split()}
_SIGNS = dict(zip("二两兩三四五六七八九", "2223456789", strict=True)) | {"十": "10"}  # where no blanks part words

_NUMBER = re.compile(r"\d++(?:[.,']\d++)*+(?:\s?k\b)?", re.IGNORECASE)
_DATE = re.compile(r"(?<!\d)(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4})(?!\d)")
_COUNTS = re.compile(r"(?m)^[ \t>*-]*+\(?\d{1,2}[.):、）]|(?<=\s)\(?\d{1,2}\)(?=\s)")  # the items of a list
_WORD = re.compile(r"(?:[^\W\d_]|[\u0900-\u0963])++")  # Devanagari's vowel signs are no letters


class Numbers(NamedTuple):
    """All numbers of a text: their digits, as they stand there and without what groups them."""

    runs: set[str]
    joined: set[str]


def wanted(draft: str) -> Iterator[str]:
    """The numbers that mean something: not those that count the items of a list, nor a mere 1."""
    rest = _COUNTS.sub(" ", draft)
    for date in _DATE.findall(rest):
        yield from (run for run in re.findall(r"\d+", date) if int(run) > 12)  # a month may be told by its name
    yield from (number for number in _NUMBER.findall(_DATE.sub(" ", rest)) if number != "1")


def told(answer: str) -> Numbers:
    """The numbers of an answer, whatever they mean there, small ones in words too."""
    runs = {run.lstrip("0") for run in re.findall(r"\d+", answer)}
    runs |= {_MEANS[word] for word in _WORD.findall(answer.casefold()) if word in _MEANS}
    runs |= {_SIGNS[sign] for sign in _SIGNS.keys() & set(answer)}
    return Numbers(runs, {_joined(number) for number in _NUMBER.findall(answer)})


def is_told(number: str, had: Numbers) -> bool:
    """Whether it is there, however it is grouped (1,000; 1.000; 1000; 1k), or in its parts."""
    if _joined(number) in had.joined:
        return True
    return all(run.lstrip("0") in had.runs for run in re.findall(r"\d+", number))


def _joined(number: str) -> str:
    digits = re.sub(r"\D", "", number)
    thousands = number[-1] in "kK"
    decimals = len(re.split(r"[.,]", number.rstrip("kK "))[-1]) if thousands and re.search("[.,]", number) else 0
    return digits + "0" * (3 - decimals) if thousands else digits
