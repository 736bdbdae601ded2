"""minillm.lab.text_file: one text in the forms of many editors, and what has another meaning."""

import codecs
import json
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.lab.text_file import decode, parse_json, read_tables, read_text, read_toml

LINE = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0\ufeff"), min_size=1)
MARK = codecs.BOM_UTF8


# --- by hand ------------------------------------------------------------------------------------
def test_a_path_of_windows_is_read_from_single_quotes_and_explained_between_double_ones(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(MARK + rb"files = ['C:\Users\mei\a.txt']" + b"\r\n")
    assert read_toml(path) == {"files": [r"C:\Users\mei\a.txt"]}
    for line in (r'files = ["C:\Users\mei"]', r'files = ["D:\mei\a.txt"]'):
        path.write_text(f'name = "mine"\n{line}\n', encoding="utf-8")
        with pytest.raises(ValueError, match=r"mine\.toml is no TOML: .*forward slashes, .C:/Use"):
            read_toml(path)
    path.write_text("a = \n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine\.toml is no TOML: Invalid value[^.]*$"):
        read_toml(path)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ("plum".encode("utf-16"), "UTF-16, not UTF-8; save it again as UTF-8"),
        ("plum".encode("utf-16-be"), "UTF-16 without its mark"),
        ("plum".encode("utf-32"), "UTF-32"),
        ("小梅住在村里，今天卖李子。".encode("gb18030"), "GB18030, as Chinese"),
        ("un café à Genève".encode("cp1252"), "Windows-1252, as Western"),
        ("小梅住在村里".encode() + b"\xff", "damaged there"),
        (b"plums\0", "binary: it has a zero byte at position 5"),
    ],
)
def test_another_encoding_is_named_and_how_to_save_it(data, named):
    with pytest.raises(ValueError, match=rf"^mei\.txt is .*{named}"):
        decode(data, "mei.txt")


def test_a_name_that_stands_twice_is_refused_at_any_depth():
    assert parse_json('{"a": {"b": 1}, "b": [{"a": 2}]}') == {"a": {"b": 1}, "b": [{"a": 2}]}
    for text, place in (
        ('{"a": 1, "a": 1}', "a"),
        ('[{"b": {"a": 1, "a": 2}}]', "0.b.a"),
        ('{"model": {"merges": [1], "vocab": {"x": 1, "x": 2}}}', "model.vocab.x"),
        ('{"b": {"a": 1, "a": 2}, "b": 3}', "b"),
    ):
        with pytest.raises(ValueError, match=f"the name '{place}' stands twice"):
            parse_json(text)
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 100_000)


KINDS = {"a": str, "b": list, "c": dict, "d": int}


@pytest.mark.parametrize("line", ["a = 1", "b = [1]", 'b = "x"', "c = { x = 1 }", "d = true"])
def test_values_of_another_kind_are_named(tmp_path, line):
    path = tmp_path / "some.toml"
    path.write_text('[[t]]\na = "x"\nb = ["x"]\nc = { x = ["y"] }\nd = 1\n', encoding="utf-8")
    assert read_tables(path, "t", KINDS) == [{"a": "x", "b": ["x"], "c": {"x": ["y"]}, "d": 1}]
    assert read_tables(path, "other", KINDS) == []
    path.write_text(f"[[t]]\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"some\.toml: {line[0]} in a \[\[t\]\] must be a"):
        read_tables(path, "t", KINDS)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file .*nowhere\.txt \(looked for from"):
        read_text(tmp_path / "nowhere.txt")


# --- law ----------------------------------------------------------------------------------------
@given(st.lists(st.tuples(LINE, st.sampled_from(["\n", "\r\n", "\r"])), min_size=1))
def test_marks_and_line_ends_change_nothing(lines):
    text = "".join(line + end for line, end in lines)
    for mark in (b"", MARK):
        assert decode(mark + text.encode(), "a.txt") == "".join(f"{line}\n" for line, _ in lines)


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none()))
def test_json_without_doubles_is_read_as_ever(content):
    assert parse_json(json.dumps(content)) == content
    assert parse_json(decode(MARK + json.dumps(content, indent=1).encode(), "a.json")) == content


@given(st.text(st.sampled_from('ab=[]"\\U0 \r\n#'), max_size=30))
def test_toml_is_read_as_by_python_or_refused_by_name(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "law.toml"
    path.write_text(text, encoding="utf-8", newline="")
    try:
        expected = tomllib.loads(text.replace("\r\n", "\n").replace("\r", "\n"))
    except tomllib.TOMLDecodeError:
        with pytest.raises(ValueError, match=r"law\.toml is no TOML"):
            read_toml(path)
    else:
        assert read_toml(path) == expected
