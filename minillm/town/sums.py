"""Questions with numbers (算术题), of which only some need a calculator.

    Mei has 347 baskets with 582 plums each.               calculator     answer
        How much is that in all?                           347 * 582      201954
        What is the first number?                          –              347
        Which number is larger?                            –              582
        Whose name is it?                                  –              Mei
    What is 347 times 582?                                 347 * 582      201954
    What is 347 times 100?                                 –              34700

A product of two numbers with three digits is more than a small model learns to work out. All other
answers can be read from the question. The same numbers and the same statements stand in both, so it
is the question and the numbers together that tell whether a calculator is needed:

========  =======  ==========  ===================================================================
kind      share    calculator  what is asked
========  =======  ==========  ===================================================================
product   50 %     yes         a times b, both from 101 to 999
tens      10 %     no          the same in the same words, but b is 10, 100 or 1000
given     10 %     no          one of the two numbers
larger    10 %     no          the larger one
who       10 %     no          a name
often     10 %     no          how many times something is said
========  =======  ==========  ===================================================================

So always calling is right for half of the questions.

**Wordings.** A text is a statement and a question, in one of the two orders. One of five pairs of
statement and question is held out: it is in no block to learn from, though both are there in other
pairs. So it is a new *combination*, of halves that are known. One can ask whether a model knows
when to call, or knows the texts; how it does with really new words is not asked.

Numbers are drawn anew for each question. There are 807,302 pairs of a and b; so of 20,000 questions
that a model has learned from, 1 in 40 pairs of a test is among them.

Paper: none. Schick et al. 2023, "Toolformer", arXiv:2302.04761, give a model a calculator, and it
has to find out when to use it (from memory).
Differs: none.

Chapter: 28
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple, final

from minillm.town.chance import block_rng
from minillm.town.world import World

BLOCK = 64
N_PEOPLE, N_GOODS = 12, 8
SHARE_PRODUCTS = 0.5
SHARE_REMARKS = 0.2  # of the texts in which nobody asks for what the remark says
HELD_OUT = 5  # one pair of statement and question in so many
TENS = (10, 100, 1000)
STYLES = ("bare", "masked", "unmasked")
END, CALL, END_CALL, END_RESULT = ".", "[", "]", ";"
FAILURE = "error"  # in place of a result
SIGNS = ("_", END, CALL, END_CALL, END_RESULT, "*", FAILURE)  # the first is padding
_TOKEN = re.compile(r"\d|[A-Za-z]+|\S")  # a digit, a word, any other sign or character
STATEMENTS = {
    "en": (
        "{x} says {a} times {b}.",
        "{x} has {a} baskets with {b} {goods} each.",
        "{x} sells {a} {goods} for {b} coins each.",
        "{x} reads {a} pages with {b} words each.",
        "{x} pays {a} people {b} coins each.",
    ),
    "zh": (
        "{x}说{a}乘{b}。",
        "{x}有{a}个篮子，每个装{b}个{goods}。",
        "{x}卖{a}个{goods}，每个{b}块。",
        "{x}读了{a}页，每页{b}个字。",
        "{x}付钱给{a}个人，每人{b}块。",
    ),
}
REMARK = {"en": "It is said {n} times.", "zh": "这话说了{n}次。"}
_PRODUCTS = {
    "en": (
        "How much is that in all?",
        "What is the product?",
        "What is the first number times the second?",
        "Multiply the two numbers.",
    ),
    "zh": ("一共是多少？", "积是多少？", "第一个数乘第二个数是多少？", "请把两个数相乘。"),
}
QUESTIONS = {
    "product": _PRODUCTS,
    "tens": _PRODUCTS,
    "given": {
        "en": ("What is the first number?", "What is the second number?", "Say the first number."),
        "zh": ("第一个数是多少？", "第二个数是多少？", "请说第一个数。"),
    },
    "larger": {
        "en": ("Which number is larger?", "What is the larger number?"),
        "zh": ("哪个数大？", "大的数是多少？"),
    },
    "who": {"en": ("Who is it?", "Whose name is that?"), "zh": ("是谁？", "这是谁的名字？")},
    "often": {
        "en": ("How many times is it said?", "How often is it said?"),
        "zh": ("这话说了多少次？", "这话说了几次？"),
    },
}
KINDS = tuple(QUESTIONS)
#: Products that are asked for without a statement; never held out.
WHOLE = {
    "en": ("What is {a} times {b}?", "Multiply {a} by {b}."),
    "zh": ("{a}乘{b}是多少？", "请算{a}乘{b}。"),
}
SHARE_WHOLE = 0.25  # of the products, and of the tens
_NUMBERS = [*dict.fromkeys(q for kind in QUESTIONS.values() for q in kind["en"])]


# --- a question -----------------------------------------------------------------------------------
@final
@dataclass(frozen=True, kw_only=True)
class Question:
    """A question and the truth about it.

    Args:
        text: as people write it.
        expression: for the calculator, such as "347 * 582"; None if none is needed.
        answer: a number or a name.
        kind: one of `KINDS`.
        language: "en" or "zh".
        held_out: whether its combination of statement and question is.
    """

    text: str
    expression: str | None
    answer: str
    kind: str
    language: str
    held_out: bool

    @property
    def needs_call(self) -> bool:
        """Whether a calculator is needed."""
        return self.expression is not None

    def turns(self, style: str = "masked") -> tuple[str, ...]:
        """A training row in turns: read, learned, read, learned (`minillm.reason.solver`).

        Args:
            style: "bare", without a call; "masked", the result is only read; "unmasked", the result
                is learned too.

        Raises:
            ValueError: another style.

        Example:
            >>> question = Question(
            ...     text="What is 347 times 582?", expression="347 * 582", answer="201954",
            ...     kind="product", language="en", held_out=False,
            ... )
            >>> question.turns("masked")
            ('What is 347 times 582?', '[ 347 * 582 ]', '201954 ;', '201954 .')
            >>> question.turns("unmasked"), question.turns("bare")
            (('What is 347 times 582?', '[ 347 * 582 ] 201954 ; 201954 .'), \
('What is 347 times 582?', '201954 .'))
        """
        if style not in STYLES:
            raise ValueError(f"the style must be one of {', '.join(STYLES)}; got {style!r}")
        answer = f"{self.answer} {END}"
        if self.expression is None or style == "bare":
            return (self.text, answer)
        turns = (f"{CALL} {self.expression} {END_CALL}", f"{self.answer} {END_RESULT}", answer)
        return (self.text, *turns) if style == "masked" else (self.text, " ".join(turns))


@final
@dataclass(frozen=True)
class SumSource:
    """Questions without end, in blocks of 64.

    Args:
        world: whose people and goods they speak of.
        language: "en" or "zh".

    Raises:
        ValueError: another language.

    Example:
        >>> source = SumSource(World())
        >>> [question.text for question in source.block(0, "example")][0]
        'Multiply the two numbers. Dan says 408 times 206.'
    """

    world: World
    language: str = "en"

    def __post_init__(self) -> None:
        if self.language not in ("en", "zh"):
            raise ValueError(f'the language must be "en" or "zh"; got {self.language!r}')

    @property
    def names(self) -> list[str]:
        """Of the most famous people."""
        people = self.world.people[:N_PEOPLE]
        return [person.name if self.language == "en" else person.chinese for person in people]

    @property
    def goods(self) -> list[str]:
        """Goods that have one word for many of them."""
        goods = [
            good for good in self.world.goods if good.general.isalpha() and good.measure == "个"
        ]
        return [good.general if self.language == "en" else good.chinese for good in goods][:N_GOODS]

    def block(self, index: int, seed: int | str = 0, *, held_out: bool = False) -> list[Question]:
        """The 64 questions number 64·index to 64·index + 63 of a stream.

        Args:
            index: 0, 1, 2, …
            seed: another seed, another stream.
            held_out: only in combinations that are held out; else only in the others.

        Raises:
            ValueError: a negative index.
        """
        rng = block_rng(f"sums/{self.world.seed}/{self.language}/{seed}/{index}/{held_out}", index)
        names, goods = self.names, self.goods
        return [self._question(rng, names, goods, held_out) for _ in range(BLOCK)]

    def questions(self, seed: int | str = 0, *, held_out: bool = False) -> Iterator[Question]:
        """All of them, one after the other."""
        for index in count():
            yield from self.block(index, seed, held_out=held_out)

    def _question(
        self, rng: random.Random, names: Sequence[str], goods: Sequence[str], held_out: bool
    ) -> Question:
        # 1. what is asked
        kind = KINDS[0] if rng.random() < SHARE_PRODUCTS else rng.choice(KINDS[1:])
        a, b = rng.sample(range(101, 1000), 2)
        b = rng.choice(TENS) if kind == "tens" else b
        x, n = rng.choice(names), rng.randint(2, 9)
        # 2. in which words
        language, is_product = self.language, kind in ("product", "tens")
        pairs = [pair for pair in wordings(kind) if is_held_out(kind, pair) == held_out]
        statement, question = rng.choice(pairs)
        parts = [STATEMENTS[language][statement]]
        if kind == "often" or rng.random() < SHARE_REMARKS:
            parts.append(REMARK[language])
        parts.insert(rng.choice((0, len(parts))), QUESTIONS[kind][language][question])
        if is_product and not held_out and rng.random() < SHARE_WHOLE:
            parts = [rng.choice(WHOLE[language])]
        text = (" " if language == "en" else "").join(parts)
        # 3. the truth
        answer = {
            "given": (a, b, a)[question % 3],
            "larger": max(a, b),
            "who": x,
            "often": n,
        }.get(kind, a * b)
        return Question(
            text=text.format(a=a, b=b, x=x, n=n, goods=rng.choice(goods)),
            expression=f"{a} * {b}" if kind == "product" else None,
            answer=str(answer),
            kind=kind,
            language=language,
            held_out=held_out,
        )


def wordings(kind: str) -> list[tuple[int, int]]:
    """The pairs of a statement and a question, by their numbers."""
    n_questions = len(QUESTIONS[kind]["en"])
    return [(s, q) for s in range(len(STATEMENTS["en"])) for q in range(n_questions)]


def is_held_out(kind: str, wording: tuple[int, int]) -> bool:
    """Whether a pair of statement and question is for evaluation alone.

    Every question is held out with one of the five statements.

    Example:
        >>> [wording for wording in wordings("who") if is_held_out("who", wording)]
        [(0, 1), (1, 0)]
    """
    statement, question = wording
    return (statement + _NUMBERS.index(QUESTIONS[kind]["en"][question])) % HELD_OUT == 0


# --- words ----------------------------------------------------------------------------------------
@final
class SumWords:
    """A tokenizer of all that a source says: single digits, words, signs, Chinese characters.

    Args:
        source: its language, and the people and goods of its world.

    Example:
        >>> words = SumWords(SumSource(World()))
        >>> words.decode(words.encode("What is 347 times 582? [347*582]"))
        'What is 3 4 7 times 5 8 2 ? [ 3 4 7 * 5 8 2 ]'
    """

    def __init__(self, source: SumSource):
        language = source.language
        texts = [text for kind in QUESTIONS.values() for text in kind[language]]
        texts += [*STATEMENTS[language], *WHOLE[language], REMARK[language]]
        texts = [re.sub(r"{\w+}", " ", text) for text in texts]
        learned = _TOKEN.findall(" ".join(texts + source.names + source.goods))
        self.VOCABULARY = tuple(dict.fromkeys([*SIGNS, *"0123456789", *learned]))
        self._ids = {token: number for number, token in enumerate(self.VOCABULARY)}

    def encode(self, text: str) -> list[int]:
        """The token ids of a text.

        Raises:
            ValueError: a word that the source never says.
        """
        tokens = _TOKEN.findall(text)
        if unknown := [token for token in tokens if token not in self._ids]:
            raise ValueError(
                f"words must be among the {len(self.VOCABULARY)} that the source uses; got "
                f"{unknown[0]!r}"
            )
        return [self._ids[token] for token in tokens]

    def decode(self, ids: Sequence[int]) -> str:
        """Tokens, with blanks between them."""
        return " ".join(self.VOCABULARY[number] for number in ids)


# --- what a model wrote ---------------------------------------------------------------------------
def read_answer(text: str) -> str | None:
    """What stands at the end, after the last result and before the full stop; None if nothing does.

    Example:
        >>> read_answer("[ 3 4 7 * 5 8 2 ] 2 0 1 9 5 4 ; 2 0 1 9 5 4 ."), read_answer("Mei .")
        ('201954', 'Mei')
        >>> read_answer("[ 3 4 7 *")
    """
    last = text.rpartition(END_RESULT)[2].rpartition(END_CALL)[2]
    answer = "".join(last.removesuffix(END).split())
    return answer if answer and text.endswith(END) and CALL not in answer else None


@final
class Score(NamedTuple):
    """How a model did on some questions; all are shares, 0 to 1.

    Args:
        products: right answers of the questions that need a calculator.
        others: right answers of all others.
        precision: of the calls, how many were needed.
        recall: of the calls that were needed, how many there were.
    """

    products: float
    others: float
    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall: 2PR / (P + R).

        Example:
            >>> round(Score(0, 0, precision=0.5, recall=1.0).f1, 3)  # who always calls
            0.667
        """
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def score(questions: Sequence[Question], texts: Sequence[str]) -> Score:
    """Compare what a model wrote with the truth.

    Args:
        questions: with and without need of a calculator, at least one of each.
        texts: what was written after each; a call is what has a "[".

    Raises:
        ValueError: not a text for each question; questions of one sort only.
    """
    needs = [question.needs_call for question in questions]
    if len(texts) != len(needs) or len(set(needs)) < 2:
        raise ValueError(
            "score needs a text for each question, and questions with and without need of a call; "
            f"got {len(texts)} texts and {len(needs)} questions, {sum(needs)} of which need one"
        )
    right = [read_answer(t) == q.answer for q, t in zip(questions, texts, strict=True)]
    calls = [CALL in text for text in texts]
    n_both = sum(call and need for call, need in zip(calls, needs, strict=True))
    return Score(
        products=sum(r for r, need in zip(right, needs, strict=True) if need) / sum(needs),
        others=sum(r for r, need in zip(right, needs, strict=True) if not need)
        / (len(needs) - sum(needs)),
        precision=n_both / sum(calls) if any(calls) else 0.0,
        recall=n_both / sum(needs),
    )
