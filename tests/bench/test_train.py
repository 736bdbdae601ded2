"""minillm.bench.train: the benchmark runs, and its arithmetic is right."""

import math
from dataclasses import replace

import numpy as np
import pytest

from minillm.bench import train as bench
from minillm.bench.train import Runner, loss_at, seconds_at
from minillm.data.packing import Packed
from minillm.recipes.data import END
from minillm.text.bpe import train as learn

CURVE = [(2.0, 4.0), (4.0, 3.0), (6.0, 3.5), (8.0, 1.5)]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """About 20,000 letters of sentences."""
    drawn = np.random.default_rng(0)
    who, does, what = ("Mei", "Bao", "Old Wu"), ("sells", "finds", "eats"), ("plums", "rice", "tea")
    sentences = [
        f"{drawn.choice(who)} {drawn.choice(does)} {drawn.choice(what)}.\n" for _ in range(1250)
    ]
    file = tmp_path_factory.mktemp("text") / "village.txt"
    file.write_text("".join(sentences), encoding="utf-8")
    return file


def runner(name="ours", n_steps=10, seconds=10.0, curve=CURVE):
    return Runner(
        name=name, steps=iter(range(n_steps)), n_steps=n_steps, evaluate=lambda: 1.0,
        n_parameters=1234, seconds=seconds, curve=list(curve),
    )  # fmt: skip


# --- by hand ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("seconds", "loss"), [(0.0, 4.0), (2.0, 4.0), (3.0, 3.5), (5.0, 3.25), (7.0, 2.5), (99.0, 1.5)]
)
def test_between_evaluations_a_straight_line_is_drawn(seconds, loss):
    assert loss_at(CURVE, seconds) == loss


@pytest.mark.parametrize(
    ("loss", "seconds"),
    [(5.0, 2.0), (4.0, 2.0), (3.5, 3.0), (3.25, 3.5), (3.0, 4.0), (2.5, 7.0), (1.5, 8.0)],
)
def test_a_loss_is_reached_when_it_is_first_so_low(loss, seconds):
    assert seconds_at(CURVE, loss) == seconds


def test_a_loss_that_was_never_reached_has_no_time():
    assert math.isnan(seconds_at(CURVE, 1.49))
    assert math.isnan(seconds_at(CURVE[:1], 3.0))


def test_steps_are_timed_and_evaluations_are_not(monkeypatch):
    ticks = iter([0.0, 9.0, 20.0, 22.0])
    monkeypatch.setattr(bench.time, "process_time", lambda: next(ticks))
    ours = runner(seconds=0.0, curve=[])
    ours.turn(3)
    ours.turn(2)
    assert (ours.seconds, ours.curve) == (11.0, [(9.0, 1.0), (11.0, 1.0)])
    assert next(ours.steps) == 5


def test_figures_are_those_of_the_curves(capsys):
    theirs = runner("nanoGPT", n_steps=5, seconds=7.0, curve=[(7.0, 3.25)])
    figures = bench.figures_of(theirs, runner(), n_held_out=99, quick=False)
    assert figures == {
        "nanogpt_loss": 3.25, "nanogpt_s": 7.0, "nanogpt_ms": 1400.0, "loss": 1.5, "s": 10.0,
        "ms": 1000.0, "loss_at_equal_time": 2.5, "s_at_equal_loss": 3.5, "n_held_out": 99,
        "nanogpt_curve": [(7.0, 3.25)], "curve": CURVE,
    }  # fmt: skip
    said = capsys.readouterr().out
    assert "loss at equal time, 7 s: 2.500" in said
    assert "time at equal loss, 3.250: 4 s, 0.50 of nanoGPT's" in said
    assert "in no more time: MISSED" in said  # low enough, but later than nanoGPT


@pytest.mark.parametrize(
    ("loss", "met"), [(1.61, []), (1.6, ["target"]), (1.55, ["target", "stretch"])]
)
def test_the_target_is_a_loss_in_no_more_time(loss, met, capsys):
    theirs = runner("nanoGPT", seconds=10.0, curve=[(10.0, 1.6)])
    bench.figures_of(theirs, runner(curve=[(10.0, loss)]), n_held_out=99, quick=False)
    lines = [line for line in capsys.readouterr().out.splitlines() if "at most" in line]
    assert [line.split(":")[0] for line in lines if line.endswith(": met")] == met
    assert len(lines) == 2


def test_what_was_never_reached_is_said_in_words(capsys):
    theirs = runner("nanoGPT", curve=[(10.0, 1.0)])
    assert math.isnan(bench.figures_of(theirs, runner(), 99, quick=True)["s_at_equal_loss"])
    said = capsys.readouterr().out
    assert "time at equal loss, 1.000: never reached" in said
    assert "target" not in said  # figures of a quick run mean nothing


# --- law ----------------------------------------------------------------------------------------
def test_a_quick_run_returns_and_prints_every_figure(text, capsys):
    figures = bench.run(quick=True, text=text)
    said = capsys.readouterr().out
    n_letters = len(text.read_text(encoding="utf-8"))
    n_held_out = n_letters - int(0.9 * n_letters)
    assert f"{n_letters - n_held_out:,} letters to learn from, {n_held_out:,} held out" in said
    assert figures.pop("n_held_out") == n_held_out
    table = {line.split()[0]: line.split()[1:] for line in said.splitlines() if " " in line}
    for name, key in (("nanoGPT", "nanogpt_"), ("shakespeare", "")):
        loss, seconds, ms = (figures.pop(key + end) for end in ("loss", "s", "ms"))
        assert 1 < loss < 6
        assert ms == pytest.approx(1000 * seconds / bench.N_TURNS)
        assert table[name][1:] == ["10", f"{ms:.1f}", f"{seconds:.1f}", f"{loss:.3f}"]
    assert set(figures) == {"loss_at_equal_time", "s_at_equal_loss", "curve", "nanogpt_curve"}
    assert len(figures["curve"]) == bench.N_TURNS
    assert f"{figures['loss_at_equal_time']:.3f}" in said


def test_turn_by_turn_both_take_all_their_steps(text, monkeypatch):
    ours, theirs = bench.chosen(True, text, 0)
    both = ours, replace(theirs, n_steps=33)
    runners = []
    monkeypatch.setattr(bench, "chosen", lambda *_: both)
    monkeypatch.setattr(bench, "figures_of", lambda *each, **_: runners.extend(each))
    bench.run(quick=True, text=text)
    assert [each.n_steps for each in runners] == [33, 10]
    for each in runners:
        assert next(each.steps, "no step is left") == "no step is left"
        assert len(each.curve) == 10
        assert each.curve[-1][0] == each.seconds


def test_before_the_first_step_both_pay_about_the_logarithm_of_their_vocabulary(text):
    ours, theirs = bench.chosen(True, text, 0)
    letters = {part: ours.data.documents(part)[0] for part in ("train", "held out")}
    n_letters = len(set(text.read_text(encoding="utf-8")))
    found = bench.of_nanogpt(letters, theirs, 0).evaluate()
    assert found == pytest.approx(math.log(n_letters), rel=0.02)
    assert bench.of_recipe(ours).evaluate() == pytest.approx(math.log(257), rel=0.03)


def test_a_seed_decides_first_weights_and_order(text):
    ours, theirs = bench.chosen(True, text, 5)
    assert ours.seed == 5
    letters = {part: ours.data.documents(part)[0] for part in ("train", "held out")}
    first = [next(bench.of_nanogpt(letters, theirs, seed).steps).loss for seed in (5, 5, 6)]
    assert first[0] == first[1] != first[2]


def test_in_earnest_the_recipes_are_as_they_stand():
    ours, theirs = bench.chosen(False, None, 0)
    assert (ours, theirs) == (bench.find("shakespeare"), bench.nanogpt.Recipe())


# --- what stops it ------------------------------------------------------------------------------
def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no file or folder .*nowhere\.txt"):
        bench.run(quick=True, text=tmp_path / "nowhere.txt")


@pytest.mark.parametrize(
    ("n_lines", "words"),
    [
        (70, "the held-out part of shakespeare .*context_length=128 needs 129"),
        (9, "the part 'held out' of the text has 16 letters"),
    ],
)
def test_too_short_a_text_is_refused_before_the_first_step(tmp_path, monkeypatch, n_lines, words):
    monkeypatch.setattr(Runner, "turn", lambda *_: pytest.fail("it began"))
    file = tmp_path / "short.txt"
    file.write_text("Mei sells plums.\n" * n_lines, encoding="utf-8")  # a tenth is held out
    with pytest.raises(ValueError, match=words):
        bench.run(quick=True, text=file)


def test_letters_of_more_than_a_byte_are_refused(tmp_path):
    file = tmp_path / "accents.txt"
    file.write_text("Mei drinks café au lait à 8.\n" * 100, encoding="utf-8")
    with pytest.raises(ValueError, match="the same in ASCII only; the text has 'à' and 2 such"):
        bench.run(quick=True, text=file)


def test_a_loss_of_tokens_is_told_by_the_letter():
    tokenizer = learn("plum plums " * 20, 260, special_tokens=[END])
    text = "plum plums plum plums"
    packed = Packed([tokenizer.encode(text)], end_id=259, context_length=2, batch_size=1)
    targets = packed.stream[1 : 2 * packed.n_places + 1].tolist()
    n_letters = len(tokenizer.decode([token for token in targets if token != 259]))
    assert n_letters > len(targets)  # a token is more than a letter here
    assert bench.tokens_a_letter(packed, tokenizer) == len(targets) / n_letters
