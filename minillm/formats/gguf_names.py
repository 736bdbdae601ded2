"""A model as llama.cpp knows it: which of its architectures, its names for our numbers and tensors.

    ours, as transformers names it            in a GGUF file
    model.embed_tokens                        token_embd
    model.layers.0.input_layernorm            blk.0.attn_norm
    model.layers.0.self_attn.q_proj           blk.0.attn_q
    model.layers.0.mlp.gate_proj              blk.0.ffn_gate
    model.norm                                output_norm
    lm_head                                   output, left out where it is the table of the tokens

**Two orders of rotation.** RoPE turns pairs of a head's numbers. transformers, we and llama.cpp's
`qwen3` pair number i with number i + K/2; llama.cpp's `llama` pairs neighbours, 2i with 2i + 1. So
for `llama` the rows of the query's and the key's matrix are dealt out anew, head by head:

    rows of a head, K = 6     0 1 2 3 4 5     becomes     0 3 1 4 2 5

The scores are the same then, since queries and keys are reordered alike. Forget it and the model
speaks nonsense, without any error.

Paper: none; the conventions are those of llama.cpp: convert_hf_to_gguf.py (`permute`, the names),
`llama_model_rope_type` of src/llama-model.cpp, the keys of docs/gguf.md.
Differs: no experts, no windows and no scaled rotations, since readers of these architectures do
not read them back alike: what would change a logit is refused by name.

Chapter: 18
"""

from typing import Any

from torch import Tensor

from minillm.formats.hf import finite, listed
from minillm.formats.hf_config import to_config
from minillm.formats.hf_names import places, rows
from minillm.model.config import TransformerConfig
from minillm.model.transformer import Transformer

#: llama.cpp's architectures, by the model type of transformers. Its Mistral is a Llama.
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen3": "qwen3"}
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
IN_A_BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}

TURNED = ("q_proj.weight", "k_proj.weight")  # what makes queries and keys, which RoPE turns


def model_metadata(config: TransformerConfig) -> dict[str, Any]:
    """What a file says of a model's architecture and sizes.

    Raises:
        ValueError: llama.cpp has no such model among the two architectures, and why.

    Example:
        >>> metadata = model_metadata(TransformerConfig(vocab_size=50, d_model=16, n_layers=1))
        >>> metadata["general.architecture"], metadata["llama.embedding_length"]
        ('llama', 16)
    """
    content = to_config(config)
    if windows := {part.window_tokens for part in config.mixers} - {None}:
        raise ValueError(_no_such(f"windows, window_tokens={min(windows)}"))
    if content["rope_parameters"]["rope_type"] != "default":
        raise ValueError(_no_such(f"a scaled rotation, {config.mixers[0].rope.scaling}"))
    kind = ARCHITECTURES[content["model_type"]]
    sizes = {
        "context_length": content["max_position_embeddings"],
        "embedding_length": content["hidden_size"],
        "block_count": content["num_hidden_layers"],
        "feed_forward_length": content["intermediate_size"],
        "attention.head_count": content["num_attention_heads"],
        "attention.head_count_kv": content["num_key_value_heads"],
        "attention.key_length": content["head_dim"],
        "attention.value_length": content["head_dim"],
        "attention.layer_norm_rms_epsilon": content["rms_norm_eps"],
        "rope.dimension_count": content["head_dim"],
        "rope.freq_base": content["rope_theta"],
        "vocab_size": content["vocab_size"],
    }
    return {"general.architecture": kind} | {f"{kind}.{key}": sizes[key] for key in sizes}


def model_tensors(model: Transformer) -> dict[str, Tensor]:
    """The tensors of a model by llama.cpp's names, in its order of rotation.

    Raises:
        ValueError: what `model_metadata` refuses; the model is not what its config says, as one
            that is quantized; a number is NaN or infinite.

    Example:
        >>> model = TransformerConfig(vocab_size=50, d_model=16, n_layers=1).build()
        >>> list(model_tensors(model))[:3]
        ['token_embd.weight', 'blk.0.attn_norm.weight', 'blk.0.attn_q.weight']
    """
    if model.config is None:
        raise ValueError("GGUF holds a model that was built from a config; this one has none")
    is_llama = model_metadata(model.config)["general.architecture"] == "llama"
    expected, state = model.config.build(device="meta").state_dict(), model.state_dict()
    shapes = [{name: tensor.shape for name, tensor in part.items()} for part in (expected, state)]
    if wrong := dict(shapes[0].items() ^ shapes[1].items()):
        raise ValueError(
            "the model is not what its config says; if it is quantized already, take the model "
            f"that it was quantized from. They differ in {listed(wrong)}"
        )
    tensors = {}
    for theirs, place in places(model.config).items():
        tensor = finite(theirs, rows(state, place), state[place.ours].dtype)
        if is_llama and theirs.endswith(TURNED):
            tensor = pair_neighbours(tensor, model.blocks[0].mixer.d_head)
        tensors[gguf_name(theirs)] = tensor
    return tensors


def gguf_name(name: str) -> str:
    """A tensor's name in a GGUF file.

    Args:
        name: of transformers.

    Example:
        >>> gguf_name("model.layers.3.mlp.down_proj.weight")
        'blk.3.ffn_down.weight'
    """
    stem, _, leaf = name.rpartition(".")
    if stem in WHOLE:
        return f"{WHOLE[stem]}.{leaf}"
    layer, _, part = stem.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{IN_A_BLOCK[part]}.{leaf}"


def pair_neighbours(matrix: Tensor, d_head: int) -> Tensor:
    """The rows of a query's or key's matrix, those that RoPE pairs side by side.

    Args:
        matrix: of which each head has d_head rows, one after the other.
        d_head: K, even.

    Example:
        >>> import torch
        >>> pair_neighbours(torch.arange(6).reshape(6, 1), d_head=6).flatten().tolist()
        [0, 3, 1, 4, 2, 5]
    """
    return matrix.unflatten(0, (-1, 2, d_head // 2)).transpose(1, 2).flatten(0, 2)


def _no_such(what: str) -> str:
    return (
        f"llama.cpp's {' and '.join(sorted(set(ARCHITECTURES.values())))} have not {what}; "
        "`minillm export --format hf` writes a folder that transformers reads"
    )
