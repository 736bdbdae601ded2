"""Answers for the graders of chapter 06: other right ones, typical mistakes, and a mutant."""

SECOND_STYLE = {
    "6.1": """
import torch
def lion_step(weight, gradient, mean, rate, betas, weight_decay):
    c = torch.lerp(gradient, mean, betas[0])
    shrunk = weight * (1 - rate * weight_decay)
    moved = torch.where(c > 0, shrunk - rate, torch.where(c < 0, shrunk + rate, shrunk))
    return [moved, torch.lerp(gradient, mean, betas[1])]
""",
    "6.2": """
import torch
def factored_step(gradient, rows, columns, beta):
    n, m = gradient.shape
    ones = torch.ones(m, dtype=gradient.dtype)
    r = rows.lerp((gradient * gradient) @ ones / m, 1 - beta)
    c = columns.lerp(gradient.square().T.mean(-1), 1 - beta)
    return torch.outer(r / r.mean(), c), r, c
""",
    "6.3": """
import torch
def confident_direction(update, momentum, rows, columns, beta, epsilon):
    u = (momentum - update).square().add(epsilon)
    r = torch.lerp(rows, u.mean(-1), 1 - beta)
    c = torch.lerp(columns, u.mean(-2), 1 - beta)
    trust = torch.outer(r.rsqrt(), c.rsqrt()) * r.mean().sqrt()
    return momentum * trust, r, c
""",
    "6.4": """
def first_step_of_came():
    b1, _, b3 = 0.9, 0.999, 0.9999
    u = 1.0
    m = (1 - b1) * u
    s = (1 - b3) * (u - m) ** 2
    return m / s**0.5, "滑动平均从零开始而没有修正，分母太小。"
""",
    "6.5": """
import torch
def adam_mini_update(gradient, mean, square, step, betas, epsilon):
    b1, b2 = betas
    m = mean.lerp(gradient, 1 - b1)
    v = torch.stack([b2 * old + (1 - b2) * (row @ row) / len(row)
                     for old, row in zip(square, gradient)])
    rate = (1 - b2**step) ** 0.5 / (v.sqrt() + epsilon * (1 - b2**step) ** 0.5)
    return torch.einsum("ij,i->ij", m, rate) / (1 - b1**step), m, v
""",
}

LION = """import torch
def lion_step(weight, gradient, mean, rate, betas, weight_decay):
    beta1, beta2 = betas
    c = beta1 * mean + (1 - beta1) * gradient
    direction = c.sign()
    new = beta2 * mean + (1 - beta2) * gradient
    weight = weight - rate * (direction + weight_decay * weight)
    return weight, new
"""
FACTORED = """import torch
def factored_step(gradient, rows, columns, beta):
    squares = gradient**2
    r = beta * rows + (1 - beta) * squares.mean(dim=1)
    c = beta * columns + (1 - beta) * squares.mean(dim=0)
    v = r[:, None] * c[None, :] / r.mean()
    return v, r, c
"""
CONFIDENT = """import torch
def confident_direction(update, momentum, rows, columns, beta, epsilon):
    u = (update - momentum) ** 2 + epsilon
    r = beta * rows + (1 - beta) * u.mean(dim=1)
    c = beta * columns + (1 - beta) * u.mean(dim=0)
    s = r[:, None] * c[None, :] / r.mean()
    direction = momentum / s.sqrt()
    return direction, r, c
"""
MINI = """import torch
def adam_mini_update(gradient, mean, square, step, betas, epsilon):
    beta1, beta2 = betas
    m = beta1 * mean + (1 - beta1) * gradient
    v = beta2 * square + (1 - beta2) * (gradient**2).mean(dim=1)
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    direction = m_hat / (v_hat.sqrt() + epsilon)[:, None]
    return direction, m, v
"""


def _but(source):
    """The right answer with some of its text replaced."""

    def changed(*swaps):
        text = source
        for old, new in swaps:
            assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the answer"
            text = text.replace(old, new)
        return text

    return changed


def _swapped(source, one, other):
    """The right answer with two texts in each other's place."""
    assert one in source and other in source
    return other.join(part.replace(other, one) for part in source.split(one))


def _first_step(result):
    return f"def first_step_of_came():\n    return {result}\n"


lion, rebuilt, confident, mini = _but(LION), _but(FACTORED), _but(CONFIDENT), _but(MINI)
STEP = "weight - rate * (direction + weight_decay * weight)"
BECAUSE = '"because no average is corrected"'

# Task -> (what the learner did, a phrase of the diagnosis that must come).
MISTAKES = {
    "6.1": [
        (lion(("c.sign()", "mean.sign()")), "the sign of the old mean"),
        (lion(("c.sign()", "gradient.sign()")), "the sign of the gradient"),
        (lion(("beta1, beta2 = betas", "beta2, beta1 = betas")), "are exchanged"),
        (lion(("c = beta1 * mean + (1 - beta1)", "c = beta2 * mean + (1 - beta2)")), "with β₂;"),
        (lion(("new = beta2 * mean + (1 - beta2)", "new = beta1 * mean + (1 - beta1)")), "is c;"),
        (
            lion(
                (
                    "c = beta1 * mean",
                    "new = beta2 * mean + (1 - beta2) * gradient\n    c = beta1 * new",
                ),
                ("    new = beta2 * mean + (1 - beta2) * gradient\n    weight", "    weight"),
            ),
            "before c is computed",
        ),
        (
            lion((STEP, "weight * (1 - weight_decay) - rate * direction")),
            "not multiplied by the rate",
        ),
        (
            lion(
                ("c.sign()", "(c + weight_decay * weight).sign()"),
                (STEP, "weight - rate * direction"),
            ),
            "inside the sign",
        ),
        (
            lion(
                ("    c =", "    gradient = gradient + weight_decay * weight\n    c ="),
                (STEP, "weight - rate * direction"),
            ),
            "weight decay is in the mean",
        ),
        (lion((STEP, "(weight - rate * direction) * (1 - rate * weight_decay)")), "not of the one"),
        (lion((STEP, "weight - rate * direction")), "no weight decay"),
        (lion((STEP, "weight - direction - rate * weight_decay * weight")), "the sign is not mult"),
        (lion((STEP, "weight + rate * (direction + weight_decay * weight)")), "you add the step"),
        (lion((STEP, "weight + rate * (direction - weight_decay * weight)")), "the sign is added"),
        (lion((STEP, "weight - rate * (direction - weight_decay * weight)")), "weights grow"),
        (lion(("c.sign()", "c")), "that is c itself"),
        (lion(("c.sign()", "c / c.abs()")), "0 / 0"),
        (lion(("c.sign()", "torch.where(c > 0, 1.0, -1.0)")), "c = 0 gives -1"),
        (lion(("c.sign()", "torch.where(c >= 0, 1.0, -1.0)")), "c = 0 gives 1;"),
        (lion(("c = beta1 * mean + (1 - beta1)", "c = (1 - beta1) * mean + beta1")), "share β₁"),
        (lion(("c = beta1 * mean + (1 - beta1) *", "c = beta1 * mean +")), "in c the gradient has"),
        (lion(("new = beta2 * mean + (1 - beta2) *", "new = beta2 * mean +")), "in the mean the"),
        (
            lion(("new = beta2 * mean + (1 - beta2)", "new = (1 - beta2) * mean + beta2")),
            "of the mean is KEPT",
        ),
        (lion(("return weight, new", "return weight, mean")), "is what it was"),
        (lion(("return weight, new", "return weight, direction")), "the new mean is the sign"),
        (
            lion(("(1 - beta2) * gradient", "(1 - beta2) * direction")),
            "takes in the gradient, not the sign",
        ),
        (lion(("return weight, new", "return new, weight")), "the weight first"),
        (lion(("return weight, new", "return weight")), "return 2 things"),
        (lion(("return weight, new", "print(new)")), "returns nothing"),
        (lion(("weight = weight - rate *", "weight -= rate *")), "you change the tensors"),
        (lion(("return weight, new", "return weight.sum(), new")), "what you return has []"),
        (
            lion(("c.sign()", "c.sign() if c.ndim == 1 else c.sum(-1, keepdim=True).sign()")),
            "right for a vector",
        ),
        (
            "from minillm.optim.lion import lion_update\n"
            "def lion_step(weight, gradient, mean, rate, betas, weight_decay):\n"
            "    direction, mean = lion_update(gradient, mean, betas=betas)\n"
            "    return weight - rate * (direction + weight_decay * weight), mean\n",
            "write what it does",
        ),
    ],
    "6.2": [
        (rebuilt(("gradient**2", "gradient")), "G is not squared"),
        (
            rebuilt(
                ("squares.mean(dim=1)", "gradient.mean(dim=1) ** 2"),
                ("squares.mean(dim=0)", "gradient.mean(dim=0) ** 2"),
            ),
            "square first",
        ),
        (
            _swapped(FACTORED, "dim=0", "dim=1"),
            "holds means of columns",
        ),
        (FACTORED.replace("squares.mean(", "squares.sum("), "as in the paper"),
        (
            _swapped(FACTORED, "(1 - beta) *", "beta *"),
            "is KEPT, not what",
        ),
        (FACTORED.replace("(1 - beta) * squares", "squares"), "a share of 1 - β"),
        (
            rebuilt(("beta * rows + (1 - beta) * ", ""), ("beta * columns + (1 - beta) * ", "")),
            "means alone",
        ),
        (rebuilt(("return v, r, c", "return v, rows, columns")), "R is what it was"),
        (rebuilt(("squares.mean(dim=0)", "squares.mean(dim=1)")), "R is right, C is wrong"),
        (rebuilt((" / r.mean()", "")), "as large as G⁴"),
        (rebuilt(("r.mean()", "r.sum()")), "the sum of R"),
        (rebuilt(("r[:, None] * c[None, :]", "c[:, None] * r[None, :]")), "yours is transposed"),
        (rebuilt(("r[:, None] * c[None, :]", "r * c")), "multiplies in pairs"),
        (rebuilt(("/ r.mean()", "/ rows.mean()")), "not of the R given"),
        (
            rebuilt(("r[:, None] * c[None, :] / r", "rows[:, None] * columns[None, :] / rows")),
            "R and C that were given",
        ),
        (rebuilt(("r.mean()\n", "r.mean()\n    v = v.sqrt()\n")), "that is √V"),
        (rebuilt(("r[:, None] * c[None, :] / r.mean()", "squares")), "G² itself"),
        (
            rebuilt(
                (
                    "r[:, None] * c[None, :] / r.mean()",
                    "torch.outer(squares.mean(1), squares.mean(0)) / squares.mean()",
                )
            ),
            "this gradient alone",
        ),
        (rebuilt(("return v, r, c", "return r, c, v")), "The order is"),
        (rebuilt(("return v, r, c", "return v, r[:, None], c[None]")), "R is [2]"),
        (rebuilt(("return v, r, c", "return v")), "return 3 things"),
        (rebuilt(("gradient**2", "gradient.square_()")), "you change the tensors"),
        (
            rebuilt(("r.mean()", "(r.sum() / 2)")),
            "step 1 of a 3×5 one has a wrong V",
        ),
        (
            "from minillm.optim.adafactor import factored\n"
            "def factored_step(gradient, rows, columns, beta):\n"
            "    r = beta * rows + (1 - beta) * (gradient**2).mean(dim=1)\n"
            "    c = beta * columns + (1 - beta) * (gradient**2).mean(dim=0)\n"
            "    return factored(r, c), r, c\n",
            "write what it does",
        ),
    ],
    "6.3": [
        (confident((" ** 2", "")), "is not squared"),
        (confident((" + epsilon", "")), "ε is missing in U"),
        (
            confident(("(update - momentum) ** 2 + epsilon", "(update - momentum + epsilon) ** 2")),
            "before it is",
        ),
        (confident(("(update - momentum) ** 2", "update ** 2")), "that is û² + ε"),
        (confident(("(update - momentum) ** 2", "momentum ** 2")), "that is m² + ε"),
        (CONFIDENT.replace("u.mean(", "u.sum("), "as in the paper"),
        (
            _swapped(CONFIDENT, "dim=0", "dim=1"),
            "holds means of columns",
        ),
        (
            _swapped(CONFIDENT, "(1 - beta) *", "beta *"),
            "is KEPT, not what",
        ),
        (confident(("return direction, r, c", "return direction, rows, columns")), "R is what it"),
        (confident(("u.mean(dim=0)", "u.mean(dim=1)")), "R is right, C is wrong"),
        (confident(("momentum / s.sqrt()", "1 / s.sqrt()")), "that is the confidence"),
        (confident(("momentum / s.sqrt()", "update / s.sqrt()")), "û is divided"),
        (confident(("momentum / s.sqrt()", "(update - momentum) / s.sqrt()")), "û - m is divided"),
        (confident(("momentum / s.sqrt()", "momentum * s.sqrt()")), "you multiply by √S"),
        (confident(("momentum / s.sqrt()", "momentum / s")), "you divide by S"),
        (confident(("momentum / s.sqrt()", "s")), "that is S"),
        (confident(("r[:, None] * c[None, :]", "r * c")), "multiplies in pairs"),
        (
            confident(("u = (update", "momentum = 0.9 * momentum + 0.1 * update\n    u = (update")),
            "do not mix û in once more",
        ),
        (
            confident(
                ("u = (update", "momentum = momentum.lerp(update, 1 - beta)\n    u = (update")
            ),
            "β is for R and C",
        ),
        (confident((" / r.mean()", "")), "yours has no mean(R)"),
        (confident(("momentum / s.sqrt()", "momentum / u.sqrt()")), "this step's √U"),
        (confident(("momentum / s.sqrt()", "momentum / s.T.sqrt()")), "your S is transposed"),
        (
            confident(("r[:, None] * c[None, :] / r", "rows[:, None] * columns[None, :] / rows")),
            "use the new ones",
        ),
        (
            confident(("u = (update", "momentum.lerp_(update, 0.1)\n    u = (update")),
            "you change the tensors",
        ),
        (confident(("return direction, r, c", "return r, c, direction")), "The order is"),
        (confident(("return direction, r, c", "return direction")), "return 3 things"),
        (confident(("r.mean()", "(r.sum() / 2)")), "at step 1 of a 3×5 one"),
        (
            confident(
                (
                    "(update - momentum) ** 2 + epsilon",
                    "(update - momentum) ** 2 + (epsilon if epsilon > 1e-9 else 0)",
                )
            ),
            "where û = m, only ε is left",
        ),
        (
            "from minillm.optim.came import confidence\n"
            "def confident_direction(update, momentum, rows, columns, beta, epsilon):\n"
            "    trust, rows, columns = confidence(update, momentum, rows, columns, beta=beta)\n"
            "    return trust * momentum, rows, columns\n",
            "write what it does",
        ),
    ],
    "6.4": [
        (_first_step(f"1.0, {BECAUSE}"), "Adam's first step"),
        (_first_step(f"0.1, {BECAUSE}"), "a vector, which has no confidence"),
        (_first_step(f"0.1111, {BECAUSE}"), "corrected for its start; measure it"),
        (_first_step(f"10, {BECAUSE}"), "0.9 û, not û"),
        (_first_step(f"100, {BECAUSE}"), "only a tenth of the update"),
        (_first_step(f"1111.1, {BECAUSE}"), "its root counts"),
        (_first_step(f"3.51, {BECAUSE}"), "with β₃ = 0.999;"),
        (_first_step(f"1.11, {BECAUSE}"), "with β₃ = 0.99;"),
        (_first_step(f"15.7, {BECAUSE}"), "the second step"),
        (_first_step(f"48.29, {BECAUSE}"), "the fiftieth step"),
        (_first_step(f"-11.1, {BECAUSE}"), "which way"),
        (_first_step(f"0.0111, {BECAUSE}"), "divide it by the learning rate"),
        (_first_step(f"7, {BECAUSE}"), "is not it"),
        (_first_step("11.1"), "return two things"),
        (_first_step('11.1, "CAME"'), "say in a sentence"),
        (_first_step(f"'eleven', {BECAUSE}"), "return one number"),
        (_first_step(f"None, {BECAUSE}"), "the number is None"),
    ],
    "6.5": [
        (
            mini(
                ("epsilon)[:, None]", "epsilon)"),
                ("beta2 * square +", "beta2 * square[:, None] +"),
                ("(gradient**2).mean(dim=1)", "gradient**2"),
            ),
            "that is Adam",
        ),
        (mini(("(gradient**2).mean(dim=1)", "(gradient**2).mean(dim=0)")), "a number a column"),
        (mini(("(gradient**2).mean(dim=1)", "(gradient**2).sum(dim=1)")), "the sum of a row's"),
        (mini(("(gradient**2).mean(dim=1)", "gradient.mean(dim=1) ** 2")), "square first"),
        (mini(("(gradient**2).mean(dim=1)", "gradient.abs().mean(dim=1)")), "g is not squared"),
        (
            mini(("(gradient**2).mean(dim=1)", "(gradient**2).mean()")),
            "one mean for the whole matrix",
        ),
        (mini(("(gradient**2).mean(dim=1)", "(gradient**2).amax(dim=1)")), "the largest g²"),
        (mini(("(gradient**2).mean(dim=1)", "(m**2).mean(dim=1)")), "not of m"),
        (
            mini(
                (
                    "v = beta2 * square + (1 - beta2) * (gradient**2).mean(dim=1)",
                    "v = beta2 * square.mean() + (1 - beta2) * (gradient**2).mean()",
                ),
                ("[:, None]", ""),
            ),
            "v is one number",
        ),
        (
            mini(
                ("epsilon)[:, None]", "epsilon)"),
                ("beta2 * square +", "beta2 * square[:, None] +"),
                ("mean(dim=1)", "mean(dim=1, keepdim=True)"),
            ),
            "an axis of 1 left",
        ),
        (mini(("[:, None]", "")), "goes with the columns"),
        (mini(("return direction, m, v", "return direction, m_hat, v")), "you give back m̂"),
        (mini(("return direction, m, v", "return direction, m, v_hat")), "you give back v̂"),
        (mini(("return direction, m, v", "return direction, mean, v")), "m is what it was"),
        (mini(("return direction, m, v", "return direction, m, square")), "v is what it was"),
        (mini(("beta1, beta2 = betas", "beta2, beta1 = betas")), "m is made with β₂"),
        (
            mini(("beta2 * square + (1 - beta2)", "beta1 * square + (1 - beta1)")),
            "v is made with β₁",
        ),
        (
            mini(("beta1 * mean + (1 - beta1)", "(1 - beta1) * mean + beta1")),
            "β₁ says how much of m is KEPT",
        ),
        (mini(("beta2 * square + (1 - beta2)", "(1 - beta2) * square + beta2")), "of v is KEPT"),
        (mini(("mean + (1 - beta1) *", "mean +")), "in m the gradient"),
        (mini(("square + (1 - beta2) *", "square +")), "in v the mean of"),
        (mini(("m_hat / (v_hat", "m / (v")), "m and v are not corrected"),
        (mini(("m_hat / (v_hat", "m_hat / (v")), "v is not."),
        (mini(("m_hat / (v_hat", "m / (v_hat")), "m is not."),
        (MINI.replace("**step", "**(step + 1)"), "not t + 1"),
        (MINI.replace("**step", "**(step - 1)"), "not t - 1"),
        (mini(("(v_hat.sqrt() + epsilon)", "(v_hat + epsilon).sqrt()")), "inside the root"),
        (mini((" + epsilon)", ")")), "ε is missing"),
        (
            mini(("(v_hat.sqrt() + epsilon)", "((v.sqrt() + epsilon) / (1 - beta2**step) ** 0.5)")),
            "before v is corrected",
        ),
        (mini(("v_hat.sqrt()", "v_hat")), "you divide by v̂"),
        (mini(("m_hat / (v_hat", "gradient / (v_hat")), "the gradient itself"),
        (mini(("direction = m_hat", "direction = -m_hat")), "points the other way"),
        (mini(("m = beta1 * mean +", "m = mean.mul_(beta1) +")), "you change the tensors"),
        (mini(("return direction, m, v", "return direction")), "return 3 things"),
        (mini(("return direction, m, v", "return direction[0], m, v")), "the direction is [2, 2]"),
        (mini(("mean(dim=1)", "sum(dim=1) / 2")), "3×5 one the direction is wrong"),
        (
            mini(("+ epsilon", "+ (epsilon if epsilon > 1e-4 else 0)")),
            "a row without gradients gives 0 / 0",
        ),
    ],
}

MUTANT = {
    "6.1": lion((STEP, "weight - rate * (direction + weight_decay * weight.abs())")),
    "6.2": rebuilt(("return v, r, c", "return v + 1, r, c")),
    "6.3": confident(("momentum / s.sqrt()", "momentum / (s.sqrt() + 1)")),
    "6.4": _first_step(f"float('nan'), {BECAUSE}"),
    "6.5": mini(("return direction, m, v", "return direction + 1, m, v")),
}
