"""Rotary position embedding of a 2-D grid of tokens, as Vision Mamba and LocalVim have it.

Half of the channels turn with the row, half with the column; within a half, adjacent pairs of channels turn together at
frequencies 10000^(-2j / half) (Su et al. 2021, arXiv 2104.09864; axial form of EVA-02, arXiv 2303.11331).
"""

import torch
from torch import Tensor


def rotary_tables(
    grid: tuple[int, int], channels: int, extent: float = 14.0, like: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Cosine and sine tables of a grid.

    Args:
        grid: (rows, columns).
        channels: C, a multiple of 4.
        extent: every axis is rescaled to this many positions, the grid of pre-training, whatever its length.
        like: a tensor of the device and dtype wanted.

    Returns:
        two tensors (rows * columns, channels), row-major.

    Raises:
        ValueError: channels is no multiple of 4.
    """
    if channels % 4:
        raise ValueError(f"channels: found {channels}, expected a multiple of 4 for a rotary embedding of two axes")
    device = None if like is None else like.device
    half = channels // 2
    dtype = torch.float32 if like is None else like.dtype
    wide = torch.promote_types(dtype, torch.float32)
    frequencies = 10000.0 ** (-torch.arange(0, half, 2, device=device, dtype=wide) / half)

    def angles(length: int) -> Tensor:
        positions = torch.arange(length, device=device, dtype=wide) / length * extent
        return (positions[:, None] * frequencies).repeat_interleave(2, dim=1)

    rows, columns = angles(grid[0]), angles(grid[1])
    angle_HWC = torch.cat(
        [rows[:, None].expand(-1, grid[1], -1), columns[None].expand(grid[0], -1, -1)], dim=2
    ).flatten(0, 1)
    return angle_HWC.cos().to(dtype), angle_HWC.sin().to(dtype)


def rotate(x_BLC: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each adjacent pair of channels (a, b) of every token by its table's angle.

    Args:
        x_BLC: (batch, tokens, channels).
        tables: `rotary_tables` of these tokens, (tokens, channels) each.
    """
    cos, sin = tables
    pairs = x_BLC.unflatten(-1, (-1, 2))
    turned = torch.stack([-pairs[..., 1], pairs[..., 0]], dim=-1).flatten(-2)
    return x_BLC * cos.to(x_BLC.dtype) + turned * sin.to(x_BLC.dtype)
