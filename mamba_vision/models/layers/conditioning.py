"""What diffusion networks are told: time, class and text, as vectors and as tokens to look at.

Legend: B batch, L image tokens, N text tokens, C channels, H heads.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FREQUENCIES = 128


def time_features(times: Tensor) -> Tensor:
    """(B,) times in [0, 1] to (B, 256): cosines, then sines, of 1000 t at geometric frequencies from 1 to 1 / 10000.

    Vaswani et al. 2017 (arXiv 1706.03762), section 3.5, in the order that GLIDE's code gave them. At least float32.
    """
    wide = torch.promote_types(times.dtype, torch.float32)
    steps = torch.arange(FREQUENCIES, device=times.device, dtype=wide)
    frequencies = torch.exp(-math.log(10000) * steps / FREQUENCIES)
    angles = 1000 * times.to(wide)[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeEmbedding(nn.Module):
    """(B,) times in [0, 1] to (B, C) through a perceptron."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * FREQUENCIES, channels), nn.SiLU(), nn.Linear(channels, channels))

    def forward(self, times: Tensor) -> Tensor:
        return self.mlp(time_features(times).to(self.mlp[0].weight.dtype))


class ClassEmbedding(nn.Module):
    """(B,) class numbers to (B, C)."""

    def __init__(self, rows: int, channels: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(rows, channels)

    def forward(self, classes: Tensor) -> Tensor:
        return self.embedding_table(classes)


class CrossAttention(nn.Module):
    """Image tokens look at text tokens of the same width: 8 heads of 64 channels whatever that width is, no mask.

    Shape:
        x (B, L, C), text (B, N, C) to (B, L, C).
    """

    def __init__(self, channels: int, heads: int = 8, head_channels: int = 64) -> None:
        super().__init__()
        inner = heads * head_channels
        self.heads = heads
        self.to_q = nn.Linear(channels, inner, bias=False)
        self.to_k = nn.Linear(channels, inner, bias=False)
        self.to_v = nn.Linear(channels, inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, channels))

    def forward(self, x_BLC: Tensor, text_BNC: Tensor) -> Tensor:
        projected = (self.to_q(x_BLC), self.to_k(text_BNC), self.to_v(text_BNC))
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in projected)
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
