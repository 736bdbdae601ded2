import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from minillm.serve.schema import schema_grammar, spell

REFERENCE = {"$ref": "#/$defs/a"}
CHILDREN = {"type": "array", "items": REFERENCE}
PROPERTIES = {"name": {"type": "string", "maxLength": 3}, "children": CHILDREN}
NODE = {"type": "object", "properties": PROPERTIES, "required": ["children"]}
TREE = REFERENCE | {"$defs": {"a": NODE}}


def accepted(schema, *texts):
    grammar = schema_grammar(schema)
    return [text for text in texts if grammar.accepts(text)]


def write(schema, seed, n_bytes=60):
    """A text of the schema: its bytes by chance, and after so many the nearest way to its end."""
    grammar, rng, data = schema_grammar(schema), random.Random(seed), b""
    state = grammar.start
    while grammar.moves(state) and not (state.is_complete and rng.random() < 0.3):
        together = list(grammar.moves(state))
        closing = [mark for mark in (b"]", b"}", b'"') if mark in together]  # apart from letters
        is_long = len(data) > n_bytes
        if closing and (is_long or rng.random() < 0.3):
            byte = closing[0][0]
        else:
            byte = rng.choice(together[0] if is_long else rng.choice(together))
        data, state = data + bytes([byte]), grammar.after(state, bytes([byte]))
    assert state.is_complete
    return data.decode()


# --- by hand --------------------------------------------------------------------------------------
def test_properties_come_in_order_and_optional_ones_may_be_left_out():
    one = {"type": "integer"}
    schema = {"type": "object", "properties": dict.fromkeys("abc", one), "required": ["b"]}
    right = ['{"b":1}', '{"a":1,"b":2}', '{"b":1,"c":2}', '{"a":1,"b":2,"c":3}']
    wrong = ["{}", '{"a":1}', '{"b":1,"a":2}', '{"b":1,}', '{,"b":1}', '{"b":1,"d":2}', '{"b": 1}']
    assert accepted(schema, *right, *wrong) == right
    right = ["{}", '{"c":1}', '{"a":1,"c":3}']
    assert accepted(schema | {"required": []}, *right, '{"a":1"c":3}') == right
    any_object, right = {"type": "object"}, ["{}", '{"a":[1,{"b":null}]}']
    assert accepted(any_object, *right, "[]", '{"a"}') == right
    assert accepted(any_object | {"additionalProperties": False}, *right) == ["{}"]


def test_a_string_counts_characters_however_they_are_written():
    right = ['"ab"', '"红é"', '"🙂🙂"', r'"\u7ea2\n"', r'"\ud83d\ude42\\"', r'"\"\/"', '"\x7f "']
    wrong = [
        '"a"',
        '"abc"',
        r'"a\ud83d"',
        r'"a\ude42"',
        r'"a\x"',
        '"a\n"',
        '"a"b"',
        '"\\u12"',
        "ab",
    ]
    assert accepted({"type": "string", "minLength": 2, "maxLength": 2}, *right, *wrong) == right


def test_a_string_is_utf_8_byte_for_byte():
    grammar = schema_grammar({"type": "string"})
    for data in (b"\xe7\xba\xa2", b"\xf0\x9f\x99\x82", b"\xc3\xa9"):
        assert grammar.after(grammar.start, b'"' + data + b'"').is_complete
        assert not grammar.after(grammar.start, b'"' + data[:-1] + b'"').stacks
    for data in (b"\x80", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff", b"\xe0\x80"):
        assert not grammar.after(grammar.start, b'"' + data).stacks


def test_numbers_are_jsons_and_end():
    right = ["0", "-1", "10", "9" * 19]
    wrong = ["01", "+1", "-", "1.", "9" * 20, "1e5", ""]
    assert accepted({"type": "integer"}, *right, *wrong) == right
    right += ["0.5", "-1.25e-07", "1E+22", "0." + "3" * 20]
    wrong = [".5", "1e", "1e100", "0." + "3" * 21, "NaN"]
    assert accepted({"type": "number"}, *right, *wrong) == right


def test_arrays_count_their_items():
    items = {"type": "array", "items": {"const": 7}, "minItems": 2, "maxItems": 3}
    texts = ["[]", "[7]", "[7,7]", "[7,7,7]", "[7,7,7,7]", "[7,]", "[8,7]"]
    assert accepted(items, *texts) == ["[7,7]", "[7,7,7]"]
    assert accepted(items | {"minItems": 0, "maxItems": 1}, *texts) == ["[]", "[7]"]
    assert accepted(items | {"minItems": 0, "maxItems": 0}, *texts) == ["[]"]
    assert accepted({"type": "array"}, "[]", '["a",[null]]', "[1 ]") == ["[]", '["a",[null]]']


def test_values_are_spelled_in_one_way_and_kept_to_their_type():
    values = ["红", 1, True, None, 2.5, {"a": [1, 2]}, 'say "yes"']
    texts = ['"红"', "1", "true", "null", "2.5", '{"a":[1,2]}', r'"say \"yes\""', r'"\u7ea2"']
    assert accepted({"enum": values}, *texts) == texts[:-1]
    assert accepted({"enum": values, "type": ["integer", "boolean"]}, *texts) == ["1", "true"]
    assert accepted({"enum": values, "type": "number"}, *texts) == ["1", "2.5"]
    assert accepted({"const": "红", "type": "string"}, *texts) == ['"红"']


def test_alternatives_and_several_types():
    schema = {"anyOf": [{"type": "boolean"}, {"type": ["string", "null"], "maxLength": 1}]}
    assert accepted(schema, "true", '"a"', '"ab"', "null", "1") == ["true", '"a"', "null"]
    assert accepted({"oneOf": [{"const": 1}, {"type": "integer"}]}, "1", "2") == ["1", "2"]


def test_a_reference_may_lead_back_and_annotations_are_let_through():
    schema = TREE | {"title": "a tree", "description": "with leaves", "default": {}, "examples": []}
    right = ['{"children":[]}', '{"name":"a","children":[{"children":[]},{"children":[]}]}']
    assert accepted(schema, *right, '{"children":[{}]}', "{}") == right


# --- law ------------------------------------------------------------------------------------------
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
magnitudes = st.floats(1e-99, 9e98) | st.just(0.0)
numbers = magnitudes | magnitudes.map(lambda size: -size) | st.integers(-(10**18), 10**18)


def text_of(least, more):
    return {"type": "string", "minLength": least, "maxLength": least + more}, st.text(
        min_size=least, max_size=least + more
    )


def array_of(item, least, more):
    schema = {"type": "array", "items": item[0], "minItems": least, "maxItems": least + more}
    return schema, st.lists(item[1], min_size=least, max_size=least + more)


def object_of(members, n_required):
    names = list(members)
    schema = {
        "type": "object",
        "properties": {name: schema for name, (schema, _) in members.items()},
        "required": names[::-1][:n_required],
    }

    def in_order(value):
        return {name: value[name] for name in names if name in value}

    instances = {name: instances for name, (_, instances) in members.items()}
    optional = {name: instances.pop(name) for name in names if name not in schema["required"]}
    return schema, st.fixed_dictionaries(instances, optional=optional).map(in_order)


leaves = st.one_of(  # schemas, each with its instances
    st.builds(text_of, st.integers(0, 2), st.integers(0, 3)),
    st.just(({"type": "string"}, st.text(max_size=6))),
    st.just(({"type": "number"}, numbers)),
    st.just(({"type": ["integer", "null"]}, st.integers(-(10**18), 10**18) | st.none())),
    st.just(({"type": "boolean"}, st.booleans())),
    st.just(({"type": "object"}, st.dictionaries(st.text(max_size=3), values, max_size=3))),
    st.just(({}, values)),
    st.lists(values, min_size=1, max_size=4).map(lambda vs: ({"enum": vs}, st.sampled_from(vs))),
    values.map(lambda value: ({"const": value}, st.just(value))),
)
schemas = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(array_of, inner, st.integers(0, 2), st.integers(0, 2)),
        st.builds(
            object_of, st.dictionaries(st.text(max_size=3), inner, max_size=4), st.integers(0, 4)
        ),
        st.lists(inner, min_size=1, max_size=3).map(
            lambda pairs: ({"anyOf": [s for s, _ in pairs]}, st.one_of([i for _, i in pairs]))
        ),
    ),
    max_leaves=6,
)


@given(st.data())
@settings(max_examples=60)
def test_every_valid_instance_can_be_written(data):
    schema, instances = data.draw(schemas)
    value = data.draw(instances)
    assert Draft202012Validator(schema).is_valid(value)
    assert schema_grammar(schema).accepts(spell(value)), (schema, value)


@given(schemas, st.integers(0, 99))
@settings(max_examples=60)
def test_every_text_that_can_be_written_is_valid(schema, seed):
    assert Draft202012Validator(schema[0]).is_valid(json.loads(write(schema[0], seed)))


@given(st.integers(0, 999))
@settings(max_examples=30)
def test_trees_of_any_depth_are_valid(seed):
    assert Draft202012Validator(TREE).is_valid(json.loads(write(TREE, seed, n_bytes=200)))


# --- bad input ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 0}, "at #: 'minimum' is not supported here"),
        ({"type": "string", "pattern": "a+"}, "beside type this one may have maxLength, minLength"),
        ({"type": "array", "items": {"format": "date"}}, "at #/items: 'format' is not supported"),
        ({"type": "object", "properties": {"a": {"not": {}}}}, "at #/properties/a: 'not'"),
        ({"type": "integer", "minLength": 1}, "'minLength' is not supported here"),
        ({"anyOf": [{}, {"allOf": []}]}, "at #/anyOf/1: 'allOf'"),
        ({"type": "string", "anyOf": [{}]}, "'type' is not supported here"),
        ({"type": "object", "additionalProperties": True}, "additionalProperties must be false"),
        ({"type": "object", "required": ["a"]}, "required property 'a' is not among"),
        ({"type": "text"}, "there is no type 'text'; there are string"),
        ({"enum": []}, "there is no value that it allows"),
        ({"enum": [True, "1"], "type": "number"}, "there is no value that it allows"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "0 ≤ min ≤ max; got 3, 2"),
        ({"type": "array", "minItems": "2"}, "minItems and maxItems"),
        ({"type": "array", "uniqueItems": True}, "'uniqueItems' is not supported here"),
        (REFERENCE, "there is no '#/$defs/a'; there are []"),
        (REFERENCE | {"$defs": {"a": {"$ref": "#/$defs/a"}}}, "can finish rule '#/$defs/a'"),
        (REFERENCE | {"$defs": {"a": {"anyOf": [REFERENCE, {}]}}}, "left recursion"),
        (REFERENCE | {"$defs": {"a": {"const": 1, "if": 2}}}, "at #/$defs/a: 'if'"),
        ({"items": False, "type": "array"}, "there must be a mapping; got False"),
        ({"anyOf": {}}, "there must be a list"),
        ([], "there must be a mapping"),
        ({"const": float("nan")}, "not JSON compliant"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(schema, words):
    with pytest.raises(ValueError) as error:
        schema_grammar(schema)
    assert words in str(error.value)


def test_a_schema_that_no_finite_value_satisfies_is_refused():
    tree = {"type": "object", "properties": {"a": REFERENCE}, "required": ["a"]}
    with pytest.raises(ValueError, match="no text can finish rule '#/\\$defs/a'"):
        schema_grammar(REFERENCE | {"$defs": {"a": tree}})
