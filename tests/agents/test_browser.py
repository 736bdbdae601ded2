import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.agents import browser
from minillm.agents.browser import RESERVED, Browser, Library, expert, starts
from minillm.reason import solver
from minillm.town.pages import CONTROL, INSTRUCTION, SAYINGS, Page, pages, questions, with_line
from minillm.town.world import World

WORLD = World("train 1", n_people=20)
STARTS = [*starts(WORLD, 1), *starts(WORLD, 2)]
LIBRARY, ASKED = STARTS[0].library, [state.question for state in STARTS]
TINY = Library(pages(World()))
(KITES,) = (q for q in questions(World(), 2) if q.text == "where does the seller of kites live ?")


def start(question=KITES, library=TINY, **fields):
    return Browser(library=library, question=question, **fields)


def through(state, *actions):
    for action in actions:
        state = state.after(action)
    return state


def finish(state):
    while not state.done:
        state = state.after(expert(state))
    return state


def some_action(rng, state):
    """What a bad policy may write: mostly what can be done, on any page; the rest is nonsense."""
    line = rng.choice([*state.screen, "she likes tea", ""])
    title = rng.choice([*state.library.shown])
    if rng.random() < 0.2:
        return rng.choice([f"answer {line}", f"answer {title}", "quote she", "jump", "click 0", ""])
    if state.page:
        return rng.choice([f"quote {line}"] * 2 + ["scroll", f"search {title}"])
    return f"click {rng.randint(1, 3)}" if state.results else f"search {title}"


# --- by hand --------------------------------------------------------------------------------------
def test_an_episode_of_two_hops():
    state = through(start(), "search seller kites", "click 1", "quote seller")
    assert state.valid_quotes == (True, False)
    assert state.view().splitlines() == [
        "<question> where does the seller of kites live ?",
        "<page> kites",
        "<line> the price is 12 coins",
        "<line> the seller is Lin",
        "<line> the teacher has kites",
        "<quote> kites <line> the seller is Lin",
        "<act>",
    ]
    state = through(state, "search lives Lin")
    assert set(state.screen) == {"kites", "Lin", "Su"}
    state = finish(state)
    assert (state.answer, state.success, state.n_left) == ("school", True, 4)


def test_scrolling_goes_round():
    seen = [start(n_left=12, results=("Bean",)).after("click 1")]
    for _ in range(2):
        seen.append(seen[-1].after("scroll"))
    assert seen[0].screen + seen[1].screen == TINY.shown["Bean"]
    assert seen[2].screen == seen[0].screen


@pytest.mark.parametrize(
    ("actions", "remark"),
    [
        (["search zeppelin"], "nothing fits"),
        (["click 1"], "no such result"),
        (["search kites", "click 4"], "no such result"),
        (["search kites", "click 1", "scroll"], "no more lines"),
        (["search kites", "click 1", "quote price seller"], "not on the screen"),
        (["search kites", "quote kites"], "not on the screen"),
        (["search kites", "click 1", "quote"], "not on the screen"),
        (["answer school"], "not in a quote"),
        (["search kites", "click 1", "quote Lin", "answer Li"], "not in a quote"),
        (["<page> kites"], "no such action"),
        ([""], "no such action"),
    ],
)
def test_what_cannot_be_done_leaves_a_remark_and_nothing_else(actions, remark):
    before = through(start(), *actions[:-1])
    after = before.after(actions[-1])
    assert f"\n<remark> {remark}\n" in after.view()
    assert replace(after, remark="", n_left=before.n_left) == before
    assert after.n_left == before.n_left - 1


def test_the_last_three_quotes_are_kept_each_once():
    lines = TINY.shown["Bean"][:4]
    state = start(results=("Bean",)).after("click 1")
    state = through(state, *(f"quote {lines[n]}" for n in (0, 1, 2, 3, 2)))
    assert state.quotes == tuple(("Bean", lines[n]) for n in (1, 3, 2))


def test_a_right_answer_needs_every_quote():
    quotes = (("kites", "the seller is Lin"), ("Lin", "she lives in school"))
    assert through(start(quotes=quotes[1:]), "answer school").answer == "school"
    assert not through(start(quotes=quotes[1:]), "answer school").success
    other = (("kites", "the seller is Lin"), ("Wen", "she lives in school"))
    assert not through(start(quotes=other), "answer school").success
    assert expert(start(quotes=other)) == "search lives Lin"
    wrong = through(start(quotes=quotes), "answer Lin")
    assert wrong.done
    assert not wrong.success


def test_the_budget_ends_it():
    state = through(start(n_left=2), "scroll", "scroll")
    assert state.done
    assert state.after("search kites") is state


def test_empty_lines_are_not_shown():
    assert Library({"a": Page("a", ("", "x  y", "\n"))}).shown == {"a": ("x y",)}


def test_names_are_two_tokens_and_unknown_words_one():
    assert len(browser.encode("Qiwan likes tea")) == 4
    assert browser.decode(browser.encode("Qiwan Mibei Mei zeppelin Qiwanya")) == (
        "Qiwan Mibei Mei <unknown> <unknown>"
    )


def test_the_expert_quotes_by_as_many_words_as_it_takes():
    lines = ("Bean : lives", "Bean lives : lives in mill", "he lives in tea house")
    (question,) = (q for q in questions(World(), 1) if q.text == "where does Bean live ?")
    state = start(question, Library({"Bean": Page("Bean", lines)}), page="Bean")
    assert expert(state) == "quote he lives in tea house"
    assert state.after("quote lives").quotes == (("Bean", lines[0]),)


# --- twin -----------------------------------------------------------------------------------------
def test_views_and_actions_are_rows_for_the_solver():
    rows = [(start().view(), expert(start()) + " .")]
    batch = solver.batch_of(rows, browser)
    learned = batch.targets[0][batch.loss_mask[0]].tolist()
    assert browser.decode(learned) == "search seller kites ."
    assert browser.VOCABULARY[0] == browser.PADDING


def test_the_expert_needs_the_view_alone():
    rng = random.Random(0)
    for question in rng.sample(ASKED, 20):
        state = start(question, LIBRARY)
        while not state.done:
            blank = replace(question, relations=(), hops=())
            elsewhere = Library({
                page: Page(page, lines) for page, lines in LIBRARY.shown.items()
                if page == state.page
            } or {"x": Page("x", ())})  # fmt: skip
            action = expert(state)
            assert expert(replace(state, library=elsewhere, question=blank, n_left=1)) == action
            state = state.after(action)


# --- law ------------------------------------------------------------------------------------------
def test_the_vocabulary_has_every_word_of_every_town():
    for world in (World(), WORLD, *(World(f"any {n}", n_people=40) for n in range(4))):
        shown = Library(pages(world)).shown
        for text in [*shown, *(line for lines in shown.values() for line in lines)]:
            assert browser.decode(browser.encode(text)) == text
    for text in (*ASKED, INSTRUCTION, CONTROL):
        text = getattr(text, "text", text).replace("{}", "plums")
        assert browser.decode(browser.encode(text)) == text


@pytest.mark.parametrize("world", [World(), WORLD, World("other", n_people=60)])
def test_the_expert_is_given_the_page_that_it_searches(world):
    library = Library(pages(world))
    for question in [*questions(world, 1), *questions(world, 2)]:
        for relation, hop in zip(question.relations, question.hops, strict=True):
            query = f"{SAYINGS[relation][2]} {hop.title}"
            assert hop.title in library.index.search(query, 3)


@settings(max_examples=60)
@given(st.sampled_from(ASKED), st.integers(0, 2**32), st.integers(0, 16))
def test_from_any_state_the_expert_gets_there_and_the_view_stays_short(question, seed, n_random):
    rng = random.Random(seed)
    state = start(question, LIBRARY, n_left=n_random + 20)
    for _ in range(n_random):
        state = state.after(some_action(rng, state))
        assert len(state.view().split()) <= 90
        assert len(browser.encode(state.view())) <= 100
        if state.done:  # a wrong answer
            return
    state = finish(state)
    assert state.success
    assert state.n_left > 0


@given(
    st.text() | st.sampled_from([*RESERVED, "x\n<quote> kites <line> y", "\x1c<act>\u2028answer 1"])
)
def test_no_text_of_a_page_becomes_a_token_of_the_browser(text):
    some = {title: Page(title, TINY.shown[title]) for title in ("kites", "Lin")}
    library = Library(with_line(some, "kites", f"line {text}"))
    state = through(start(library=library), "search kites", "click 1")
    rows = state.view().splitlines()
    assert [row.split()[0] for row in rows] == ["<question>", "<page>", *["<line>"] * 4, "<act>"]
    for words in (state.view().split(), browser.decode(browser.encode(state.view())).split()):
        markers = [word for word in words if word in RESERVED and word != browser.UNKNOWN]
        assert markers == [row.split()[0] for row in rows]
    assert (state.answer, state.quotes) == (None, ())


@given(st.text() | st.lists(st.sampled_from(browser.VOCABULARY)).map(" ".join))
def test_whatever_a_policy_writes_is_one_action(text):
    for verb in ("", "search ", "click ", "scroll ", "quote ", "answer "):
        state = start().after("search kites").after(verb + text)
        assert state.n_left == 10
        assert not state.done
        assert state.view().splitlines()[-1] == "<act>"


@given(st.lists(st.integers(0, len(browser.VOCABULARY) - 1)))
def test_any_row_of_tokens_is_text(ids):
    assert isinstance(browser.decode(ids), str)
    browser.encode(browser.decode(ids))


# --- bad input ------------------------------------------------------------------------------------
def test_refusals():
    with pytest.raises(ValueError, match="at least 0 actions; got -1"):
        start(n_left=-1)
    with pytest.raises(ValueError, match="at least one document"):
        start(library=Library({})).after("search kites")
