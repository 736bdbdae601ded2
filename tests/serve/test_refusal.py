import pytest

from minillm.serve.refusal import RequestError, shown


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (429, "rate_limit_error"), (503, "server_error")],
)
def test_a_refusal_has_openais_form(status, kind):
    error = RequestError("n must be 1", param="n", status=status, code="odd")
    assert error.as_object() == {
        "error": {"message": "n must be 1", "type": kind, "param": "n", "code": "odd"}
    }


def test_what_came_from_outside_is_shown_but_not_at_any_length():
    assert shown(["plum"]) == "['plum']"
    assert len(shown("plum" * 1000)) == 78
