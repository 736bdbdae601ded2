import numpy as np
import pytest
from matplotlib.colors import to_rgba

from minillm.baselines.pictures import draw_next_tokens, draw_race, draw_readings
from minillm.lab.figures import figure


def test_the_token_that_came_is_shown_in_blue_even_if_it_was_unlikely():
    fig, ax = figure()
    chances = {"a": 0.3, "b": 0.25, "c": 0.2, "d": 0.12, "e": 0.08, "f": 0.05}
    draw_next_tokens([ax], [chances], ["f"])
    fig.canvas.draw()
    assert [text.get_text() for text in ax.get_yticklabels()] == ["f", "d", "c", "b", "a"]
    blue = [bar for bar in ax.patches if bar.get_facecolor() == ax.patches[0].get_facecolor()]
    assert len(blue) == 1 and blue[0].get_width() == pytest.approx(0.05)
    assert ax.get_xlabel() == "p = 0.050"


def test_a_race_draws_each_model_and_an_arrow_from_the_last_to_a_better_loss():
    ax = figure()[1]
    losses = {"order 3": (0.1, 0.01, 0.002), "network": (1.1, 0.06, 0.02)}
    draw_race(ax, (16, 256, 4096), losses, ("at step 32", 0.3))
    assert [tuple(curve.get_ydata()) for curve in ax.lines] == list(losses.values())
    (arrow,) = [text for text in ax.texts if text.arrow_patch is not None]
    assert (arrow.xy[1], arrow.xyann[1]) == (0.3, 1.1)
    assert arrow.xy[0] == arrow.xyann[0] < 16
    colour = arrow.arrow_patch.get_edgecolor()
    assert colour == to_rgba(ax.lines[-1].get_color()) != to_rgba(ax.lines[0].get_color())


def test_the_training_loss_is_averaged_and_stays_at_its_steps():
    axes = figure(columns=2)[1]
    rising = np.arange(20.0)
    draw_readings(axes, {"one": (rising, rising), "two": (rising, rising)}, smooth=5)
    _, training, held_out = axes[1].lines
    assert training.get_xdata() == pytest.approx(np.arange(2, 18))
    assert training.get_ydata() == pytest.approx(np.arange(2, 18))
    assert held_out.get_ydata() == pytest.approx(rising)
    assert not axes[1].texts
