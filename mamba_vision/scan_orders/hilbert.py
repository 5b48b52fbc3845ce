"""Space-filling curves over rectangles of any size: ZigMa's eight oriented (generalized) Hilbert paths."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mamba_vision.scan_orders.base import ScanOrder, fixed_grid, register
from mamba_vision.scan_orders.zigzag import N_SCHEMES, check_schemes

_Vector = tuple[int, int]


def curve(width: int, height: int) -> np.ndarray:
    """The cells of a `width` x `height` rectangle along a generalized Hilbert curve.

    A block is walked from a corner along a major vector a, filling the minor vector b. A long block is cut across into
    two; any other into three: up along half of b, across, and back down. Halves are rounded to even lengths where
    possible, so that neighbours in the walk are neighbours in the plane (one diagonal step is left where an odd side
    makes it unavoidable). Needs no powers of two.

    Returns:
        (width*height, 2) int64: x, y of each step, starting at (0, 0).
    """
    cells: list[_Vector] = []
    wide = ((width, 0), (0, height)) if width >= height else ((0, height), (width, 0))
    blocks = [((0, 0), *wide)]  # a stack: what is still to be walked, the next block last
    while blocks:
        corner, a, b = blocks.pop()
        length, breadth = _norm(a), _norm(b)
        along, across = _sign(a), _sign(b)
        if breadth == 1:
            cells += [_add(corner, along, times) for times in range(length)]
        elif length == 1:
            cells += [_add(corner, across, times) for times in range(breadth)]
        elif 2 * length > 3 * breadth:
            half = (a[0] // 2, a[1] // 2)
            if _norm(half) % 2 and length > 2:
                half = _add(half, along)
            blocks += [(_add(corner, half), _add(a, half, -1), b), (corner, half, b)]
        else:
            half_a, half_b = (a[0] // 2, a[1] // 2), (b[0] // 2, b[1] // 2)
            if _norm(half_b) % 2 and breadth > 2:
                half_b = _add(half_b, across)
            far = _add(_add(corner, _add(a, along, -1)), _add(half_b, across, -1))
            down = (far, (-half_b[0], -half_b[1]), _add(half_a, a, -1))
            blocks += [down, (_add(corner, half_b), a, _add(b, half_b, -1)), (corner, half_b, half_a)]
    return np.array(cells, dtype=np.int64)


def curve_positions(width: int, height: int) -> np.ndarray:
    """(width, height) int64: the step of the curve at which each cell (x, y) comes."""
    cells = curve(width, height)
    positions = np.empty((width, height), dtype=np.int64)
    positions[cells[:, 0], cells[:, 1]] = np.arange(len(cells))
    return positions


def oriented_positions(height: int, width: int, scheme: int) -> np.ndarray:
    """(height, width) int64: the curve's step at each cell, x down the rows.

    Scheme 2q + o is turned by q quarters counter-clockwise, and transposed for o = 1.
    """
    quarters, transposed = divmod(scheme, 2)
    sides = (height, width) if (quarters + transposed) % 2 == 0 else (width, height)
    table = np.rot90(curve_positions(*sides), quarters)
    return table.T if transposed else table


@register
@dataclass(frozen=True)
class Hilbert(ScanOrder):
    """Hilbert paths over an H x W grid. Published models take one a layer: layer i of `hilbertN8` has schemes=(i % 8,).

    A table, not arithmetic in H and W: exported graphs have it for one grid size.

    Args:
        schemes: numbers from 0 to 7, one per direction: four quarter turns, each as it is and transposed.
        along_curve: published code reads the table of curve *positions* as token numbers, which is the inverse of a
            walk; its checkpoints need that (False). True walks along the curve.
    """

    schemes: tuple[int, ...] = tuple(range(N_SCHEMES))
    along_curve: bool = False
    name = "hilbert"
    grid_ranks = (2,)

    def check(self) -> None:
        check_schemes(self, self.schemes)

    @property
    def labels(self) -> tuple[str, ...]:
        turned = (f"turned {90 * (scheme // 2)}°" if scheme >= 2 else "as is" for scheme in self.schemes)
        return tuple(f"{way}, transposed" if scheme % 2 else way for scheme, way in zip(self.schemes, turned))

    def sequences(self, grid: tuple[int, ...], device: torch.device) -> Tensor:
        return _table(*fixed_grid(self, grid), self.schemes, self.along_curve).to(device)


@torch.compiler.assume_constant_result
def _table(height: int, width: int, schemes: tuple[int, ...], along_curve: bool) -> Tensor:
    tables = [oriented_positions(height, width, scheme).reshape(-1) for scheme in schemes]
    return torch.from_numpy(np.stack([np.argsort(table) for table in tables] if along_curve else tables))


def _norm(v: _Vector) -> int:
    return abs(v[0]) + abs(v[1])


def _sign(v: _Vector) -> _Vector:
    return ((v[0] > 0) - (v[0] < 0), (v[1] > 0) - (v[1] < 0))


def _add(v: _Vector, w: _Vector, times: int = 1) -> _Vector:
    return (v[0] + times * w[0], v[1] + times * w[1])
