"""What clients ask for, what Groq would say, and what that costs there: made up, plausible, the same in each run."""

import random
import statistics
from collections.abc import Mapping, Sequence

from completions import draft_of
from groqsim import MODELS, TEMPLATE_TOKENS, count_tokens

from promptlord.rewrite.wording import SYSTEM, framed
from promptlord.web.enhance import Enhancement

SKETCH = "The meeting was long, the minutes are longer, and nobody remembers what was decided about the budget. "
PROMPTS = (
    "write a poem about rain",
    "explain recursion to a ten year old",
    "give me 5 ideas for a blog post about urban gardening, for beginners with a small balcony",
    "Schreibe eine höfliche E-Mail an meinen Vermieter, weil die Heizung seit drei Tagen nicht geht",
    "fix my sql it is slow: SELECT * FROM orders o JOIN users u ON u.id = o.user_id WHERE lower(u.mail) LIKE '%x%'",
    "Напиши план тренировок на месяц для человека, который никогда не занимался спортом",
    "日本の歴史について、中学生にもわかるように短くまとめてください。",
    "帮我写一份产品经理的求职信，突出数据分析经验",
    "اكتب وصفا لمنتج قهوة عضوية لمتجر إلكتروني",
    "Haz un resumen de las ventajas y desventajas del teletrabajo para un informe interno de recursos humanos",
    "Act as a lawyer and tell me if I can cancel a gym contract early. I moved to another city. " * 3,
    "Summarize for my boss, friendly tone, with three bullet points and a next step: " + SKETCH * 3,
    "Turn these notes into an agenda with times and owners: " + SKETCH * 10,
    "here is my python script, it prints nothing, why?\n"
    + "for row in rows:\n    if row['id'] in seen: continue\n" * 8,
)


def answer_tokens(prompt: str, longer: float = 1.0) -> int:
    """Tokens of a plausible answer, thoughts included: some sentences more than the prompt, now shorter, now longer."""
    dice = random.Random(prompt)
    said = (120 + 0.8 * count_tokens(prompt)) * dice.lognormvariate(0, 0.35)
    return max(round(longer * said + 45 * dice.lognormvariate(0, 0.5)), count_tokens(prompt) + 1)


def reply(request: Mapping[str, list[dict[str, str]]]) -> str:
    """An answer that keeps all of the draft."""
    draft = draft_of(request["messages"][-1])
    return f"{draft}\n" + "and " * (answer_tokens(draft) - count_tokens(draft))


def cost(prompt: str, longer: float = 1.0) -> tuple[int, int]:
    """Calls and tokens that Groq counts for one enhancement: two calls where the first answer is cut off."""
    call = Enhancement.of(prompt, MODELS)
    said = TEMPLATE_TOKENS + count_tokens(SYSTEM) + count_tokens(framed(prompt))
    if answer_tokens(prompt, longer) <= call.reserve or not (second := call.roomier()):
        return 1, said + call.reserve
    return 2, said + call.reserve + said + second.reserve


def mean_cost(prompts: Sequence[str], longer: float = 1.0) -> tuple[float, float]:
    calls, tokens = zip(*(cost(prompt, longer) for prompt in prompts), strict=True)
    return statistics.mean(calls), statistics.mean(tokens)


MANY = [f"{prompt} ({number})" for prompt in PROMPTS for number in range(200)]
CALLS, TOKENS = mean_cost(MANY)
