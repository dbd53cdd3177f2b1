"""What an answer has lost of its draft: found where it has, and hardly ever where it has not."""

import time
from textwrap import indent

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptlord.rewrite.kept import MANY, SHOWN, Kind, Loss, losses
from promptlord.rewrite.looks import plain

BLOCK = "def total(rows):\n    s = 0\n    for r in rows:\n        s =+ r['price']\n    return s"
FENCED = f"why?\n```python\n{BLOCK}\n```"


def lost(draft: str, answer: str) -> list[Kind]:
    return [loss.kind for loss in losses(draft, answer)]


# What is lost


@pytest.mark.parametrize(
    ("draft", "answer", "kinds"),
    [
        (FENCED, "Explain why my function returns a wrong total.", [Kind.BLOCK]),
        (FENCED, FENCED.replace("=+", "+="), [Kind.BLOCK]),
        (FENCED, FENCED.replace("        s", "    s"), [Kind.BLOCK]),
        (FENCED, FENCED.replace("    return s\n", ""), [Kind.BLOCK]),
        ("a\n```\n1\n```\nb\n~~~\n2\n~~~", "```\n1\n```", [Kind.BLOCK]),
        ("fix\n```bash\ncp $1 /backup", "fix the script that copies", [Kind.BLOCK]),
        ("fix this: ```js\nlet x = 1\nx++\n```\nplease", "Fix this: ```js\nlet x = 1\n```\nplease", [Kind.BLOCK]),
        ("- ```sh\n  rm a\n  ```\n- ok", "Explain what to remove.", [Kind.BLOCK]),
        ("```\nprint(total)```\nexplain", "Explain the output.", [Kind.BLOCK]),
        ("```\ncat\n```", "Name a category.", [Kind.BLOCK]),
        ("```\ntimeout=10\n```", "```\ntimeout=1000\n```", [Kind.BLOCK]),
        ('```\nprint("hi")\n```', "```\nprint(“hi”)\n```", [Kind.BLOCK]),
        ("```\na &amp; b\n```", "```\na & b\n```", [Kind.BLOCK]),
        ("```print(1)``` and ``a`` b", "Explain it.", [Kind.CODE, Kind.CODE]),
        ("does `sleep 1` wait", "Does `sleep 10` wait?", [Kind.CODE]),
        ("what is `at`", "What is that?", [Kind.CODE]),
        ("what is `at`", "What is it that looks at it?", [Kind.CODE]),
        ("what does `git rebase -i` do", "What does an interactive rebase do?", [Kind.CODE]),
        ("what does `git rebase -i` do", "What does `git rebase` do?", [Kind.CODE]),
        ("Excelの`SUMIF`と`SUMIFS`の違い", "Excelの`SUMIF`の違いを教えてください", [Kind.CODE]),
        ("Excelの`SUMIF`と`SUMIFS`の違い", "Excelの`SUMIFS`の違いを教えてください", [Kind.CODE]),
        ("what does `ls` do", "What do tools do?", [Kind.CODE]),
        ("see https://example.com/a?b=1#c.", "See the page.", [Kind.LINK]),
        ("see https://example.com/a", "See https://example.com.", [Kind.LINK]),
        ("see https://example.com", "See https://example.com/a.", [Kind.LINK]),
        ("看https://example.cn/doc/7。谢谢", "请看文档。谢谢您的帮助", [Kind.LINK]),
        ("www.example.com is slow", "The site is slow.", [Kind.LINK]),
        ("mail bob@example.com", "Mail Bob.", [Kind.ADDRESS]),
        ("发到help@example.cn说明", "发邮件说明", [Kind.ADDRESS]),
        ("hi {{name}}", "Hi Anna", [Kind.PLACEHOLDER]),
        ("hi {{name}}", "Hi {name}", [Kind.PLACEHOLDER]),
        ("about [TOPIC]", "About topic", [Kind.PLACEHOLDER]),
        ("提到[爱好]", "提到爱好", [Kind.PLACEHOLDER]),
        ("review <file>", "Review the file", [Kind.PLACEHOLDER]),
        ("translate $1 into $2", "Translate $1", [Kind.PLACEHOLDER]),
        ("is ${HOME}/bin in $PATH", "Is my bin in $PATH?", [Kind.PLACEHOLDER]),
        ("summarise {article}", "Summarise the article", [Kind.PLACEHOLDER]),
        ("[नाम] को पत्र लिखो", "नाम को पत्र लिखिए", [Kind.PLACEHOLDER]),
        ("【名前】さんへの手紙", "名前さんへの手紙を書いてください", [Kind.PLACEHOLDER]),
        ("[NAME]: write a mail", "NAME: write a mail", [Kind.PLACEHOLDER]),
        ("for %USER_NAME% only", "For the user only", [Kind.PLACEHOLDER]),
        ("a mail to [e.g. Anna Smith]", "A mail to somebody", [Kind.PLACEHOLDER]),
        ("rent 950", "My rent", [Kind.NUMBER]),
        ("rent 950", "Rent: 9500", [Kind.NUMBER]),
        ("rent 950", "My rent 9500 is high.", [Kind.NUMBER]),
        ("give 3 tips", "Give tips:\n1: short\n2: clear\n3: friendly", [Kind.NUMBER]),
        ("5 ideas", "Ideas", [Kind.NUMBER]),
        ("on 2027-03-14", "On March 14", [Kind.NUMBER]),
        ("on 2027-03-04", "On 2027-09-08", [Kind.NUMBER]),
        ("give 1.5 mg", "Give 15 mg.", [Kind.NUMBER]),
        ("it costs 9.99", "It costs 999.", [Kind.NUMBER]),
        ("- 1.5 cups\n- 2.25 spoons", "2.5 cups and 3.25 spoons", [Kind.NUMBER] * 2),
        ("0.5 mg a day", "5 mg a day", [Kind.NUMBER]),
        ("10.000 Euro Kredit", "20.000 Euro Kredit", [Kind.NUMBER]),
        ("09:30 standup\n14:30 review", "11:30 standup, 16:30 review", [Kind.NUMBER] * 2),
        ("my son (12), my daughter (9)", "My son and my daughter", [Kind.NUMBER] * 2),
        ("12. Mai Geburtstag", "Geburtstag im Mai", [Kind.NUMBER]),
        ("version 1.2.3", "version 123", [Kind.NUMBER]),
        ("give me 3 tips", "Give tips.\n1. Short\n2. Clear\n3. Friendly", [Kind.NUMBER]),
        ("10个想法", "十分好的想法", [Kind.NUMBER]),
        ("заплати 80 евро", "Заплати Тому евро", [Kind.NUMBER]),
        ("напиши план тренировок", "Write a training plan.", [Kind.SCRIPT]),
        ("объясни React hooks, useEffect и useState, с примером", "Explain React hooks.", [Kind.SCRIPT]),
        ("γράψε ένα email", "Write an email.", [Kind.SCRIPT]),
        ("اكتب وصفا", "Write a description.", [Kind.SCRIPT]),
        ("מתכון לעוגה", "A recipe for a cake.", [Kind.SCRIPT]),
        ("एक कहानी लिखो", "Write a story.", [Kind.SCRIPT]),
        ("แนะนำเมนู", "Recommend dishes.", [Kind.SCRIPT]),
        ("你好", "Greet me.", [Kind.SCRIPT]),
        ("React useEffect 사용법 알려줘", "Explain how to use useEffect in React.", [Kind.SCRIPT]),
        ("用Python写一个web scraper抓取数据", "Write a web scraper in Python.", [Kind.SCRIPT]),
        ("歴史をまとめて", "Summarise the history.", [Kind.SCRIPT]),
        ("면접 팁", "Interview tips.", [Kind.SCRIPT]),
    ],
)
def test_what_an_answer_lacks_is_found(draft, answer, kinds):
    assert lost(draft, answer) == kinds


# What only looks different


@pytest.mark.parametrize(
    ("draft", "answer"),
    [
        (FENCED, f"Explain:\n\n1. The code:\n\n{indent(f'```py{chr(10)}{BLOCK}{chr(10)}```', '   ')}\n\n2. Be brief."),
        (FENCED, f"Explain this:\n\n~~~\n{BLOCK}  \n~~~"),
        (FENCED, f"Explain this function.\n\n{BLOCK}\n\nBe brief."),
        (FENCED.replace("\n", "\r\n"), FENCED),
        ("fix\n```bash\ncp $1 /backup", "Fix:\n```bash\ncp $1 /backup\n```\nBe careful."),
        ("```\n```", "Ask what code is meant."),
        ("fix this: ```js\nlet x = 1\n```\nplease", "Please fix this:\n```javascript\nlet x = 1\n```"),
        (FENCED, "Explain:\n\n    " + BLOCK.replace("\n", "\n    ")),
        (FENCED, "> Explain:\n> ```\n> " + BLOCK.replace("\n", "\n> ") + "\n> ```"),
        (FENCED, FENCED.replace("    s = 0\n", "    s = 0\n\n")),
        ("```go\nif x {\n\treturn\n}\n```", "```go\nif x {\n    return\n}\n```"),
        ("`print(“hi”)` fails", 'Why does `print("hi")` fail?'),
        ("what is `at`", "Explain **at** and “at” on Unix."),
        ("what does `git  rebase` do", "What does **git rebase** do?"),
        ("print(“hi”) in `print(“hi”)`", 'Explain `print("hi")`.'),
        ("it`s hard, isn`t it", "It's hard, isn't it?"),
        ("a ` b ` c `d", "A, b, c, d"),
        ("see https://example.com/.", "See [the page](https://example.com)."),
        ("see (https://example.org/wiki/A_(b)), ok?", "See https://example.org/wiki/A_(b), please."),
        ("see http://example.com/a", "See https://example.com/a"),
        ("see https://example.com/a?b=1&amp;c=2", "See <https://example.com/a?b=1&c=2>."),
        ("请看https://example.cn/doc/7。", "请阅读 https://example.cn/doc/7 并总结。"),
        ("www.example.com", "Look at https://www.example.com/."),
        ("mail Bob@Example.com.", "Write to bob@example.com, please."),
        ("see HTTP://Example.COM/A", "See http://example.com/A"),
        ("https://de.example.org/wiki/Müller", "https://de.example.org/wiki/M%C3%BCller"),
        ("a,https://example.com/1,20", "| a | https://example.com/1 | 20 |"),
        ("https://a.example/x\\_y", "https://a.example/x_y"),
        ("write about [insert `topic` here]", "Write about [insert `topic` here]."),
        ("render {{ `name` }} in go", "Render {{ `name` }} in Go."),
        ("from <bob bob@example.org>", "From bob <bob@example.org>"),
        ("[product name] text", "Text for [Product Name]"),
        ("dogs [but no cats please]", "Dogs, but no cats please."),
        ("[NAME] or {{x}}", "\\[NAME\\] or \\{\\{x\\}\\}"),
        ("center a <div>, press <enter>", "Centre a `div`, press Enter."),
        ("it costs $5 per user", "It costs 5 USD per user."),
        ("- [X] eggs\n- [x] milk", "Eggs and milk are done."),
        ("hi {{ name }}", "Dear {{name}},"),
        ("about [TOPIC]", "About **[TOPIC]**: three ideas"),
        ("about [TOPIC]", "[TOPIC](s) matter"),
        ("$1, {{x}}, <y> and {z}", "[$1] ({{x}}) [see <y>] <{z}>"),
        ("make it <b>bold</b><br>and <i>nice", "Make it bold and nice."),
        ("a List<String> and a[i]", "A list of strings and an array."),
        ("- [x] milk\n[a link](other)", "Milk, a link."),
        ("it costs $5.50 or $10", "Price: 5.50 or 10 dollars"),
        ("write 1 paragraph", "Write a single paragraph."),
        ("5 ideas, 2 pages", "Five ideas on two pages."),
        ("5 ideas", "Gib fünf Ideen."),
        ("3 मिनट", "तीन मिनट"),
        ("3个想法", "给出三个想法"),
        ("for the 2nd time", "For the second time"),
        ("1,000 or 2.000 or 3'000", "1000, 2,000 and 3.000"),
        ("10k people, 1.5k dogs", "10,000 people and 1500 dogs"),
        ("80 евро", "80\u00a0евро"),
        ("٥٠ كلمة", "50 كلمة"),
        ("５０文字", "50文字で"),
        ("1. milk\n2) eggs\n 3. bread\n- 4: tea", "- Milk\n- Eggs\n- Bread\n- Tea"),
        ("do 1) this 2) that 3) more", "Do this, that and more."),
        ("on 2027-03-14 and 24.12.2026", "On March 14, 2027 and on December 24, 2026"),
        (
            "call +49 170 5550123 at 08:30",
            "Call +49 (170) 5550123 at 8:30 am.",
        ),
        ("бюджет 150000 рублей", "Бюджет 150 000 рублей"),
        ("salaire 35 000 euros", "Salaire de 35000 euros"),
        ("call 5551234567", "Call (555) 123-4567."),
        ("call +49 170 5550123", "Call +49 1705 550-123."),
        ("0.5 l of milk", "½ l of milk"),
        ("1k1ka@", "Repeat 1k1ka@ twice."),
        ("co2, 20 m2, x^2", "CO₂, 20 m², x²"),
        ("1/2 cup, 0.5 l, .25 g", "½ cup, half a litre, 0.25 g"),
        ("see https://www.example.com", "See https://example.com"),
        ("at 8:00, 15:30 and 3pm", "At 8 a.m., 3:30 p.m. and 15:00"),
        ("costs 10.00", "It costs 10."),
        ("12/25 and 3/14/25", "December 25 and March 14, 2025"),
        ("in the 90s and '95", "In the 1990s and 1995"),
        ("1️⃣ milk 2️⃣ eggs", "- Milk\n- Eggs"),
        ("请写：1、牛奶 2、鸡蛋；3、面包", "请写：\n- 牛奶\n- 鸡蛋\n- 面包"),
        ("1 milk\n2 eggs", "1. Milk\n2. Eggs"),
        ("need help 4 my essay, u know", "Help me with my essay."),
        ("gr8 b2b text", "A great business-to-business text"),
        ("ww2 and louis 14", "World War II and Louis XIV"),
        ("20 ideas, 15 minutes", "Twenty ideas in fifteen minutes"),
        ("on 1.3. at 10:30", "Am 1. März um 10.30 Uhr"),
        ("A4, H2O, gpt-4", "Use A4, H2O and GPT\u20114."),
        ("translate доброе утро to english", "Translate «доброе утро» into polite English. Return one line only."),
        ("你好", "Greet me with 你好 and ask what I need."),
        ("what is μ and σ", "What do mu and sigma mean?"),
        ("напиши о Python", "Напиши подробную статью о Python, Django, Flask, FastAPI, pytest, mypy, ruff."),
        ("Übersetze: garçon", "Translate: garçon"),
        ("🎂🎉 !!", "Write a birthday text."),
        ("&nbsp;hello&nbsp;", "Say hello."),
    ],
)
def test_what_only_looks_different_is_not_lost(draft, answer):
    assert losses(draft, answer) == []


@pytest.mark.parametrize(
    "draft", [FENCED, "hi {{name}}, pay 80 to bob@example.com at https://example.com/a/ `now`", "你好"]
)
def test_nothing_is_lost_of_a_draft_that_is_still_there(draft):
    assert losses(draft, f"You are an expert.\n\n{draft}\n\nBe brief.") == []


def test_a_part_is_told_as_it_stands_in_the_draft_and_a_long_one_by_its_beginning():
    assert losses("hi {{ name }}", "hi") == [Loss(Kind.PLACEHOLDER, "{{ name }}")]

    (loss,) = losses(f"```\n{'x' * 300}\n```", "hi")
    assert loss.text == "x" * 300
    assert loss.shown == "x" * SHOWN + " [and so on]"


def test_each_part_is_told_once_and_not_more_than_anyone_reads():
    assert len(losses("pay 80, 80 or 80", "pay")) == 1
    assert len(losses(" ".join(map(str, range(100, 300))), "none")) == MANY


# Whatever is in them: it neither raises nor takes long. Nothing else runs meanwhile.

UNITS = [
    *(
        "`",
        "``",
        "```\n",
        "~~~\n",
        "` ",
        "`a` ",
        "````a`\n",
        "a@",
        "a@b.",
        "a.b@c",
        "@",
        "http://",
        "a://",
        "www.",
        "a-b+",
    ),
    *(
        "https://a.b/((",
        "))",
        "{{",
        "{{a}} ",
        "{a",
        "}",
        "[",
        "[A] ",
        "[A",
        "]",
        "<",
        "<a> ",
        "<a",
        "$1",
        "$A",
        "$",
        "1",
        "1,",
    ),
    *(
        "1.1-",
        "2027-01-",
        "1)",
        " 1) ",
        "- 1.",
        "十",
        "五 ",
        "дв",
        "я",
        "字",
        "1k",
        "k",
        "\n",
        " \n",
        "\t",
        "  x\n",
        "'",
        "&nbsp;",
    ),
    *("two ", "é", "\u0660", "\u2011", "\U0001f600", "</a>", "<b>", "```", "\0", "\x1c", "۱"),
]


def seconds(draft: str, answer: str) -> float:
    """Of processor time, which other programs do not take from."""
    began = time.thread_time()
    losses(draft, answer)
    return time.thread_time() - began


@pytest.mark.parametrize("unit", UNITS, ids=ascii)
def test_whatever_repeats_is_compared_in_no_time(unit):
    draft, answer = (unit * (length // len(unit) + 1) for length in (5000, 10_000))

    assert seconds(draft[:5000], answer[:10_000]) < 0.1
    assert seconds(f"a{draft}"[:5000], f"b {answer}"[:100_000]) < 0.25


@settings(max_examples=30, deadline=None)
@given(*(st.lists(st.sampled_from(UNITS), min_size=1, max_size=8) for _ in range(2)), st.integers(1, 1000))
def test_whatever_repeats_in_whatever_repeats_is_compared_in_no_time(ours, theirs, times):
    draft, answer = ("".join((unit * times)[:3000] for unit in units) for units in (ours, theirs))

    assert seconds((draft * 5000)[:5000], (answer * 10_000)[:10_000]) < 0.1


@settings(deadline=None)
@given(st.text(), st.text())
def test_no_texts_make_it_raise(draft, answer):
    assert len(losses(draft, answer)) <= MANY
    assert losses(draft, "") == losses(draft, "\n")


@settings(deadline=None)
@given(st.lists(st.sampled_from([*UNITS, "a", " ", "b "])).map("".join))
def test_whatever_a_draft_has_is_found_where_the_answer_has_all_of_it(draft):
    assert losses(draft, draft) == []


@given(st.text())
def test_texts_that_look_the_same_are_the_same(text):
    assert plain(plain(text)) == plain(text)
