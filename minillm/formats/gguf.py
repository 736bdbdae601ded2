"""A model as one GGUF file, for llama.cpp and all that is built on it.

    metadata    architecture, sizes, rotation      `minillm.formats.gguf_names`
                tokenizer                          `minillm.formats.gguf_tokenizer`
    tensors     matrices in the type that is asked for, norms in float32
                                                   `minillm.formats.gguf_blocks`, `gguf_file`

Blocks are of 32 numbers of one row, so a matrix whose rows they do not divide stays in float16. In
`town-1m` those are the 4 matrices `ffn_down`: rows of 344 = 10.75 · 32, a sixth of the model.

Paper: none; docs/gguf.md of ggml, version 3; transformers reads what is written here back.
Differs: llama.cpp's own quantizer keeps the table of tokens in more bits than it is asked for; here
every matrix has the type that is asked for.

Chapter: 18
"""

import os
from collections.abc import Sequence
from pathlib import Path

from minillm.formats.gguf_blocks import TYPES
from minillm.formats.gguf_file import Entry, read, write
from minillm.formats.gguf_names import model_metadata, model_tensors
from minillm.formats.gguf_tokenizer import tokenizer_metadata
from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.model.transformer import Transformer

#: llama.cpp's numbers for "most tensors are of this type".
FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 7, "BF16": 32}


def save(
    model: Transformer,
    path: str | os.PathLike,
    tokenizer: JsonTokenizer,
    *,
    end_ids: Sequence[int],
    kind: str = "F32",
    name: str | None = None,
) -> dict[str, Entry]:
    """Write a model with its tokenizer, and return what the file says of each tensor.

    Args:
        model: with the config it was built from.
        path: of the file, in a folder that exists. What is there is replaced in one step.
        tokenizer: of the model.
        end_ids: that end a text, the usual one first.
        kind: the type of the matrices, one of `minillm.formats.gguf_blocks.TYPES`.
        name: of the model; by default the file's, without its end.

    Raises:
        ValueError: another type; a model or a tokenizer that llama.cpp has not; no `end_ids`; a
            number too large for the type; a disk with too little space.

    Example:
        >>> import tempfile
        >>> from minillm.formats import hf
        >>> from minillm.model.config import tiny
        >>> from minillm.text.tokenizer import Tokenizer
        >>> ours, model = Tokenizer((), ("<|end|>",)), tiny(vocab_size=257).build()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     hf.save(model, folder, ours)
        ...     tokenizer, path = hf.load_tokenizer(folder), Path(folder, "tiny.gguf")
        ...     entries = save(model, path, tokenizer, end_ids=(256,), kind="Q8_0")
        >>> for name in ("blk.0.ffn_up.weight", "blk.0.ffn_down.weight"):
        ...     print(entries[name].kind, entries[name].shape)
        Q8_0 (176, 64)
        F16 (64, 176)
    """
    if kind not in TYPES:
        raise ValueError(f"kind must be one of {', '.join(TYPES)}; got {kind!r}")
    tensors = model_tensors(model)
    metadata = model_metadata(model.config) | {
        "general.name": Path(path).stem if name is None else name,
        "general.file_type": FILE_TYPES[kind],
        "general.quantization_version": 2,  # of the way blocks are written
        **tokenizer_metadata(tokenizer, model.config.vocab_size, end_ids),
    }
    typed = {name: (_kind_of(tensor.shape, kind), tensor) for name, tensor in tensors.items()}
    write(path, metadata, typed)
    return read(path)[1]


def _kind_of(shape: Sequence[int], kind: str) -> str:
    """The type of one tensor, where that one was asked for."""
    if len(shape) == 1:
        return "F32"
    return "F16" if shape[-1] % TYPES[kind].block_size else kind
