import hashlib
import json
import os
import platform
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import minillm
from minillm.train import manifest as module
from minillm.train.manifest import (
    Manifest,
    check_same_data,
    describe,
    differences,
    hash_code,
    hash_tokens,
    load,
    save,
)

A, B = "a" * 64, "a" * 13 + "b" * 51  # which begin alike
RUN = Manifest(
    name="tiny",
    seed=7,
    config={"model": {"width": 128, "mixers": ["attention"]}, "n_steps": 10},
    data_hash=A,
    n_tokens=120_000,
    code_hash=A,
    versions={"python": "3.11.7", "torch": "2.9.0"},
    machine={"system": "Linux", "threads": 2},
    started="2026-01-31T12:00:00+00:00",
    losses={"final": 1.5},
)


# --- by hand -----------------------------------------------------------------------------------
def test_tokens_are_hashed_as_their_number_and_eight_bytes_each():
    said = b"2" + b"\x07\0\0\0\0\0\0\0" + b"\x00\x01\0\0\0\0\0\0"
    assert hash_tokens(np.array([7, 256])) == hashlib.sha256(said).hexdigest()
    assert hash_tokens(np.array([], np.int32)) == hashlib.sha256(b"0").hexdigest()


def test_code_is_hashed_by_name_and_content_and_the_ends_of_lines_do_not_matter(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "b.py").write_bytes(b"x = 1\r\n")
    (tmp_path / "a.py").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"no code")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".ipynb_checkpoints" / "a-checkpoint.py").write_bytes(b"a copy")
    expected = hashlib.sha256(b"a.py\n0\npart/b.py\n6\nx = 1\n").hexdigest()
    assert hash_code(tmp_path) == expected
    (tmp_path / "part" / "b.py").rename(tmp_path / "part" / "c.py")
    assert hash_code(tmp_path) != expected


def test_what_runs_here_is_described():
    threads = torch.get_num_threads()
    run = describe("tiny", 7, {"width": 64}, np.arange(50, dtype=np.uint16))
    assert (run.name, run.seed, run.config, run.n_tokens) == ("tiny", 7, {"width": 64}, 50)
    assert run.data_hash == hash_tokens(np.arange(50))
    assert run.code_hash == hash_code(Path(minillm.__file__).parent)
    assert run.versions == {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "minillm": minillm.__version__,
    }
    assert run.machine == {
        "system": platform.system(), "architecture": platform.machine(), "threads": threads
    }  # fmt: skip
    assert abs(datetime.now(UTC) - datetime.fromisoformat(run.started)) < timedelta(minutes=1)
    assert run.losses == {}
    assert (module.versions(), module.machine()) == (run.versions, run.machine)


def test_differences_are_sentences():
    now = replace(
        RUN,
        config={"model": {"width": 64, "mixers": ["attention", "rwkv"]}, "rate": 0.1},
        data_hash="7" * 64,
        n_tokens=119_000,
        code_hash=B,
        versions={"python": "3.11.7", "torch": "2.13.0"},
        machine={"system": "Linux", "threads": 1},
    )
    assert differences(RUN, now) == [
        "the data: aaaaaaaaaaaa then, 777777777777 now: 120,000 tokens became 119,000",
        f"the code: {A} then, {B} now",
        'config.model.mixers: ["attention"] then, ["attention", "rwkv"] now',
        "config.model.width: 128 then, 64 now",
        "config.n_steps: 10 then, nothing now",
        "config.rate: nothing then, 0.1 now",
        'versions.torch: "2.9.0" then, "2.13.0" now',
        "machine.threads: 2 then, 1 now",
    ]
    assert "120,000 tokens both times" in differences(RUN, replace(RUN, data_hash=B))[0]


def test_a_run_goes_on_only_with_the_data_it_began_with():
    check_same_data(RUN, replace(RUN, code_hash=B, seed=8))
    with pytest.raises(ValueError, match=r"'tiny' has changed.*119,000\. Going on would mix"):
        check_same_data(RUN, replace(RUN, data_hash=B, n_tokens=119_000))


def test_no_name_of_a_person_or_a_machine_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "node", lambda: "host-of-mei")
    monkeypatch.setenv("USER", "user-mei")
    monkeypatch.setenv("HOME", "/home/user-mei")
    monkeypatch.chdir(tmp_path)
    save(describe("tiny", 0, {}, np.arange(3)), tmp_path / "manifest.json")
    text = (tmp_path / "manifest.json").read_text(encoding="utf-8")
    for secret in ("mei", str(tmp_path), str(Path(minillm.__file__).parent), os.sep + "home"):
        assert secret not in text


# --- law ---------------------------------------------------------------------------------------
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("abé习", max_size=4),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text("abc.", max_size=3), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
objects = st.dictionaries(st.text("abc", max_size=3), plain, max_size=3)
losses = st.dictionaries(
    st.text("abc"), st.floats(allow_nan=False, allow_infinity=False), max_size=3
)
hashes = st.binary(min_size=32, max_size=32).map(bytes.hex)
FIELDS = {
    "name": st.text("ab习", min_size=1),
    "seed": st.integers(0, 2**64),
    "config": objects,
    "data_hash": hashes,
    "n_tokens": st.integers(0, 2**50),
    "code_hash": hashes,
    "versions": st.dictionaries(st.text("abc"), st.text("12.")),
    "machine": st.dictionaries(st.text("abc"), st.text("xy") | st.integers()),
    "started": st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
    "losses": losses,
}
manifests = st.fixed_dictionaries(FIELDS).map(lambda fields: Manifest(**fields))


@settings(max_examples=40, deadline=None)
@given(manifests)
def test_a_manifest_comes_back_as_it_was_saved(tmp_path_factory, run):
    path = tmp_path_factory.mktemp("runs") / "manifest.json"
    save(run, path)
    assert load(path) == run
    assert differences(run, load(path)) == []


@pytest.mark.parametrize("name", [field.name for field in fields(Manifest)])
@settings(max_examples=15, deadline=None)
@given(manifests, st.data())
def test_any_single_change_is_named(name, then, data):
    now = replace(then, **{name: data.draw(FIELDS[name])})
    before, after = (json.dumps(asdict(run)[name], sort_keys=True) for run in (then, now))
    found = differences(then, now)
    if before == after:
        assert found == []
    else:
        what = {"data_hash": "the data", "n_tokens": "the data", "code_hash": "the code"}
        assert found
        assert all(sentence.startswith(what.get(name, name)) for sentence in found)
        for sentence in found:
            then_part, now_part = sentence.split(" then, ", 1)
            assert then_part.partition(": ")[2] != now_part.removesuffix(" now")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 255), max_size=20), st.integers(1, 7))
def test_the_hash_is_of_the_numbers_whatever_their_type_and_however_they_are_cut(tokens, chunk):
    whole = hash_tokens(np.array(tokens, np.int64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        for kind in (np.uint8, np.int16, ">i4", np.uint64):
            assert hash_tokens(np.array(tokens, kind)) == whole
        assert hash_tokens(np.repeat(np.array(tokens, np.int32), 2)[::2]) == whole
    assert hash_tokens(np.array([*tokens, 0])) != whole


# --- what stops it ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "name must be a text that is not empty"),
        ({"seed": -1}, "seed must be a whole number of at least 0; got -1"),
        ({"n_tokens": 2.0}, "n_tokens must be a whole number"),
        ({"data_hash": "A" * 64}, "data_hash must be 64 hexadecimal digits"),
        ({"code_hash": None}, "code_hash must be 64 hexadecimal digits"),
        ({"config": [1]}, "config must be a dict; got a list"),
        ({"config": {"betas": (0.9, 0.99)}}, r"config\['betas'\] must be plain JSON"),
        ({"config": {1: 2}}, r"config\[1\] must be plain JSON"),
        ({"losses": {"final": float("nan")}}, r"losses\['final'\] must be plain JSON"),
        ({"losses": {"final": "low"}}, r"losses\.final must be a number; got 'low'"),
        ({"started": "2026-01-31T12:00:00"}, "started must be a date and time in UTC"),
        ({"started": "2026-01-31T12:00:00+08:00"}, "started must be a date and time in UTC"),
        ({"started": "yesterday"}, "started must be a date and time in UTC"),
    ],
)
def test_what_is_no_manifest_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(RUN, **change)


@pytest.mark.parametrize(
    "path", ["/home/mei/corpus", "C:\\data\\corpus", "\\\\host\\share", "~/corpus", "file:///data"]
)
def test_a_path_of_this_machine_is_refused_wherever_it_stands(path):
    for config, where in (
        ({"data": {"files": ["a", path]}}, r"config\.data\.files\[1\]"),
        ({"data": {path: 1}}, r"a key of config\.data"),
    ):
        with pytest.raises(ValueError, match=f"{where} is .*, a path of one machine"):
            replace(RUN, config=config)
    for fine in ("data/corpus", "/", "a/b", "~", "http://example.org/a"):
        assert replace(RUN, config={"x": fine}).config == {"x": fine}


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.ones(3), r"got float64 of the shape \[3\]"),
        (np.ones((2, 3), int), r"got int64 of the shape \[2, 3\] \(reshape\(-1\)"),
        ([1, 2], "got a list"),
        (np.array([2**63], np.uint64), "must be below 2⁶³; got 9223372036854775808"),
    ],
)
def test_what_are_no_tokens_is_refused(tokens, message):
    with pytest.raises(ValueError, match=message):
        hash_tokens(tokens)


def test_a_file_with_missing_or_unknown_keys_is_refused_with_their_list(tmp_path):
    path = tmp_path / "manifest.json"
    content = {"more": 1, "host": 2} | asdict(RUN)
    del content["seed"], content["losses"]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=r"Missing keys: losses, seed. Unknown keys: host, more"):
        load(path)
    path.write_text(json.dumps(asdict(RUN) | {"host": 2}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"Missing keys: none. Unknown keys: host"):
        load(path)
    path.write_text(json.dumps(asdict(RUN) | {"seed": "7"}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"manifest\.json: seed must be a whole number"):
        load(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"manifest\.json is not JSON"):
        load(path)


def test_an_older_manifest_survives_a_failure_to_write(tmp_path, monkeypatch):
    path = tmp_path / "manifest.json"
    save(RUN, path)

    def full(*_):
        raise OSError(28, "no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        save(replace(RUN, seed=8), path)
    assert load(path) == RUN
    assert os.listdir(tmp_path) == ["manifest.json"]
