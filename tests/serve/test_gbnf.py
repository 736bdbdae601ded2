import re
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.serve.gbnf import PLANES, characters, parse
from minillm.serve.grammar import Grammar


def accepts(grammar, *texts):
    grammar = Grammar(parse(grammar))
    return [grammar.accepts(text) for text in texts]


# --- by hand --------------------------------------------------------------------------------------
def test_the_chess_game_of_the_guide():
    grammar = r"""
        # what a whole text is
        root ::= (
            # first "1. ", a move, a space, a move, a line end
            "1. " move " " move "\n"
            ([1-9] [0-9]? ". " move " " move "\n")+
        )
        move    ::= (pawn | nonpawn | castle) [+#]?
        pawn    ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBKQR])?
        nonpawn ::= [NBKQR] [a-h]? [1-8]? "x"? [a-h] [1-8]
        castle  ::= "O-O" "-O"?
    """
    game = "1. e4 e5\n2. Nf3 Nc6\n3. Bb5 a6\n4. O-O Nxe4+\n"
    assert accepts(grammar, game, game[:9], game.replace("e5", "e9")) == [True, False, False]


def test_a_sequence_binds_more_than_an_alternative_and_a_repetition_more_than_both():
    assert accepts('root ::= "a" "b" | "c" "d"*', "ab", "cdd", "c", "abd", "cdcd") == [
        *(True, True, True, False, False)
    ]
    assert accepts('root ::= ("a" | "b"){2} "c"?+', "ab", "bacc", "a") == [True, True, False]


def test_marks_of_repetition():
    marks = {"?": "01", "*": "01234", "+": "1234", "{3}": "3", "{0}": "0", "{2,}": "234"}
    for mark, counts in (marks | {"{1,3}": "123"}).items():
        accepted = accepts(f'root ::= "é"{mark}', *("é" * n for n in range(5)))
        assert "".join(str(n) for n in range(5) if accepted[n]) == counts, mark


def test_lines_may_be_broken_anywhere_and_an_alternative_may_be_empty():
    grammar = 'root ::=\n"a"\n|\n  more # and\n "c"\nmore::= | "b" more'
    assert accepts(grammar, "a", "c", "bbc", "b") == [True, True, True, False]


def test_escapes_and_signs_that_stand_for_themselves():
    assert accepts(r'root ::= "\"\\\n\t\x41\u7ea2\U0001F642|#("', '"\\\n\tA红🙂|#(') == [True]
    assert accepts(r"root ::= [\]\\a\-c^-]+", r"]\a-c^", "b") == [True, False]
    assert accepts(r"root ::= [^\n\]]", "红", "^", "\n", "]") == [True, True, False, False]


def test_a_dot_is_any_character_and_no_half_of_one():
    grammar = Grammar(parse("root ::= ."))
    for text in ("a", "\n", "é", "红", "🙂"):
        assert grammar.accepts(text)
        data = text.encode()
        assert not any(grammar.after(grammar.start, data[:n]).is_complete for n in range(len(data)))
    assert len(characters(PLANES).options) == 9  # as many as the table of RFC 3629, section 4


# --- twin -----------------------------------------------------------------------------------------
edges = [0, 0x7F, 0x80, 0x7FF, 0x800, 0xFFF, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x3FFFF, 0x10FFFE]
codes = st.one_of(st.sampled_from(edges), st.integers(0, 0x10FFFE))
codes = codes.filter(lambda code: not 0xD800 <= code < 0xE000)


@given(st.lists(st.tuples(codes, codes).map(sorted), min_size=1, max_size=3), st.booleans())
@settings(max_examples=50)
def test_a_class_has_the_characters_of_its_ranges(ranges, is_negated):
    text = "".join(rf"\U{low:08X}-\U{high:08x}" for low, high in ranges)
    grammar = Grammar(parse(f'root ::= "" | [{"^" * is_negated}{text}]'))
    near = chain(*((low - 1, low, high, high + 1) for low, high in ranges), edges)
    for code in near:
        if 0 <= code <= 0x10FFFF and not 0xD800 <= code < 0xE000:
            is_in = any(low <= code <= high for low, high in ranges)
            assert grammar.accepts(chr(code)) == (is_in != is_negated), hex(code)


def spelled(part):
    """All byte strings of an expression without repetitions."""
    if hasattr(part, "values"):
        return [bytes([byte]) for byte in part.values]
    if hasattr(part, "options"):
        return [data for option in part.options for data in spelled(option)]
    rows = [b""]
    for each in part.parts:
        rows = [row + data for row in rows for data in spelled(each)]
    return rows


def test_ranges_spell_every_character_once_and_nothing_else():
    every = [chr(code) for code in range(0x700, 0x20000) if not 0xD800 <= code < 0xE000]
    assert sorted(spelled(characters([(0x700, 0x1FFFF)]))) == [text.encode() for text in every]


# --- bad input ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("grammar", "words"),
    [
        ('root ::= "a\n"b"', "line 1 of the grammar: '\"' has no meaning here"),
        ('root ::= "a"\n\nitem "b"', "line 3 of the grammar: there is no rule 'item'"),
        ('root ::= "a"\n)', "line 2 of the grammar: here a new rule, `name ::=`, must begin"),
        ('"a"', "line 1 of the grammar: here a new rule"),
        ('root ::= "a"\nroot ::= "b"', "line 2 of the grammar: here a new rule"),
        ('root ::= "a" (\n"b" ', "line 2 of the grammar: a bracket is open"),
        ("root ::=\n* ", "line 2 of the grammar: '*' has no meaning here"),
        ("root ::= [z-a]", "from a lower character to a higher one; got [z-a]"),
        ('root ::= "\\xZ"', "line 1 of the grammar: '\"' has no meaning here"),
        ('root ::= "\\ud800"', "line 1 of the grammar"),
        ('root ::= "\\U00110000"', "line 1 of the grammar"),
        ('root ::= "a" <think>', "line 1 of the grammar: '<' has no meaning here"),
    ],
)
def test_what_is_no_grammar_is_refused_with_its_line(grammar, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        parse(grammar)
