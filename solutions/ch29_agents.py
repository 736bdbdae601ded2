"""Worked answers to chapter 29, Agents.

Chapter: 29
"""

from minillm.lab.task import task


@task("29.1", minutes=6)
def run_agent(decide, read, state, most_steps):
    """Write the agent's loop: perceive, decide, act, and again.

    state.view() is what can be seen, state.done whether the errand is over (it may be so from the
    start), state.after(action) the next state. decide(view) gives a call, as text. read(call) gives
    its action, or raises ValueError if no tool can read it. Then the action is "", which changes
    nothing, but costs a step. Stop when the state is done or `most_steps` actions were taken.
    中文：写出智能体的循环：感知、决策、行动，再感知。decide(view) 给出调用，read(call) 给出动作；
    read 抛出 ValueError 时动作是 ""：什么也不改变，但占一步。状态结束或走满 most_steps 步就停止。
    Returns:
        The list of all actions, in their order.
    """
    # BEGIN SOLUTION
    actions = []
    while not state.done and len(actions) < most_steps:
        call = decide(state.view())
        try:
            action = read(call)
        except ValueError:
            action = ""
        actions.append(action)
        state = state.after(action)
    return actions
    # END SOLUTION


@task("29.2", minutes=11)
def look_every():
    """Predict, measure and explain what it costs to look only before every k-th action.

    Plan k actions from the present state, carry them out without looking, plan anew, until the
    errand is done: k = 1 is the closed loop. The errands are e = draw_errand(World(), seed,
    failure_rate=0.1, fewest_steps=8), seed 0 to 99, with less time than usual:
    replace(e, task=replace(e.task, most_steps=e.task.n_shortest + 4)). What share of them succeeds
    with k = 1, 3 and 11? Guess first. `plan(oracle, [copy], k)` takes states with failure_rate 0,
    and returns for each a tuple of at most k actions; `carry_out(actions, state)` returns a
    `Trace`, whose `last` is the state to go on from. Its `.success` says how the errand ended.
    中文：每 k 步才看一次：在 failure_rate 为 0 的副本里计划 k 步，不看环境地执行，再看，直到结束。
    种子 0 到 99，failure_rate=0.1，fewest_steps=8，步数上限 n_shortest + 4。先猜，再测量。
    Returns:
        (float, float, float, str): shares from 0 to 1, and why more than 0.9 ** 10 succeed with
        k = 11, though an errand takes about ten actions. What comes after the plan's end?
    """
    # BEGIN SOLUTION
    from dataclasses import replace

    from minillm.agents.loop import carry_out, plan
    from minillm.town.map import draw_errand, right_action
    from minillm.town.world import World

    def oracle(states, n_actions):
        return [right_action(each) for each in states]

    starts = []
    for seed in range(100):
        errand = draw_errand(World(), seed, failure_rate=0.1, fewest_steps=8)
        most_steps = errand.task.n_shortest + 4
        starts.append(replace(errand, task=replace(errand.task, most_steps=most_steps)))
    shares = []
    for k in (1, 3, 11):
        n_successes = 0
        for state in starts:
            while not state.done:
                copy = replace(state, task=replace(state.task, failure_rate=0.0))
                actions = plan(oracle, [copy], k)[0]
                state = carry_out(actions, state).last
            n_successes += state.success
        shares.append(n_successes / len(starts))
    return *shares, "Four steps are left, and a new look after the plan repairs a late failure."
    # END SOLUTION


@task("29.3", minutes=7)
def remember(memories, relevances, now, weights, most_characters):
    """Decide which memories an agent is shown, if there is room for a few only.

    The score is the weighted sum of recency, 0.995 ** (hours since it was last seen, or created if
    last_seen_at is None), importance (1 to 10) and relevance. Decide how to make the three
    comparable among these memories, so that none drowns the others (neither unit nor lowest value
    may count), and what to do where all values of one are equal. Go from the highest score down,
    and take each memory whose text still fits in `most_characters`; leave out any that does not,
    and go on. Of equal scores the earlier memory comes first. `memories` is a list, may be empty,
    of `Memory` (text, created_at, last_seen_at, importance); `relevances` has a number for each;
    `weights` are in the order above.
    中文：篇幅有限时，决定给智能体看哪些记忆。得分是时近性、重要性、相关性的加权和；先让三者可比，不让任
    何一项压倒其他（单位和最低值都不起作用），并处理某一项全都相等的情况。从得分最高的往下取，放不下的
    跳过，继续看下一条。
    Returns:
        The numbers of the memories, from 0, the best first.
    """

    # BEGIN SOLUTION
    if not memories:
        return []

    def scaled(values):
        low, high = min(values), max(values)
        return [(value - low) / (high - low) if high > low else 0.0 for value in values]

    seen = [m.created_at if m.last_seen_at is None else m.last_seen_at for m in memories]
    columns = [0.995 ** (now - t) for t in seen], [m.importance for m in memories], relevances
    rows = zip(*map(scaled, columns), strict=True)
    scores = [sum(w * x for w, x in zip(weights, row, strict=True)) for row in rows]
    shown, n_left = [], most_characters
    for number in sorted(range(len(scores)), key=lambda number: -scores[number]):
        if len(memories[number].text) <= n_left:
            shown.append(number)
            n_left -= len(memories[number].text)
    return shown
    # END SOLUTION


@task("29.4", minutes=9)
def broken_skills(programs):
    """Find the skills that cannot work, before anything is run.

    `programs` has for each skill's name the lines of its program. The line "have 2 stone pickaxe"
    calls the skill "stone pickaxe"; lines of other kinds call nothing. Suppose that every call is
    carried out. A skill cannot work if it calls, directly or through others, one that is not there:
    "missing". Nor if following its calls leads into a cycle, even if the skill is not
    itself on the cycle: "circle". Where both hold, the reason is "missing".
    中文：找出不可能成功的技能。"have 2 stone pickaxe" 这样的行调用技能，其他行不调用。直接或间接
    调用了不存在的技能是 "missing"；沿着调用会进入循环是 "circle"；都有时写 "missing"。
    Returns:
        Sorted pairs. For {"a": ["have 1 b"], "b": ["have 1 a"], "c": ["have 1 a"], "d": ["have 1
        wood"]} all of a, b and c get "circle", and the last pair is ("d", "missing").
    """

    # BEGIN SOLUTION
    below = {}

    def calls(name):
        lines = programs.get(name, ())
        return [line.split(maxsplit=2)[2] for line in lines if line.startswith("have ")]

    for name in programs:
        below[name], waiting = set(), [name]
        while waiting:
            new = set(calls(waiting.pop())) - below[name]
            below[name] |= new
            waiting += new
    broken = []
    for name in sorted(programs):
        if below[name] - programs.keys():
            broken.append((name, "missing"))
        elif any(other in below[other] for other in {name} | below[name]):
            broken.append((name, "circle"))
    return broken
    # END SOLUTION
