"""Other right answers to chapter 28, and one mutant a task that no diagnosis knows."""

SECOND_STYLE = {
    "28.1": """
def run_calls(write, question, calculate, most_calls):
    def result_of(call):
        try:
            return calculate(call[1:-1].strip())
        except ValueError:
            return "error"

    parts, left = [question], most_calls
    while True:
        parts.append(write(" ".join(parts)))
        if parts[-1][-1] != "]" or not left:
            return " ".join(parts)
        left -= 1
        parts += [result_of(parts[-1]), ";"]
""",
    "28.2": """
def power(base, exponent, most_digits):
    import math
    if abs(base) <= 1:
        return base ** (exponent % 2 if base < 0 else min(exponent, 1))
    if exponent * math.log10(abs(base)) > most_digits + 1:
        return None
    n = pow(base, exponent)
    return n if len(str(n).lstrip("-")) <= most_digits else None
""",
    "28.3": """
def choose_threshold(gains, useful, least_precision):
    import statistics
    good = [
        t
        for t in gains
        if statistics.fmean([u for g, u in zip(gains, useful) if g >= t]) >= least_precision
    ]
    return min(good, default=None)
""",
    "28.4": """
def off_the_path():
    def share(q):
        states = {(0, False): 1.0}
        for _ in range(10):
            after = {}
            for (n, lost), p in states.items():
                if n == 6:
                    moves = [((n, lost), 1.0)]
                elif lost:
                    moves = [((n, False), q), ((n, True), 1 - q)]
                else:
                    moves = [((n + 1, False), 0.9), ((n, True), 0.1)]
                for state, weight in moves:
                    after[state] = after.get(state, 0.0) + p * weight
            states = after
        return sum(p for (n, _), p in states.items() if n == 6)
    return [100 * share(0), 100 * share(0.9), "它见过出错之后的状态，知道怎样回来"]
""",
}

MUTANT = {
    "28.1": """
def run_calls(write, question, calculate, most_calls):
    return question + " ."
""",
    "28.2": """
def power(base, exponent, most_digits):
    return 10
""",
    "28.3": """
def choose_threshold(gains, useful, least_precision):
    return max(gains) + 1
""",
    "28.4": """
def off_the_path():
    return 20.0, 70.0, "because mistakes are bad for it"
""",
}
