"""Other right answers to chapter 12, and one mutant a task that no diagnosis knows."""

SECOND_STYLE = {
    "12.1": """
import math
def unseen_share(probabilities, n_draws):
    return sum(p * math.exp(n_draws * math.log1p(-p)) for p in probabilities.tolist())
""",
    "12.2": """
import math
import numpy as np
def best_size(n_parameters, losses):
    sizes, losses = zip(*sorted(zip(n_parameters, losses)))
    if losses.index(min(losses)) in (0, len(sizes) - 1):
        return None
    x = np.log10(sizes)
    c, b, a = np.linalg.lstsq(np.stack([x**0, x, x**2], 1), np.array(losses), rcond=None)[0]
    x_best = -b / (2 * a)
    return 10**x_best if a > 0 and x[0] < x_best < x[-1] else None
""",
    "12.3": """
import numpy as np
from minillm.train.laws import isoflop_minimum
def counted_otherwise(bowls):
    x = [np.log(price) for price in bowls]
    y = [np.log(isoflop_minimum([n for n, _ in r], [l for _, l in r]).n_parameters)
         for r in bowls.values()]
    return [float(np.polyfit(x, y, 1)[0]), "小模型里词表占的比例更大，所以去掉词表后增长更快"]
""",
    "12.4": """
import numpy as np
def forecast(offers, buy, sealed, floor):
    runs = []
    for n, d in sorted(offers, key=lambda run: -run[0] * run[1]):
        try:
            runs.append((n, d, buy(n, d) - floor))
        except ValueError:
            pass
    n, d, y = map(np.array, zip(*runs))
    best = None
    for alpha in np.arange(0.1, 1.5, 0.05):
        for beta in np.arange(0.1, 1.5, 0.05):
            terms = np.stack([n**-alpha, d**-beta], 1) / y[:, None]
            heights, *_ = np.linalg.lstsq(terms, np.ones(len(y)), rcond=None)
            error = np.abs(terms @ heights - 1).sum() if min(heights) > 0 else np.inf
            if best is None or error < best[0]:
                best = error, heights @ [sealed[0]**-alpha, sealed[1]**-beta]
    return floor + best[1]
""",
}

MUTANT = {
    "12.1": """
def unseen_share(probabilities, n_draws):
    return float((probabilities * (1 - probabilities) ** (n_draws // 2)).sum())
""",
    "12.2": """
import numpy as np
def best_size(n_parameters, losses):
    best = sorted(zip(losses, n_parameters))[0][1]
    return None if best in (min(n_parameters), max(n_parameters)) else best * 1.1
""",
    "12.3": """
def counted_otherwise(bowls):
    return 0.123, "because it is so and so"
""",
    "12.4": """
def forecast(offers, buy, sealed, floor):
    buy(*offers[0])
    return floor + 5
""",
}
