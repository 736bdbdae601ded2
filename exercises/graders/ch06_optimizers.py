"""What `@task` runs for chapter 06.

Chapter: 06
"""

import math

import torch
from torch import Tensor

from minillm.lab.grade import Diagnosis, Grader, as_number, as_tensor
from minillm.optim.adafactor import factored
from minillm.optim.adamw import AdamWState, adamw_update
from minillm.optim.came import confidence
from minillm.optim.lion import lion_update


def grade_lion_step(answer):
    """Seven weights by hand, on which each mistake shows; then three axes, three steps."""
    theta = torch.tensor([2.0, 2.0, 4.0, -2.0, 2.0, -4.0, 2.0])
    g = torch.tensor([-2.0, -1.3, 0.0, 1.25, -12.0, -2.5, -1.0])
    m = torch.tensor([1.0, 1.0, 0.0, -2.0, 1.0, 3.0, 4.0])
    rate, beta1, beta2, decay = 0.1, 0.6, 0.9, 0.5

    def moved(c: Tensor) -> Tensor:
        return theta - rate * (c.sign() + decay * theta)

    c, new = beta1 * m + (1 - beta1) * g, beta2 * m + (1 - beta2) * g
    given = (theta, g, m, rate, (beta1, beta2), decay)
    weight, mean = _results(answer, given, ("the weight", "the mean"))
    for name, got in (("the weight", weight), ("the mean", mean)):
        if got.shape != theta.shape:
            raise Diagnosis(
                f"{name} that is given has the shape [7]; what you return has {[*got.shape]}."
            )
    if mean.isnan().any() or weight.isnan().any():
        raise Diagnosis(
            "a weight with g = 0 and m = 0 becomes NaN: c / |c| is 0 / 0; take torch.sign."
        )
    if _near(weight, new) or _near(mean, moved(c)):
        raise Diagnosis("return the weight first, then the mean.")
    if _near(mean, c) and _near(weight, moved(new)):
        raise Diagnosis("β₁ and β₂ are exchanged: β₁ decides the sign, β₂ is for what is kept.")
    _tell(
        mean,
        (m, "the mean is what it was; the third line brings the gradient into it."),
        (c, "the new mean is c; β₁ is for the sign alone, the mean keeps β₂ of itself."),
        ((1 - beta2) * m + beta2 * g, "β₂ says how much of the mean is KEPT, not how much is new."),
        (beta2 * m + g, "in the mean the gradient has a share of 1 - β₂."),
        (c.sign(), "the new mean is the sign; it is made of the gradient itself."),
        (beta2 * m + (1 - beta2) * c.sign(), "the mean takes in the gradient, not the sign."),
        (
            new + (1 - beta2) * decay * theta,
            "weight decay is in the mean; it belongs to the weight alone.",
        ),
    )
    _agree(mean, new, "the new mean, 0.9 m + 0.1 g, is wrong")
    first = beta1 * new + (1 - beta1) * g
    bare = theta - rate * c.sign()
    _tell(
        weight,
        (2 * theta - moved(c), "you add the step; a step goes against the gradient."),
        (
            theta + rate * c.sign() - rate * decay * theta,
            "the sign is added; a step goes against the gradient.",
        ),
        (
            theta - rate * c.sign() + rate * decay * theta,
            "decay makes your weights grow; it is subtracted, as the sign is.",
        ),
        (theta - rate * (c + decay * theta), "that is c itself; Lion takes its sign."),
        (moved(m), "that is the sign of the old mean; the gradient has a part in c."),
        (moved(g), "that is the sign of the gradient; the mean has a part in c."),
        (moved(new), "c is made with β₂; it is β₁ that says how much of m decides now."),
        (moved(first), "you update m before c is computed; c takes the m that was given."),
        (moved((1 - beta1) * m + beta1 * g), "in c it is m that has the share β₁, g has 1 - β₁."),
        (moved(beta1 * m + g), "in c the gradient has a share of 1 - β₁."),
        (bare, "no weight decay is left in it: rate · weight_decay · θ is subtracted, too."),
        (bare - decay * theta, "the decay is not multiplied by the rate."),
        (theta - c.sign() - rate * decay * theta, "the sign is not multiplied by the rate."),
        (
            theta - rate * (c + decay * theta).sign(),
            "decay is inside the sign, where it makes no weight shrink: add it afterwards.",
        ),
        (
            bare * (1 - rate * decay),
            "decay takes its share of the weight that was given, not of the one that has moved.",
        ),
        (
            theta - rate * (torch.where(c > 0, 1.0, -1.0) + decay * theta),
            "c = 0 gives -1; the sign of 0 is 0: a weight without gradients stays.",
        ),
        (
            theta - rate * (torch.where(c < 0, -1.0, 1.0) + decay * theta),
            "c = 0 gives 1; the sign of 0 is 0: a weight without gradients stays.",
        ),
    )
    _agree(weight, moved(c), "the new mean is right, the weights are not")

    torch.manual_seed(0)
    theta, m = torch.randn(2, 3, 2), torch.zeros(2, 3, 2)
    for step in (1, 2, 3):
        g = torch.randn(2, 3, 2)
        weight, mean = _results(answer, (theta, g, m, 0.01, (0.9, 0.99), 0.1), ("weight", "mean"))
        update, m = lion_update(g, m)
        theta = theta - 0.01 * (update + 0.1 * theta)
        what = f"right for a vector; with the betas (0.9, 0.99), at step {step} of a [2, 3, 2]"
        _agree(weight, theta, f"{what} the weights are wrong")
        _agree(mean, m, f"{what} the mean is wrong")


def grade_factored_step(answer):
    """A square matrix by hand, a longer one for two steps, and one of rank one."""
    g = torch.tensor([[4.0, -4.0], [0.0, 8.0]])
    old_rows, old_columns, beta = torch.tensor([16.0, 0.0]), torch.tensor([8.0, 8.0]), 0.75
    names = ("V", "R", "C")
    v, rows, columns = _results(answer, (g, old_rows, old_columns, beta), names)
    if v.shape == rows.shape == columns.shape == (2,):
        raise Diagnosis("R * C multiplies in pairs; V is a matrix, each R with each C.")
    _matrix_and_two(v, rows, columns, names, (2, 2))
    squares = g**2
    right_rows, right_columns = torch.tensor([16.0, 8.0]), torch.tensor([8.0, 16.0])
    _averaged(
        rows,
        old_rows,
        squares,
        beta,
        ((g, "G is not squared; it is the mean of G², number by number."),),
        "G²",
    )
    _tell(
        rows,
        (
            beta * old_rows + (1 - beta) * g.mean(dim=1) ** 2,
            "square first, then take the mean: numbers of both signs cancel in yours.",
        ),
    )
    _agree(rows, right_rows, "R is wrong")
    _agree(columns, right_columns, "R is right, C is wrong")
    right = factored(right_rows, right_columns)
    product = right_rows[:, None] * right_columns[None, :]
    _tell(
        v,
        (product, "R[i] · C[j] is as large as G⁴; divide by the mean of R."),
        (product / 24, "you divide by the sum of R; it is its mean."),
        (right.T, "yours is transposed: the row says which R, the column which C."),
        (right.sqrt(), "that is √V; V itself is asked for."),
        (factored(old_rows, old_columns), "V is made of the R and C that were given; use the new."),
        (squares, "that is G² itself, which is not what was remembered: rebuild V from R and C."),
        (
            factored(squares.mean(dim=1), squares.mean(dim=0)),
            "V is made of this gradient alone; use the averages R and C.",
        ),
        (product / old_rows.mean(), "divide by the mean of the new R, not of the R given."),
    )
    _agree(v, right, "R and C are right, V is not")

    torch.manual_seed(0)
    rows, columns = torch.zeros(3), torch.zeros(5)
    for step, beta in ((1, 0.0), (2, 0.5)):
        g = torch.randn(3, 5)
        got = _results(answer, (g, rows, columns, beta), names)
        rows = beta * rows + (1 - beta) * (g**2).mean(dim=1)
        columns = beta * columns + (1 - beta) * (g**2).mean(dim=0)
        rights = (factored(rows, columns), rows, columns)
        _matrix_and_two(*got, names, (3, 5))
        for name, own, right in zip(names, got, rights, strict=True):
            _agree(
                own, right, f"right for a 2×2 matrix; step {step} of a 3×5 one has a wrong {name}"
            )


def grade_confident_direction(answer):
    """A square matrix by hand, a longer one for two steps, and updates that agree with m."""
    update = torch.tensor([[4.0, -3.0], [3.0, 2.0]])
    m = torch.tensor([[2.0, 1.0], [2.0, -1.0]])
    old_rows, old_columns = torch.tensor([6.0, 2.0]), torch.tensor([3.0, 5.0])
    beta, epsilon, names = 0.75, 0.5, ("the direction", "R", "C")
    given = (update, m, old_rows, old_columns, beta, epsilon)
    confident_update, rows, columns = _results(answer, given, names)
    _matrix_and_two(confident_update, rows, columns, names, (2, 2))
    distance = update - m
    unstable = distance**2 + epsilon
    _averaged(
        rows,
        old_rows,
        unstable,
        beta,
        (
            (distance**2, "ε is missing in U; without it, û = m would give 0 / 0."),
            (distance.abs() + epsilon, "û - m is not squared."),
            (distance + epsilon, "û - m is not squared."),
            ((distance + epsilon) ** 2, "ε is added to the square, not before it is taken."),
            (
                (update - (0.9 * m + 0.1 * update)) ** 2 + epsilon,
                "m has taken in this update already; do not mix û in once more.",
            ),
            (
                (update - (beta * m + (1 - beta) * update)) ** 2 + epsilon,
                "m has taken in this update already; β is for R and C.",
            ),
            (update**2 + epsilon, "that is û² + ε; the instability is the distance of û from m."),
            (m**2 + epsilon, "that is m² + ε; the instability is the distance of û from m."),
        ),
        "U",
    )
    right_rows = beta * old_rows + (1 - beta) * unstable.mean(dim=1)
    right_columns = beta * old_columns + (1 - beta) * unstable.mean(dim=0)
    _agree(rows, right_rows, "R is wrong")
    _agree(columns, right_columns, "R is right, C is wrong")
    s = factored(right_rows, right_columns)
    product = right_rows[:, None] * right_columns[None, :]
    _tell(
        confident_update,
        (s.rsqrt(), "that is the confidence, 1 / √S; the direction is m times it."),
        (s, "that is S; the direction is m / √S."),
        (update / s.sqrt(), "û is divided; it is m, which the confidence shortens."),
        (distance / s.sqrt(), "û - m is divided; the direction is m / √S."),
        (m * s.sqrt(), "you multiply by √S: then a weight steps further, the less it is trusted."),
        (m / s, "you divide by S; it is a mean of squares, so take its root."),
        (m / product.sqrt(), "S is R[i] · C[j] / mean(R); yours has no mean(R)."),
        (
            m / (right_rows * right_columns / right_rows.mean()).sqrt(),
            "R * C multiplies in pairs; S has each R with each C: R[:, None] * C[None, :].",
        ),
        (m / s.T.sqrt(), "your S is transposed: the row says which R, the column which C."),
        (m / unstable.sqrt(), "that divides by this step's √U; rebuild S from R and C."),
        (
            m / factored(old_rows, old_columns).sqrt(),
            "S is made of the R and C that were given; use the new ones.",
        ),
    )
    _agree(confident_update, m / s.sqrt(), "R and C are right, the direction is not")

    torch.manual_seed(0)
    rows, columns, m = torch.zeros(3), torch.zeros(5), torch.zeros(3, 5)
    for step in (1, 2):
        update = torch.randn(3, 5)
        m = 0.9 * m + 0.1 * update
        got = _results(answer, (update, m, rows, columns, 0.9999, 1e-16), names)
        trust, rows, columns = confidence(update, m, rows, columns)
        _matrix_and_two(*got, names, (3, 5))
        for name, own, right in zip(names, got, (trust * m, rows, columns), strict=True):
            what = f"right for a 2×2 matrix; at step {step} of a 3×5 one {name} is wrong"
            if not torch.allclose(own, right, rtol=1e-3, atol=1e-9):
                raise Diagnosis(
                    f"{what}: {_shown(right)} would be right; yours gives {_shown(own)}."
                )
    got, _, _ = _results(answer, (m, m, torch.zeros(3), torch.zeros(5), 0.9, 1e-16), names)
    if not bool(got.isfinite().all()):
        raise Diagnosis("where û = m, only ε is left in U; yours divides by 0.")


def grade_first_step_of_came(answer):
    """The number is graded; the sentence must be there."""
    got = answer()
    if not (isinstance(got, tuple | list) and len(got) == 2):
        raise Diagnosis('return two things: the number and your sentence, as in 2.0, "because …".')
    number, sentence = got
    if number is None:
        raise Diagnosis("the number is None; measure, and put it there.")
    number = as_number(number)
    for wrong, what in (
        (1, "that is Adam's first step, whose averages are corrected for their start at 0."),
        (0.1, "so far moves a vector, which has no confidence; the weight is to be a matrix."),
        (1 / 9, "that would be so if the instability were corrected for its start; measure it."),
        (10, "û - m is û less the tenth that m took of it: 0.9 û, not û."),
        (100, "1 / √(1 - β₃) is 100; but the momentum has only a tenth of the update."),
        (1000, "1 - β₃ is the share in the mean of SQUARES; its root counts."),
        (0.1 / 0.9 / 1e-4, "1 - β₃ is the share in the mean of SQUARES; its root counts."),
        (0.1 / 0.9 / math.sqrt(1e-3), "that is with β₃ = 0.999; the default is 0.9999."),
        (0.1 / 0.9 / math.sqrt(1e-2), "that is with β₃ = 0.99; the default is 0.9999."),
        (15.69, "that is the second step; the very first is asked for."),
        (48.3, "that is the fiftieth step; the very first is asked for."),
    ):
        if math.isclose(number, wrong, rel_tol=5e-3):
            raise Diagnosis(what)
    if math.isclose(number, -100 / 9, rel_tol=0.015):
        raise Diagnosis("how far is asked for, not which way: without a sign.")
    if 0 < number < 0.05 or math.isclose(number, 50 / 9, rel_tol=5e-3):
        raise Diagnosis("that is how far the weight moves; divide it by the learning rate.")
    if not math.isclose(number, 100 / 9, rel_tol=0.015):
        raise Diagnosis(
            f"{number:.4g} is not it: weight = torch.nn.Parameter(torch.zeros(2, 3)), one number "
            "in all of weight.grad, one step of CAME([weight], lr=0.5): how many learning rates?"
        )
    if not isinstance(sentence, str) or (len(sentence.split()) < 4 and len(sentence) < 8):
        raise Diagnosis("the number is right; now say in a sentence what makes the step so long.")


def grade_adam_mini_update(answer):
    """The second step of a square matrix by hand; rows of zeros; rows of one weight are Adam's."""
    g, m = torch.tensor([[3.0, -1.0], [2.0, 6.0]]), torch.tensor([[1.0, 2.0], [-1.0, 1.0]])
    v, step, epsilon, beta1, beta2 = torch.tensor([2.0, 6.0]), 2, 0.25, 0.6, 0.8
    names = ("the direction", "m", "v")
    update, mean, square = _results(answer, (g, m, v, step, (beta1, beta2), epsilon), names)
    if square.shape == (2, 2):
        raise Diagnosis("v has a number for each weight: that is Adam. Here it has one a row.")
    if square.numel() == 1:
        raise Diagnosis("v is one number for the whole matrix; here each row has its own.")
    if square.shape == (2, 1):
        raise Diagnosis("v has an axis of 1 left; it is [rows]. Add the axis where you divide.")
    for name, got, shape in zip(names, (update, mean, square), ((2, 2), (2, 2), (2,)), strict=True):
        if got.shape != shape:
            raise Diagnosis(f"{name} is {[*shape]} here; yours is {[*got.shape]}.")
    squares = g**2
    new_m, new_v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * squares.mean(dim=1)
    m_hat, v_hat = new_m / (1 - beta1**step), new_v / (1 - beta2**step)
    _tell(
        mean,
        (m, "m is what it was; bring the gradient into it."),
        (m_hat, "you give back m̂; the correction is for this step only, m is kept without."),
        (beta2 * m + (1 - beta2) * g, "m is made with β₂; the first beta is m's."),
        ((1 - beta1) * m + beta1 * g, "β₁ says how much of m is KEPT, not how much is new."),
        (beta1 * m + g, "in m the gradient has a share of 1 - β₁."),
    )
    _agree(mean, new_m, "m is wrong")
    _tell(
        square,
        (v, "v is what it was; bring the squares into it."),
        (v_hat, "you give back v̂; the correction is for this step only, v is kept without."),
        (
            beta2 * v + (1 - beta2) * squares.mean(dim=0),
            "your v has a number a column; a row's weights share one: the mean over dim=1.",
        ),
        (
            beta2 * v + (1 - beta2) * squares.sum(dim=1),
            "the sum of a row's g² is in v; take the mean.",
        ),
        (
            beta2 * v + (1 - beta2) * g.mean(dim=1) ** 2,
            "square first, then take the mean: numbers of both signs cancel in yours.",
        ),
        (beta2 * v + (1 - beta2) * g.mean(dim=1), "g is not squared in v."),
        (beta2 * v + (1 - beta2) * g.abs().mean(dim=1), "g is not squared in v."),
        (
            beta2 * v + (1 - beta2) * squares.mean(),
            "that is one mean for the whole matrix; each row has its own.",
        ),
        (
            beta2 * v + (1 - beta2) * squares.amax(dim=1),
            "that is the largest g² of a row; the mean of them is asked for.",
        ),
        (
            beta2 * v + (1 - beta2) * (new_m**2).mean(dim=1),
            "v takes the squares of the gradient, not of m.",
        ),
        (beta1 * v + (1 - beta1) * squares.mean(dim=1), "v is made with β₁; the second is v's."),
        ((1 - beta2) * v + beta2 * squares.mean(dim=1), "β₂ says how much of v is KEPT."),
        (beta2 * v + squares.mean(dim=1), "in v the mean of the squares has a share of 1 - β₂."),
    )
    _agree(square, new_v, "v is wrong")

    def over(top: Tensor, bottom: Tensor) -> Tensor:
        return top / bottom[:, None]

    root = v_hat.sqrt() + epsilon
    late, soon = (
        over(new_m / (1 - beta1**t), (new_v / (1 - beta2**t)).sqrt() + epsilon)
        for t in (step + 1, step - 1)
    )
    _tell(
        update,
        (m_hat / root, "your √v̂ goes with the columns; each ROW of m̂ has its own: root[:, None]."),
        (over(new_m, new_v.sqrt() + epsilon), "m and v are not corrected for their start at 0."),
        (over(m_hat, new_v.sqrt() + epsilon), "m is corrected for its start at 0, v is not."),
        (over(new_m, root), "v is corrected for its start at 0, m is not."),
        (late, "t is counted from 1: this step is t, not t + 1."),
        (soon, "t is counted from 1: this step is t, not t - 1."),
        (over(m_hat, (v_hat + epsilon).sqrt()), "ε is inside the root; it is added to √v̂."),
        (over(m_hat, v_hat.sqrt()), "ε is missing; a row without gradients would be 0 / 0."),
        (
            over(m_hat, (new_v.sqrt() + epsilon) / math.sqrt(1 - beta2**step)),
            "ε is added before v is corrected; it is √v̂ + ε.",
        ),
        (over(m_hat, v_hat + epsilon), "you divide by v̂; it is a mean of squares: take its root."),
        (over(g, root), "the gradient itself is divided; it is m̂."),
        (
            -over(m_hat, root),
            "that points the other way: a direction is subtracted later, lr times.",
        ),
    )
    _agree(update, over(m_hat, root), "m and v are right, the direction is not")

    torch.manual_seed(0)
    m, v = torch.zeros(3, 5), torch.zeros(3)
    for step in (1, 2, 3):
        g = torch.randn(3, 5)
        g[1] = 0
        got = _results(answer, (g, m, v, step, (0.9, 0.999), 1e-8), names)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * (g**2).mean(dim=1)
        root = (v / (1 - 0.999**step)).sqrt() + 1e-8
        if not bool(got[0][1].isfinite().all()):
            raise Diagnosis("a row without gradients gives 0 / 0; its direction is 0 / ε, 0.")
        rights = (over(m / (1 - 0.9**step), root), m, v)
        for name, own, right in zip(names, got, rights, strict=True):
            _agree(
                own, right, f"right for a 2×2 matrix; at step {step} of a 3×5 one {name} is wrong"
            )
    g, m, v = torch.randn(4, 1), torch.randn(4, 1), torch.rand(4) + 1
    adam, _ = adamw_update(g, AdamWState(m, v[:, None]), 7)
    got = _results(answer, (g, m, v, 7, (0.9, 0.999), 1e-8), names)[0]
    _agree(got, adam, "with one weight a row this is Adam")


def _results(answer, given: tuple, names: tuple[str, ...]) -> list[Tensor]:
    """What the answer returns, a tensor for each name; what was given must stay as it is."""
    copies = [part.clone() if isinstance(part, Tensor) else part for part in given]
    got = answer(*copies)
    for part, copy in zip(given, copies, strict=True):
        if isinstance(part, Tensor) and not torch.equal(part, copy):
            raise Diagnosis("you change the tensors that were given; build new ones.")
    if got is None:
        as_tensor(got)
    if not isinstance(got, tuple | list) or len(got) != len(names):
        raise Diagnosis(f"return {len(names)} things, in this order: {', '.join(names)}.")
    return [as_tensor(part).detach().float() for part in got]


def _matrix_and_two(
    matrix: Tensor, rows: Tensor, columns: Tensor, names: tuple[str, ...], shape: tuple[int, int]
) -> None:
    n, m = shape
    expected = ((n, m), (n,), (m,))
    for name, got, needed in zip(names, (matrix, rows, columns), expected, strict=True):
        if got.shape != needed:
            raise Diagnosis(
                f"for a matrix [{n}, {m}] {name} is {[*needed]}; yours is {[*got.shape]}. The "
                f"order is {', '.join(names)}."
            )


def _averaged(
    rows: Tensor, old: Tensor, new: Tensor, beta: float, others: tuple, letter: str
) -> None:
    """What can go wrong with R, the average of the means of the rows of `new`."""

    def with_means(means: Tensor) -> Tensor:
        return beta * old + (1 - beta) * means

    _tell(
        rows,
        (old, "R is what it was; bring this step's means into it."),
        (with_means(new.mean(dim=0)), "your R holds means of columns; the mean of a ROW is dim=1."),
        (with_means(new.sum(dim=1)), f"these are sums of {letter}, as in the paper; take means."),
        (new.mean(dim=1), "that is this step's means alone; β says how much of the old R is kept."),
        (
            (1 - beta) * old + beta * new.mean(dim=1),
            "β says how much of R is KEPT, not what is new.",
        ),
        (beta * old + new.mean(dim=1), f"this step's means of {letter} have a share of 1 - β."),
        *((with_means(other.mean(dim=1)), what) for other, what in others),
    )


def _tell(got: Tensor, *wrongs: tuple[Tensor, str]) -> None:
    for wrong, what in wrongs:
        if _near(got, wrong):
            raise Diagnosis(what)


def _near(got: Tensor, right: Tensor) -> bool:
    return got.shape == right.shape and torch.allclose(got, right, rtol=1e-4, atol=1e-6)


def _agree(got: Tensor, right: Tensor, what: str) -> None:
    if not _near(got, right):
        raise Diagnosis(f"{what}: {_shown(right)} would be right; yours gives {_shown(got)}.")


def _shown(tensor: Tensor) -> str:
    numbers = [f"{number:.4g}" for number in tensor.flatten().tolist()]
    return ", ".join(numbers[:7]) + ", …" * (len(numbers) > 7)


GRADERS = {
    "6.1": Grader(
        function="lion_step",
        level="everyone",
        grade=grade_lion_step,
        target="minillm.optim.lion.lion_update",
        hints=(
            "Three lines in the order of the statement; the new mean is needed last.",
            "direction = (beta1 * mean + (1 - beta1) * gradient).sign()",
            "weight - rate * (direction + weight_decay * weight); and the mean with beta2.",
        ),
    ),
    "6.2": Grader(
        function="factored_step",
        level="everyone",
        grade=grade_factored_step,
        target="minillm.optim.adafactor.factored",
        hints=(
            "squares = gradient**2; the mean of each row is squares.mean(dim=1), of shape [n].",
            "rows = beta * rows + (1 - beta) * squares.mean(dim=1); columns the same, with dim=0.",
            "rows[:, None] * columns[None, :] is the matrix R[i] · C[j]; divide by rows.mean().",
        ),
    ),
    "6.3": Grader(
        function="confident_direction",
        level="stretch",
        grade=grade_confident_direction,
        target="minillm.optim.came.confidence",
        hints=(
            "instability = (update - momentum) ** 2 + epsilon; nothing happens to momentum.",
            "Its row means go into R and its column means into C, as in task 6.2.",
            "momentum / (rows[:, None] * columns[None, :] / rows.mean()).sqrt(), the new ones.",
        ),
    ),
    "6.4": Grader(
        function="first_step_of_came",
        level="everyone",
        grade=grade_first_step_of_came,
        hints=(
            "weight = torch.nn.Parameter(torch.zeros(2, 3)), weight.grad = torch.ones(2, 3).",
            "One optimizer.step() with lr=0.5: how far is the weight from 0, divided by 0.5?",
            "m = 0.1 û, so û - m = 0.9 û. What is the root of 0.0001 · (0.9 û)²? Now m / √S.",
        ),
        model_answer=(
            "11.1, which is (1 - β₁) / (β₁ √(1 - β₃)) = 0.1 / (0.9 · 0.01), whatever the gradient. "
            "All of CAME's averages begin at 0 and none is corrected. After one step the momentum "
            "has 1/10 of the update, and the running instability 1/10,000 of its value; its root, "
            "by which the momentum is divided, has 1/100. Update clipping does not help: it comes "
            "before that division. With β₃ = 0.999 it is 3.5, with 0.99 it is 1.1; and while the "
            "gradients stay the same, it goes on to grow (48 at step 50). So CAME wants a warm-up, "
            "and in a short run a smaller β₃."
        ),
    ),
    "6.5": Grader(
        function="adam_mini_update",
        level="stretch",
        grade=grade_adam_mini_update,
        hints=(
            "(gradient**2).mean(dim=1) is [rows]; averaged with β₂ it is v.",
            "For this step only: mean / (1 - beta1**step) and square / (1 - beta2**step).",
            "root[:, None] makes [rows, 1] of [rows]: each row of m̂ is divided by its own number.",
        ),
    ),
}
