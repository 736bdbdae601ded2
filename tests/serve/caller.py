"""A small model that would rather call a tool than do anything else."""

import json

import torch

from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.serve.engine import Engine, EngineConfig
from minillm.serve.served_model import ServedModel
from minillm.text.fast import to_tokenizers_json
from minillm.text.tokenizer import Tokenizer
from minillm.tune.chat import TOOL_TEMPLATE

SPECIAL_TOKENS = ("<|endoftext|>", *TOOL_TEMPLATE.special_tokens)
FRUIT = {"type": "object", "properties": {"fruit": {"enum": ["plum", "红"]}}, "required": ["fruit"]}
TOOLS = [{"type": "function", "function": {"name": "sell", "parameters": FRUIT}}]


def caller() -> tuple[Engine, ServedModel]:
    """The model in an engine, and how it is served."""
    config = TransformerConfig(
        vocab_size=264, context_length=256, d_model=16, n_layers=1, mixer=AttentionConfig(n_heads=2)
    )
    model = config.build(seed=0).double()
    tokenizer = JsonTokenizer(json.loads(to_tokenizers_json(Tokenizer((), SPECIAL_TOKENS))))
    served = ServedModel(
        name="toy",
        tokenizer=tokenizer,
        context_length=256,
        vocab_size=264,
        stop_ids=(256,),
        suppress_tokens=(263,),
        chat_template=TOOL_TEMPLATE,
    )
    wish, logits = torch.zeros(264), model.logits
    wish[served.call_id] = 100
    model.logits = lambda hidden: logits(hidden) + wish
    return Engine(model, tokenizer, EngineConfig(max_batch=2, block_size=4)), served
