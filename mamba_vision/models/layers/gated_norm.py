"""The gated RMSNorm of Mamba-2 (Dao and Gu, arXiv 2405.21060, section 7.1)."""

import torch
from torch import Tensor, nn

from mamba_vision.kernels import gated_norm


class GatedRMSNorm(nn.Module):
    """Root-mean-square norm over groups of channels with SiLU gate, before or behind it.

    Args:
        channels: width of the last axis.
        eps: added to the mean square.
        group_size: channels that share their statistics; None: all.
        norm_before_gate: norm(x) silu(z) instead of norm(x silu(z)).
    """

    def __init__(
        self,
        channels: int,
        eps: float = 1e-5,
        group_size: int | None = None,
        norm_before_gate: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, device=device, dtype=dtype))
        self.eps, self.group_size, self.norm_before_gate = eps, group_size, norm_before_gate

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, group_size={self.group_size}, norm_before_gate={self.norm_before_gate}"

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """(..., channels) like x, gated by z of the same shape."""
        return gated_norm(x, self.weight, None, z, self.eps, self.group_size, self.norm_before_gate)
