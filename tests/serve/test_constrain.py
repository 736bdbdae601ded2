import json
import random
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from minillm.serve.constrain import ENDED, grammar, json_object, json_schema
from minillm.serve.grammar import DEAD
from minillm.serve.schema import spell
from minillm.text.tokenizer import Tokenizer
from minillm.zoo import checkpoints

SPELLINGS = [
    '":"',
    '","',
    '{"',
    '"}',
    '":',
    "true",
    "tru",
    "plums",
    "红",
    "中文",
    "]}",
    "00",
    "\\u",
    "},{",
]
SPELLINGS += ["🙂".encode()[:2], "红".encode()[1:] + b'"', "a中".encode()[:3], b'\xff"']


def tokenizer_of(spellings):
    """A tokenizer that has these as tokens, beside the bytes and what they are merged from."""
    merges, ids = [], {bytes([n]): n for n in range(256)}
    for spelling in spellings:
        data = spelling if isinstance(spelling, bytes) else spelling.encode()
        for end in range(2, len(data) + 1):
            if data[:end] not in ids:
                merges.append((ids[data[: end - 1]], data[end - 1]))
                ids[data[:end]] = 255 + len(merges)
    return Tokenizer(tuple(merges), special_tokens=("<|end|>", "<|user|>"))


TOKENS = tokenizer_of(SPELLINGS)
END, V = TOKENS.special_ids["<|end|>"], TOKENS.vocab_size + 3  # three rows without a token
MORE = {"anyOf": [{"type": "object"}, {"type": "number"}, {"type": "string"}]}
PROPERTIES = {
    "name": {"type": "string", "maxLength": 8},
    "sold": {"type": "boolean"},
    "n": {"type": ["integer", "null"]},
    "kind": {"enum": ["plums", "红", "中文 🙂"]},
    "more": {"type": "array", "items": {"$ref": "#/$defs/more"}, "maxItems": 3},
}
SCHEMA = {"type": "object", "properties": PROPERTIES, "required": ["name", "kind"]}
SCHEMA |= {"$defs": {"more": MORE}}


def allowed(constraint):
    ids = constraint.allowed()[: TOKENS.vocab_size].nonzero().flatten().tolist()
    return {TOKENS.decode_bytes([n]) for n in ids}


def after(constraint, *texts):
    for data in (text if isinstance(text, bytes) else text.encode() for text in texts):
        ids = [n for n in range(TOKENS.vocab_size) if TOKENS.decode_bytes([n]) == data]
        constraint = constraint.after(ids[0])
    return constraint


# --- by hand --------------------------------------------------------------------------------------
def test_a_token_may_span_several_parts_of_a_grammar():
    strings = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    start = json_schema(strings, TOKENS, [END], V)
    assert allowed(start) == {b"{", b'{"'}
    assert allowed(after(start, '{"', "a")) == {b'"', b'":', b'":"'}
    assert {b'"}', b'"', b"plums", b"}"} <= allowed(after(start, '{"', "a", '":"'))
    assert b'","' not in allowed(after(start, '{"', "a", '":"'))
    assert allowed(after(start, '{"', "a", '":"', "plums", '"}')) == {b"<|end|>"}


def test_a_token_that_ends_in_a_character_is_allowed_if_the_rest_can_come():
    start = grammar('root ::= "a"? [中红] "\\""', TOKENS, [END], V)
    half = "红".encode()
    assert allowed(start) == {b"a", half[:1], half[:2], "红".encode(), "a中".encode()[:2]} | {
        *("中".encode()[:n] for n in (1, 2, 3)),
        "a中".encode()[:3],
    }
    assert allowed(after(start, half[:1])) == {half[1:2], half[1:3], half[1:] + b'"'}
    assert allowed(after(start, half[:1], half[1:] + b'"')) == {b"<|end|>"}


def test_commands_and_rows_without_a_token_are_never_allowed_and_the_end_where_it_is_complete():
    start = grammar("root ::= .{2,}", TOKENS, [END, V - 1], V)
    assert start.after(97).allowed()[[END, V - 1]].tolist() == [False, False]
    two = start.after(97).after(97)
    assert two.allowed()[[END, V - 1]].tolist() == [True, True]
    assert not two.allowed()[[END + 1, END + 2, V - 2]].any()  # <|user|> and rows
    assert allowed(two) >= {b"<", b"plums"}
    over = two.after(V - 1)
    assert over.allowed().nonzero().flatten().tolist() == [END, V - 1]
    assert over.after(END) == over


def test_a_mask_is_not_a_condition():
    start = grammar('root ::= ("a" | "b") "x"', TOKENS, [END], V)
    first = {"a": 0.9, "b": 0.1}
    second = {"a": {"x": 0.01, "y": 0.99}, "b": {"x": 0.5, "y": 0.5}}

    def masked(probabilities, constraint):
        left = {t: p for t, p in probabilities.items() if constraint.allowed()[ord(t)]}
        return {t: p / sum(left.values()) for t, p in left.items()}

    chosen = {
        t + u: p * q
        for t, p in masked(first, start).items()
        for u, q in masked(second[t], start.after(ord(t))).items()
    }
    whole = {t + u: first[t] * second[t][u] for t, u in product("ab", "xy")}
    possible = whole["ax"] + whole["bx"]
    assert chosen == pytest.approx({"ax": 0.9, "bx": 0.1})
    assert whole["ax"] / possible == pytest.approx(0.1525, abs=1e-4)


def test_a_constraint_is_a_value_and_its_mask_the_callers_own():
    start = json_object(TOKENS, [END], V)
    assert json_object(TOKENS, (END,), V) == start
    assert start.after(ord("{")) == start.after(ord("{"))
    assert start.after(ord("{")) != start
    start.allowed().fill_(True)
    assert allowed(start) == {b"{", b'{"'}
    known = start.mask.cache_info()
    after(start, "{", '"', '":', "{").allowed()  # made, and from now on kept
    after(start, '{"', '":', "{").allowed()
    assert start.mask.cache_info()[:2] == (known.hits + 1, known.misses + 1)


# --- twin -----------------------------------------------------------------------------------------
@given(st.integers(0, 999))
@settings(max_examples=15)
def test_the_mask_is_what_trying_every_token_gives(seed):
    constraint, rng = json_schema(SCHEMA, TOKENS, [END], V), random.Random(seed)
    for _ in range(rng.randrange(25)):
        choices = constraint.allowed().nonzero().flatten().tolist()
        constraint = constraint.after(rng.choice(choices))
    if constraint.state is not ENDED:
        tries = {
            token: constraint.grammar.after(constraint.state, TOKENS.decode_bytes([token]))
            for token in range(TOKENS.vocab_size - 2)
        }
        mask = [token in tries and tries[token] is not DEAD for token in range(V)]
        mask[END] = constraint.state.is_complete
        assert constraint.allowed().tolist() == mask


# --- law ------------------------------------------------------------------------------------------
def write(constraint, logits_of, n_tokens=400):
    """Plain constrained decoding: mask, choose, go on."""
    ids = []
    while len(ids) < n_tokens:
        logits = logits_of(ids).masked_fill(~constraint.allowed(), -torch.inf)
        ids.append(int(logits.argmax()))
        if ids[-1] == END:
            return TOKENS.decode_bytes(ids[:-1]).decode()
        constraint = constraint.after(ids[-1])
    raise AssertionError(f"not ended: {TOKENS.decode_bytes(ids)}")


@given(st.integers(0, 999), st.sampled_from([SCHEMA, {"type": "object"}, MORE]))
@settings(max_examples=25)
def test_whatever_the_model_prefers_the_text_is_valid(seed, schema):
    generator = torch.Generator().manual_seed(seed)

    def logits_of(ids):
        logits = torch.randn(V, generator=generator)
        logits[[*b'"]}', END]] += 100.0 * (len(ids) > 30)  # so that it ends some time
        return logits

    text = write(json_schema(schema, TOKENS, [END], V), logits_of)
    assert Draft202012Validator(schema).is_valid(json.loads(text))


texts = st.text('ab plums红中文🙂"\\\n', max_size=8)
objects = st.fixed_dictionaries(
    {"name": texts},
    optional={"sold": st.booleans(), "n": st.none() | st.integers(-(10**9), 10**9)},
)
more = st.lists(st.dictionaries(texts, texts, max_size=2) | st.floats(1, 9e9) | texts, max_size=3)


@given(objects, st.sampled_from(PROPERTIES["kind"]["enum"]), more, st.randoms())
@settings(max_examples=25)
def test_every_spelling_of_a_valid_text_is_allowed(value, kind, more, rng):
    value |= {"kind": kind, "more": more}
    data = spell({name: value[name] for name in PROPERTIES if name in value}).encode()
    by_bytes = {TOKENS.decode_bytes([n]): n for n in range(TOKENS.vocab_size - 2)}
    constraint = json_schema(SCHEMA, TOKENS, [END], V)
    while data:
        length = rng.choice([n for n in range(1, 8) if data[:n] in by_bytes])
        token, data = by_bytes[data[:length]], data[length:]
        assert constraint.allowed()[token]
        constraint = constraint.after(token)
    assert constraint.allowed()[END]


def test_town_1m_fills_in_a_form():
    model, tokenizer = checkpoints.load("town-1m")
    end, vocab_size = max(tokenizer.special_ids.values()), model.config.vocab_size
    form = {"who": {"type": "string", "maxLength": 6}, "where": {"enum": ["mill", "红"]}}
    schema = {
        "type": "object",
        "properties": form | {"n": {"type": "integer"}},
        "required": [*form],
    }
    constraint, ids = json_schema(schema, tokenizer, [end], vocab_size), []
    while constraint.state is not ENDED and len(ids) < 60:
        with torch.inference_mode():
            logits = model(torch.tensor([tokenizer.encode("Mei is at the mill. ") + ids]))[0, -1]
        ids.append(int(logits.masked_fill(~constraint.allowed(), -torch.inf).argmax()))
        constraint = constraint.after(ids[-1])
    Draft202012Validator(schema).validate(json.loads(tokenizer.decode(ids[:-1])))


# --- bad input ------------------------------------------------------------------------------------
class Ascii:
    """A tokenizer without most bytes."""

    def __init__(self):
        self.special_ids = {}

    def decode_bytes(self, ids):
        return bytes(ids)


deep = {"type": "array"}
for _ in range(2_000):
    deep = {"type": "array", "items": deep}


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda: json_object(TOKENS, [], V), "so that a complete text can end; got () and"),
        (lambda: json_object(TOKENS, [V], V), "at least one id below vocab_size"),
        (lambda: json_object(Ascii(), [127], 128), "lacks 129 of them, such as b'\\x7f'"),
        (lambda: json_schema(deep, TOKENS, [END], V), "too deeply"),
        (lambda: grammar('root ::= "a', TOKENS, [END], V), "line 1"),
        (lambda: grammar({}, TOKENS, [END], V), "no rule 'root'"),
        (lambda: json_object(TOKENS, [END], V).after(97), "token 97, which spells b'a', is not"),
        (lambda: json_object(TOKENS, [END], V).after(END), "not allowed here; 2 others are"),
        (lambda: json_object(TOKENS, [END], V).after(V + 5), "not allowed here"),
    ],
)
def test_bad_input_is_named(attempt, words):
    with pytest.raises(ValueError) as error:
        attempt()
    assert words in str(error.value)
