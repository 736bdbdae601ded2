"""minillm.town.names: any number of names, in two forms, no two alike."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.town.names import FAMILIES, SYLLABLES, name_of, names, syllables

# --- by hand ---


def test_a_name_and_its_chinese_form_have_the_same_syllables():
    english, chinese = name_of(5)
    assert "".join(SYLLABLES[part] for part in syllables(english)) == chinese
    assert len(chinese) == 2


def test_an_n_between_vowels_opens_the_next_syllable():
    assert syllables("Yanan") == ["ya", "nan"]
    assert syllables("Yannan") == ["yan", "nan"]


def test_a_name_that_is_taken_is_left_out():
    first, second, third = names(3)
    assert names(2, taken={first[0]}) == [second, third]


def test_the_first_names_have_two_syllables_and_then_come_three():
    size = len(SYLLABLES) ** 2
    assert len(name_of(size - 1)[1]) == 2
    assert len(name_of(size)[1]) == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: name_of(-1), "there is no name -1"),
        (lambda: names(-2), "at least 0; got -2"),
        (lambda: syllables("Joe"), "'Joe' is not a row of syllables"),
    ],
)
def test_what_cannot_be_named_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- law ---


def test_every_syllable_and_family_has_its_own_character():
    assert len(set(SYLLABLES.values())) == len(SYLLABLES)
    assert len(set(FAMILIES.values())) == len(FAMILIES)


@pytest.mark.parametrize("seed", ["tinytown", 1, "another"])
def test_five_thousand_names_are_all_different_in_both_forms(seed):
    english, chinese = zip(*names(5000, seed), strict=True)
    assert len(set(english)) == len(set(chinese)) == 5000


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=20, unique=True), st.text(max_size=3))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_names_with_different_numbers_differ_however_large(numbers, seed):
    forms = [name_of(number, seed) for number in numbers]
    for side in (0, 1):
        assert len({form[side] for form in forms}) == len(numbers)


@given(st.lists(st.sampled_from(sorted(SYLLABLES)), min_size=1, max_size=6))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_a_row_of_syllables_is_cut_in_one_way(parts):
    assert syllables("".join(parts).capitalize()) == parts
