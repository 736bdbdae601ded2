"""minillm.bench._file_kinds: each good file is read, twice alike, and by another reader."""

import pytest

from minillm.bench._file_kinds import kinds
from minillm.bench.corrupt import leaves


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.name)
def test_a_good_file_is_read_as_what_it_says(kind, tmp_path):
    kind.make(tmp_path)
    before = (tmp_path / kind.file).read_bytes()
    assert kind.read(tmp_path) == kind.read(tmp_path)
    assert (tmp_path / kind.file).read_bytes() == before
    assert leaves(before, kind.form)
    (tmp_path / kind.file).write_bytes(b"\xff" + before)
    with pytest.raises((ValueError, OSError), match=kind.file.rpartition("/")[2]):
        kind.read(tmp_path)
