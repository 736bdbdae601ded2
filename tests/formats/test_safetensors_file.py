import json
import os
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from minillm.formats.safetensors_file import INDEX, WHOLE, Entry, find, read, refuse_pickles, write

TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.tensor([1.0, -2.0], dtype=torch.bfloat16),
    "c": torch.tensor(7.0, dtype=torch.float64),
}


def forged(header, data=b"0000"):
    """A file whose header says what it likes."""
    said = json.dumps(header).encode()
    return struct.pack("<Q", len(said)) + said + data


def one(shape, end, kind="F32"):
    return {"a": {"dtype": kind, "shape": shape, "data_offsets": [0, end]}}


def same(found, expected):
    return set(found) == set(expected) and all(
        found[name].dtype == expected[name].dtype and torch.equal(found[name], expected[name])
        for name in expected
    )


# --- by hand -----------------------------------------------------------------------------------
def test_a_file_is_a_length_a_header_and_the_numbers(tmp_path):
    (tmp_path / WHOLE).write_bytes(forged(one([1, 1], 4), struct.pack("<f", 0.5)))
    entries = find(tmp_path)
    assert entries == {"a": Entry(tmp_path / WHOLE, "a", "F32", (1, 1))}
    [(name, tensor)] = read(entries)
    assert (name, tensor.tolist()) == ("a", [[0.5]])


def test_shards_are_filled_in_order_and_the_index_says_where_each_tensor_is(tmp_path):
    tensors = {name: torch.zeros(2) for name in "pqrs"}  # 8 bytes each
    write(tmp_path, tensors | {"large": torch.zeros(9)}, max_shard_bytes=16)
    index = json.loads((tmp_path / INDEX).read_text(encoding="utf-8"))
    files = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    assert index == {
        "metadata": {"total_size": 68},
        "weight_map": dict(
            zip(
                ["p", "q", "r", "s", "large"],
                files[:1] * 2 + files[1:2] * 2 + files[2:],
                strict=True,
            )
        ),
    }
    assert sorted(os.listdir(tmp_path)) == [*files, INDEX]


def test_entries_can_be_read_in_part(tmp_path):
    write(tmp_path, TENSORS, max_shard_bytes=1)
    entries = find(tmp_path)
    assert same(dict(read({"b": entries["b"]})), {"b": TENSORS["b"]})


# --- reference ---------------------------------------------------------------------------------
def test_the_safetensors_library_reads_what_is_written(tmp_path):
    write(tmp_path, TENSORS)
    assert os.listdir(tmp_path) == [WHOLE]
    assert same(load_file(tmp_path / WHOLE), TENSORS)
    data = (tmp_path / WHOLE).read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    assert header["__metadata__"] == {"format": "pt"}  # without it transformers refuses


def test_what_the_safetensors_library_writes_is_read(tmp_path):
    save_file(TENSORS, tmp_path / WHOLE)
    assert same(dict(read(find(tmp_path))), TENSORS)


# --- law ---------------------------------------------------------------------------------------
@settings(max_examples=25)
@given(st.integers(1, 100), st.integers(1, 9))
def test_tensors_come_back_however_they_are_cut(tmp_path_factory, max_shard_bytes, n_tensors):
    folder = tmp_path_factory.mktemp("cut")
    whole = torch.randn(n_tensors, 5)
    tensors = {f"t{n}": whole[n] for n in range(n_tensors)}  # rows of one matrix
    write(folder, tensors, max_shard_bytes)
    assert same(dict(read(find(folder))), tensors)


@pytest.mark.parametrize("n_letters", range(16))
def test_a_header_of_any_length_is_a_header(tmp_path, n_letters):
    # Its length stands first, and its lowest byte may be that with which a pickle begins.
    write(tmp_path, {"n" * (8 * n_letters + n): torch.zeros(1) for n in range(1, 3)})
    assert len(find(tmp_path)) == 2


def test_headers_are_read_without_the_numbers(tmp_path):
    path = tmp_path / WHOLE
    path.write_bytes(forged(one([2**38], 2**40), b""))
    try:
        os.truncate(path, path.stat().st_size + 2**40)  # sparse: a tebibyte that takes no disk
    except OSError:
        pytest.skip("no sparse files here")
    assert find(tmp_path)["a"].shape == (2**38,)


# --- bad input ---------------------------------------------------------------------------------
DAMAGED = {
    "empty": b"",
    "a header cut off": forged(one([1], 4))[:30],
    "numbers cut off": forged(one([1], 4))[:-1],
    "more numbers": forged(one([1], 4)) + b"0",
    "a header longer than the file": struct.pack("<Q", 2**62) + b"{}",
    "a terabyte": forged(one([2**38], 2**40)),
    "an overflow": forged(one([2**40, 2**40], 4)),
    "a shape of another size": forged(one([2], 4)),
    "two tensors in one place": forged(one([1], 4) | {"b": one([1], 4)["a"]}),
    "a hole": forged({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"0" * 8),
    "no JSON": struct.pack("<Q", 2) + b"!!",
    "an unknown type": forged(one([1], 4, "F33")),
    "text": b"I am a letter and no model at all.",
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_refused_before_memory_is_taken(tmp_path, data):
    (tmp_path / WHOLE).write_bytes(data)
    with pytest.raises(ValueError, match=rf"model.safetensors is cut off .* its {len(data)} bytes"):
        find(tmp_path)


def test_a_pickle_is_refused_by_its_name_and_by_what_it_is(tmp_path):
    for name in ("pytorch_model.bin", "model.pt", "model.pth", "x.pkl", "x.ckpt"):
        (tmp_path / name).touch()
    with pytest.raises(
        ValueError, match=r"model\.pt, model\.pth, pytorch_model\.bin, x\.ckpt, x\.pkl: a pic"
    ):
        find(tmp_path)
    refuse_pickles([tmp_path / "config.json"])
    torch.save({"a": torch.zeros(1)}, tmp_path / WHOLE)
    with pytest.raises(ValueError, match=r"^model\.safetensors: a pickle\. Opening one runs what"):
        find(tmp_path)
    (tmp_path / WHOLE).write_bytes(b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00\x8c\x08hi.")
    with pytest.raises(ValueError, match="a pickle"):
        find(tmp_path)


def test_weights_in_safetensors_are_read_though_pickles_lie_beside_them(tmp_path):
    write(tmp_path, TENSORS)
    (tmp_path / "pytorch_model.bin").touch()
    assert set(find(tmp_path)) == set(TENSORS)


def test_a_folder_without_weights_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"there is no model\.safetensors in .*, and no model\.s"):
        find(tmp_path)
    with pytest.raises(ValueError, match=r"there is no model\.safetensors in .*absent"):
        find(tmp_path / "absent")


def test_a_whole_file_and_an_index_are_one_too_many(tmp_path):
    write(tmp_path, TENSORS)
    write(tmp_path, TENSORS, max_shard_bytes=1)
    with pytest.raises(
        ValueError, match=r"holds model\.safetensors, and model\.safetensors\.index"
    ):
        find(tmp_path)


def test_a_whole_file_and_an_index_of_it_alone_are_one_model(tmp_path):
    write(tmp_path, TENSORS)
    entries = find(tmp_path)
    index = {"metadata": {}, "weight_map": dict.fromkeys(TENSORS, WHOLE)}
    (tmp_path / INDEX).write_text(json.dumps(index), encoding="utf-8")
    assert find(tmp_path) == entries
    (tmp_path / INDEX).write_text(json.dumps(index | {"form": 1}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"index\.json has keys that nobody reads: \['form'\]"):
        find(tmp_path)
    index["weight_map"].popitem()
    (tmp_path / INDEX).write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ValueError, match=r"holds .*, but model\.safetensors\.index\.json does not"):
        find(tmp_path)


@pytest.mark.parametrize("form, taken", [("pt", True), ("mlx", True), ("flax", False)])
def test_weights_in_the_order_of_another_library_are_refused(tmp_path, form, taken):
    save_file(TENSORS, tmp_path / WHOLE, metadata={"format": form, "by": "anyone"})
    if taken:
        assert set(find(tmp_path)) == set(TENSORS)
    else:
        with pytest.raises(ValueError, match="says that its format is 'flax', whose weights"):
            find(tmp_path)


@pytest.fixture
def sharded(tmp_path):
    """A folder of shards, and a function that rewrites its index."""
    folder = tmp_path / "model"
    folder.mkdir()
    write(folder, TENSORS, max_shard_bytes=1)

    def point(**files):
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        index["weight_map"] |= files
        index["weight_map"] = {k: v for k, v in index["weight_map"].items() if v is not None}
        (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")

    return folder, point


@pytest.mark.parametrize(
    "file",
    ["../outside.safetensors", "/etc/x.safetensors", "in/x.safetensors", "..\\outside.safetensors",
     "C:x.safetensors", "..", ".", "", "x.bin"],
)  # fmt: skip
def test_a_shard_outside_the_folder_is_refused(sharded, file):
    folder, point = sharded
    save_file({"a": torch.zeros(1)}, folder.parent / "outside.safetensors")
    point(a=file)
    with pytest.raises(
        ValueError, match=r"must be a \.safetensors file in the folder of the index"
    ):
        find(folder)


def test_a_missing_shard_is_named(sharded):
    folder, _ = sharded
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(
        ValueError, match=r"names model-00002-of-00003\.safetensors, which is not th"
    ):
        find(folder)


def test_shards_and_index_must_say_the_same(sharded):
    folder, point = sharded
    first = "model-00001-of-00003.safetensors"
    point(d=first)
    with pytest.raises(ValueError, match=rf"{first} does not hold d, though .* says so \(1 such\)"):
        find(folder)
    point(d=None)
    save_file({"a": torch.zeros(1), "e": torch.zeros(1)}, folder / first)
    with pytest.raises(ValueError, match=rf"{first} holds e, but .* does not say so \(1 such\)"):
        find(folder)


def test_a_tensor_in_two_shards_is_refused(sharded):
    folder, _ = sharded
    save_file(
        {"a": torch.zeros(1), "b": torch.zeros(1)}, folder / "model-00001-of-00003.safetensors"
    )
    with pytest.raises(ValueError, match=r"model-00001-of-00003\.safetensors holds b, but"):
        find(folder)


@pytest.mark.parametrize("index", ["{}", '{"weight_map": [1]}', '{"weight_map": {"a": 7}}'])
def test_an_index_without_a_map_is_refused(tmp_path, index):
    (tmp_path / INDEX).write_text(index, encoding="utf-8")
    with pytest.raises(ValueError, match="must hold a weight_map from tensors to files' names"):
        find(tmp_path)


def test_a_shard_holds_at_least_a_byte(tmp_path):
    with pytest.raises(ValueError, match="max_shard_bytes must be at least 1; got 0"):
        write(tmp_path, TENSORS, max_shard_bytes=0)
    assert os.listdir(tmp_path) == []
