"""What models put around a prompt is taken off, and in no time."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptlord.rewrite.cleaning import clean


@pytest.mark.parametrize(
    "label",
    [
        "Enhanced prompt:",
        "Enhanced Prompt: ",
        "enhanced prompt:\n\n",
        "**Enhanced Prompt:** ",
        "**Enhanced Prompt**: ",
        "**Enhanced Prompt**\n\n",
        "## Enhanced Prompt\n\n",
        "### Improved Prompt:\n",
        "*Rewritten prompt:*\n",
        "The improved prompt:\n",
        "Your refined prompt: ",
        "Optimized prompt:\n",
        "Here is the enhanced prompt:\n\n",
        "Here's the enhanced prompt:\n",
        "Here\u2019s an improved prompt: ",
        "Here is your rewritten prompt: ",
        "Here is an improved version of your prompt:\n",
        "Here's a better version:\n",
        "Sure, here's the enhanced prompt:\n",
        "Sure! Here is the enhanced prompt:\n",
        "Certainly! Here\u2019s a refined version of the prompt:\n\n",
        "Of course. Here is the **enhanced prompt**:\n",
        "<think>The user wants\n\nmore.</think>\n\nEnhanced prompt: ",
        "The improved prompt is:\n",
        "Here's a rewritten version of the original prompt:\n\n",
        "Here's a rewritten version of the original prompt, with more detail and a clear format:\n\n",
        "Below is **a refined version** of your rough draft that keeps its intent:\n",
        "Sure! Here is an enhanced prompt you can paste into any assistant:\n\n",
        "Rewritten draft:\n",
        "Here is the prompt:\n\n",
        "Here's your prompt:\n",
        "Okay! Here is the improved prompt:\n",
        "I've rewritten your prompt:\n\n",
        "New prompt:\n",
        "✨ Enhanced Prompt:\n",
        "> Enhanced prompt:\n\n",
        "¡Claro! Aquí tienes el prompt mejorado:\n",
        "Bien sûr ! Voici le prompt amélioré :\n",
        "Natürlich! Hier ist der verbesserte Prompt:\n",
        "Конечно! Вот улучшенный промпт:\n",
        "Улучшенный вариант:\n",
        "好的，以下是优化后的提示词：\n",
        "もちろんです。以下は改善されたプロンプトです：\n",
        "بالتأكيد! إليك الموجه المحسّن:\n",
        "Prompt mejorado: ",
        "**Versión mejorada del prompt:**\n",
        "Aquí tienes el prompt mejorado:\n\n",
        "Aquí está una versión mejorada de tu prompt, más clara:\n\n",
        "Prompt amélioré : ",
        "Prompt amélioré\u202f:\n",
        "Voici une version améliorée de votre prompt :\n",
        "Prompt aprimorado: ",
        "Aqui está o prompt melhorado:\n",
        "Verbesserter Prompt:\n",
        "Hier ist die überarbeitete Version deines Prompts:\n\n",
        "## Optimierter Prompt\n\n",
        "Улучшенный промпт: ",
        "Вот улучшенная версия вашего запроса:\n",
        "Вот улучшенный промпт:\n",
        "改进后的提示词：",
        "以下是优化后的提示词：\n\n",
        "**优化后的提示：**\n",
        "改善されたプロンプト：\n",
        "以下は改善されたプロンプトです：\n",
        "개선된 프롬프트: ",
        "다음은 개선된 프롬프트입니다:\n",
        "बेहतर प्रॉम्प्ट: ",
        "यह रहा आपका बेहतर प्रॉम्प्ट:\n",
        "الموجه المحسن: ",
        "إليك الموجه المحسّن:\n\n",
        "উন্নত প্রম্পট: ",
        "بہتر پرامپٹ: ",
        "Berikut adalah prompt yang telah disempurnakan:\n",
        "Prompt migliorato: ",
    ],
)
def test_labels_are_taken_off(label):
    assert clean(f"{label}You are a poet: write.\n\nBe brief.") == "You are a poet: write.\n\nBe brief."


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"', '"'),
        ("'", "'"),
        ("“", "”"),
        ("‘", "’"),
        ("«", "»"),
        ("« ", " »"),
        ("„", "“"),
        ("「", "」"),
        ("```\n", "\n```"),
        ("```text\n", "\n```"),
        ("```markdown\n", "```"),
        ("```\n\n", "\n\n```\n"),
        ('```\n"', '"\n```'),
        ('Enhanced prompt:\n"', '"'),
        ('"Enhanced prompt: ', '"'),
        ("Here is the enhanced prompt:\n\n```\n", "\n```"),
        ("```\nEnhanced prompt:\n", "\n```"),
    ],
)
def test_quotes_and_fences_around_the_whole_are_taken_off(before, after):
    assert clean(f"\n{before}You are a poet: write.\n\nBe brief.{after} ") == "You are a poet: write.\n\nBe brief."


@pytest.mark.parametrize(
    "prompt",
    [
        "You are a poet.",
        "Role: You are a poet.\nTask: Write.",
        "**Role:** You are a poet.\n\n**Task:** Write.",
        "# Role\nYou are a poet.",
        'Explain "now or never".',
        '"Now or never": explain this proverb.',
        '"Now" and "never"',
        "'Now' or 'never'",
        "“Now” or “never”",
        "\"Don't stop",
        "Review this:\n```python\nprint(1)\n```\nand this:\n```\n2\n```",
        "```python\nprint(1)\n```\nExplain the code above.",
        "```\na\n```\nor\n```\nb\n```",
        "Better prompt engineering: write a guide to it.",
        "Enhanced prompts: compare three of them.",
        "Improved prompt design for teachers: outline a course.",
        "Prompt: a sunset over the sea, oil on canvas.",
        "Here is my essay: roses are red. Correct it.",
        "Here is a list of numbers: 1, 2, 3. Sort it.",
        "Here's the prompt I wrote: improve it.",
        "Here is a better way: explain it.",
        "Sure, here is my question: why?",
        "Explain what <think>…</think> means.",
        "文章を改善してください：上のテキスト",
        "改进这个提示词：猫的图片",
        "Here is a polished version of my essay:\nRoses are red.\n\nSay whether it is better than the first.",
        "Here's an improved version of the function:\n```py\nx\n```\nExplain what changed.",
        "Below is a revised version of our terms of service:\n1. Be kind.",
        "Here is the prompt, improved by my colleague, which you should score from 1 to 10:\nwrite a poem",
        "Aquí está la versión mejorada de mi currículum:\nJuan",
        "Hier ist die überarbeitete Version meines Briefes:\nHallo",
        "Вот улучшенная версия моего резюме:\nИван",
        "Sure enough, the revised version is late:\nexplain why.",
        "Here is the draft:\nRoses are red.\n\nCorrect it.",
        "This is the original prompt of my teacher:\nwrite",
        "优化：把提示写得更短",
        "プロンプトを改善してください：\n猫の写真",
        "Improved version of the guide: write it for beginners.",
        "Here is a better version of my letter, correct it: Dear Sir",
        "Here is a better prompt for a story about the sea\n\nWrite it.",
        "Optimized prompt engineering tips:\n- one\n- two",
        "Verbessere diesen Prompt: Bild von einem Schloss",
        "Prompt amélioré pour Midjourney : un chat",
        "Mejora este prompt: una foto de un gato",
        "Enhanced: prompt",
        "The version: better",
    ],
)
def test_a_good_prompt_is_left_alone(prompt):
    assert clean(f"{prompt}\n") == prompt


# What models repeat when they lose the thread. Nothing else runs meanwhile, so it is to be cleaned in no time.

UNITS = [
    *"*_#` \n\"'“”«:a字\u3000\r\x1c",
    *("``", "```\n", "```\n```\n", "*\n", "_ ", "**\n\n", "'\"", "“”", '"“', "<", "<think>", "</think>"),
    *("<think></think>", "Enhanced prompt: ", "Enhanced prompt\n", "**Enhanced Prompt:** ", "Better version of your "),
    *("改进", "提示", "提示词：", "改进后的提示词：", ":", "：", "Prompt mejorado: "),
    *("here is ", "the ", "Sure, ", 'Enhanced prompt:<think></think>"', "*" * 50 + "Enhanced prompt:"),
]
BEFORE = [
    "",
    "Here's the enhanced prompt ",
    "以下是优化后的",
    "Enhanced prompt",
    "**Enhanced prompt:",
    "Here is the ",
    "Better version of your",
    "\"'“",
    "```\n",
]
AFTER = ["", '"', "”'\"", "\n```", "a"]


def seconds_to_clean(text: str) -> float:
    """Of processor time, which other programs do not take from."""
    began = time.thread_time()
    clean(text)
    return time.thread_time() - began


@pytest.mark.parametrize("unit", UNITS, ids=ascii)
def test_whatever_a_model_repeats_is_cleaned_in_no_time(unit):
    texts = [before + (unit * (200_000 // len(unit))) + after for before in BEFORE for after in AFTER]

    assert max(map(seconds_to_clean, texts)) < 0.25


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([*UNITS, *BEFORE[1:], *AFTER[1:]]), min_size=1, max_size=6), st.integers(1, 2000))
def test_whatever_repeats_in_whatever_repeats_is_cleaned_in_no_time(parts, times):
    text = "".join((part * times)[:5000] for part in parts)

    assert seconds_to_clean((text * (1 + 200_000 // len(text)))[:200_000]) < 0.25


def test_labels_are_taken_off_while_there_are_few():
    assert clean("Enhanced prompt: " * 3 + "You are a poet.") == "You are a poet."
    assert clean("Enhanced prompt: " * 99 + "You are a poet.").endswith("prompt: You are a poet.")


@given(st.text("\"'`\n:*# <>/think“”Enhancdpromt "))
def test_cleaning_only_takes_off_what_is_around_and_does_it_once(text):
    cleaned = clean(text)

    assert cleaned in text
    assert clean(cleaned) == cleaned


@pytest.mark.parametrize("draft", ['"Carpe diem"', "```python\nprint(1)\n```", "“Now or never”", "«Un»"])
def test_what_the_draft_itself_has_around_it_stays(draft):
    assert clean(draft, draft) == draft
    assert clean(f"Enhanced prompt:\n{draft}", draft) == draft
    assert clean(draft, "another") != draft
