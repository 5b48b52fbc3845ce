"""Padding by mirroring at the far ends, for images of any size: also where one mirror image is too short."""

from collections.abc import Sequence

import torch
from torch import Tensor


def mirror_to(x: Tensor, size: Sequence[int], repeat_edge: bool) -> Tensor:
    """x (B, C, *S) with its far ends grown to `size`; exported graphs keep the sizes dynamic.

    Args:
        x: an image or volume of at least one cell along every axis.
        size: length wanted along each axis of S, at least the present one.
        repeat_edge: True mirrors behind the last cell (... y z | z y ...), False at it (... y z | y ...).
    """
    for axis, length in enumerate(size, start=2):
        present = x.shape[axis]
        if not torch.compiler.is_compiling() and length == present:
            continue
        period = 2 * present if repeat_edge else torch.sym_max(2 * present - 2, 1)
        cells = torch.arange(length, device=x.device)
        cells = cells - cells // period * period
        x = x.index_select(axis, torch.minimum(cells, period - int(repeat_edge) - cells))
    return x


def cut_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """The near corner of x (B, C, *S), `size` large; undoes `mirror_to`.

    Exported graphs pick rows and columns: of a view, the exporter asks whether it is the whole, and keeps the answer.
    """
    for axis, length in enumerate(size, start=2):
        if torch.compiler.is_exporting():
            x = x.index_select(axis, torch.arange(length, device=x.device))
        else:
            x = x.narrow(axis, 0, length)
    return x
