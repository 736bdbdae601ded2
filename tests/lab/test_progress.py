from minillm.lab.predict import predict
from minillm.lab.progress import table
from minillm.lab.task import remember


def test_a_new_learner_has_solved_nothing(my):
    text = table()
    assert "00 · Count before you believe" in text
    assert "  0.1  ☐     mended_slide" in text
    assert "\n0 of " in text


def test_what_was_done_is_counted(my):
    remember("0.1", status="done", tries=1)
    remember("0.2", status="wrong", tries=2, hints=1, seen=True)
    remember("0.3", status="given")
    predict("a", 20).reveal(18)
    text = table()
    assert "0.1  ✔ " in text
    assert "1 try\n" in text
    assert "2 tries, 1 of 3 hints, solution seen" in text
    assert "0.3  given" in text
    assert "\n1 of " in text
    assert "1 of 1 guesses within a factor of two" in text


def test_guesses_that_are_far_too_high_or_too_low_are_not_close(my):
    predict("high", 1000).reveal(18)
    predict("low", 0.1).reveal(18)
    predict("close", 30).reveal(18)
    assert "1 of 3 guesses within a factor of two" in table()


def test_chapters_that_cannot_be_opened_yet_are_not_listed(my):
    assert "A town of agents" not in table()
