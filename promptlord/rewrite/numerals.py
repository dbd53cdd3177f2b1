"""Numbers in texts of many languages: which ones a draft has, and whether an answer still tells them. Pure."""

import re
import unicodedata
from collections.abc import Iterator
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
_HAN = {sign: digits for digits, signs in (("2", "二两兩"), ("10", "十")) for sign in signs}
_HAN |= {sign: str(number) for number, sign in enumerate("三四五六七八九", 3)}
_COUNTED = "个個条條つ人名点點种種篇段句步天周週年月日秒章页頁字位项項次回本件"  # of which such signs tell the number
_HAN_COUNT = re.compile(f"([{''.join(_HAN)}])(?=[{_COUNTED}])")
_ROMAN = re.compile(r"([IVXLC]{2,7}|[VX])e?")
_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}

_RUN = re.compile(r"\d++")
_TOKEN = re.compile(
    r"""(?<!\d) (?:
    (?P<date> (?: \d{4} ([-/.]) \d\d? \2 \d\d? | \d\d? ([-/.]) \d\d? \3 (?:\d{4}|\d\d) ) (?!\d) )
    | (?P<day> (?<!/) \d\d? / \d\d? (?![\d/]) | 0\d \. [01]\d (?![.\d]) | \d\d? \. \d\d? \. (?!\d) )
    | (?P<time> \d\d? (?: : \d\d (?: : \d\d )? (?![\d:]) | (?=\s?[ap]\.?m\b) ) )
    | (?P<year> (?: (?<=['/]) \d\d (?!\d) | \d\d (?=s\b) ) )
    | (?P<long> \d (?: [ ()/-]{0,3} \d ){6,17} (?!\d) )
    | (?P<number> \d{1,3} (?: [ ] \d{3} )+ (?!\d) | \d++ (?: [.,'] \d++ )* (?: \s?k\b )? )
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_BARE = re.compile(r"(?<![\w.])\.(?=\d)")
_DOTTED = re.compile(r"\d\d?\.[0-5]\d")  # a time, perhaps
_GROUPED = re.compile(r"(\d)[ ().,'/-]++(?=\d)")
_WORD = re.compile(r"""[^\s\d.,;:!?()\[\]{}"'*_/-]++""")  # with Devanagari's vowel signs, which are no letters
_COUNTS = re.compile(r"[.)\]、:/-](?!\d)|\ufe0f?\u20e3")  # behind what counts the items of a list; before it only
_BEFORE = re.compile(r"(?:\A|\n)[ \t>*#|(\[-]*+\Z|[\s:;。,][(\[]?\Z")  # what begins a line, or divides it
_BEHIND_A_WORD, _ALONE = re.compile(r"\w[ (]{1,2}\Z"), re.compile(r"(?!\w|[.,:/-]\d|[.)、]\s)")
_LOOK = 20  # characters before it
_CHAT = re.compile(r"\b(?:gr8|w8|m8|l8r|h8|b4|2day|2moro\w*|2nite|4u|u|ur)\b|<3", re.IGNORECASE)
_GLUED = re.compile(r"(?<=[A-Za-z])\d(?=[A-Za-z])")  # p2p, k8s
_LONG = 7  # digits from which on it does not matter how they are grouped

Ways = list[set[str]]


class Number(NamedTuple):
    """A number of a draft, ``text`` as it stands there. It is told where all forms in one of the sets are."""

    text: str
    ways: Ways


def missing(draft: str, answer: str) -> list[str]:
    """The numbers of a draft that an answer does not tell, as they stand there.

    Not wanted are those that count the items of a list, and a mere 1; neither do they tell one in an answer, unless the
    draft counts too.
    """
    text = _normal(draft)
    counted = _uncounted(text)
    rest = _spelt_out(counted)
    left = [number for number in _wanted(rest, text) if not _stands_in(answer, number.text)]
    if not left:
        return []  # as mostly, and the rest takes longer
    said = _normal(answer)
    if not {"1", "2"} <= set(_RUN.findall(text)):
        said = _uncounted(said)
    said = said if rest == counted else _spelt_out(said)
    forms = set[str]()
    for told in (_in_digits, _in_words):
        forms |= told(said)
        left = [number for number in left if not any(way <= forms for way in number.ways)]
        if not left:
            return []
    squeezed = _GROUPED.sub(r"\1", said)
    return [number.text for number in left if not _is_regrouped(number.text, squeezed)]


def _wanted(rest: str, draft: str) -> list[Number]:
    spelt = {"2", "4"} if _CHAT.search(draft) else set()  # "2 c u", "4 my essay"
    numbers = {match[0]: Number(match[0], _ways(match)) for match in _tokens(rest)}
    return [number for text, number in numbers.items() if text not in spelt and all(number.ways)]


def _stands_in(answer: str, number: str) -> bool:
    """Whether it is there just so, behind a word, and counts no item; only its first place is looked at."""
    start = answer.find(number)
    return (
        start > 0
        and bool(_BEHIND_A_WORD.search(answer[max(0, start - 3) : start]))
        and bool(_ALONE.match(answer, start + len(number)))
    )


def _tokens(text: str) -> Iterator[re.Match[str]]:
    """All numbers; to look for a digit first is ten times as fast as to try at each character."""
    end = 0
    while digit := _RUN.search(text, end):
        token = _TOKEN.match(text, digit.start())
        assert token
        yield token
        end = token.end()


def _in_digits(text: str) -> set[str]:
    forms = set[str]()
    for token in {token[0]: token for token in _tokens(text)}.values():
        forms.update(*_ways(token))
        if _DOTTED.fullmatch(token[0]):
            forms.update(map(_plain, token[0].split(".")))
    return forms | {_plain(run) for run in _RUN.findall(_GROUPED.sub(r"\1", text)) if len(run) > 3}


def _in_words(text: str) -> set[str]:
    words = set(_WORD.findall(text))
    forms = {_MEANS[word] for word in _MEANS.keys() & set(map(str.casefold, words))}
    forms |= {_roman(sign[1]) for sign in map(_ROMAN.fullmatch, words) if sign}
    if text.isascii():
        return forms
    return forms | {_HAN[sign] for sign in _HAN_COUNT.findall(text)} | ({"0.5"} if "1\u20442" in text else set())


def _is_regrouped(number: str, squeezed: str) -> bool:
    """Whether a long number is there with other blanks and signs in it, as phones' are."""
    digits = "".join(_RUN.findall(number))
    return len(digits) >= _LONG and digits in squeezed


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
    for match in _RUN.finditer(text):
        start = match.start()
        if len(match[0]) > 2 or int(match[0]) not in (1, last + 1) or not _COUNTS.match(text, match.end()):
            continue
        if _BEFORE.search(text[max(0, start - _LOOK) : start]):
            pieces.append(text[end:start])
            last, end = int(match[0]), match.end()
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
