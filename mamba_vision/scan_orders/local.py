"""LocalMamba's window scans (arXiv 2403.09338): rows, columns and windows of any size, each also backward."""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from mamba_vision.scan_orders.base import (
    ZERO,
    ScanOrder,
    ceil_div,
    columns,
    is_traced,
    register,
    side_by_side,
    token_grid,
)
from mamba_vision.scan_orders.class_tokens import make_room
from mamba_vision.scan_orders.tokens import class_token_places

CANDIDATES = ("h", "h_flip", "v", "v_flip", "w2", "w2_flip", "w7", "w7_flip")  # in the published index order
_DIRECTION = re.compile(r"(?:h|v|w[1-9]\d*)(?:_flip)?")


def window_sequence(grid: tuple[int, int], size: int, column_first: bool, device: torch.device) -> Tensor:
    """Tokens of an H x W grid window by window, row-major in both (column-major with `column_first`).

    Windows are whole: they reach over the bottom and right edge, where the zero token stands in, which so comes
    *inside* the sequence.

    Returns:
        (windows * size * size,) int64.
    """
    rows, cols = ceil_div(grid[0], size), ceil_div(grid[1], size)
    i, j = torch.arange(grid[0], device=device)[:, None], torch.arange(grid[1], device=device)[None]
    window_i, window_j = i // size, j // size
    i, j = i - window_i * size, j - window_j * size  # inside the window
    window, inside = (
        (window_j * rows + window_i, j * size + i) if column_first else (window_i * cols + window_j, i * size + j)
    )
    step = (window * size * size + inside).reshape(-1)
    sequence = torch.full((rows * cols * size * size,), ZERO, device=device)
    return sequence.scatter(0, step, torch.arange(grid[0] * grid[1], device=device))


@register
@dataclass(frozen=True)
class Local(ScanOrder):
    """A choice of LocalMamba's directions over an H x W grid.

    Directions are `h` (rows), `v` (columns), `wK` (windows of K x K), each with `_flip` for backward. Where windows do
    not divide the grid, zero tokens fill them; sequences of different length are filled up at the end.

    Args:
        directions: as many as there are parameter sets, in their order.
        class_token: LocalVim's middle class token: tokens are H*W + 1, the class token has number H*W // 2 and stands
            at that step of every sequence.
        published_reversal: on grids that are not square, published code puts results of `v` and `v_flip` in wrong
            places (it reads the column-major sequence as an H x W matrix); its checkpoints need that. False: right.
        column_first: windows, and tokens in them, column by column (defined in published code, used by no model).
    """

    directions: tuple[str, ...] = CANDIDATES
    class_token: bool = False
    published_reversal: bool = True
    column_first: bool = False
    name = "local"
    grid_ranks = (2,)

    def check(self) -> None:
        bad = [d for d in self.directions if not (isinstance(d, str) and _DIRECTION.fullmatch(d))]
        if bad or not self.directions:
            raise ValueError(
                f"scan order 'local': directions are {self.directions!r}, expected names like {', '.join(CANDIDATES)}"
            )

    @property
    def labels(self) -> tuple[str, ...]:
        return self.directions

    def extra_tokens(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        return class_token_places("middle", grid[0] * grid[1]) if self.class_token else ()

    def sequences(self, grid: tuple[int, ...], device: torch.device) -> Tensor:
        return side_by_side([self._sequence(direction, grid, device)[None] for direction in self.directions])

    def published_inverse(self, grid: tuple[int, ...], inverse: Tensor) -> Tensor | None:
        columns_too = any(direction.startswith("v") for direction in self.directions)
        if not (self.published_reversal and columns_too) or (not is_traced(grid) and grid[0] == grid[1]):
            return None
        misread = columns(token_grid(grid, inverse.device))  # step of token t when the sequence is read as H x W
        steps = {"v": misread, "v_flip": grid[0] * grid[1] - 1 - misread}
        steps = {direction: make_room(step, self.extra_tokens(grid)) for direction, step in steps.items()}
        return torch.stack([steps.get(direction, right) for direction, right in zip(self.directions, inverse)])

    def _sequence(self, direction: str, grid: tuple[int, ...], device: torch.device) -> Tensor:
        """The tokens in one direction's order, zero tokens of its windows included, (L,)."""
        kind, backward = direction.removesuffix("_flip"), direction.endswith("_flip")
        if kind == "h":
            sequence = token_grid(grid, device).reshape(-1)
        elif kind == "v":
            sequence = columns(token_grid(grid, device))
        else:
            sequence = window_sequence(grid, int(kind[1:]), self.column_first, device)
        sequence = sequence.flip(0) if backward else sequence
        return make_room(sequence, self.extra_tokens(grid))
