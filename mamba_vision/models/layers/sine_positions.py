"""Fixed two-axis sine-cosine positions (MoCo v3, arXiv 2104.02057), as RSMamba has them."""

import torch
from torch import Tensor


def sine_positions(
    grid: tuple[int, int], channels: int, temperature: float = 10000.0, device: torch.device | str | None = None
) -> Tensor:
    """(1, rows * columns, channels): [sin x, cos x, sin y, cos y] of a quarter of the channels each.

    Published order, which its weights need: entry p belongs to x = p // rows and y = p % rows, column by column,
    although tokens come row by row (on a square grid that is the transpose).

    Raises:
        ValueError: channels is no multiple of 4.
    """
    if channels % 4:
        raise ValueError(f"channels: found {channels}, expected a multiple of 4 for sine positions of two axes")
    rows, columns = grid
    quarter = channels // 4
    frequencies = temperature ** -(torch.arange(quarter, device=device, dtype=torch.float32) / quarter)
    x = torch.arange(columns, device=device, dtype=torch.float32)[:, None] * frequencies
    y = torch.arange(rows, device=device, dtype=torch.float32)[:, None] * frequencies
    x = x[:, None].expand(-1, rows, -1).flatten(0, 1)
    y = y[None].expand(columns, -1, -1).flatten(0, 1)
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)[None]
