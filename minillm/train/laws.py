"""Scaling laws (规模法则): what the loss of a larger run will be, from the losses of smaller ones.

    y = floor + coefficient · x^exponent                         a power law; a line in log-log
    loss = E + A / N^alpha + B / D^beta                          of N parameters and D tokens
    C ≈ 6 · N · D                                         operations of the run: its compute

`power_law` fits the first line and says how sure its exponent is. `isoflop_minimum` reads the best
size off runs of equal compute (等算力曲线, iso-FLOP curve), and `size_law` how it grows with the
compute. `chinchilla` fits the second line to runs of many sizes and lengths, and then says the best
size for any compute.

Paper: Kaplan et al. 2020, arXiv:2001.08361; Hoffmann et al. 2022, arXiv:2203.15556, section 3.2
(`isoflop_minimum`) and 3.3 (`chinchilla`); Besiroglu et al. 2024, arXiv:2404.10102: the fit of
Hoffmann et al. had stopped before it was at its minimum, since its loss was scaled badly, and the
coefficients were printed with too few digits to predict with. Czech et al. 2026, arXiv:2603.22339:
the parabola of section 3.2 is an approximation, and leans to one side if the sizes do.
Differs: see the functions.

Chapter: 12
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, final

import numpy as np
import torch

from minillm.model.count import training_flops

HUBER = 1e-3  # of a log-loss: above a tenth of a percent an error counts by its size alone
MOST_EXPONENT = 4.0
TAILS = (0.025, 0.975)  # of the bootstrap
POLISHED = 4  # starts, the best of all, from which `chinchilla` searches on


# --- a power law --------------------------------------------------------------------------------
@final
@dataclass(frozen=True)
class PowerLaw:
    """y = floor + coefficient · x^exponent.

    Args:
        coefficient: y above the floor at x = 1.
        exponent: negative for what falls. Ten times the x is 10^exponent times y above the floor.
        floor: what y never goes below.
        r2: the share of the variance of log y that the law explains; 0 if y does not vary.
        interval: of the exponent: in 95 of 100 experiments it holds the true one.
    """

    coefficient: float
    exponent: float
    floor: float
    r2: float
    interval: tuple[float, float]

    def predict(self, x: Any) -> Any:
        """y at x, a number or an array."""
        return self.floor + self.coefficient * x**self.exponent


def power_law(
    x: Sequence[float],
    y: Sequence[float],
    *,
    floor: float | None = 0.0,
    n_resamples: int = 1000,
    seed: int = 0,
) -> PowerLaw:
    """Fit a power law, and say how sure its exponent is.

    With a known floor the fit is the straight line of least squares through log x and log(y −
    floor). With `floor=None` the floor is fitted too, at least 0, so that the squares of the
    relative errors of y are least: then much less is known of the exponent, and the interval says
    so.

    The interval is a bootstrap (自助法) of the residuals: the law, and on each point the error of a
    point that was drawn, fitted again, many times. It takes the errors of all points, relative to
    y − floor (or to y, if the floor is fitted), as alike and independent. With a known floor it is
    studentized, since without that intervals of few points are too narrow.

    Args:
        x: parameters, tokens or operations, above 0.
        y: losses, above the floor.
        floor: what y cannot go below, such as the entropy of the source; None fits it.
        n_resamples: of the bootstrap.
        seed: of its draws.

    Raises:
        ValueError: fewer than three different x (four, where the floor is fitted), numbers that are
            not above 0, a y that is not above the floor.

    Example:
        >>> law = power_law([1, 10, 100], [4.0, 3.0, 2.5], floor=2.0)  # 2, 1, 0.5 above the floor
        >>> round(law.coefficient, 3), round(law.exponent, 3), round(law.predict(1000), 3)
        (2.0, -0.301, 2.25)

    Paper: Davison & Hinkley 1997, "Bootstrap Methods and their Application", sections 6.2-6.3 (from
    memory).
    """
    x, y = _points({"x": 3 if floor is not None else 4}, x=x, y=y)
    _refuse_floor(floor, y, "y")
    draws = np.random.default_rng(seed).integers(len(x), size=(n_resamples, len(x)))
    fit = _with_floor_fitted if floor is None else _with_floor_known
    coefficient, exponent, floor, low, high = map(float, fit(np.log(x), y, floor, draws))
    rest = np.log(y / (floor + coefficient * x**exponent))
    variance = np.log(y).var()
    r2 = 1 - float((rest**2).mean() / variance) if variance > 0 else 0.0
    return PowerLaw(coefficient, exponent, floor, r2, (low, high))


def _with_floor_known(log_x, y, floor, draws):
    """The line through log x and log(y - floor), and a studentized bootstrap of its slope."""
    z, u = np.log(y - floor), log_x - log_x.mean()
    spread = (u**2).sum()

    def line(z):  # z: [..., points]
        slope = (z * u).sum(-1) / spread
        rest = z - z.mean(-1, keepdims=True) - slope[..., None] * u
        return slope, np.sqrt((rest**2).sum(-1) / (len(u) - 2) / spread), rest

    # 1. the line, its standard error, and what is left of each point
    slope, error, rest = line(z)
    # 2. the same line with drawn errors: how many of its own standard errors is it off?
    slopes, errors, _ = line(z.mean() + slope * u + rest[draws])
    off = (slopes - slope) / np.maximum(errors, 1e-9 * error + np.finfo(float).tiny)
    low, high = np.quantile(off, TAILS)
    coefficient = np.exp(z.mean() - slope * log_x.mean())
    return coefficient, slope, floor, slope - high * error, slope - low * error


def _with_floor_fitted(log_x, y, _, draws):
    """The law of least relative errors, and a bootstrap of its exponent."""
    (exponent,), (coefficient,), (floor,) = _least(log_x, y[None])
    fitted = floor + coefficient * np.exp(exponent * log_x)
    rest = y / fitted - 1  # three numbers are fitted, which makes errors smaller than they are
    rest = (rest - rest.mean()) * np.sqrt(len(y) / (len(y) - 3))
    exponents, _, _ = _least(log_x, fitted * np.maximum(1 + rest[draws], 0.01))
    return coefficient, exponent, floor, *np.quantile(exponents, TAILS)


def _least(log_x, y):
    """Exponent, coefficient, floor of each row of y: for an exponent the others are linear."""
    u, w = log_x - log_x.mean(), 1 / y[:, None]
    steep = np.geomspace(0.01, MOST_EXPONENT, 40)
    exponents = np.tile(np.concatenate([-steep[::-1], steep]), (len(y), 1))
    for ratio in (1.08, 1.008, 1.0008, 1.00008, None):
        # 1. the normal equations of y ≈ floor + height · p, both divided by y, where p = x^exponent
        p = np.exp(exponents[..., None] * u)  # [rows, exponents, points]
        a, b, c = (w**2).sum(-1), (w**2 * p).sum(-1), (w**2 * p**2).sum(-1)
        f, g = w.sum(-1), (w * p).sum(-1)
        floor = (f * c - g * b) / (a * c - b**2)
        floor = np.where(floor > 0, floor, 0.0)
        height = (g - b * floor) / c
        # 2. the exponent with the least error, and then a finer grid around it
        errors = ((1 - w * (floor[..., None] + height[..., None] * p)) ** 2).sum(-1)
        best = np.where(height > 0, errors, np.inf).argmin(-1)[:, None]
        exponent = np.take_along_axis(exponents, best, 1)
        if ratio is not None:
            exponents = exponent * ratio ** np.linspace(-2, 2, 21)
    height, floor = (np.take_along_axis(each, best, 1)[:, 0] for each in (height, floor))
    exponent = exponent[:, 0]
    return exponent, height * np.exp(-exponent * log_x.mean()), floor


# --- the best size for one compute budget -------------------------------------------------------
@final
@dataclass(frozen=True)
class Minimum:
    """The best size among runs of equal compute.

    Args:
        n_parameters: of the best size.
        loss: there.
        is_interior: whether smaller and larger sizes are both worse. If not, this is the best size
            that was tried, and no minimum.
        advice: what to try if it is not.
    """

    n_parameters: float
    loss: float
    is_interior: bool
    advice: str = ""

    def __str__(self) -> str:
        best = f"{self.n_parameters:,.0f} parameters, loss {self.loss:.4g}"
        return best if self.is_interior else f"no minimum: the best, {best}, {self.advice}"


def isoflop_minimum(n_parameters: Sequence[float], losses: Sequence[float]) -> Minimum:
    """The lowest point of an iso-FLOP curve: of a parabola through the losses over log N.

    Args:
        n_parameters: of runs that all took the same number of operations; a size may come several
            times, with other seeds.
        losses: theirs.

    Raises:
        ValueError: fewer than three different sizes, losses that are not above 0.

    Example:
        >>> print(isoflop_minimum([1000, 10_000, 100_000], [3.0, 2.0, 3.0]))
        10,000 parameters, loss 2
        >>> print(isoflop_minimum([1000, 10_000, 100_000], [4.0, 3.0, 2.5]))
        no minimum: the best, 100,000 parameters, loss 2.5, is the largest; add larger ones

    Paper: Hoffmann et al. 2022, section 3.2. Differs: none.
    """
    least = {"n_parameters": 3}
    sizes, losses = _points(least, n_parameters=n_parameters, losses=losses)
    different = np.unique(sizes)
    means = [losses[sizes == size].mean() for size in different]
    best, last = int(np.argmin(means)), len(means) - 1
    middle = np.log(sizes).mean()
    bend, slope, height = np.polyfit(np.log(sizes) - middle, losses, 2)
    lowest = math.exp(middle - slope / (2 * bend)) if bend > 0 else math.inf
    if 0 < best < last and different[0] < lowest < different[-1]:
        return Minimum(lowest, float(height - slope**2 / (4 * bend)), True)
    advice = {0: "is the smallest; add smaller ones", last: "is the largest; add larger ones"}
    otherwise = "is no lowest point of a parabola; add sizes around it, or seeds"
    return Minimum(float(different[best]), float(means[best]), False, advice.get(best, otherwise))


def size_law(
    bowls: Mapping[float, Sequence[tuple[float, float]]], *, n_resamples: int = 1000, seed: int = 0
) -> PowerLaw:
    """How the best size grows with the compute: N = coefficient · C^exponent.

    The lowest point of each bowl's parabola, and the line of least squares through them. The
    interval is a bootstrap of the residuals: the parabola of a bowl, and on each run the distance
    of a run that was drawn, fitted again, many times. So it holds the noise of the runs, and also
    that a bowl is no parabola; it does not hold what another search of rates would change.

    Args:
        bowls: compute in operations to its runs, each (n_parameters, loss).
        n_resamples: of the bootstrap; those in which a bowl has no lowest point are left out.
        seed: of its draws.

    Raises:
        ValueError: fewer than three bowls, or one whose lowest point is at an edge: says what
            to add.

    Example:
        >>> def runs(best):
        ...     return [(best / 4, 2.2), (best, 2.0), (best * 4, 2.2), (best * 16, 2.8)]
        >>> law = size_law({1e10: runs(1000), 1e11: runs(4000), 1e12: runs(16_000)})
        >>> round(law.exponent, 3)
        0.602

    Paper: Hoffmann et al. 2022, section 3.2. Differs: the interval (theirs leaves out runs).
    """
    rng, lowest, drawn = np.random.default_rng(seed), [], []
    for flops, runs in bowls.items():
        minimum = isoflop_minimum(*zip(*runs, strict=True))
        if not minimum.is_interior:
            raise ValueError(f"at {flops:g} operations there is {minimum}")
        lowest.append(minimum.n_parameters)
        # the parabola, and a parabola through each set of drawn losses
        sizes, losses = np.array(runs, dtype=float).T
        middle = np.log(sizes).mean()
        u, spare = np.log(sizes) - middle, max(len(runs) - 3, 1)
        rest = losses - (fitted := np.polyval(np.polyfit(u, losses, 2), u))
        draws = rng.integers(len(runs), size=(len(runs), n_resamples))
        again = fitted[:, None] + rest[draws] * math.sqrt(len(runs) / spare)
        bend, slope, _ = np.polyfit(u, again, 2)
        drawn.append(np.where(bend > 0, middle - slope / (2 * np.where(bend > 0, bend, 1)), np.nan))
    law = power_law(list(bowls), lowest, n_resamples=2)
    complete = np.array(drawn)[:, np.isfinite(drawn).all(0)]  # every bowl has a lowest point
    low, high = np.quantile(np.polyfit(np.log(list(bowls)), complete, 1)[0], TAILS)
    return replace(law, interval=(float(low), float(high)))


# --- a loss of parameters and tokens ------------------------------------------------------------
class Optimum(NamedTuple):
    """The best run for a number of operations: its size, its tokens, and the loss to expect."""

    n_parameters: float
    n_tokens: float
    loss: float


@final
@dataclass(frozen=True)
class Chinchilla:
    """loss = E + A / N^alpha + B / D^beta, for N parameters and D tokens.

    Args:
        E: the loss of an endlessly large model that has read endlessly much.
        A, alpha: what a finite size costs: A / N^alpha.
        B, beta: what a finite number of tokens costs: B / D^beta.
    """

    E: float
    A: float
    alpha: float
    B: float
    beta: float

    @property
    def size_exponent(self) -> float:
        """The best size grows with the operations as C^size_exponent; the tokens take the rest."""
        return self.beta / (self.alpha + self.beta)

    def predict(self, n_parameters: Any, n_tokens: Any) -> Any:
        """The loss of a run, or of an array of runs."""
        return self.E + self.A / n_parameters**self.alpha + self.B / n_tokens**self.beta

    def optimum(self, flops: float) -> Optimum:
        """The best size for a number of operations, where a run takes 6 · N · D of them.

        Raises:
            ValueError: too few operations for one parameter and one token.

        Example:
            >>> law = Chinchilla(E=2.0, A=10.0, alpha=0.5, B=10.0, beta=0.5)
            >>> law.optimum(6e8)
            Optimum(n_parameters=10000.0, n_tokens=10000.0, loss=2.2)

        Paper: Hoffmann et al. 2022, equation 4.
        """
        products = _amount("flops", flops) / training_flops(n_parameters=1, n_tokens=1)
        total = self.alpha + self.beta
        ratio = (self.alpha * self.A / (self.beta * self.B)) ** (1 / total)
        n_parameters = ratio * products**self.size_exponent
        if n_parameters < 1 or products / n_parameters < 1:
            raise ValueError(
                f"{flops:g} operations are too few: the best run would have {n_parameters:.3g} "
                f"parameters and {products / n_parameters:.3g} tokens"
            )
        n_tokens = products / n_parameters
        return Optimum(n_parameters, n_tokens, self.predict(n_parameters, n_tokens))


def chinchilla(
    n_parameters: Sequence[float],
    n_tokens: Sequence[float],
    losses: Sequence[float],
    *,
    floor: float | None = None,
) -> Chinchilla:
    """Fit E, A, alpha, B and beta to runs of several sizes and lengths.

    Least is the sum of the Huber losses of log(predicted loss) − log(loss), so that a run that went
    wrong does not bend the law. For given exponents E, A and B follow from least squares; so a grid
    of exponents gives the starts, and the best of them are searched on from.

    Args:
        n_parameters, n_tokens, losses: of at least six runs, a number each.
        floor: E, if it is known, such as the entropy of the source; None fits it.

    Raises:
        ValueError: fewer than six runs, fewer than three different sizes or numbers of tokens,
            tokens in one fixed proportion to the parameters, losses that are not above 0 or not
            above the floor.

    Paper: Hoffmann et al. 2022, section 3.3, equations 2 and 3 (their search: L-BFGS from a grid
    of starts). Differs: the starts are those of the exponents alone (variable projection, as in
    Czech et al. 2026); logarithms of parameters and tokens are taken from their means, and the loss
    is divided by the square of the Huber constant, so that the search ends at the minimum.
    """
    least = {"n_parameters": 3, "n_tokens": 3, "runs": 6}
    sizes, tokens, losses = _points(
        least, n_parameters=n_parameters, n_tokens=n_tokens, losses=losses
    )
    u, v = np.log(sizes), np.log(tokens)
    if np.corrcoef(u, v)[0, 1] > 0.9999:
        raise ValueError(
            "parameters and tokens grow together in all these runs, so nobody can tell which of "
            "them lowers the loss; add runs with other numbers of tokens for the same size"
        )
    _refuse_floor(floor, losses, "loss")
    middle_u, middle_v = u.mean(), v.mean()
    runs = [torch.tensor(each) for each in (u - middle_u, v - middle_v, np.log(losses))]
    starts = _starts(*runs, floor)
    starts = starts[_huber(starts, *runs).argsort()[:POLISHED]]
    ends = torch.stack([_search(start, *runs, keep_E=floor is not None) for start in starts])
    best = ends[_huber(ends, *runs).argmin()]
    E, height_a, alpha, height_b, beta = best.exp().tolist()
    A, B = height_a * math.exp(alpha * middle_u), height_b * math.exp(beta * middle_v)
    return Chinchilla(E=E, A=A, alpha=alpha, B=B, beta=beta)


def _starts(
    u: torch.Tensor, v: torch.Tensor, log_losses: torch.Tensor, floor: float | None
) -> torch.Tensor:
    """Logarithms of E, A, alpha, B, beta, a row for each pair of exponents."""
    grid = torch.tensor(np.geomspace(0.03, 2.0, 16))
    alpha, beta = torch.cartesian_prod(grid, grid).unbind(-1)
    terms = [(-exponent[:, None] * each).exp() for exponent, each in ((alpha, u), (beta, v))]
    terms = torch.stack([torch.ones_like(terms[0]), *terms], -1)  # [pairs, runs, 3]
    weighted = terms / log_losses.exp()[:, None]  # relative errors: every right side is 1
    rights = torch.ones_like(terms[..., :1])
    if floor is not None:  # E is known: what it explains is taken from the right side
        rights, weighted = rights - floor * weighted[..., :1], weighted[..., 1:]
    heights = torch.linalg.lstsq(weighted, rights).solution[..., 0]
    if floor is not None:
        heights = torch.cat([torch.full_like(heights[:, :1], floor), heights], -1)
    E, A, B = heights.clamp_min(1e-3).log().unbind(-1)  # all three are above 0
    return torch.stack([E, A, alpha.log(), B, beta.log()], -1)


def _huber(
    theta: torch.Tensor, u: torch.Tensor, v: torch.Tensor, log_losses: torch.Tensor
) -> torch.Tensor:
    """What is to be least, for each row of theta."""
    E, A, alpha, B, beta = theta[..., None].unbind(-2)
    terms = torch.broadcast_tensors(E, A - alpha.exp() * u, B - beta.exp() * v)
    off = (torch.stack(terms).logsumexp(0) - log_losses) / HUBER
    return torch.nn.functional.huber_loss(off, torch.zeros_like(off), reduction="none").sum(-1)


def _search(start: torch.Tensor, *runs: torch.Tensor, keep_E: bool) -> torch.Tensor:
    theta = start.clone().requires_grad_()
    ends = {"tolerance_grad": 1e-9, "tolerance_change": 1e-13, "max_iter": 300}
    lbfgs = torch.optim.LBFGS([theta], line_search_fn="strong_wolfe", history_size=20, **ends)

    def again() -> torch.Tensor:
        lbfgs.zero_grad()
        loss = _huber(theta, *runs)
        loss.backward()
        if keep_E:
            theta.grad[0] = 0
        return loss

    lbfgs.step(again)
    return theta.detach()


# --- numbers from outside -----------------------------------------------------------------------
def _points(least: dict[str, int], **lists: Sequence[float]) -> list[np.ndarray]:
    """The lists as arrays, where `least` says how many different numbers one of them needs."""
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in lists.items()}
    for name, numbers in arrays.items():
        if numbers.ndim != 1:
            raise ValueError(f"{name} must be a list of numbers; got the shape {numbers.shape}")
        wrong = ~(np.isfinite(numbers) & (numbers > 0))
        if wrong.any():
            place = int(wrong.argmax())
            raise ValueError(
                f"{name} must be numbers above 0, and finite; number {place + 1} of {len(numbers)} "
                f"is {numbers[place]:g}. Leave out a run that has no loss"
            )
    if len({len(each) for each in arrays.values()}) > 1:
        lengths = ", ".join(f"{len(each)} {name}" for name, each in arrays.items())
        raise ValueError(f"there must be one of each for every run; got {lengths}")
    numbers_of = {name: len(np.unique(numbers)) for name, numbers in arrays.items()}
    numbers_of["runs"] = len(next(iter(arrays.values())))
    for name, needed in least.items():
        if numbers_of[name] < needed:
            raise ValueError(
                f"at least {needed} different {name} are needed; got {numbers_of[name]}"
            )
    return list(arrays.values())


def _refuse_floor(floor: float | None, losses: np.ndarray, name: str) -> None:
    if floor is not None and not 0 <= floor < losses.min():
        raise ValueError(
            f"every {name} must be above the floor, and the floor at least 0; the smallest {name} "
            f"is {losses.min():g}, and the floor {floor:g}. If a loss is below the entropy of its "
            "source, the model has seen the answers, or the sample is small"
        )


def _amount(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a number above 0; got {value!r}")
    return value
