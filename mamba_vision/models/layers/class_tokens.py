"""Class tokens' rows in a position table that is resampled for another grid.

Legend: T class tokens, C channels.
"""

import torch
from torch import Tensor

from mamba_vision.models.layers.positions import resize_positions, square_grid
from mamba_vision.scan_orders import class_token_places, insert_tokens, split_tokens


def resize_with_class_rows(
    positions_1LC: Tensor,
    grid: tuple[int, int],
    new_grid: tuple[int, int],
    place: str,
    published: bool = False,
    mode: str = "bicubic",
) -> Tensor:
    """A position table that has rows for class tokens, resampled for another grid.

    Args:
        positions_1LC: (1, rows * columns + T, C).
        grid: (rows, columns) that the table was made for.
        new_grid: (rows, columns) wanted.
        place: of the class tokens (`class_token_places`), or 'none'. Their rows are taken out, the patches' rows
            resampled, and theirs put back.
        published: as published Vim code does it instead: the first T rows are kept, all others resampled as a square
            grid, wherever the class tokens stand. Published fine-tuned weights at stride 8 started from this.
        mode: interpolation mode.

    Returns:
        (1, new rows * new columns + T, C).
    """
    places = class_token_places(place, grid[0] * grid[1]) if place != "none" else ()
    if published:
        kept, others = positions_1LC[:, : len(places)], positions_1LC[:, len(places) :]
        return torch.cat([kept, resize_positions(others, square_grid(others.shape[1]), new_grid, mode)], dim=1)
    if not places:
        return resize_positions(positions_1LC, grid, new_grid, mode)
    patches, tokens = split_tokens(positions_1LC, places)
    resized = resize_positions(patches, grid, new_grid, mode)
    return insert_tokens(resized, tokens, class_token_places(place, new_grid[0] * new_grid[1]))
