"""Numbers in texts of many languages: which ones a draft has, and whether an answer still tells them. Pure."""

import re
import unicodedata
from typing import NamedTuple

_ZEROS = "\u0660\u06f0\u0966\u09e6\u0e50"  # of Arabic, Persian, Devanagari, Bengali and Thai
_DIGITS = str.maketrans(
    {chr(ord(zero) + digit): str(digit) for zero in _ZEROS for digit in range(10)}
    | {"\u066b": ".", "\u066c": ","}
    | dict.fromkeys(map(chr, range(0x2460, 0x2474)), " ")  # circled ones count items
)

# How a model may write what the draft has in digits. Of words that mean something else in another of these languages
# (Italian "due", Hindi "दो") only the other meaning is held to be there.
_WORDS = """
    0.5 half
    2 two second twice zwei zweite deux dos dois duas twee dwa iki два две двух двумя δύο δυο اثنين اثنان שני שתי 두
    3 three third drei dritte trois tres três tre trzy üç tiga три трёх трех τρεις τρία ثلاث ثلاثة שלוש שלושה तीन 세
    4 four fourth vier quatre cuatro quatro quattro cztery dört четыре четырёх τέσσερις أربع أربعة ארבע ארבעה चार
    5 five fifth fünf cinq cinco cinque vijf pięć beş fem lima пять пяти пятью πέντε خمس خمسة חמש חמישה पाँच पांच 다섯
    6 six sixth sechs seis zes sześć altı enam шесть шести έξι ست ستة שש שישה छह 여섯
    7 seven seventh sieben sept siete sete sette zeven siedem yedi sju семь семи επτά εφτά سبع سبعة שבע שבעה सात 일곱
    8 eight eighth acht huit ocho oito otto osiem sekiz åtta восемь восьми οκτώ οχτώ ثمان ثماني ثمانية שמונה आठ 여덟
    9 nine ninth neun neuf nueve nove negen dziewięć dokuz nio девять девяти εννέα εννιά تسع تسعة תשע תשעה नौ 아홉
    10 ten tenth zehn dix diez dez dieci tien dziesięć tio sepuluh десять десяти δέκα عشر عشرة עשר עשרה दस 열
    11 eleven elf onze
    12 twelve dozen noon midday midnight zwölf douze doce doze
    13 thirteen
    14 fourteen
    15 fifteen fünfzehn quinze quince пятнадцать
    16 sixteen
    17 seventeen
    18 eighteen
    19 nineteen nineteenth
    20 twenty twentieth zwanzig vingt veinte vinte двадцать
    30 thirty
    40 forty
    50 fifty
    100 hundred
    1000 thousand
"""
_MEANS = {word: digits for digits, *words in map(str.split, _WORDS.strip().splitlines()) for word in words}
_SIGNS = {sign: digits for digits, signs in (("2", "二两兩"), ("10", "十")) for sign in signs}
_SIGNS |= {sign: str(number) for number, sign in enumerate("三四五六七八九", 3)}
_COUNTED = "个個条條つ人名点點种種篇段句步天周週年月日秒章页頁字位项項次回本件"  # of which such signs tell the number
_SIGN = re.compile(f"([{''.join(_SIGNS)}])(?=[{_COUNTED}])")
_ROMAN = re.compile(r"\b([IVXLC]{2,7}|[VX])e?\b")
_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}

_RUN = re.compile(r"\d++")
_TOKEN = re.compile(
    r"""(?<!\d) (?:
    (?P<date> (?: \d{4} ([-/.]) \d\d? \2 \d\d? | \d\d? ([-/.]) \d\d? \3 (?:\d{4}|\d\d) ) (?!\d) )
    | (?P<day> (?<!/) \d\d? / \d\d? (?![\d/]) | 0\d \. [01]\d (?![.\d]) | \d\d? \. \d\d? \. (?!\d) )
    | (?P<time> \d\d? (?: : \d\d (?: : \d\d )? (?![\d:]) | (?=\s?[ap]\.?m\b) ) )
    | (?P<year> (?: (?<=['/]) \d\d (?!\d) | \d\d (?=s\b) ) )
    | (?P<long> \d (?: [ ()/-]{0,3} \d ){6,17} (?!\d) )
    | (?P<number> \d{1,3} (?: [ ] \d{3} )++ (?!\d) | \d++ (?: [.,'] \d++ )*+ (?: \s?k\b )? )
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_BARE = re.compile(r"(?<![\w.])\.(?=\d)")
_DOTTED = re.compile(r"(?<![\d.])(\d\d?)\.([0-5]\d)(?![\d.])")  # a time, perhaps
_BETWEEN = re.compile(r"(?<=\d)[ ().,'/-]++(?=\d)")
_WORD = re.compile(r"(?:[^\W\d_]|[\u0900-\u0963])++")  # Devanagari's vowel signs are no letters
# Where the items of a list are counted: before them in their line, or between them.
_COUNTER = re.compile(
    r"(?m)(?:^[ \t>*#|(\[-]*+|(?<=[\s:;。,])[(\[]?)(\d{1,2})(?:(?=[.)\]、:/-](?!\d))|(?=\ufe0f?\u20e3))"
)
_CHAT = re.compile(r"\b(?:gr8|w8|m8|l8r|h8|b4|2day|2moro\w*|2nite|4u|u|ur)\b|<3", re.IGNORECASE)
_GLUED = re.compile(r"(?<=[A-Za-z])\d(?=[A-Za-z])")  # p2p, k8s
_LONG = 7  # digits from which on it does not matter how they are grouped

Ways = list[set[str]]


class Number(NamedTuple):
    """A number of a draft, ``text`` as it stands there. It is told where all forms in one of the sets are."""

    text: str
    ways: Ways


class Told(NamedTuple):
    """The numbers of an answer: their forms, and all digits without what groups them."""

    forms: set[str]
    digits: str


def wanted(draft: str) -> list[Number]:
    """The numbers that mean something: not those that count the items of a list, nor a mere 1."""
    text = _normal(draft)
    spelt = {"2", "4"} if _CHAT.search(text) else set()  # "2 c u", "4 my essay"
    text = _spelt_out(_uncounted(text))
    numbers = {match[0]: Number(match[0], _ways(match)) for match in _TOKEN.finditer(text)}
    return [number for text, number in numbers.items() if text not in spelt and all(number.ways)]


def told(answer: str, draft: str) -> Told:
    """What numbers an answer tells, small ones in words too; those that count its items only if the draft counts."""
    text = _normal(answer)
    if not {"1", "2"} <= set(_RUN.findall(_normal(draft))):
        text = _uncounted(text)
    squeezed = _BETWEEN.sub("", text)
    forms = {form for match in _TOKEN.finditer(_spelt_out(text)) for way in _ways(match) for form in way}
    forms |= {_plain(run) for run in _RUN.findall(squeezed) if len(run) > 3}
    forms |= {_plain(run) for time in _DOTTED.findall(text) for run in time}
    forms |= {_MEANS[word] for word in _WORD.findall(text.casefold()) if word in _MEANS}
    forms |= {_SIGNS[sign] for sign in _SIGN.findall(text)} | {_roman(sign) for sign in _ROMAN.findall(text)}
    return Told(forms | ({"0.5"} if "1\u20442" in text else set()), squeezed)


def is_told(number: Number, had: Told) -> bool:
    digits = "".join(_RUN.findall(number.text))
    return any(way <= had.forms for way in number.ways) or (len(digits) >= _LONG and digits in had.digits)


def _normal(text: str) -> str:
    """The same in ASCII's digits: full width, superscripts and fractions too; .5 as 0.5."""
    text = text if text.isascii() else unicodedata.normalize("NFKC", text.translate(_DIGITS))
    return _BARE.sub("0.", text)


def _spelt_out(text: str) -> str:
    """Without digits that are parts of words."""
    return _GLUED.sub(" ", _CHAT.sub(" ", text))


def _uncounted(text: str) -> str:
    """Without what counts the items of a list: 1, 2, 3 … in the places for it."""
    last, pieces, end = 0, [], 0
    for match in _COUNTER.finditer(text):
        if (number := int(match[1])) in (1, last + 1):
            pieces.append(text[end : match.start(1)])
            last, end = number, match.end(1)
    return " ".join([*pieces, text[end:]])


def _ways(match: re.Match[str]) -> Ways:
    """The sets of forms of which each tells the number; one is empty where it is a mere 1, or nothing but zeros."""
    token, kind = match[0], match.lastgroup
    runs = [_plain(run) for run in _RUN.findall(token)]
    match kind:
        case "date":
            year, *day = runs if len(token) > 4 and token[:4].isdigit() else runs[::-1]
            ways = [{each, *small} for each in _years(year) for small in _days(*day)]
        case "day":
            ways = [*_days(*runs), *([{"0.5"}] if token == "1/2" else [])]
        case "time":
            ways = [{hour, *runs[1:2]} for hour in _hours(int(runs[0] or 0))]
        case "year":
            ways = [{year} for year in _years(runs[0])]
        case "long":
            ways = [set(runs)]
        case _:
            ways = [{form} for form in _forms(token)]
            ways += [set(runs)] if len(runs) > 2 or " " in token else []
    return [way - {"", "1"} for way in ways]


def _plain(run: str) -> str:
    return run.lstrip("0")


def _years(year: str) -> list[str]:
    return [year, f"20{year:0>2}", f"19{year:0>2}"] if len(year) < 3 else [year]


def _days(one: str, other: str) -> Ways:
    """A day and a month, in whichever order; the month may be told by its name."""
    ways = [{one, other}]
    return ways + [{day} for day, month in ((one, other), (other, one)) if month and int(month) <= 12]


def _hours(hour: int) -> list[str]:
    return [_plain(str(each)) for each in ((hour, hour % 12, hour % 12 + 12) if hour <= 24 else (hour,))]


def _forms(token: str) -> set[str]:
    """As it may be written: 1,000 as 1000, 1.50 as 1.5, 10k as 10000; 1.2.3 as it is."""
    thousands = token[-1] in "kK"
    whole, *parts = re.split(r"[.,' ]", token.rstrip("kK ").rstrip())
    if thousands and len(parts) < 2:
        return {_plain(whole + "".join(parts).ljust(3, "0"))}
    if not parts:
        return {_plain(whole)}
    last = parts[-1].rstrip("0")
    decimal = f"{_plain(whole + ''.join(parts[:-1])) or '0'}.{last}".rstrip(".")
    if all(len(part) == 3 for part in parts):
        return {_plain(whole + "".join(parts)), *([decimal] if len(parts) == 1 and last else [])}
    return {decimal} if len(parts) == 1 or all(len(part) == 3 for part in parts[:-1]) else {".".join([whole, *parts])}


def _roman(sign: str) -> str:
    values = [_VALUES[letter] for letter in sign]
    return str(sum(-each if each < after else each for each, after in zip(values, [*values[1:], 0], strict=True)))
