"""Every parameter is in one group; what decays and what is hidden is told apart by its place."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minillm.model.config import TransformerConfig
from minillm.optim.groups import groups, hidden_matrices_and_others, matrices_and_others


def layers(*widths):
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths)))


def transformer(**options):
    return TransformerConfig(vocab_size=50, d_model=16, n_layers=2, **options).build(seed=0)


def named(model, parameters):
    names = {id(p): name for name, p in model.named_parameters()}
    return [names[id(p)] for p in parameters]


class Tied(nn.Module):
    """A head that is the table; and a block whose matrix is used outside too."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(4, 3)
        self.blocks = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3, bias=False)])
        self.blocks[0].bare = nn.Parameter(torch.zeros(3, 3))
        self.head = nn.Linear(3, 4, bias=False)
        self.head.weight = self.embedding.weight
        self.after = nn.Linear(3, 3, bias=False)
        self.after.weight = self.blocks[1].weight


# --- by hand -----------------------------------------------------------------------------------
def test_parts_become_groups_with_their_options_in_order():
    model = layers(3, 2)
    made = groups(model, ([model[0].bias], {"lr": 0.1, "kind": "x"}), ([model[0].weight], {}))
    assert [set(group) for group in made] == [{"params", "lr", "kind"}, {"params"}]
    assert made[0]["params"][0] is model[0].bias
    assert made[1]["params"][0] is model[0].weight
    assert (made[0]["lr"], made[0]["kind"]) == (0.1, "x")


def test_a_part_without_parameters_is_left_out_and_an_iterator_is_read_once():
    model = layers(3, 2)
    [group] = groups(model, ([], {"lr": 1.0}), (model.parameters(), {"lr": 2.0}))
    assert (len(group["params"]), group["lr"]) == (2, 2.0)


def test_what_is_tied_counts_once():
    model = Tied()
    rest = [p for p in model.parameters() if p is not model.embedding.weight]
    twice = [model.embedding.weight, model.head.weight]
    first, second = groups(model, (twice, {}), (rest, {}))
    assert [p is model.embedding.weight for p in first["params"]] == [True]
    assert len(second["params"]) == len(rest)


def test_what_is_frozen_may_be_left_out_and_stays_where_it_is_put():
    model = layers(3, 2)
    model[0].bias.requires_grad_(False)
    assert len(groups(model, ([model[0].weight], {}))[0]["params"]) == 1
    assert len(groups(model, (model.parameters(), {}))[0]["params"]) == 2


def test_gains_and_biases_do_not_decay():
    model = transformer()
    matrices, others = matrices_and_others(model)
    assert len(matrices) == 2 + 2 * 4
    assert named(model, others) == [
        "blocks.0.mixer_norm.weight",
        "blocks.0.ffn_norm.weight",
        "blocks.1.mixer_norm.weight",
        "blocks.1.ffn_norm.weight",
        "norm.weight",
    ]


@pytest.mark.parametrize("tied", [True, False])
def test_hidden_is_what_stands_in_the_blocks_and_not_the_table_or_the_head(tied):
    model = transformer(tied_embeddings=tied)
    hidden, others = hidden_matrices_and_others(model)
    parts = ("mixer.qkv", "mixer.output", "ffn.gate_up", "ffn.down")
    assert named(model, hidden) == [f"blocks.{n}.{part}.weight" for n in (0, 1) for part in parts]
    outside = {"embedding.weight"} if tied else {"embedding.weight", "head.weight"}
    assert {name for name in named(model, others) if "norm" not in name} == outside


def test_what_a_block_shares_with_the_outside_or_holds_bare_is_not_hidden():
    model = Tied()
    hidden, others = hidden_matrices_and_others(model)
    assert named(model, hidden) == ["blocks.0.weight"]
    assert set(named(model, others)) == {
        "embedding.weight",
        "blocks.0.bias",
        "blocks.0.bare",
        "blocks.1.weight",
    }


# --- reference ---------------------------------------------------------------------------------
def test_torch_takes_the_groups_as_they_are():
    model = transformer()
    hidden, others = hidden_matrices_and_others(model)
    made = groups(model, (hidden, {"lr": 0.5}), (others, {"lr": 0.25}))
    optimizer = torch.optim.SGD(made)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.25]
    assert optimizer.param_groups[0]["params"] == hidden


# --- law ---------------------------------------------------------------------------------------
@given(st.lists(st.integers(0, 2), min_size=8, max_size=8))
@settings(max_examples=40, deadline=None)
def test_any_cut_into_parts_covers_the_model_once(chosen):
    model = layers(2, 2, 2, 2, 2)
    everything = list(model.parameters())
    parts = [[p for p, n in zip(everything, chosen, strict=True) if n == part] for part in range(3)]
    made = groups(model, *((part, {}) for part in parts))
    assert sorted(id(p) for group in made for p in group["params"]) == sorted(map(id, everything))
    assert len(made) == len(set(chosen))


@given(st.sampled_from([matrices_and_others, hidden_matrices_and_others]), st.booleans())
@settings(max_examples=8, deadline=None)
def test_both_cuts_cover_the_model_once(cut, tied):
    model = transformer(tied_embeddings=tied)
    made = groups(model, *((part, {}) for part in cut(model)))
    assert sum(len(group["params"]) for group in made) == len(list(model.parameters()))


# --- what stops it -----------------------------------------------------------------------------
def test_a_forgotten_parameter_is_named():
    model = layers(3, 2, 2)
    with pytest.raises(ValueError, match=r"^no part has 0\.bias \[2\], 1\.bias \[2\]; every para"):
        groups(model, ([model[0].weight, model[1].weight], {}))


def test_a_parameter_of_two_parts_is_named_with_all_its_names():
    model = Tied()
    with pytest.raises(
        ValueError, match=r"^more than one part has embedding\.weight = head\.weight \[4, 3\]; "
    ):
        groups(model, (model.parameters(), {}), ([model.head.weight], {}))


def test_a_frozen_parameter_may_not_be_in_two_parts_either():
    model = layers(3, 2)
    model[0].bias.requires_grad_(False)
    with pytest.raises(ValueError, match=r"^more than one part has 0\.bias \[2\]; "):
        groups(model, (model.parameters(), {}), ([model[0].bias], {}))


def test_a_parameter_of_another_model_is_told_by_its_shape():
    model = layers(3, 2)
    with pytest.raises(ValueError, match=r"^not the model's: one of \[5, 7\]; "):
        groups(model, ([*model.parameters(), nn.Parameter(torch.zeros(5, 7))], {}))


def test_all_that_is_wrong_is_said_at_once():
    model, stranger = layers(3, 2), nn.Parameter(torch.zeros(7))
    with pytest.raises(
        ValueError,
        match=r"^no part has 0\.bias \[2\]; more than one part has 0\.weight \[2, 3\]; "
        r"not the model's: one of \[7\]; every",
    ):
        groups(model, ([model[0].weight], {}), ([model[0].weight, stranger], {}))


def test_options_may_not_hide_the_parameters():
    model = layers(3, 2)
    with pytest.raises(ValueError, match='an option is named "params"'):
        groups(model, (model.parameters(), {"params": []}))


def test_a_model_without_blocks_is_told_to_choose_by_hand():
    with pytest.raises(ValueError, match=r"in model\.blocks, an nn\.ModuleList, and Sequential"):
        hidden_matrices_and_others(layers(3, 2))
