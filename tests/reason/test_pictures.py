import torch

from minillm.lab.figures import figure
from minillm.model.config import TransformerConfig
from minillm.reason.pictures import (
    attention_weights,
    draw_accuracies,
    draw_at_once_and_in_steps,
    draw_attention,
    draw_ranges,
)


def small_model(n_layers=2):
    return TransformerConfig(vocab_size=12, d_model=16, n_layers=n_layers).build(seed=0).eval()


def test_weights_are_causal_and_each_row_sums_to_one():
    tokens = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])
    for weights in attention_weights(small_model(), tokens):
        assert torch.allclose(weights.sum(-1), torch.ones(2, 4, 4), atol=1e-5)
        assert torch.equal(weights, weights.tril())


def test_weights_give_the_same_stream_as_the_model_itself():
    model, tokens = small_model(1), torch.tensor([[3, 1, 4]])
    (weights,) = attention_weights(model, tokens)
    block, x = model.blocks[0], model.embedding(tokens)
    *_, v = block.mixer.project(block.mixer_norm(x), torch.arange(3))
    x = x + block.mixer.output((weights @ v).transpose(1, 2).flatten(2))
    ((stream, _),) = model.layers(tokens)
    assert torch.allclose(x + block.ffn(block.ffn_norm(x), None)[0], stream, atol=1e-5)


def test_a_row_looks_as_it_does_alone():
    model, tokens = small_model(), torch.tensor([[3, 1, 4], [5, 9, 2]])
    both = attention_weights(model, tokens)[1]
    alone = [attention_weights(model, row[None])[1] for row in tokens]
    assert torch.allclose(both, torch.cat(alone), atol=1e-6)


def test_in_steps_the_question_leads_to_every_pair_of_blocks():
    (ax,) = draw_at_once_and_in_steps(["one", "two"]).axes
    words = [text.get_text() for text in ax.texts]
    assert words.count("2 blocks") == 4 and words.count("answer") == 2
    arrows = [text for text in ax.texts if getattr(text, "arrow_patch", None)]
    asks = next(text for text in ax.texts if "in steps" in text.get_text()).get_position()
    assert sum(text.xyann == asks for text in arrows) == 3


def test_an_attention_map_has_a_row_for_each_word_that_is_written():
    ax = figure()[1]
    draw_attention(ax, torch.rand(2, 3), ["B", "A"], ["1-3", "C", "D"])
    assert ax.images[0].get_array().shape == (2, 3)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["1-3", "C", "D"]


def test_each_seed_is_a_line_and_the_name_of_a_format_stands_where_it_is_apart():
    ax = figure()[1]
    shares = {"steps": [(100, 90), (98, 86)], "direct": [(98, 2)], "dots": [(9, 2)]}
    draw_accuracies(ax, (1, 2), shares, [10, 10])
    lines = [tuple(line.get_ydata()) for line in ax.lines if line.get_linestyle() == "-"]
    assert lines == [(100, 90), (98, 86), (98, 2), (9, 2)]
    assert [text.get_text() for text in ax.texts] == ["steps", "direct", "dots", "guessing"]
    assert [text.xy for text in ax.texts[:3]] == [(2, 90), (1, 98), (1, 9)]


def test_ranges_show_every_seed_and_the_mean():
    ax = figure()[1]
    draw_ranges(ax, {"one": [50, 54], "vote": [70, 72]})
    assert [list(line.get_xdata()) for line in ax.lines] == [[50, 54], [70, 72]]
    assert [text.get_text() for text in ax.texts] == ["52", "71"]
    assert ax.yaxis_inverted()
