import pytest

from minillm.lab.expect import ExpectationMissed, expect, number


def test_a_value_in_its_band_is_printed_with_the_band(capsys):
    expect("loss", 1.5831, at_most=1.65)
    expect("tokens a call", 2, at_least=1.8)
    expect("share", 0.31, between=(0.3, 0.4))
    expect("cache, GiB", 18.0, equals=18)
    assert capsys.readouterr().out.splitlines() == [
        "✔ loss: 1.583 (at most 1.65)",
        "✔ tokens a call: 2 (at least 1.8)",
        "✔ share: 0.31 (between 0.3 and 0.4)",
        "✔ cache, GiB: 18 (exactly 18)",
    ]


@pytest.mark.parametrize(
    "band",
    [{"at_most": 1.4}, {"at_least": 1.6}, {"between": (0, 1)}, {"equals": 1.4999}],
)
def test_a_missed_band_raises_with_what_was_expected_and_measured(band, capsys):
    with pytest.raises(ExpectationMissed, match=r"loss: expected .*measured 1\.5\."):
        expect("loss", 1.5, **band)
    assert capsys.readouterr().out == ""


def test_both_ends_of_a_band_belong_to_it(capsys):
    expect("x", 1, between=(1, 2))
    expect("x", 2, between=(1, 2))
    expect("x", 3, at_least=3)
    expect("x", 3, at_most=3)
    assert capsys.readouterr().out.count("✔") == 4


def test_a_number_that_is_not_one_lies_in_no_band():
    for band in ({"at_most": 1}, {"at_least": 1}, {"between": (0, 1)}, {"equals": 1}):
        with pytest.raises(ExpectationMissed, match="nan"):
            expect("x", float("nan"), **band)


def test_no_band_or_two_bands_or_an_empty_band_are_errors():
    with pytest.raises(ValueError, match="exactly one of"):
        expect("x", 1)
    with pytest.raises(ValueError, match="at_least, at_most"):
        expect("x", 1, at_least=0, at_most=2)
    with pytest.raises(ValueError, match="empty band"):
        expect("x", 1, between=(2, 1))


def test_a_sentence_that_would_break_the_line_is_an_error():
    with pytest.raises(ValueError, match="one line"):
        expect("x\ny", 1, equals=1)
    with pytest.raises(ValueError, match="one line"):
        expect("✔ x", 1, equals=1)


def test_an_unknown_claim_is_named_together_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no claim 'kv-cash'.*weights-350-gb"):
        expect("x", 1, equals=1, claim="kv-cash")


def test_numbers_are_printed_whole_or_to_four_digits():
    values = (7, 18.0, 1 / 3, 1.23456e-7, 12345.678, 10**9, True, 9999.7, 10**4, 456789012.3)
    assert [number(x) for x in values] == [
        "7", "18", "0.3333", "1.235e-07", "12,350", "1,000,000,000", "1", "10,000", "10,000",
        "456,800,000",
    ]  # fmt: skip


def test_a_count_that_is_off_by_one_is_not_exact(capsys):
    expect("parameters", 6_738_415_616, equals=6_738_415_616)
    with pytest.raises(ExpectationMissed):
        expect("parameters", 6_738_415_617, equals=6_738_415_616)
    expect("share", 0.1 + 0.2, equals=0.3)
