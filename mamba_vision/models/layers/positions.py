"""Position tables over a grid of tokens, resampled to another grid.

Layouts: B batch, L tokens (row-major), C channels, H, W rows and columns of the grid.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_positions(
    positions_1LC: Tensor, grid: tuple[int, int], new_grid: tuple[int, int], mode: str = "bicubic"
) -> Tensor:
    """The position table of one grid, resampled for another (align_corners False).

    Args:
        positions_1LC: (1, rows * columns, channels), row-major.
        grid: (rows, columns) that the table was made for.
        new_grid: (rows, columns) wanted.
        mode: interpolation mode of `torch.nn.functional.interpolate`.

    Returns:
        (1, new rows * new columns, channels); the table itself where the grids agree.

    Raises:
        ValueError: the table does not cover `grid`.
    """
    if same_grid(grid, new_grid):
        return positions_1LC
    rows, columns = grid
    if positions_1LC.shape[1] != rows * columns:
        raise ValueError(f"positions: found {positions_1LC.shape[1]} rows, expected {rows} x {columns}")
    wide = torch.promote_types(positions_1LC.dtype, torch.float32)
    table_1CHW = positions_1LC.to(wide).transpose(1, 2).unflatten(2, (rows, columns))
    resized_1CHW = F.interpolate(table_1CHW, size=tuple(new_grid), mode=mode, align_corners=False)
    return resized_1CHW.flatten(2).transpose(1, 2).to(positions_1LC.dtype)


def same_grid(grid: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two grids are known to be equal. Of sizes that export keeps open it is not known, nor asked."""
    if any(isinstance(size, torch.SymInt) for size in (*grid, *other)):
        return False
    return tuple(grid) == tuple(other)


def square_grid(tokens: int, name: str = "positions") -> tuple[int, int]:
    """(side, side) of the square grid with that many tokens.

    Raises:
        ValueError: the number is no square.
    """
    side = round(tokens**0.5)
    if side * side != tokens:
        raise ValueError(f"{name}: found {tokens} rows, which is not the number of tokens of a square grid")
    return side, side
