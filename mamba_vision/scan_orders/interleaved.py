"""Orders that interleave runs of the flattened sequence: SegMamba's inter-slice order, MambaMIL's reordering."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mamba_vision.scan_orders.base import ZERO, ScanOrder, ceil_div, register


def interleaved(tokens: int, runs: int, device: torch.device) -> Tensor:
    """Cut `tokens` in `runs` consecutive runs of equal length and read the first token of each, then the second ...

    Where `runs` does not divide `tokens`, the last runs are shorter and their missing tokens are skipped. (T,)
    """
    length = ceil_div(tokens, runs)
    full = tokens // length  # runs of that length; the one behind them has `rest` tokens
    rest = tokens - full * length
    place = torch.arange(tokens, device=device)
    late = place - rest * (full + 1)  # from where on a round finds no token in the short run
    round_of = torch.where(late < 0, place // (full + 1), rest + late // full)
    run = torch.where(late < 0, place - round_of * (full + 1), late - (round_of - rest) * full)
    return run * length + round_of


@register
@dataclass(frozen=True)
class TriOriented(ScanOrder):
    """SegMamba's three orders (arXiv 2401.13560): forward, backward, and across slices.

    The flattened grid is cut in `slices` runs, which are interleaved. They are the grid's real slices only where
    `slices` is its first axis, as with None; published models fix 64, 32, 16, 8 for their four stages.

    Args:
        slices: number of runs; None: the length of the grid's first axis. Published code needs it to divide the number
            of tokens; here the last runs are shorter otherwise.
    """

    slices: int | None = None
    name = "tri_oriented"

    def check(self) -> None:
        if self.slices is not None and (not isinstance(self.slices, int) or self.slices < 1):
            raise ValueError(f"scan order 'tri_oriented': slices is {self.slices!r}, expected a number from 1, or None")

    @property
    def labels(self) -> tuple[str, ...]:
        return ("forward", "backward", "inter-slice")

    def sequences(self, grid: tuple[int, ...], device: torch.device) -> Tensor:
        tokens = math.prod(grid)
        forward = torch.arange(tokens, device=device)
        across = interleaved(tokens, grid[0] if self.slices is None else self.slices, device)
        return torch.stack([forward, forward.flip(0), across])


@register
@dataclass(frozen=True)
class Reorder(ScanOrder):
    """MambaMIL's sequence reordering by rate (arXiv 2403.06800): every `rate`-th token first, then the next ones.

    The sequence is filled up at its end to a multiple of `rate` before it is reordered, which puts zero tokens *inside*
    the reordered sequence: they advance the state there, as in the published models.

    Args:
        rate: 5 in the published scripts, 10 by the published default.
    """

    rate: int = 10
    name = "reorder"

    def check(self) -> None:
        if not isinstance(self.rate, int) or self.rate < 1:
            raise ValueError(f"scan order 'reorder': rate is {self.rate!r}, expected a number from 1")

    @property
    def labels(self) -> tuple[str, ...]:
        return (f"reordered by {self.rate}",)

    def sequences(self, grid: tuple[int, ...], device: torch.device) -> Tensor:
        tokens = math.prod(grid)
        missing = ceil_div(tokens, self.rate) * self.rate - tokens
        filled = F.pad(torch.arange(tokens, device=device), (0, missing), value=ZERO)
        return filled.reshape(-1, self.rate).transpose(0, 1).reshape(1, -1)
