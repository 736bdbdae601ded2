"""The wordings of requests: as many as were promised, all different, with the right blanks."""

import re

import pytest

from minillm.town.lists import FORMS as ALL_FORMS
from minillm.town.request_words import (
    FORMS,
    LISTS,
    N_WORDINGS,
    OPERATIONS,
    SEEN_WORDINGS,
    UNSEEN_WORDING,
    end,
    nth,
)

LANGUAGES = ("en", "zh")


# --- by hand -----------------------------------------------------------------------------------
def test_ordinals_and_ends_in_words():
    assert (nth(1, "en"), nth(6, "en"), nth(2, "zh")) == ("the first", "the sixth", "第二个")
    assert (end("last", None, "en"), end("last", None, "zh")) == ("the last", "最后一个")
    assert (end("first", 3, "en"), end("first", 2, "zh")) == ("the first three", "前两个")


def test_all_and_all_but_differ_in_the_exception_alone():
    for language, exception in (("en", " but {x}"), ("zh", "除了{x}，")):
        both = zip(OPERATIONS[language]["all"], OPERATIONS[language]["all-but"], strict=True)
        assert all(but.replace(exception, "") == plain for plain, but in both)


# --- law ---------------------------------------------------------------------------------------
def test_the_wordings_for_evaluation_are_not_among_those_for_training():
    assert sorted((*SEEN_WORDINGS, UNSEEN_WORDING)) == list(range(N_WORDINGS))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_operation_form_and_list_has_five_different_wordings(language):
    for ways in (LISTS[language], *OPERATIONS[language].values()):
        assert len(set(ways)) == N_WORDINGS
    for form, ways in FORMS[language].items():  # two ways to ask for commas say nothing
        assert len(set(ways)) == N_WORDINGS - (form == "commas")
    assert tuple(FORMS[language]) == ALL_FORMS


def test_both_languages_have_the_same_operations_with_the_same_blanks():
    assert list(OPERATIONS["en"]) == list(OPERATIONS["zh"])
    for operation in OPERATIONS["en"]:
        ways = [way for language in LANGUAGES for way in OPERATIONS[language][operation]]
        blanks = {tuple(sorted(re.findall(r"{(\w)}", way))) for way in ways}
        assert len(blanks) == 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_wording_is_said_of_two_operations_that_an_argument_does_not_tell_apart(language):
    by_argument = ({"first", "last", "nth"}, {"without", "skip"})
    for n in range(N_WORDINGS):
        for a, ways in OPERATIONS[language].items():
            for b, others in OPERATIONS[language].items():
                together = a == b or any({a, b} <= group for group in by_argument)
                assert (ways[n] in others) == together
