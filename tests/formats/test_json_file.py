import json
import os
import tracemalloc

import pytest

from minillm.formats.json_file import count, flag, number, read_object


def written(folder, data):
    path = folder / "config.json"
    path.write_bytes(data)
    return path


# --- by hand -----------------------------------------------------------------------------------
def test_an_object_is_read_with_all_its_kinds_of_values(tmp_path):
    content = {"a": 1, "b": [0.5, None], "c": {"梅": True}}
    assert read_object(written(tmp_path, json.dumps(content).encode())) == content
    assert read_object(written(tmp_path, '{"梅": "李"}'.encode())) == {"梅": "李"}


def test_null_and_nothing_mean_the_default():
    for content in ({}, {"n": None}):
        assert count(content, "n", 7) == 7
        assert number(content, "n", 0.5) == 0.5
        assert flag(content, "n") is False
    assert count({"n": 3}, "n", 7) == 3
    assert number({"n": 3}, "n") == 3.0
    assert type(number({"n": 3}, "n")) is float
    assert count({"n": 0}, "n", least=0) == 0


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3", [3], 2**31 + 1, None])
def test_a_count_is_a_whole_number_within_its_bounds(value):
    with pytest.raises(ValueError, match=r"n_layers must be a whole number from 1 to 2,147,483,6"):
        count({"n_layers": value}, "n_layers")


def test_a_default_must_be_within_bounds_too():
    with pytest.raises(ValueError, match="n_heads must be a whole number from 1 to 8; got 9"):
        count({}, "n_heads", 9, most=8)


@pytest.mark.parametrize("value", [0, -0.5, float("nan"), float("inf"), 10**400, True, "1", None])
def test_a_number_is_finite_and_above_zero(value):
    with pytest.raises(ValueError, match="base must be a finite number above 0; got"):
        number({"base": value}, "base")


@pytest.mark.parametrize("value", [0, 1, "true", []])
def test_a_flag_is_true_or_false(value):
    with pytest.raises(ValueError, match="tied must be true or false; got"):
        flag({"tied": value}, "tied")


# --- bad input ---------------------------------------------------------------------------------
@pytest.mark.parametrize("data", [b"\x80\x02}q\x00.", b"PK\x03\x04 as torch.save writes"])
def test_a_pickle_is_named_as_one(tmp_path, data):
    with pytest.raises(ValueError, match=r"config\.json is a pickle, or an archive"):
        read_object(written(tmp_path, data))


@pytest.mark.parametrize("data", [b"", b'{"a": 1', b"{'a': 1}"])
def test_what_is_cut_off_or_no_json_is_refused(tmp_path, data):
    with pytest.raises(ValueError, match=r"config\.json is not JSON in UTF-8, or is cut off"):
        read_object(written(tmp_path, data))


def test_forms_of_editors_are_read_and_other_meanings_are_not(tmp_path):
    assert read_object(written(tmp_path, b'\xef\xbb\xbf{"a":\r\n1}')) == {"a": 1}
    with pytest.raises(ValueError, match=r"config\.json is UTF-16, not UTF-8; save it again"):
        read_object(written(tmp_path, '{"a": 1}'.encode("utf-16")))
    with pytest.raises(ValueError, match=r"config\.json is not JSON .*'a' stands twice"):
        read_object(written(tmp_path, b'{"a": 1, "a": 2}'))


def test_deep_nesting_is_refused_like_other_nonsense(tmp_path):
    with pytest.raises(ValueError, match="not JSON in UTF-8"):
        read_object(written(tmp_path, b'{"a":' * 200_000))


@pytest.mark.parametrize("data, kind", [(b"[1]", "list"), (b"7", "int"), (b"null", "NoneType")])
def test_json_of_another_kind_is_refused(tmp_path, data, kind):
    with pytest.raises(ValueError, match=f"must hold a JSON object, .* it holds a {kind}"):
        read_object(written(tmp_path, data))


def test_a_large_file_is_refused_unread(tmp_path):
    path = written(tmp_path, b'{"a": "' + b"x" * 100 + b'"}')
    assert read_object(path, max_bytes=109) == {"a": "x" * 100}
    with pytest.raises(ValueError, match="larger than 108 bytes"):
        read_object(path, max_bytes=108)
    os.truncate(path, 2**26)  # sparse: it takes no disk
    tracemalloc.start()
    with pytest.raises(ValueError, match="larger than 108 bytes"):
        read_object(path, max_bytes=108)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 2**20


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file .*absent\.json"):
        read_object(tmp_path / "absent.json")
    with pytest.raises(ValueError, match="there is no file"):
        read_object(tmp_path)  # a folder
