"""Row by row, forwards and backwards: Vim (arXiv 2401.09417), U-Mamba, and every plain Mamba over a flattened grid."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mamba_vision.scan_orders.base import ScanOrder, register, token_grid


def raster_sequence(grid: tuple[int, ...], axes: tuple[int, ...] | None, device: torch.device) -> Tensor:
    """Tokens in nested loops over the axes, the last of `axes` innermost, (L,)."""
    tokens = token_grid(grid, device)
    return (tokens if axes is None else tokens.permute(axes)).reshape(-1)


def check_axes(order: ScanOrder, axes: tuple[int, ...] | None) -> None:
    """ValueError unless `axes` names each of 0 .. n-1 once."""
    if axes is not None and sorted(axes) != list(range(len(axes))):
        raise ValueError(f"scan order {order.name!r}: axes is {axes!r}, expected a permutation such as (1, 0)")


def check_axes_of_grid(order: ScanOrder, axes: tuple[int, ...] | None, grid: tuple[int, ...]) -> None:
    """ValueError unless the grid has as many axes as `axes` names."""
    if axes is not None and len(axes) != len(grid):
        raise ValueError(
            f"scan order {order.name!r}: axes {axes} name {len(axes)} axes, the grid {grid} has {len(grid)}"
        )


@register
@dataclass(frozen=True)
class Raster(ScanOrder):
    """One direction, row-major by default.

    Args:
        axes: the nesting of the loops, outermost first; (1, 0) goes column by column. None: as the grid is.
        reverse: from the last token to the first (Vim's flipped sequences).
    """

    axes: tuple[int, ...] | None = None
    reverse: bool = False
    name = "raster"

    def check(self) -> None:
        check_axes(self, self.axes)

    @property
    def labels(self) -> tuple[str, ...]:
        return ("backward" if self.reverse else "forward",)

    def sequences(self, grid: tuple[int, ...], device: torch.device) -> Tensor:
        check_axes_of_grid(self, self.axes, grid)
        sequence = raster_sequence(grid, self.axes, device)[None]
        return sequence.flip(1) if self.reverse else sequence


@register
@dataclass(frozen=True)
class Bidirectional(ScanOrder):
    """Forward and backward: Vim's bidirectional block, with the grid (L,) over a sequence that has class tokens in it.

    Args:
        axes: as for `raster`.
    """

    axes: tuple[int, ...] | None = None
    name = "bidirectional"

    def check(self) -> None:
        check_axes(self, self.axes)

    @property
    def labels(self) -> tuple[str, ...]:
        return ("forward", "backward")

    def sequences(self, grid: tuple[int, ...], device: torch.device) -> Tensor:
        check_axes_of_grid(self, self.axes, grid)
        forward = raster_sequence(grid, self.axes, device)
        return torch.stack([forward, forward.flip(0)])
