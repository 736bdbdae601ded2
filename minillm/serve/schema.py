r"""JSON schema: what shape an answer must have, and the grammar of all answers of that shape.

    {"type": "object", "required": ["name"],
     "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}

allows `{"name":"Mei"}` and `{"name":"Mei","age":7}`. Each keyword becomes a few parts of a grammar
(`minillm.serve.grammar`); what any JSON text consists of is written down once, in `JSON`.

    every value      type (or several) · enum · const · anyOf · $ref to "#/$defs/…"
    string           minLength · maxLength, in characters
    array            items · minItems · maxItems
    object           properties · required · additionalProperties: false

Titles and the like are let through. Every other keyword is refused: an answer that ignores it would
look as if it kept it. An object without `properties` is any object. With them it has no others,
whether or not `additionalProperties` says so.

**One style.** Texts have no white space outside of strings, as those of
`json.dumps(value, ensure_ascii=False, separators=(",", ":"))`. Properties come in the schema's
order; optional ones may be left out. A value of `enum` or `const` is spelled in that one way. Any
other string may also have escapes (`\u7ea2` for 红), but no half of a surrogate pair alone, which
is no character. Numbers have at most 19 digits before the point, 20 behind it and 2 in the
exponent, so that they end and are finite. Other texts are as long as the model makes them.

Paper: Geng et al. 2023, "Grammar-Constrained Decoding for Structured NLP Tasks without Finetuning",
arXiv:2305.13971 (grammars as the one way to say what an answer may be). The keywords are those of
JSON Schema, draft 2020-12; JSON itself is RFC 8259.
Differs: `oneOf` is read as `anyOf`: that no second alternative holds is not checked, nor that an
object without `properties` names each once. By the standard an object has its properties in any
order, and others too unless `additionalProperties` forbids it; and a keyword of another type than
the value's is ignored.

Chapter: 17
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any

from minillm.serve.gbnf import parse
from minillm.serve.grammar import Choice, Concat, Expression, Grammar, Reference, Repeat, literal

JSON = r"""
value   ::= object | array | string | number | boolean | null
object  ::= "{" (member ("," member)*)? "}"
member  ::= string ":" value
array   ::= "[" (value ("," value)*)? "]"
string  ::= "\"" char* "\""
char    ::= [^"\\\x00-\x1F] | "\\" (["\\/bfnrt] | "u" utf16)
utf16   ::= [0-9A-CE-Fa-ce-f] hex{3} | [Dd] [0-7] hex{2} | high hex{2} "\\u" low hex{2}
high    ::= [Dd] [89ABab]
low     ::= [Dd] [C-Fc-f]
hex     ::= [0-9A-Fa-f]
number  ::= integer ("." [0-9]{1,20})? ([Ee] [+-]? [0-9]{1,2})?
integer ::= "-"? ("0" | [1-9] [0-9]{0,18})
boolean ::= "true" | "false"
null    ::= "null"
"""
#: For each type what `json.loads` makes of it, and its own keywords.
TYPES = {
    "string": (str, {"minLength", "maxLength"}),
    "array": (list, {"items", "minItems", "maxItems"}),
    "object": (dict, {"properties", "required", "additionalProperties"}),
    "number": (int | float, set()),
    "integer": (int, set()),
    "boolean": (bool, set()),
    "null": (type(None), set()),
}
#: One of these says what a value is; the first that is there rules.
KINDS = ("$ref", "anyOf", "oneOf", "enum", "const", "type")
ANNOTATIONS = {"title", "description", "default", "examples", "deprecated", "$schema", "$comment"}
_json_rules = cache(partial(parse, JSON))
spell = partial(json.dumps, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def schema_grammar(schema: Mapping[str, Any]) -> Grammar:
    """The grammar of the JSON texts that a schema allows.

    Args:
        schema: as `json.loads` gives it.

    Raises:
        ValueError: a keyword that is not supported here, or what is no schema, and where it stands;
            a schema that no value satisfies.

    Example:
        >>> grammar = schema_grammar({"type": "array", "items": {"enum": ["plum", 7]}})
        >>> state = grammar.after(grammar.start, b'["plum",')
        >>> [*grammar.moves(state)]
        [b'"', b'7']
    """
    schema = dict(_checked("#", schema, Mapping))
    definitions = _checked("#/$defs", schema.pop("$defs", {}), Mapping)
    schemas = {f"#/$defs/{name}": part for name, part in definitions.items()}
    rules = {name: _expression(part, name, [*schemas]) for name, part in schemas.items()}
    return Grammar(_json_rules() | rules | {"root": _expression(schema, "#", [*schemas])})


def _expression(schema: Any, where: str, names: Sequence[str]) -> Expression:
    """What a schema allows; `where` it stands, and the `names` that it may refer to."""
    schema = _checked(where, {} if schema is True else schema, Mapping)
    keys = set(schema) - ANNOTATIONS
    if not keys:
        return Reference("value")
    # 1. nothing is ignored
    kind = next((key for key in KINDS if key in keys), None)
    types = _types(schema.get("type", [*TYPES]), where)
    own = set().union(*(TYPES[name][1] for name in types))
    beside = {"enum": {"type"}, "const": {"type"}, "type": own}.get(kind, set())
    if others := sorted(keys - {kind} - beside):
        raise _error(
            where,
            f"{others[0]!r} is not supported here. A schema has one of {', '.join(KINDS)}; beside "
            f"{kind} this one may have {', '.join(sorted(beside)) or 'nothing'}",
        )
    # 2. what the keyword says
    match kind:
        case "$ref":
            if schema["$ref"] not in names:
                raise _error(where, f"there is no {schema['$ref']!r}; there are {names}")
            return Reference(schema["$ref"])
        case "anyOf" | "oneOf":
            options = enumerate(_checked(where, schema[kind], list))
            each = (_expression(option, f"{where}/{kind}/{n}", names) for n, option in options)
            return _choice(each, where)
        case "enum" | "const":
            values = _checked(where, schema["enum"], list) if kind == "enum" else [schema["const"]]
            return _choice((literal(spell(v)) for v in values if _has_type(v, types)), where)
    return _choice((_of_type(name, schema, where, names) for name in types), where)


def _of_type(name: str, schema: Mapping[str, Any], where: str, names: Sequence[str]) -> Expression:
    match name:
        case "string":
            characters = Repeat(Reference("char"), *_bounds(schema, "Length", where))
            return Concat((literal('"'), characters, literal('"')))
        case "array":
            item = _expression(schema.get("items", True), f"{where}/items", names)
            least, most = _bounds(schema, "Items", where)
            more = Repeat(Concat((literal(","), item)), max(0, least - 1), most and most - 1)
            items = Repeat(Concat((item, more)), min(1, least), 1 if most is None else min(1, most))
            return Concat((literal("["), items, literal("]")))
        case "object" if TYPES[name][1] & set(schema):
            return Concat((literal("{"), _members(schema, where, names), literal("}")))
    return Reference(name)


def _members(schema: Mapping[str, Any], where: str, names: Sequence[str]) -> Expression:
    """Properties in their order, with commas between those that are there."""
    properties = _checked(where, schema.get("properties", {}), Mapping)
    required = _checked(where, schema.get("required", []), list)
    if schema.get("additionalProperties", False) is not False:
        raise _error(where, "additionalProperties must be false: no others can be written here")
    if missing := [name for name in required if name not in [*properties]]:
        raise _error(where, f"the required property {missing[0]!r} is not among the properties")
    members = [
        Concat((literal(spell(name) + ":"), _expression(part, f"{where}/properties/{name}", names)))
        for name, part in properties.items()
    ]
    least = [int(name in required) for name in properties]
    # 1. after a first one, each of the later ones with a comma before it
    later = [Repeat(Concat((literal(","), m)), n, 1) for m, n in zip(members, least, strict=True)]
    starts = [Concat((member, *later[n:])) for n, member in enumerate(members, 1)]
    # 2. first comes the first required one, or one before it; if none is required, maybe none
    return Choice((*starts[: least.index(1) + 1],) if 1 in least else (*starts, Concat(())))


# --- what can be wrong ----------------------------------------------------------------------------
def _types(types: Any, where: str) -> list[str]:
    types = [types] if isinstance(types, str) else _checked(where, types, list)
    if unknown := [name for name in types if name not in [*TYPES]]:
        raise _error(where, f"there is no type {unknown[0]!r}; there are {', '.join(TYPES)}")
    return types


def _has_type(value: Any, types: Sequence[str]) -> bool:
    is_bool = isinstance(value, bool)  # which Python counts among the numbers
    return any(isinstance(value, TYPES[t][0]) and is_bool == (t == "boolean") for t in types)


def _bounds(schema: Mapping[str, Any], what: str, where: str) -> tuple[int, int | None]:
    least, most = schema.get(f"min{what}", 0), schema.get(f"max{what}")
    at_most = least if most is None else most
    if type(least) is not int or type(at_most) is not int or not 0 <= least <= at_most:
        raise _error(where, f"min{what} and max{what} must be 0 ≤ min ≤ max; got {least}, {most}")
    return least, most


def _choice(options: Iterable[Expression], where: str) -> Expression:
    if not (options := tuple(options)):
        raise _error(where, "there is no value that it allows")
    return Choice(options)


def _checked(where: str, part: Any, kind: type) -> Any:
    if not isinstance(part, kind):
        raise _error(where, f"there must be a {kind.__name__.lower()}; got {part!r}")
    return part


def _error(where: str, why: str) -> ValueError:
    return ValueError(f"in the schema, at {where}: {why}")
