"""Prompts that bring out a chain of thought (思维链): a trigger, or examples with their steps.

    zero-shot   Mei buys 3 plums at 2 coins each. What does Mei pay? Let's think step by step.
    few-shot    … What does Bao get? Steps: 4 · 5 = 20. Answer: 20.

                Mei buys 3 plums at 2 coins each. What does Mei pay?

The first is **zero-shot** (零样本): a sentence behind the question, the trigger (触发语), asks for
steps, and no example is given. The second is **few-shot** (少样本): some solved questions stand
before the one that is asked, and the model goes on as they do. Nothing is trained in either; the
weights stay as they are.

A third way is open to a model that has read such problems: `with_label` begins the answer for it,
with the very word with which steps began in its texts.

Whatever the model writes, `minillm.town.market.read_answer` reads the number behind its last
"Answer:", or "答案：".

Paper: Kojima et al. 2022, "Large Language Models are Zero-Shot Reasoners", arXiv:2205.11916,
section 3 (the trigger); Wei et al. 2022, "Chain-of-Thought Prompting Elicits Reasoning in Large
Language Models", arXiv:2201.11903, section 2 (few-shot). Numbers of sections from memory.
Differs: Kojima et al. ask twice, once for the steps and once more for the answer; here an answer
names its number itself. The Chinese trigger is our translation.

Chapter: 24
"""

from collections.abc import Sequence

from minillm.town.market import SIGNS, Problem

TRIGGERS = {"en": "Let's think step by step.", "zh": "请一步一步地思考。"}
_GAPS = {"en": " ", "zh": ""}  # between two sentences


def with_trigger(question: str, language: str | None = None) -> str:
    """A question with the sentence behind it that asks for steps.

    Args:
        question: as it is asked.
        language: "en" or "zh"; None for that of the question.

    Raises:
        ValueError: an empty question, another language.

    Example:
        >>> with_trigger("What does Mei pay?")
        "What does Mei pay? Let's think step by step."
        >>> with_trigger("每人付多少块？")
        '每人付多少块？请一步一步地思考。'
    """
    language = _checked(question, language)
    return f"{question.rstrip()}{_GAPS[language]}{TRIGGERS[language]}"


def with_label(question: str, language: str | None = None, *, steps: bool) -> str:
    """A question with the word behind it that begins its steps, or its answer, in the town's texts.

    Args:
        question, language: as for `with_trigger`.
        steps: whether "Steps:" is to follow, or "Answer:".

    Raises:
        ValueError: as for `with_trigger`.

    Example:
        >>> with_label("What does Mei pay?", steps=True)
        'What does Mei pay? Steps:'
    """
    language = _checked(question, language)
    label = SIGNS[language][0 if steps else 1]
    return f"{question.rstrip()}{_GAPS[language]}{label.rstrip()}"


def few_shot(examples: Sequence[Problem], question: str, *, steps: bool) -> str:
    """Solved problems and, after them, a question, with a blank line between any two.

    Args:
        examples: in the order in which they are to stand; the last is nearest to the question.
        question: as it is asked.
        steps: whether the examples show their steps, or their answers alone.

    Raises:
        ValueError: an empty question.

    Example:
        >>> from minillm.town.market import Step
        >>> solved = Problem("total", "3 plums at 2?", (Step(3, "·", 2),), "en", 0)
        >>> print(few_shot([solved], "2 buns at 4?", steps=True))
        3 plums at 2? Steps: 3 · 2 = 6. Answer: 6.
        <BLANKLINE>
        2 buns at 4?
        >>> few_shot([], "2 buns at 4?", steps=True)
        '2 buns at 4?'
    """
    _checked(question, None)
    texts = [each.worked if steps else each.direct for each in examples]
    return "\n\n".join([*texts, question])


def language_of(text: str) -> str:
    """ "zh" if there is a Chinese character in a text, otherwise "en".

    Example:
        >>> language_of("What does 小梅 pay?"), language_of("What does Mei pay?")
        ('zh', 'en')
    """
    return "zh" if any("\u4e00" <= character <= "\u9fff" for character in text) else "en"


def _checked(question: str, language: str | None) -> str:
    """The language, if it is one of the two and there is a question."""
    if not question.strip():
        raise ValueError("the question is empty; write what is to be answered")
    if language is None:
        return language_of(question)
    if language not in TRIGGERS:
        raise ValueError(f'language must be "en" or "zh", or None for its own; got {language!r}')
    return language
