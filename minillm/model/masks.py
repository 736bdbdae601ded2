"""Masks (掩码): who may look at whom, as tables of yes and no that are joined with & and |.

A row for each query, a column for each key; True = may look. Each function asks one question, and
a model's mask is a sentence of them:

    causal(places, places)                            a writer sees what is written so far
    causal(places, places) & document(ids, ids)       texts packed into one row
    causal(queries, keys) & padding(is_token)         rows of different lengths
    window(places, places, 4) | (places < 1)          the last four, and the first
    prefix(places, places, n_prefix)                  reads the question, writes the answer
    padding(is_token)                                 a reader sees everything

Places are numbers along the row, 0, 1, 2, …: not tensors of the model, so a mask can be printed.
Every mask is [T, S] or [B, 1, T, S] (a 1 stands where all are treated alike), so any two of them
can be joined, and all broadcast to the scores [B, H, T, S].

Paper: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.3 (causal); Raffel et al. 2020,
arXiv:1910.10683, section 3.2.1 (fully visible, causal, and with a prefix); Jiang et al. 2023,
"Mistral 7B", arXiv:2310.06825, section 2 (window).
Differs: none.

Chapter: 03
"""

from jaxtyping import Bool, Int
from torch import Tensor


def causal(
    query_positions: Int[Tensor, "*B T"], key_positions: Int[Tensor, "*B S"]
) -> Bool[Tensor, "..."]:
    """A token sees itself and what stands before it (因果掩码).

    Args:
        query_positions: [T], or [B, T] where rows differ.
        key_positions: [S], or [B, S].

    Returns:
        [T, S], or [B, 1, T, S].

    Example:
        >>> import torch
        >>> positions = torch.arange(3)
        >>> causal(positions, positions).int()
        tensor([[1, 0, 0],
                [1, 1, 0],
                [1, 1, 1]], dtype=torch.int32)
    """
    return _distance(query_positions, key_positions) >= 0


def window(
    query_positions: Int[Tensor, "*B T"], key_positions: Int[Tensor, "*B S"], n_tokens: int
) -> Bool[Tensor, "..."]:
    """A token sees itself and the n_tokens - 1 before it; causal, too (滑动窗口).

    Args:
        query_positions, key_positions: as for `causal`.
        n_tokens: how many it sees, itself with them.

    Returns:
        [T, S], or [B, 1, T, S].

    Raises:
        ValueError: n_tokens below 1.

    Example:
        >>> import torch
        >>> positions = torch.arange(4)
        >>> window(positions, positions, 2).int()
        tensor([[1, 0, 0, 0],
                [1, 1, 0, 0],
                [0, 1, 1, 0],
                [0, 0, 1, 1]], dtype=torch.int32)
    """
    if n_tokens < 1:
        raise ValueError(f"a window must hold at least 1 token, the query itself; got {n_tokens}")
    distance = _distance(query_positions, key_positions)
    return (distance >= 0) & (distance < n_tokens)


def padding(is_token: Bool[Tensor, "B S"]) -> Bool[Tensor, "B 1 1 S"]:
    """Nobody sees what only fills a row up.

    A query at such a place still looks at what the other masks allow; what it finds is to be
    ignored. It may be nothing at all, which attention answers with zeros.

    Args:
        is_token: of each key, False where it fills.

    Example:
        >>> import torch
        >>> padding(torch.tensor([[False, True, True]])).int()
        tensor([[[[0, 1, 1]]]], dtype=torch.int32)
    """
    return is_token[:, None, None, :]


def document(
    query_documents: Int[Tensor, "B T"], key_documents: Int[Tensor, "B S"]
) -> Bool[Tensor, "B 1 T S"]:
    """A token sees its own document only, where several share a row.

    Args:
        query_documents, key_documents: of each token, the number of its document.

    Example:
        >>> import torch
        >>> ids = torch.tensor([[7, 7, 8]])
        >>> document(ids, ids).int()
        tensor([[[[1, 1, 0],
                  [1, 1, 0],
                  [0, 0, 1]]]], dtype=torch.int32)
    """
    return query_documents[:, None, :, None] == key_documents[:, None, None, :]


def prefix(
    query_positions: Int[Tensor, "*B T"],
    key_positions: Int[Tensor, "*B S"],
    n_prefix: Int[Tensor, "B"],
) -> Bool[Tensor, "B 1 T S"]:
    """Causal, but the first tokens of a row are visible to all, to each other too.

    Args:
        query_positions, key_positions: as for `causal`.
        n_prefix: of each row, how many.

    Example:
        >>> import torch
        >>> positions = torch.arange(3)
        >>> prefix(positions, positions, torch.tensor([2])).int()
        tensor([[[[1, 1, 0],
                  [1, 1, 0],
                  [1, 1, 1]]]], dtype=torch.int32)
    """
    in_prefix = key_positions < n_prefix[:, None]
    return causal(query_positions, key_positions) | in_prefix[:, None, None, :]


def _distance(
    query_positions: Int[Tensor, "*B T"], key_positions: Int[Tensor, "*B S"]
) -> Int[Tensor, "..."]:
    """How far each query stands behind each key: [T, S], or [B, 1, T, S]."""
    distance = query_positions[..., :, None] - key_positions[..., None, :]
    return distance if distance.ndim == 2 else distance[:, None]
