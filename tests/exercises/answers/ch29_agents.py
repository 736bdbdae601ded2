"""Other right answers to chapter 29, and one mutant a task that no diagnosis knows."""

SECOND_STYLE = {
    "29.1": """
def run_agent(decide, read, state, most_steps):
    def action_of(call):
        try:
            return read(call)
        except ValueError:
            return ""

    if state.done or most_steps == 0:
        return []
    action = action_of(decide(state.view()))
    return [action, *run_agent(decide, read, state.after(action), most_steps - 1)]
""",
    "29.2": """
def look_every():
    import dataclasses
    from minillm.town import map as town
    from minillm.town.world import World

    def succeeds(seed, k):
        drawn = town.draw_errand(World(), seed, failure_rate=0.1, fewest_steps=8).task
        task = dataclasses.replace(drawn, most_steps=drawn.n_shortest + 4)
        safe = dataclasses.replace(task, failure_rate=0.0)
        real, n = town.Errand(task, task.start), 0
        while not real.done:
            if n % k == 0 or copy.done:
                n, copy = 0, dataclasses.replace(real, task=safe)
            action = town.right_action(copy)
            real, copy, n = real.after(action), copy.after(action), n + 1
        return real.success

    return [*(sum(succeeds(s, k) for s in range(100)) / 100 for k in (1, 3, 11)),
            "计划做完后再看一次，还能补救最后几步的失败"]
""",
    "29.3": """
def remember(memories, relevances, now, weights, most_characters):
    import torch
    if not memories:
        return []
    table = torch.tensor([
        [0.995 ** (now - (m.last_seen_at or m.created_at)), m.importance, r]
        for m, r in zip(memories, relevances)
    ], dtype=torch.float64)
    low, high = table.min(0).values, table.max(0).values
    span = torch.where(high > low, high - low, torch.ones_like(high))
    scores = ((table - low) / span) @ torch.tensor(weights, dtype=torch.float64)
    shown = []
    for i in torch.sort(scores, descending=True, stable=True).indices.tolist():
        if sum(len(memories[j].text) for j in [*shown, i]) <= most_characters:
            shown.append(i)
    return tuple(shown)
""",
    "29.4": """
def broken_skills(programs):
    import re

    def fate(name, path=()):
        if name not in programs:
            return "missing"
        if name in path:
            return "circle"
        names = re.findall(r"(?m)^have [0-9]+ (.+)$", chr(10).join(programs[name]))
        fates = {fate(other, (*path, name)) for other in names}
        return "missing" if "missing" in fates else "circle" if "circle" in fates else ""

    return sorted((name, fate(name)) for name in programs if fate(name))
""",
}

MUTANT = {
    "29.1": """
def run_agent(decide, read, state, most_steps):
    return ["east"] * most_steps
""",
    "29.2": """
def look_every():
    return 0.9, 0.73, 0.31, "because errors multiply with each action"
""",
    "29.3": """
def remember(memories, relevances, now, weights, most_characters):
    return list(range(len(memories)))
""",
    "29.4": """
def broken_skills(programs):
    return [(name, "circle") for name in programs]
""",
}
