"""Attention in shifted windows (Swin Transformer, Liu et al., ICCV 2021, arXiv 2103.14030), over maps of any size.

Legend: B batch, H, W rows and columns (multiples of the window's side w), C channels, T = w * w tokens of a window,
N windows of a map, A heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FORBIDDEN = -100.0  # added to the logits of pairs that are no neighbours, as published


def relative_positions(window: int) -> Tensor:
    """(T, T) int64: the row of the bias table for every pair of places in a window."""
    places = torch.cartesian_prod(torch.arange(window), torch.arange(window))
    rows, columns = (places[:, None] - places[None]).add(window - 1).unbind(-1)
    return rows * (2 * window - 1) + columns


def shift_bias(grid: tuple[int, int], window: int, shift: int, device: torch.device) -> Tensor:
    """(N, T, T) float32: 0 for pairs of tokens that are neighbours in the map, -100 for pairs that the roll by `shift`
    has brought together from opposite ends."""

    def strip(length: int) -> Tensor:
        places = torch.arange(length, device=device)
        return (places >= length - window).long() + (places >= length - shift)

    rows, columns = strip(grid[0]), strip(grid[1])
    regions_HW = 3 * rows[:, None] + columns
    regions_NT = split_windows(regions_HW[None, :, :, None], window).flatten(0, 1).squeeze(-1)
    return (regions_NT[:, :, None] != regions_NT[:, None]).float() * _FORBIDDEN


def split_windows(x_BHWC: Tensor, window: int) -> Tensor:
    """(B, H, W, C) to (B, N, T, C)."""
    B, H, W, C = x_BHWC.shape
    tiles = x_BHWC.reshape(B, H // window, window, W // window, window, C).transpose(2, 3)
    return tiles.reshape(B, (H // window) * (W // window), window * window, C)


def join_windows(x_BNTC: Tensor, grid: tuple[int, int], window: int) -> Tensor:
    """(B, N, T, C) back to (B, H, W, C)."""
    (H, W), (B, _, _, C) = grid, x_BNTC.shape
    tiles = x_BNTC.reshape(B, H // window, W // window, window, window, C).transpose(2, 3)
    return tiles.reshape(B, H, W, C)


class WindowAttention(nn.Module):
    """Heads of attention inside windows, with a learned bias for every relative position.

    Args:
        channels: C.
        heads: A, which must divide C.
        window: side w of a window.
        shift: how far the windows of this layer are moved, 0 or w // 2.

    Raises:
        ValueError: the heads do not divide the channels.
    """

    def __init__(self, channels: int, heads: int, window: int, shift: int = 0) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"num_heads: expected a divisor of {channels} channels, found {heads}")
        self.heads, self.window, self.shift = heads, window, shift
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.proj = nn.Linear(channels, channels)

    def forward(self, qkv_BHWC: Tensor, positions_TT: Tensor, shift_bias_NTT: Tensor) -> Tensor:
        """Queries, keys and values (B, H, W, 3C) to (B, H, W, C).

        Args:
            positions_TT: what `relative_positions` says.
            shift_bias_NTT: what `shift_bias` says; read only by shifted layers.
        """
        B, H, W, _ = qkv_BHWC.shape
        if self.shift:
            qkv_BHWC = qkv_BHWC.roll((-self.shift, -self.shift), (1, 2))
        windows = split_windows(qkv_BHWC, self.window).unflatten(-1, (3, self.heads, -1))
        q, k, v = windows.permute(3, 0, 1, 4, 2, 5)  # (B, N, A, T, C / A) each
        bias = self.relative_position_bias_table[positions_TT].permute(2, 0, 1)  # (A, T, T)
        # Batch and windows, or windows and heads, share an axis: fused attention takes four axes, and the bias then
        # is repeated over the first one without being written out.
        if self.shift:
            axes, bias = (1, 2), (bias + shift_bias_NTT[:, None]).flatten(0, 1)
        else:
            axes = (0, 1)
        q, k, v = (t.flatten(*axes) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None].to(q.dtype))
        y = y.reshape(B, -1, self.heads, *y.shape[2:]).transpose(2, 3).flatten(3)  # (B, N, T, C)
        y_BHWC = self.proj(join_windows(y, (H, W), self.window))
        return y_BHWC.roll((self.shift, self.shift), (1, 2)) if self.shift else y_BHWC
