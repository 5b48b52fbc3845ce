"""LocalMamba's channel attention (Huang et al., arXiv 2403.09338, SCAttn in figure 3; its spatial half was never used).

Legend: B batch, K directions, T tokens, E channels.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from mamba_vision.models.layers.fused_norm import wide_layer_norm


class BiAttention(nn.Module):
    """Every channel of a direction's result times a gate in (0, 1) that its mean over all tokens decides.

    Args:
        channels: E.
        ratio: the gates are computed from int(E / ratio) numbers.

    Shape:
        (..., T, E) to the same.

    Raises:
        ValueError: fewer channels than `ratio`.
    """

    def __init__(self, channels: int, ratio: int = 8) -> None:
        super().__init__()
        if channels < ratio:
            raise ValueError(f"channels: found {channels}, expected at least {ratio} for the channel attention")
        self.norm = nn.LayerNorm(channels)
        self.global_reduce = nn.Linear(channels, channels // ratio)
        self.channel_select = nn.Linear(channels // ratio, channels)

    def forward(self, x: Tensor) -> Tensor:
        mean = wide_layer_norm(self.norm, x).mean(-2, keepdim=True).to(self.global_reduce.weight.dtype)
        gates = self.channel_select(F.gelu(self.global_reduce(mean))).sigmoid()
        return x * gates.to(x.dtype)  # x itself, not the normed one
