"""The pre-norm block of Mamba: add, norm, mix, with the residual stream carried beside the mixer's output.

Legend: B batch, L tokens, C channels.
"""

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from mamba_vision.models.layers.fused_norm import add_and_norm
from mamba_vision.registry import MIXERS
from mamba_vision.scan_orders import Orders


def make_norm(norm: str, channels: int, eps: float) -> nn.Module:
    """RMSNorm ('rms') or LayerNorm ('ln') over the last axis.

    Raises:
        ValueError: another name.
    """
    if norm not in ("rms", "ln"):
        raise ValueError(f"norm: found {norm!r}, expected 'rms' or 'ln'")
    return (nn.RMSNorm if norm == "rms" else nn.LayerNorm)(channels, eps=eps)


class AddNormBlock(nn.Module):
    """Add, norm, mix: the residual stream is carried beside the mixer's output and added at the next block's start.

    Args:
        channels: C.
        mixer: config of the mixer.
        norm: 'rms' or 'ln'.
        eps: of the norm.
        drop_path: rate of dropping the *incoming* hidden state (the block before's output), as published.
        residual_in_fp32: keep the residual stream in float32.

    Shape:
        hidden, residual (B, L, C) to the same.
    """

    def __init__(
        self, channels: int, mixer: dict, norm: str = "rms", eps: float = 1e-5, drop_path: float = 0.0,
        residual_in_fp32: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.norm = make_norm(norm, channels, eps)
        self.mixer = MIXERS.build({**mixer, "d_model": channels, "_scope_": "mamba_vision"})
        self.drop_path = DropPath(drop_path)
        self.residual_in_fp32 = residual_in_fp32

    def forward(
        self, hidden_BLC: Tensor, residual_BLC: Tensor | None = None, order: Tensor | Orders | None = None
    ) -> tuple[Tensor, Tensor]:
        if residual_BLC is not None:
            hidden_BLC = self.drop_path(hidden_BLC)
        wide = residual_BLC if residual_BLC is not None else hidden_BLC
        kept = torch.float32 if self.residual_in_fp32 and wide.dtype != torch.float64 else None
        normed_BLC, residual_BLC = add_and_norm(self.norm, hidden_BLC, residual_BLC, kept, for_linear=True)
        return self.mixer(normed_BLC, order), residual_BLC
