"""Instance norm on a GPU, in Triton: two passes over the values forward, two backward."""

from typing import NamedTuple

import torch

from mamba_vision.kernels.instance_norm import triton_kernels as kernels
from mamba_vision.kernels.triton_common import cdiv, power_of_two
from mamba_vision.kernels.triton_launcher import launch
from mamba_vision.kernels.triton_notice import announce_compilation

PROGRAMS = 132 * 8  # wanted at least, each with a chunk of a plane
TILE = 2048  # values


class _Plan(NamedTuple):
    """How the values of a tensor are shared out among programs."""

    items: int
    channels: int
    size: int
    last: bool  # channels-last
    block: int  # channels a tile
    rows: int  # positions a tile
    chunks: int  # of positions
    each: int  # positions a chunk

    @property
    def programs(self) -> int:
        return self.items * self.chunks * cdiv(self.channels, self.block)

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        return self.channels, self.size, self.chunks, self.each

    @property
    def tile(self) -> dict:
        return dict(LAST=self.last, ROWS=self.rows, BLOCK=self.block, num_warps=4)


def forward(x, weight, bias, residual, eps, slope, overwrite):
    """The result, laid out like x, and the statistics (batch, 2, channels) in float32."""
    announce_compilation()
    x, last = _laid_out(x)
    y = x if overwrite else torch.empty_like(x)
    statistics = x.new_empty(x.shape[0], 2, x.shape[1], dtype=torch.float32)
    if not x.numel():
        return y, statistics
    residual = None if residual is None else _like(residual, last)
    plan = _plan(x, last)
    with torch.cuda.device_of(x):
        partial = x.new_empty(plan.items * plan.chunks * 2 * plan.channels, dtype=torch.float32)
        launch(kernels.chunk_moments, plan.programs, x, partial, *plan.numbers, **plan.tile)
        launch(
            kernels.meet_moments, plan.items * cdiv(plan.channels, 16), partial, statistics, *plan.numbers,
            EPS=eps, ROWS=64, BLOCK=16, num_warps=4,
        )  # fmt: skip
        launch(
            kernels.normalize, plan.programs,
            x, *_or(x, weight, bias, residual), statistics, y, *plan.numbers,
            HAS_WEIGHT=weight is not None, HAS_BIAS=bias is not None, ADDS=residual is not None,
            ACTS=slope is not None, SLOPE=slope or 0.0, **plan.tile,
        )  # fmt: skip
    return y, statistics


def backward(grad, x, weight, bias, statistics, y, slope, adds):
    """Gradients of x, weight and bias (float32), and of the residual (None if there was none)."""
    x, last = _laid_out(x)
    dx = torch.empty_like(x)
    if not x.numel():
        zero = x.new_zeros(x.shape[1], dtype=torch.float32)
        return dx, zero, zero, dx if adds else None
    grad, plan = _like(grad, last), _plan(x, last)
    acts = slope is not None
    dresidual = torch.empty_like(x) if adds and acts else None
    given = dict(HAS_WEIGHT=weight is not None, HAS_BIAS=bias is not None, SLOPE=slope or 0.0, **plan.tile)
    with torch.cuda.device_of(x):
        partial = x.new_empty(plan.items * plan.chunks * 2 * plan.channels, dtype=torch.float32)
        sums = torch.empty_like(statistics)
        launch(
            kernels.chunk_sums, plan.programs,
            grad, x, *_or(x, weight, bias, y), statistics, *_or(x, dresidual), partial, *plan.numbers,
            ADDS=adds, ACTS=acts, **given,
        )  # fmt: skip
        launch(
            kernels.meet_sums, plan.items * cdiv(plan.channels, 16), partial, sums, *plan.numbers[:3],
            ROWS=64, BLOCK=16, num_warps=4,
        )  # fmt: skip
        launch(
            kernels.differentiate, plan.programs,
            grad if dresidual is None else dresidual, x, *_or(x, weight, bias), statistics, sums, dx, *plan.numbers,
            ACTS=acts and dresidual is None, **given,
        )  # fmt: skip
        dbias, dweight = sums.sum(0)
    return dx, dweight, dbias, (grad if dresidual is None else dresidual) if adds else None


def _or(stand_in: torch.Tensor, *tensors: torch.Tensor | None) -> list[torch.Tensor]:
    """The tensors; a pointer that no kernel follows for those that are None."""
    return [stand_in if t is None else t for t in tensors]


def _laid_out(x: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """x as one of the two layouts that the kernels read, and whether that is channels-last."""
    if x.is_contiguous() or not x.movedim(1, -1).is_contiguous():
        return x.contiguous(), False
    return x, True


def _like(t: torch.Tensor, last: bool) -> torch.Tensor:
    return t.movedim(1, -1).contiguous().movedim(-1, 1) if last else t.contiguous()


def _plan(x: torch.Tensor, last: bool) -> _Plan:
    items, channels = x.shape[:2]
    size = x.numel() // (items * channels)
    block = 1
    if last:
        fits = [width for width in (64, 32) if channels % width == 0]
        block = max(16, power_of_two(channels)) if channels <= 64 else (fits or [64])[0]
    rows = TILE // block
    chunks = max(1, min(cdiv(size, rows), cdiv(PROGRAMS, items * cdiv(channels, block))))
    each = cdiv(cdiv(size, chunks), rows) * rows
    return _Plan(items, channels, size, last, block, rows, cdiv(size, each), each)
