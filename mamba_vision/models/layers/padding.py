"""Padding to sizes that a network can halve, and cropping what comes out: nothing happens where the size fits.

Exported graphs keep the sizes open: they pick rows and columns, where PyTorch would ask whether there is anything to
pad or to cut and keep the answer for the size that it was exported with.
"""

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor


def padded_size(size: Sequence[int], multiple: Sequence[int], least: int = 2) -> tuple[int, ...]:
    """The next size that `multiple` divides, of at least `least` cells in all: one voxel has no instance norm."""
    cells = [(n + m - 1) // m for n, m in zip(size, multiple)]  # of positive numbers, which every runtime divides alike
    others = prod(cells[:-1])
    cells[-1] = torch.sym_max(cells[-1], (least + others - 1) // others)  # max() would settle it while exporting
    return tuple(n * m for n, m in zip(cells, multiple))


def pad_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """x (B, C, *S) with its far ends grown to `size` by repeating the edge: zeros would be a tissue of their own."""
    if torch.compiler.is_exporting():
        for axis, length in enumerate(size, start=2):
            if not _known_equal(x.shape[axis], length):
                x = x.index_select(axis, torch.arange(length, device=x.device).clamp(max=x.shape[axis] - 1))
        return x
    grow = [after for have, want in zip(reversed(x.shape[2:]), reversed(size)) for after in (0, want - have)]
    return F.pad(x, grow, mode="replicate") if any(grow) else x


def crop_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """The near corner of x (B, C, *S), `size` large."""
    for axis, length in enumerate(size, start=2):
        if torch.compiler.is_exporting():
            if not _known_equal(x.shape[axis], length):
                x = x.index_select(axis, torch.arange(length, device=x.device))
        elif x.shape[axis] != length:
            x = x.narrow(axis, 0, length)
    return x


def _known_equal(length: int, other: int) -> bool:
    """Whether two lengths are plain numbers and equal."""
    return isinstance(length, int) and isinstance(other, int) and length == other
