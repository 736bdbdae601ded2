"""minillm.bench.corrupt: every kind of file is refused by name, or means what it says."""

import json
import random
import struct
import tomllib

import pytest

from minillm.bench import _file_kinds, corrupt
from minillm.bench.corrupt import cut, double, encode, flip, huge, leaves, mistype, retype, swap

JSON = b'{"a": 1, "b": {"c": [0.5, "plum"]}}'
TOML = b'a = 1\nb = "plum"\n\n[c]\nd = [1, 2]\n'
KIND = _file_kinds.Kind(
    name="plums", file="plums.json", make=lambda folder: None, free=("b.*",), open=("open",),
    read=lambda folder: json.loads((folder / "plums.json").read_text(encoding="utf-8-sig")),
)  # fmt: skip


def header(content):
    return struct.pack("<Q", len(content)) + content + b"\0" * 8


def verdict(tmp_path, damage, kind=KIND, before=JSON):
    whole = tmp_path / "whole"
    whole.mkdir(exist_ok=True)
    (whole / kind.file).write_bytes(before)
    meaning = json.loads(before)
    return corrupt.attempt(kind, whole, meaning, damage, "seed", tmp_path / "copy").verdict


# --- by hand ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (b'{"b": {"c": [0.5, "plum"]}, "a": 1}', "same"),
        (b'{"a": 1, "b": {"c": [0.7, "pear"]}}', "other value"),  # b.* is free
        (b'{"a": 1, "b": {"c": ["x", "plum"]}}', "silent"),  # but not of another type
        (b'{"a": 2, "b": {"c": [0.5, "plum"]}}', "silent"),  # a is not free
        (b'{"a": 2, "b": {"c": [0.7, "plum"]}}', "silent"),  # not even beside what is
        (b'{"a": 1, "b": {"c": [0.5, "plum"]}, "open": {}}', "other value"),
        (b'{"a": ', "crashed"),  # json names no file
    ],
)
def test_a_verdict_is_what_the_reader_makes_of_the_file(tmp_path, after, expected):
    assert verdict(tmp_path, lambda *_: after) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (b'{"a": null}', b'{"a": 7}', "other value"),
        (b'{"a": 7}', b'{"a": null}', "other value"),
        (b'{"a": null}', b'{"a": "plum"}', "silent"),
        (b'{"a": null}', b'{"a": true}', "silent"),
    ],
)
def test_a_number_that_is_optional_may_be_null_and_nothing_else(tmp_path, before, after, expected):
    kind = _file_kinds.Kind(**{**vars(KIND), "optional": ("a",)})
    assert verdict(tmp_path, lambda *_: after, kind, before) == expected


@pytest.mark.parametrize(
    ("damage", "free", "unbounded"),
    [
        *((damage, True, True) for damage in (cut, flip, swap, mistype)),
        *((damage, False, False) for damage in (retype, double, encode)),
        (huge, False, True),
    ],
)
def test_a_free_value_is_free_of_damages_that_leave_a_value(damage, free, unbounded):
    after = JSON.replace(b"0.5", b"0.7")
    without_bounds = _file_kinds.Kind(**{**vars(KIND), "unbounded": ("b.*",)})
    assert corrupt.may_differ(KIND, damage, JSON, after) == free
    assert corrupt.may_differ(without_bounds, damage, JSON, after) == unbounded


def test_errors_that_name_the_file_and_files_that_change_are_told_apart(tmp_path):
    def says(error):
        def read(folder):
            raise error

        return _file_kinds.Kind(name="x", file="plums.json", make=print, read=read)

    for error, expected in [
        (ValueError("plums.json is damaged"), "refused"),
        (OSError("plums.json cannot be read"), "refused"),
        (ValueError("it is damaged"), "crashed"),
        (KeyError("plums.json"), "crashed"),
        (BaseException("plums.json: a panic"), "crashed"),
    ]:
        assert verdict(tmp_path, encode, says(error)) == expected

    def mend(folder):
        (folder / "plums.json").write_bytes(JSON)
        return json.loads(JSON)

    mends = _file_kinds.Kind(name="x", file="plums.json", make=print, read=mend)
    assert verdict(tmp_path, mistype, mends) == "lost"


def test_what_is_bad_is_counted_shown_and_an_error(monkeypatch, capsys):
    kind = _file_kinds.Kind(
        name="plums", file="plums.txt", form="text", read=lambda folder: 1,
        make=lambda folder: (folder / "plums.txt").write_text("plum " * 9, encoding="utf-8"),
    )  # fmt: skip
    monkeypatch.setattr(_file_kinds, "kinds", lambda: [kind])
    assert corrupt.run(quick=True) == {"plums": dict.fromkeys(corrupt.VERDICTS, 0) | {"same": 20}}
    assert "plums" in capsys.readouterr().out
    readers = {
        "silent": lambda folder: folder.name,
        "crashed": lambda folder: {"whole": 1}[folder.name],
        "lost": lambda folder: (folder / folder.name).touch(),  # beside the file
    }
    for word, read in readers.items():
        bad = _file_kinds.Kind(**{**vars(kind), "read": read})
        monkeypatch.setattr(_file_kinds, "kinds", lambda bad=bad: [bad])
        with pytest.raises(ValueError, match="20 of 20 damaged files were not refused"):
            corrupt.run(quick=True)
        assert capsys.readouterr().out.count(f"{word}: plums, ") == 20


def test_the_encodings_of_another_editor():
    text, chances = "村\n".encode(), [random.Random(seed) for seed in range(40)]
    assert {encode(text, "text", chance) for chance in chances} == {
        b"\xef\xbb\xbf\xe6\x9d\x91\n",  # UTF-8 with a mark
        b"\xe6\x9d\x91\r\n",
        b"\xff\xfe\x51\x67\n\0",  # UTF-16 with a mark, and without
        b"\x51\x67\n\0",
        b"\xff\xfe\0\0\x51\x67\0\0\n\0\0\0",  # UTF-32
        b"\xb4\xe5\n",  # GB 18030
    }
    assert encode(b"\0", "bytes", chances[0]) == b"\xef\xbb\xbf\0"


# --- law ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(20))
def test_each_damage_is_what_its_name_says(seed):
    for form, data in (("json", JSON), ("toml", TOML), ("safetensors", header(JSON))):
        before = leaves(data, form)

        def damaged(damage, data=data, form=form):
            return damage(data, form, random.Random(seed))

        assert damaged(retype) == damaged(retype) != data
        for damage in (retype, huge):
            after = leaves(damaged(damage), form)
            if after is not None:  # Python reads no number of 5,000 digits
                assert sum(before.get(key) != value for key, value in after.items()) <= 1
        text = damaged(huge)
        assert any(number.encode() in text for number in corrupt.HUGE) and b'"plum"' in text
        text = damaged(double)
        if form == "toml":
            with pytest.raises(tomllib.TOMLDecodeError):
                tomllib.loads(text.decode())
        else:
            assert leaves(text, form) == before and text != data  # the last of two counts
        assert sum(a != b for a, b in zip(damaged(mistype), data, strict=True)) == 1
        assert data.startswith(damaged(cut)) and damaged(cut) != data
        one, other = (int.from_bytes(each, "big") for each in (damaged(flip), data))
        assert 1 <= (one ^ other).bit_count() <= 3 and len(damaged(flip)) == len(data)
    letters = bytes(range(40))
    swapped = swap(letters, "bytes", random.Random(seed))
    assert swapped != letters and sorted(swapped) == [*letters]


def test_twenty_of_each_kind_are_refused_by_name_or_mean_what_they_say():
    table = corrupt.run(quick=True)  # an error, if any is silent, crashed or lost
    assert len(table) >= 20
    for name in ("checkpoint.json", "state.safetensors", "download"):  # sealed
        assert table[name]["other value"] == 0
