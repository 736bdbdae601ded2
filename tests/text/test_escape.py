"""minillm.text.escape: bytes that a person can read."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.text.escape import escape


@pytest.mark.parametrize(
    ("token", "spelled"),
    [
        (b" the", " the"),
        ("村里".encode(), "村里"),
        ("村".encode()[:2], r"\xe6\x9d"),
        (b"\n\t\r", r"\n\t\r"),
        (b"\\n", r"\\n"),
        (b"\x00", r"\x00"),
        ("\u00a0".encode(), r"\xc2\xa0"),
        (b"", ""),
    ],
)
def test_a_token_is_spelled_as_by_hand(token, spelled):
    assert escape(token) == spelled


@given(st.binary(max_size=30) | st.text(max_size=30).map(str.encode))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_what_is_escaped_is_printable(token):
    assert escape(token).isprintable()
