"""How many tokens a text is held to have: rather too many, and not many too many."""

import json

import pytest
from completions import count_tokens
from hypothesis import given
from hypothesis import strategies as st

from promptlord.tokens import estimate


@pytest.mark.parametrize(
    ("text", "tokens"),  # as gpt-oss' own tokenizer, o200k, counts them
    [
        ("", 0),
        ("The quick brown fox jumps over the lazy dog.", 10),
        ("Напиши план тренировок на месяц для человека, который никогда не занимался спортом", 17),
        ("πρόγραμμα για 3 μέρες στη Θεσσαλονίκη με λίγα λεφτά", 19),
        ("اكتب وصفا لمنتج قهوة عضوية لمتجر إلكتروني", 16),
        ("מתכון לעוגת שוקולד בלי ביצים", 11),
        ("बच्चों के लिए पानी बचाने पर एक छोटी कहानी लिखो", 14),
        ("แนะนำเมนูอาหารเย็นง่ายๆ สำหรับคนทำงาน", 14),
        ("帮我写一份产品经理的求职信，突出数据分析经验", 16),
        ("請幫我寫一封辭職信，語氣要有禮貌，並說明我會協助交接工作。", 31),
        ("日本の歴史について、中学生にもわかるように短くまとめてください。", 19),
        ("부산 2박 3일 여행 코스 짜줘 차 없음", 16),
        ("ຂ້ອຍມາຈາກວຽງຈັນມື້ວານນີ້ ແລະມື້ນີ້ພັກວຽກ", 72),
        ("\U0001f600\U0001f389\U0001f680\U0001f9d1\u200d\U0001f373", 10),
    ],
)
def test_the_estimate_is_cautious_and_not_too_much_so(text: str, tokens: int) -> None:
    assert 0.9 * tokens <= estimate(text) <= 2.4 * tokens


@given(st.text("aж字ก ", max_size=300))
def test_the_simulator_does_not_count_more(text: str) -> None:
    assert count_tokens(text) <= estimate(text)


def test_half_a_character_is_counted_too() -> None:
    assert estimate("\ud83d") == 2
    assert estimate(json.loads('"\\ude00a"')) == 3


def test_a_large_text_is_counted_by_slices() -> None:
    assert estimate("привет " * 100_000) == pytest.approx(100 * estimate("привет " * 1000), rel=0.001)
