"""ZigMa's block (Hu et al., arXiv 2403.13802, figure 3): a mixer and cross-attention, modulated by time and condition.

Legend of the suffixes: B batch, L tokens, N text tokens (in `mix`: sequences, with the axes folded into the batch),
C channels.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from mamba_vision.models.layers.add_norm_block import make_norm
from mamba_vision.models.layers.conditioning import CrossAttention
from mamba_vision.models.mixers.bidirectional import BidirectionalMamba
from mamba_vision.scan_orders import Orders, fold, return_as_published, unfold


class ZigMaBlock(nn.Module):
    """Norm, modulated mixer and, with text, modulated cross-attention.

    As published the block returns the *normed* stream plus what its branches say, and that sum is added to the
    residual stream by the next block: the residual stream gathers normed streams.

    Args:
        channels: C.
        directions: an order with as many directions as this layer's.
        mixer: options of `BidirectionalMamba`.
        text: whether there is cross-attention.
        norm: 'rms' or 'ln'.
        eps: of the norm.
        drop_path: rate of dropping the incoming x before it joins the residual stream.

    Shape:
        x, residual (B, L, C), condition (B, C), text (B, N, C) to the next x and residual.
    """

    def __init__(
        self,
        channels: int,
        directions: object = "raster",
        mixer: Mapping[str, Any] | None = None,
        text: bool = False,
        norm: str = "rms",
        eps: float = 1e-5,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm = make_norm(norm, channels, eps)
        self.mixer = BidirectionalMamba(channels, scan=directions, halve=False, **(mixer or {}))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(channels, (6 if text else 3) * channels))
        self.msa = CrossAttention(channels) if text else None
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        x_BLC: Tensor,
        residual_BLC: Tensor | None,
        condition_BC: Tensor,
        orders: Orders,
        text_BNC: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        residual_BLC = x_BLC if residual_BLC is None else residual_BLC + self.drop_path(x_BLC)
        residual_BLC = residual_BLC.to(torch.promote_types(residual_BLC.dtype, torch.float32))
        u_BLC = self.norm(residual_BLC.to(self.norm.weight.dtype))
        shift, scale, gate, *of_text = self.adaLN_modulation(condition_BC)[:, None].chunk(
            3 if self.msa is None else 6, -1
        )
        x_BLC = u_BLC + gate * self.mix(u_BLC * (1 + scale) + shift, orders)
        if self.msa is not None:
            shift, scale, gate = of_text
            seen_BLC = F.layer_norm(x_BLC, x_BLC.shape[-1:], eps=1e-6) * (1 + scale) + shift
            x_BLC = x_BLC + gate * self.msa(seen_BLC, text_BNC)
        return x_BLC, residual_BLC

    def mix(self, x_BLC: Tensor, orders: Orders) -> Tensor:
        """The mixer along this layer's order, (B, L, C) -> (B, L, C)."""
        y_NLC = self.mixer(fold(x_BLC, orders), orders.indices)
        if orders.indices.shape[-2] == 1:  # several directions' results are one sum, each already at its own tokens
            y_NLC = return_as_published(y_NLC[:, None], orders)[:, 0]
        return unfold(y_NLC, orders)


class FinalLayer(nn.Module):
    """Norm without parameters, then the pixels of each token's patch, channels fastest: (B, L, C) -> (B, L, p p C')."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, out)

    def forward(self, x_BLC: Tensor) -> Tensor:
        return self.linear(F.layer_norm(x_BLC, x_BLC.shape[-1:], eps=1e-6))
