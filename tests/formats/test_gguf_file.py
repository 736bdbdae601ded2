import os
import shutil
import struct
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import from_dtype

from minillm.formats import gguf_file
from minillm.formats.gguf_blocks import TYPES, decode, encode
from minillm.formats.gguf_file import check_space, load, read, write

METADATA = {
    "general.architecture": "llama",
    "a.count": 7,
    "a.share": 0.5,
    "a.flag": False,
    "a.words": ["Ġthe", "村", ""],
    "a.kinds": [1, -3],
    "a.nothing": [],
}


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


TENSORS = {
    "norm": ("F32", drawn(5)),
    "table": ("Q8_0", drawn(3, 64)),
    "experts": ("Q4_0", drawn(2, 3, 32)),
    "half": ("F16", drawn(2, 7)),
    "brain": ("BF16", drawn(1, 3)),
}


@pytest.fixture
def path(tmp_path):
    write(tmp_path / "a.gguf", METADATA, TENSORS)
    return tmp_path / "a.gguf"


# --- by hand --------------------------------------------------------------------------------------
def test_a_file_written_on_paper(tmp_path):
    path = tmp_path / "a.gguf"
    matrix = torch.tensor([[1.0, -2.0, 0.0]])
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, 1)  # version, tensors, names with values
    header += struct.pack("<QsII", 1, b"k", 4, 258)  # a letter, an uint32
    header += struct.pack("<QsIQQIQ", 1, b"t", 2, 3, 1, 0, 0)  # two axes, F32, the first place
    whole = header.ljust(96, b"\0") + bytes.fromhex("0000803f 000000c0 00000000")
    assert write(path, {"k": 258}, {"t": ("F32", matrix)}) == 128
    assert path.read_bytes() == whole.ljust(128, b"\0")
    metadata, entries = read(path)
    assert metadata == {"k": 258}
    assert load(entries["t"]).tolist() == matrix.tolist()


# --- reference ------------------------------------------------------------------------------------
def test_the_gguf_package_reads_what_is_written(path):
    reader = gguf.GGUFReader(path)
    names = {name: field.contents() for name, field in reader.fields.items()}
    assert {name: names[name] for name in METADATA} == METADATA
    assert [tensor.name for tensor in reader.tensors] == list(TENSORS)
    entries = read(path)[1]
    for tensor in reader.tensors:
        numbers = gguf.dequantize(tensor.data, tensor.tensor_type)
        ours = load(entries[tensor.name])
        assert tuple(tensor.shape)[::-1] == tuple(ours.shape)
        assert np.array_equal(numbers.reshape(ours.shape), ours.numpy())
        assert tensor.data_offset == entries[tensor.name].first_byte


def test_what_the_gguf_package_writes_is_read(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "b.gguf", "llama")
    writer.add_uint64("a.long", 2**40)
    writer.add_array("a.words", ["one", "two"])
    writer.add_tensor("t", drawn(2, 3).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    metadata, entries = read(tmp_path / "b.gguf")
    assert (metadata["a.long"], metadata["a.words"]) == (2**40, ["one", "two"])
    assert torch.equal(load(entries["t"]), drawn(2, 3))


# --- laws -----------------------------------------------------------------------------------------
VALUES = st.one_of(
    st.text(max_size=5),
    st.booleans(),
    st.integers(0, 2**32 - 1),
    from_dtype(np.dtype("float32"), allow_nan=False).map(float),
    st.lists(st.text(max_size=3), max_size=3),
    st.lists(st.integers(-(2**31) + 1, 2**31 - 1), max_size=3),
)


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.text(st.characters(codec="ascii"), max_size=5), VALUES, max_size=4),
    st.lists(st.tuples(st.sampled_from(list(TYPES)), st.integers(1, 4)), max_size=4),
)
def test_what_is_written_is_read_back(tmp_path_factory, metadata, described):
    metadata.pop("general.alignment", None)
    path = tmp_path_factory.mktemp("law") / "a.gguf"
    tensors = {str(i): (kind, drawn(n, 32)) for i, (kind, n) in enumerate(described)}
    n_bytes = write(path, metadata, tensors)
    again, entries = read(path)
    assert again == metadata
    assert n_bytes == path.stat().st_size and n_bytes % 32 == 0
    for name, (kind, tensor) in tensors.items():
        assert (entries[name].kind, entries[name].shape) == (kind, tuple(tensor.shape))
        assert torch.equal(load(entries[name]), decode(encode(tensor, kind), kind))


# --- what can be wrong ----------------------------------------------------------------------------
def test_a_file_that_is_cut_off_anywhere_is_refused(path):
    data = path.read_bytes()
    for length in [*range(0, 700, 9), len(data) - 32]:
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"a\.gguf.*(cut off|no GGUF)"):
            read(path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"GGUF", b"PK\3\4", "no GGUF file"),
        (b"GGUF\3", b"GGUF\2", "version 2"),
        (struct.pack("<QQ", 5, 7), struct.pack("<QQ", 2**60, 7), "declares 1,1.* things"),
        (struct.pack("<Q", 20) + b"general", struct.pack("<Q", 2**62) + b"general", "declares"),
        (b"a.share\6", b"a.share\x4d", "no value of type 77"),
        (b"a.words\x09\0\0\0\x08", b"a.words\x09\0\0\0\x09", "lists of lists"),
        (b"norm\1\0\0\0", b"norm\x4d\0\0\0", "norm stands twice, or has 77 axes"),
        (b"half", b"norm", "norm stands twice"),
        (struct.pack("<IQ", 8, 32), struct.pack("<IQ", 12, 32), "table is of ggml's type 12"),
        (struct.pack("<IQ", 8, 32), struct.pack("<IQ", 8, 33), "table would end"),
        (struct.pack("<IQ", 8, 32), struct.pack("<IQ", 8, 2**50), "table would end"),
        ("村".encode(), b"\xff\xff\xff", "can't decode"),
    ],
)
def test_a_damaged_file_is_refused(path, old, new, words):
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))
    with pytest.raises(ValueError, match=words):
        read(path)


def test_another_alignment_and_a_file_that_is_not_there_are_refused(tmp_path):
    write(tmp_path / "a.gguf", {"general.alignment": 64}, {})
    with pytest.raises(ValueError, match="multiples of 32"):
        read(tmp_path / "a.gguf")
    with pytest.raises(ValueError, match="there is no file"):
        read(tmp_path / "b.gguf")


def test_a_file_that_could_not_be_written_leaves_the_old_one(path, monkeypatch):
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"^norm: F16 cannot hold"):
        write(path, METADATA, {"norm": ("F16", torch.tensor([1e9]))})
    with pytest.raises(ValueError, match=r"a\.bad must be a text"):
        write(path, {"a.bad": None}, {})
    with pytest.raises(ValueError, match=r"a\.bad must be a text"):
        write(path, {"a.bad": 2**40}, {})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=100))
    check_space(path.parent, 100)
    with pytest.raises(ValueError, match=r"takes [0-9]+ bytes, .* has 100 left"):
        write(path, METADATA, TENSORS)
    monkeypatch.undo()
    monkeypatch.setattr(gguf_file.os, "fsync", lambda number: 1 / 0)  # as a disk that fails
    with pytest.raises(ZeroDivisionError):
        write(path, METADATA, {})
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["a.gguf"]
