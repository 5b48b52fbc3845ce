"""The convolution on a GPU, in Triton: forward and the gradient of the input, which is the same product."""

from typing import NamedTuple

import torch

from mamba_vision.kernels.triton_common import cdiv, power_of_two
from mamba_vision.kernels.triton_launcher import launch
from mamba_vision.kernels.triton_notice import announce_compilation
from mamba_vision.kernels.volume_conv import triton_kernels


class Tiles(NamedTuple):
    """What a program computes: a brick of voxels, `wide` channels out, in steps of `deep` channels in."""

    brick: tuple[int, int, int]
    wide: int
    deep: int
    warps: int
    stages: int


TILES: dict[tuple[int, int], Tiles] = {}  # of single pairs (in, out), where others were measured faster


def tiles(channels_in: int, channels_out: int) -> Tiles:
    """The tiles for a number of channels in and out."""
    wide = min(128, max(16, power_of_two(channels_out)))
    deep = min(64, max(16, power_of_two(channels_in)))
    return TILES.get((channels_in, channels_out), Tiles((4, 4, 8), wide, deep, warps=4, stages=3))


def write(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, y: torch.Tensor) -> None:
    """Fill y (batch, out, D, H, W) with the convolution of x (batch, in, D, H, W), both channels-last."""
    _launch(x, weight.permute(2, 3, 4, 1, 0).reshape(-1, weight.shape[0]), bias, y)


def write_gradient(grad: torch.Tensor, weight: torch.Tensor, dx: torch.Tensor) -> None:
    """Fill dx (batch, in, D, H, W) with the input's gradient: the convolution of grad with mirrored weights."""
    _launch(grad, weight.flip(2, 3, 4).permute(2, 3, 4, 0, 1).reshape(-1, weight.shape[1]), None, dx)


def _launch(x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, y: torch.Tensor) -> None:
    announce_compilation()
    if not y.numel():
        return
    batch, channels, *size = x.shape
    t = tiles(channels, y.shape[1])
    bricks = [cdiv(side, edge) for side, edge in zip(size, t.brick)]
    programs = batch * bricks[0] * bricks[1] * bricks[2] * cdiv(y.shape[1], t.wide)
    far = size[0] * size[1] * size[2] * max(channels, y.shape[1]) >= 2**31
    with torch.cuda.device_of(x):
        launch(
            triton_kernels.convolve, programs,
            x, w.contiguous(), x if bias is None else bias, y, *size, *bricks,
            CI=channels, CO=y.shape[1], BD=t.brick[0], BH=t.brick[1], BW=t.brick[2], WIDE=t.wide, DEEP=t.deep,
            HAS_BIAS=bias is not None, FAR=far, num_warps=t.warps, num_stages=t.stages,
        )  # fmt: skip
