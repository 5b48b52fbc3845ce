"""VMamba's cross scan (arXiv 2401.10166) and its other modes, and the cascade of rows and columns."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mamba_vision.scan_orders.base import ScanOrder, columns, one_of, register, token_grid

_LABELS = {
    "cross": ("rows", "columns", "rows backward", "columns backward"),
    "unidi": ("rows", "rows", "rows", "rows"),
    "bidi": ("rows", "rows", "rows backward", "rows backward"),
    "rotations": ("rows", "columns from the right", "rows backward", "columns upward"),
}


@register
@dataclass(frozen=True)
class Cross(ScanOrder):
    """Four directions over an H x W grid; VMamba, MambaIR and all that build on SS2D.

    Args:
        mode: `cross` (the published models), `unidi` (rows four times), `bidi` (rows twice, rows backward twice) or
            `rotations` (the grid's four quarter turns).
    """

    mode: str = "cross"
    name = "cross"
    grid_ranks = (2,)

    def check(self) -> None:
        one_of(self.name, "mode", self.mode, tuple(_LABELS))

    @property
    def labels(self) -> tuple[str, ...]:
        return _LABELS[self.mode]

    def sequences(self, grid: tuple[int, ...], device: torch.device) -> Tensor:
        tokens = token_grid(grid, device)
        rows = tokens.reshape(-1)
        if self.mode == "unidi":
            return torch.stack([rows, rows, rows, rows])
        if self.mode == "bidi":
            return torch.stack([rows, rows, rows.flip(0), rows.flip(0)])
        if self.mode == "rotations":
            return torch.stack([rows, columns(tokens.flip(1)), rows.flip(0), columns(tokens.flip(0))])
        down = columns(tokens)
        return torch.stack([rows, down, rows.flip(0), down.flip(0)])


@register
@dataclass(frozen=True)
class Cascade(ScanOrder):
    """One pass of VMamba's cascade: every row (or every column) is a sequence of its own, forward and backward.

    The other axis folds into the batch. The published code adds the backward results without turning them back, so
    that step j's result lands on column j.

    Args:
        along: `rows` (the first pass) or `columns` (the second).
        turn_back: put backward results where they belong, unlike the published code.
    """

    along: str = "rows"
    turn_back: bool = False
    name = "cascade"
    grid_ranks = (2,)

    def check(self) -> None:
        one_of(self.name, "along", self.along, ("rows", "columns"))

    @property
    def labels(self) -> tuple[str, ...]:
        return (f"{self.along} forward", f"{self.along} backward")

    def sequence_axes(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        return (1,) if self.along == "rows" else (0,)

    def sequences(self, grid: tuple[int, ...], device: torch.device) -> Tensor:
        line = torch.arange(self.tokens(grid), device=device)
        return torch.stack([line, line.flip(0)])

    def published_inverse(self, grid: tuple[int, ...], inverse: Tensor) -> Tensor | None:
        return None if self.turn_back else torch.stack([inverse[0], inverse[0]])
