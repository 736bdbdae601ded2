import re
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.serve import grammar as module
from minillm.serve.grammar import ByteClass, Choice, Concat, Grammar, Reference, Repeat, literal

a, b, c, root = *map(literal, "abc"), Reference("root")
brackets = Grammar(
    {"root": Concat((literal("["), Repeat(Choice((root, literal("7")))), literal("]")))}
)


def possible(grammar, text):
    """The bytes that may come after a text, with a full stop where it may end."""
    state = grammar.after(grammar.start, text.encode())
    values = sorted(byte for together in grammar.moves(state) for byte in together)
    return bytes(values).decode() + "." * state.is_complete


# --- by hand --------------------------------------------------------------------------------------
def test_brackets_are_counted():
    texts = ["", "[", "[7", "[[]", "[[]]", "]", "[]]"]
    assert [possible(brackets, text) for text in texts] == ["[", "7[]", "7[]", "7[]", ".", "", ""]
    deep = "[" * 300 + "7" + "]" * 300
    assert [brackets.accepts(text) for text in (deep, deep[1:], deep + "]")] == [True, False, False]


def test_a_stack_is_all_that_is_still_to_come():
    inside = brackets.after(brackets.start, b"[").stacks
    assert [bytes(stack[0].values) for stack in inside] == [b"[", b"7", b"]"]
    deeper = brackets.after(brackets.start, b"[[").stacks
    assert [len(longer) - len(stack) for longer, stack in zip(deeper, inside, strict=True)] == [
        2
    ] * 3


def test_a_part_is_repeated_from_least_to_most_times():
    grammar = Grammar({"root": Concat((Repeat(a, 2, 4), b))})
    assert [possible(grammar, "a" * n) for n in range(6)] == ["a", "a", "ab", "ab", "b", ""]
    assert possible(Grammar({"root": Repeat(a, 0, 0)}), "") == "."


def test_alternatives_that_begin_alike_are_followed_together():
    grammar = Grammar({"root": Choice((literal("pear"), literal("plot"), literal("plo")))})
    assert [possible(grammar, text) for text in ("p", "pl", "plo", "pe")] == ["el", "o", "t.", "a"]


def test_a_class_may_share_bytes_with_another():
    classes = (ByteClass(frozenset(b"ab")), Concat((ByteClass(frozenset(b"bc")), c)))
    grammar = Grammar({"root": Choice(classes)})
    assert [possible(grammar, text) for text in ("", "a", "b", "c")] == ["abc", ".", "c.", "c"]


def test_a_character_is_read_byte_by_byte():
    grammar = Grammar({"root": literal("红")})
    after_two = grammar.after(grammar.start, "红".encode()[:2])
    assert list(grammar.moves(after_two)) == ["红".encode()[2:]]
    assert not after_two.is_complete
    assert grammar.after(grammar.start, b"\xe7\xe7") is module.DEAD


def test_loops_of_nothing_end():
    nothing = Repeat(Repeat(a))
    for part in (nothing, Repeat(nothing, 2, 3), Concat((nothing, nothing))):
        assert possible(Grammar({"root": Concat((part, b))}), "aa") == "ab"
    loop = Grammar({"root": Choice((a, Concat((b, root)), Concat(())))})
    assert [possible(loop, text) for text in ("", "bb", "bba")] == ["ab.", "ab.", "."]


def test_equal_states_are_one_object():
    assert brackets.after(brackets.start, b"[") is brackets.after(brackets.start, b"[7[]7")


def test_of_a_very_ambiguous_text_some_stacks_are_dropped_and_what_is_left_can_end(monkeypatch):
    monkeypatch.setattr(module, "MOST_STACKS", 50)
    twice = Choice(tuple(Concat((literal("["), root, literal("]"))) for _ in range(2)))
    grammar = Grammar({"root": Choice((twice, a))})
    deep = grammar.after(grammar.start, b"[" * 30)  # without a limit 2 to the 30th
    assert len(deep.stacks) == 50
    assert grammar.after(deep, b"a" + b"]" * 30).is_complete
    doubling = {
        f"r{n}": Choice((Concat((Reference(f"r{n + 1}"), a)), Concat((Reference(f"r{n + 1}"), b))))
        for n in range(30)
    }
    start = Grammar({"root": Reference("r0"), **doubling, "r30": c}).start
    assert len(start.stacks) == 50


# --- twin -----------------------------------------------------------------------------------------
def repeated(part, least, more):
    expression, pattern = part
    most = None if more is None else least + more
    return Repeat(
        expression, least, most
    ), f"(?:{pattern}){{{least},{'' if most is None else most}}}"


expressions = st.recursive(  # and the same as regular expressions
    st.sampled_from([(a, "a"), (b, "b"), (ByteClass(frozenset(b"ab")), "[ab]"), (Concat(()), "")]),
    lambda parts: st.one_of(
        st.lists(parts, min_size=1, max_size=3).map(
            lambda row: (Concat(tuple(e for e, _ in row)), "".join(f"(?:{p})" for _, p in row))
        ),
        st.lists(parts, min_size=1, max_size=3).map(
            lambda row: (Choice(tuple(e for e, _ in row)), "|".join(p for _, p in row))
        ),
        st.builds(repeated, parts, st.integers(0, 2), st.sampled_from([None, 0, 1, 2])),
    ),
    max_leaves=6,
)


@given(expressions)
@settings(max_examples=60)
def test_it_accepts_what_the_regular_expression_does(both):
    expression, pattern = both
    grammar = Grammar({"root": expression})
    for text in ("".join(letters) for n in range(6) for letters in product("ab", repeat=n)):
        assert grammar.accepts(text) == bool(re.fullmatch(pattern, text)), (pattern, text)


# --- law ------------------------------------------------------------------------------------------
@given(expressions, st.integers(0, 2), st.lists(st.integers(0, 9), max_size=8))
@settings(max_examples=60)
def test_from_every_state_the_text_can_be_ended(both, depth, choices):
    nested = Choice((*[Concat((a, root, b))] * depth, both[0]))
    grammar = Grammar({"root": nested})
    state = grammar.start
    for choice in choices:
        after = list(grammar.moves(state).values())
        state = after[choice % len(after)] if after else state
    reachable = [state]
    for state in reachable:  # grows as it is read
        if state.is_complete or len(reachable) > 1_000:
            break
        reachable += set(grammar.moves(state).values()) - set(reachable)
    assert state.is_complete


# --- bad input ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"top": a}, "no rule 'root'"),
        ({"root": Reference("item")}, "no rule 'item'"),
        ({"root": Choice((Concat((root, a)), b))}, "'root' can begin with itself"),
        ({"root": Concat((Repeat(a), Repeat(root), b))}, "'root' can begin with itself"),
        ({"root": a, "x": Choice((b, Reference("y"))), "y": Reference("x")}, "left recursion"),
        ({"root": Concat((a, root))}, "no text can finish rule 'root'"),
        ({"root": a, "x": Repeat(Choice(()))}, "rule 'x' chooses from 0 parts"),
        ({"root": Choice((a,) * 10_001)}, "chooses from 10001 parts, not 1 to 10,000"),
        ({"root": Choice((a, ByteClass(frozenset())))}, "a byte class without a byte"),
        ({"root": Repeat(a, 3, 2)}, "repeats a part from 3 to 2 times"),
    ],
)
def test_rules_that_never_end_are_refused(rules, words):
    with pytest.raises(ValueError) as error:
        Grammar(rules)
    assert words in str(error.value)
