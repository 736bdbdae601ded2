"""A calculator (计算器) that is safe to lend to a model: a walk over a tree, with bounds.

    "347 * (582 - 2)"          the text is read by Python's own parser, and never run

              *                calculate(347, calculate(582, 2, -), *)
            /   \\
         347     -             a node is a number, a sign, or one of seven operations;
               /   \\           everything else is refused
            582     2

`eval(text)` would be one line. But whatever Python can do, the text could do then: open files, call
programs. And a text that is only arithmetic can still stop the machine: `9**9**9` has 369,693,100
digits. So each bound is looked at before the work, wherever that work could be large:

======================  ==========================================  ==========================
what is bounded         most                                        looked at
======================  ==========================================  ==========================
characters              200                                         before the text is read
kinds of characters     digits, . + - * / % ( ) and blanks          before it is parsed
nested brackets         20                                          before it is parsed
digits of a power       100: digits(xⁿ) = n · log₁₀ x, rounded up   before it is multiplied out
digits of all others    100                                         after: see below
======================  ==========================================  ==========================

Any operation but a power has at most some more digits than its two numbers together. So one that is
too large has cost nothing by the time it is refused.

Numbers are exact fractions: 0.1 + 0.2 is 0.3. A result that does not end is rounded to 12 decimals,
and a decimal number of more than 15 digits in the text to what Python's floats can hold.

Paper: none. Gao et al. 2022, "PAL: Program-aided Language Models", arXiv:2211.10435, let a model
write a program in place of a result (from memory).
Differs: PAL's models write Python, ours one expression.

Chapter: 28
"""

import ast
import math
import operator
from fractions import Fraction
from itertools import accumulate

MOST_CHARACTERS = 200
MOST_BRACKETS = 20  # one in the other
MOST_DIGITS = 100
DECIMALS = 12
SIGNS = str.maketrans("·×÷−（）", "**/-()")  # other signs for the same
_ALLOWED = set("0123456789.+-*/%() ")
_OPERATIONS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


def calculate(expression: str) -> str:
    """Work out an expression of numbers, + - * / // % ** and brackets.

    Args:
        expression: such as "347 * 582". "·" and "×" are "*", "÷" is "/".

    Returns:
        The exact result as a decimal number, or rounded to 12 decimals if it does not end.

    Raises:
        ValueError: what is not such an expression; a bound that it breaks; a division by 0.

    Example:
        >>> calculate("347 * 582"), calculate("0.1 + 0.2"), calculate("-7 // 2"), calculate("1 ÷ 3")
        ('201954', '0.3', '-4', '0.333333333333')
        >>> calculate("9**9**9")
        Traceback (most recent call last):
        ValueError: numbers may have at most 100 digits; 9 to the power of 387420489 would have more
    """
    # 1. bounds that the text itself can show
    if len(expression) > MOST_CHARACTERS:
        raise ValueError(
            f"an expression may have at most {MOST_CHARACTERS} characters; got {len(expression)}. "
            "Work it out in parts"
        )
    text = expression.translate(SIGNS).strip()
    if others := sorted(set(text) - _ALLOWED):
        raise ValueError(
            "an expression has digits, . + - * / // % ** and round brackets only; got "
            f"{others[0]!a}"
        )
    depth = max(accumulate((sign == "(") - (sign == ")") for sign in text), default=0)
    if depth > MOST_BRACKETS:
        raise ValueError(
            f"brackets may stand at most {MOST_BRACKETS} deep in each other; got {depth}"
        )
    # 2. the tree; nothing is run
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ValueError(
            f"an expression must be complete, such as 347 * (582 - 2); got {expression!r}"
        ) from None
    # 3. its value
    try:
        return _decimal(_value(tree))
    except ZeroDivisionError:
        raise ValueError(f"a number cannot be divided by 0; got {expression!r}") from None


def _value(node: ast.expr) -> Fraction:
    """The value of a node, once those below it are known."""
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            value = Fraction(str(number))
        case ast.UnaryOp(op=ast.UAdd(), operand=below):
            value = _value(below)
        case ast.UnaryOp(op=ast.USub(), operand=below):
            value = -_value(below)
        case ast.BinOp(left=left, op=operation, right=right) if type(operation) in _OPERATIONS:
            x, y = _value(left), _value(right)
            if isinstance(operation, ast.Pow):
                _check_power(x, y)
            value = _OPERATIONS[type(operation)](x, y)
        case _:
            raise ValueError(
                "an expression has numbers and the operations + - * / // % ** only; got "
                f"{ast.unparse(node)!r}"
            )
    if _n_digits(value) > MOST_DIGITS:
        raise ValueError(
            f"numbers may have at most {MOST_DIGITS} digits; a result here would have more"
        )
    return value


def _n_digits(x: Fraction) -> float:
    """log₁₀ of the larger one of numerator and denominator: digits, before they are rounded up."""
    return math.log10(max(abs(x.numerator), x.denominator))


def _check_power(x: Fraction, n: Fraction) -> None:
    if n.denominator != 1:
        raise ValueError(f"the exponent must be a whole number; got {_decimal(n)}")
    if _n_digits(x) * abs(n) > MOST_DIGITS:
        raise ValueError(
            f"numbers may have at most {MOST_DIGITS} digits; {_decimal(x)} to the power of "
            f"{_decimal(n)} would have more"
        )


def _decimal(x: Fraction) -> str:
    """A number as people write it.

    Example:
        >>> _decimal(Fraction(-5, 4)), _decimal(Fraction(2, 3)), _decimal(Fraction(30))
        ('-1.25', '0.666666666667', '30')
    """
    whole, rest = divmod(round(abs(x) * 10**DECIMALS), 10**DECIMALS)
    sign = "-" if x < 0 and (whole or rest) else ""
    return f"{sign}{whole}" + f".{rest:0{DECIMALS}}".rstrip("0").rstrip(".")
