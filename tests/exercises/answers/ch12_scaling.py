"""Other right answers to chapter 12, and one mutant a task that no diagnosis knows."""

SECOND_STYLE = {
    "12.1": """
import math
def unseen_share(probabilities, n_draws):
    return sum(p * math.exp(n_draws * math.log1p(-p)) for p in probabilities if p < 1)
""",
    "12.2": """
import math
import numpy as np
def best_size(n_parameters, losses):
    sizes, losses = zip(*sorted(zip(n_parameters, losses)))
    if losses.index(min(losses)) in (0, len(sizes) - 1):
        return math.nan
    x = np.log10(sizes)
    c, b, a = np.linalg.lstsq(np.stack([x**0, x, x**2], 1), np.array(losses), rcond=None)[0]
    x_best = -b / (2 * a)
    return 10**x_best if a > 0 and x[0] < x_best < x[-1] else math.nan
""",
    "12.3": """
import numpy as np
from minillm.train.laws import isoflop_minimum
def counted_otherwise(bowls):
    x = [np.log(flops) for flops in bowls]
    y = [np.log(isoflop_minimum([n for n, _ in r], [l for _, l in r]).n_parameters)
         for r in bowls.values()]
    return [float(np.polyfit(x, y, 1)[0]), "小模型里词表占的比例更大，所以去掉词表后增长更快"]
""",
    "12.4": """
import numpy as np
def forecast(offers, buy, sealed, floor):
    own = sorted(run for run in offers if run[0] == sealed[0])[-3:]
    (_, d1), (_, d2) = own[0], own[-1]
    l1, l2 = (np.log(buy(*run) - floor) for run in (own[0], own[-1]))
    slope = (l2 - l1) / np.log(d2 / d1)
    return floor + float(np.exp(l2 + slope * np.log(sealed[1] / d2)))
""",
}

MUTANT = {
    "12.1": """
def unseen_share(probabilities, n_draws):
    return sum(p * (1 - p) ** (n_draws // 2) for p in probabilities)
""",
    "12.2": """
import numpy as np
def best_size(n_parameters, losses):
    best = sorted(zip(losses, n_parameters))[0][1]
    return float("nan") if best in (min(n_parameters), max(n_parameters)) else best * 1.1
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
