import pytest

from minillm.lab.ledger import as_data, in_full, table


def test_the_table_has_a_line_a_claim_with_what_was_measured():
    text = table()
    (line,) = [line for line in text.splitlines() if " kv-cache-576 " in line]
    assert line.endswith(" 576, 18")
    assert text.splitlines()[-1].split()[1] == "claims:"


def test_one_claim_in_full_has_its_original_words_and_its_measurement():
    text = in_full("kv-cache-576")
    assert "576" in text
    assert "cannot show" in text
    assert "measured: KV cache of one such conversation, GiB: 18 (exactly 18)" in text
    assert text.count("measured: ") == 2


def test_the_data_hold_every_field_and_measurement():
    (entry,) = as_data("kv-cache-576")
    assert entry["id"] == "kv-cache-576"
    assert {m["value"] for m in entry["measured"]} == {"576", "18"}
    assert len(as_data()) >= 15


def test_an_unknown_claim_is_told_which_exist():
    with pytest.raises(ValueError, match=r"no claim 'x'.*kv-cache-576"):
        in_full("x")
