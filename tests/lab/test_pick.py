import pytest

from minillm.lab.pick import pick, use_mine
from minillm.lab.project import chapter
from minillm.lab.task import put_answer, solution_source
from minillm.model.count import gib, kv_cache_bytes


@pytest.fixture(autouse=True)
def nobodys_answers():
    yield
    use_mine([])


def test_by_default_it_is_the_librarys_and_nothing_is_said(capsys):
    use_mine([])
    assert pick(kv_cache_bytes) is kv_cache_bytes
    assert capsys.readouterr().out == ""


def test_a_solved_task_gives_the_learners_function(my, capsys):
    put_answer(chapter("00"), "kv_cache_bytes", solution_source("0.2"))
    use_mine(["0.2"])
    mine = pick(kv_cache_bytes)
    assert mine is not kv_cache_bytes
    assert capsys.readouterr().out == "kv_cache_bytes: yours (task 0.2)\n"
    shape = {"n_layers": 96, "n_kv_heads": 96, "d_head": 128}
    assert mine(**shape, n_tokens=4096, n_sequences=1) == 18 * 2**30
    assert pick(gib) is gib


def test_an_unsolved_task_gives_the_librarys_and_says_why(my, capsys):
    use_mine(["0.2"])
    assert pick(kv_cache_bytes) is kv_cache_bytes
    assert "no " in capsys.readouterr().out
    put_answer(chapter("00"), "kv_cache_bytes", "def kv_cache_bytes(**shape):\n    return 1")
    assert pick(kv_cache_bytes) is kv_cache_bytes
    assert "your 0.2 is not solved yet" in capsys.readouterr().out


def test_a_task_that_replaces_nothing_is_refused_with_those_that_do():
    with pytest.raises(ValueError, match=r"0\.1 replaces nothing.*0\.2, 0\.5"):
        use_mine(["0.1"])
    with pytest.raises(ValueError, match="no task"):
        use_mine(["7.7"])


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("def kv_cache_bytes(:\n", "Python cannot read "),
        ("import no_such_module\n", "No module named 'no_such_module'"),
        ("x = 1\n", "your file defines no `kv_cache_bytes`"),
    ],
)
def test_a_file_that_cannot_be_used_gives_the_librarys_and_says_why(my, capsys, text, phrase):
    path = my / "exercises" / "ch00_claims.py"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    use_mine(["0.2"])
    assert pick(kv_cache_bytes) is kv_cache_bytes
    out = capsys.readouterr().out
    assert out.startswith("kv_cache_bytes: the library's (")
    assert phrase in out


def test_an_answer_that_borrows_the_librarys_is_not_plugged_in(my, capsys):
    borrowed = (
        "def kv_cache_bytes(**shape):\n"
        "    from minillm.model.count import kv_cache_bytes as k\n"
        "    return k(**shape)"
    )
    put_answer(chapter("00"), "kv_cache_bytes", borrowed)
    use_mine(["0.2"])
    assert pick(kv_cache_bytes) is kv_cache_bytes
    assert "your 0.2 is not solved yet" in capsys.readouterr().out


def test_a_new_choice_replaces_the_old_one(my, capsys):
    put_answer(chapter("00"), "kv_cache_bytes", solution_source("0.2"))
    use_mine(["0.2"])
    use_mine([])
    assert pick(kv_cache_bytes) is kv_cache_bytes


def test_one_task_may_be_named_without_a_list(my):
    put_answer(chapter("00"), "kv_cache_bytes", solution_source("0.2"))
    use_mine("0.2")
    assert pick(kv_cache_bytes) is not kv_cache_bytes


def test_an_answer_with_an_argument_of_before_is_done_and_takes_its_name_of_now(my):
    source = solution_source("0.2").replace("d_head", "head_width")
    put_answer(chapter("00"), "kv_cache_bytes", source)
    use_mine(["0.2"])
    mine = pick(kv_cache_bytes)
    assert mine is not kv_cache_bytes
    sizes = {"n_layers": 2, "n_kv_heads": 3, "n_tokens": 5, "n_sequences": 1}
    assert mine(d_head=4, **sizes) == kv_cache_bytes(d_head=4, **sizes)
