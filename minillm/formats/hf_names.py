"""Where the tensors of a transformers checkpoint stand in our model.

The numbers are the same, only names and places differ: our `qkv` is three of their matrices one
above the other, our `gate_up` is two. So each of theirs is some rows of one of ours.

    ours                            theirs
    embedding                       model.embed_tokens
    blocks.0.mixer_norm             model.layers.0.input_layernorm
    blocks.0.mixer.qkv              model.layers.0.self_attn.q_proj, .k_proj, .v_proj
    blocks.0.mixer.q_norm, .k_norm  model.layers.0.self_attn.q_norm, .k_norm
    blocks.0.mixer.output           model.layers.0.self_attn.o_proj
    blocks.0.ffn_norm               model.layers.0.post_attention_layernorm
    blocks.0.ffn.gate_up            model.layers.0.mlp.gate_proj, .up_proj
    blocks.0.ffn.down               model.layers.0.mlp.down_proj
    norm                            model.norm
    head                            lm_head

Nothing is permuted: transformers pairs the numbers of a head as `minillm.model.rope` does.

Chapter: 04
"""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from minillm.formats.hf_config import to_config
from minillm.model.config import TransformerConfig

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


class Place(NamedTuple):
    """Where one of their tensors stands among ours.

    Args:
        ours: the name of our tensor, as in `model.state_dict()`.
        first_row: of theirs in it.
        shape: of theirs.
    """

    ours: str
    first_row: int
    shape: tuple[int, ...]


def places(config: TransformerConfig) -> dict[str, Place]:
    """For every tensor of a checkpoint of transformers, by its name there, its place in our model.

    Raises:
        ValueError: what `to_config` refuses.

    Example:
        >>> there = places(TransformerConfig(vocab_size=50, d_model=16, n_layers=1))
        >>> there["model.layers.0.self_attn.v_proj.weight"]  # under 16 rows of q and 16 of k
        Place(ours='blocks.0.mixer.qkv.weight', first_row=32, shape=(16, 16))
    """
    content = to_config(config)
    d_model, d_ff = content["hidden_size"], content["intermediate_size"]
    n_q, n_kv = (
        content[f"num_{of}_heads"] * content["head_dim"] for of in ("attention", "key_value")
    )
    block = [
        ("mixer_norm.weight", "input_layernorm", (d_model,)),
        ("mixer.qkv.weight", "self_attn.q_proj", (n_q, d_model)),
        ("mixer.qkv.weight", "self_attn.k_proj", (n_kv, d_model)),
        ("mixer.qkv.weight", "self_attn.v_proj", (n_kv, d_model)),
        ("mixer.output.weight", "self_attn.o_proj", (d_model, n_q)),
        ("ffn_norm.weight", "post_attention_layernorm", (d_model,)),
        ("ffn.gate_up.weight", "mlp.gate_proj", (d_ff, d_model)),
        ("ffn.gate_up.weight", "mlp.up_proj", (d_ff, d_model)),
        ("ffn.down.weight", "mlp.down_proj", (d_model, d_ff)),
    ]
    if content["model_type"] == "qwen3":
        block += [
            ("mixer.q_norm", "self_attn.q_norm", (content["head_dim"],)),
            ("mixer.k_norm", "self_attn.k_norm", (content["head_dim"],)),
        ]
    listed = [("embedding.weight", EMBEDDING, (config.vocab_size, d_model))]
    listed += [
        (f"blocks.{n}.{ours}", f"model.layers.{n}.{theirs}.weight", shape)
        for n in range(config.n_layers)
        for ours, theirs, shape in block
    ]
    listed += [("norm.weight", "model.norm.weight", (d_model,))]
    if not config.tied_embeddings:
        listed += [("head.weight", HEAD, (config.vocab_size, d_model))]
    n_rows: Counter[str] = Counter()  # of ours, so far
    place_of = {}
    for ours, theirs, shape in listed:
        place_of[theirs] = Place(ours, n_rows[ours], shape)
        n_rows[ours] += shape[0]
    return place_of


def rows(state: Mapping[str, Tensor], place: Place) -> Tensor:
    """The rows of our tensor that one of theirs takes; a view, to be read or to be written."""
    n_rows = place.shape[0]
    return state[place.ours][place.first_row : place.first_row + n_rows]
