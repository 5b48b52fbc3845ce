"""Tokens that only fill a batch up are read last: so a causal scan gives all others what it would give without them.

Legend: B batch, K directions, L steps, T tokens.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def read_last(indices_KL: Tensor, late_BT: Tensor) -> Tensor:
    """Orders of every sample: `indices_KL` with the steps that read its late tokens moved behind all others.

    Args:
        indices_KL: token of each step; -1 is the zero token, which is never late.
        late_BT: bool, True for tokens to be read last.

    Returns:
        (B, K, L) int64.
    """
    late_BKL = F.pad(late_BT, (0, 1))[:, indices_KL]  # the last column is the zero token's
    others_BKL = ~late_BKL
    count_BK1 = others_BKL.sum(-1, keepdim=True)
    place_BKL = torch.where(late_BKL, count_BK1 + late_BKL.cumsum(-1), others_BKL.cumsum(-1)) - 1
    tokens_BKL = indices_KL.expand(place_BKL.shape)
    return torch.zeros_like(tokens_BKL).scatter(2, place_BKL, tokens_BKL)
