"""Fusing pairs of images of any size: in tiles that fade into each other, or padded as MambaDFuse's authors test.

Legend: B batch, c channels, H, W rows and columns.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mamba_vision.models.layers.mirror_padding import cut_to, mirror_to
from mamba_vision.models.tasks.restoration_tiles import Tiling, restore_in_tiles

Network = Callable[[Tensor, Tensor], Tensor]
_STEP = 8  # published sizes are the next multiples of it


def fuse_in_tiles(
    network: Network,
    first: Tensor,
    second: Tensor,
    tiling: Tiling | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Apply `network` to two registered images of any size, one tile after another, without visible seams.

    Args:
        network: maps two images (B, c, h, w) to one.
        first, second: (B, c, H, W); tiles are cut from where they lie, and moved by `network` if need be.
        tiling: by default tiles of 200 pixels.
        progress: called with tiles done and all tiles.

    Returns:
        (B, c, H, W), not clamped.

    Raises:
        ValueError: the images differ in shape.
    """
    _check(first, second)
    return restore_in_tiles(
        lambda tile: network(*tile.chunk(2, dim=1)), torch.cat([first, second.to(first)], dim=1), 1, tiling, progress
    )


def fuse_as_published(network: Network, first: Tensor, second: Tensor) -> Tensor:
    """The authors' test: images mirrored at their far ends to the next multiple of 8, fused whole, and cut.

    Sides that are a multiple already grow by 8 all the same. Unlike the published code, this takes images smaller
    than 8 pixels.

    Args:
        network: maps two images (B, c, h, w) to one.
        first, second: (B, c, H, W).

    Returns:
        (B, c, H, W), not clamped; `to_bytes` makes it the published file's values.

    Raises:
        ValueError: the images differ in shape.
    """
    _check(first, second)
    size = tuple(first.shape[2:])
    grown = tuple((side // _STEP + 1) * _STEP for side in size)
    return cut_to(network(*(mirror_to(image, grown, repeat_edge=True) for image in (first, second))), size)


def to_bytes(image: Tensor) -> Tensor:
    """Values of 0 to 1, clamped, as uint8 of 0 to 255; halves are rounded to the even number."""
    return (image.float().clamp(0, 1) * 255).round().to(torch.uint8)


def _check(first: Tensor, second: Tensor) -> None:
    if first.dim() != 4 or first.shape != second.shape:
        raise ValueError(
            f"second: found shape {tuple(second.shape)}, expected that of first, {tuple(first.shape)}, as (batch, "
            "channels, height, width)"
        )
