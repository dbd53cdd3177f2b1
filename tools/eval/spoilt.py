"""Good rewritings with one thing made wrong, on which the checks are tried."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from eval.checks import failures
from eval.corpus import Draft
from promptlord.rewrite.kept import Kind, losses

_ENGLISH = (
    "You are an expert. Write a clear and helpful text about what I asked for. Keep it in a friendly tone, state what "
    "you assume, and return only the text with a short title."
)
_GERMAN = (
    "Du bist ein Experte. Schreibe einen klaren und hilfreichen Text zu dem, was ich möchte. Nenne die Annahmen, die "
    "du machst, und gib nur den Text mit einem kurzen Titel aus."
)


class Spoilt(NamedTuple):
    """An answer that a check has to find fault with; ``how`` it was spoilt."""

    how: str
    check: str
    answer: str


def spoilt(draft: Draft) -> Iterator[Spoilt]:
    """The draft's good rewriting, spoilt in all ways that it allows."""
    good = draft.good
    for kind, text in losses(draft.text, ""):
        if kind is not Kind.SCRIPT and text in good:
            yield Spoilt(f"without a part: {kind.value}", "keeps all parts", good.replace(text, "it"))
    yield Spoilt("in another language", "keeps the language", _GERMAN if draft.language == "en" else _ENGLISH)
    yield Spoilt("with a lead-in", "nothing around it", f"Here's the improved prompt, as you asked for:\n\n{good}")
    yield Spoilt("with a lead-in in Chinese", "nothing around it", f"当然！以下是改进后的文本：\n{good}")
    yield Spoilt("with an introduction", "nothing around it", f"Sure! I made it clearer and more specific.\n\n{good}")
    yield Spoilt("in quotes", "nothing around it", f"„{good.replace('“', '').replace('„', '')}“")
    yield Spoilt("with talk behind it", "nothing around it", f"{good}\n\nLet me know if you want me to change it!")
    for words in draft.present:
        if len(words.split("|")) == 1 and words in good:
            yield Spoilt("without what it says", "still says it", good.replace(words, "it"))
    for word in draft.absent:
        yield Spoilt("answered or obeyed", "does not answer", f"{good}\n{word}")
    yield Spoilt("cut short", "right length", good[: len(draft.text) // 2])
    yield Spoilt("a page long", "right length", good + "\nBe precise, and give reasons for what you say. " * 150)
    yield Spoilt("with a placeholder of its own", "no new placeholders", f"{good}\nSign it as [Your Name].")


def found(drafts: Sequence[Draft]) -> dict[str, tuple[int, int]]:
    """How many of those spoilt in a way the checks find, and how many there are."""
    each = [(one, draft) for draft in drafts for one in spoilt(draft)]
    made = Counter(one.how for one, _ in each)
    right = Counter(one.how for one, draft in each if one.check in failures(draft, one.answer))
    return {how: (right[how], count) for how, count in made.items()}
