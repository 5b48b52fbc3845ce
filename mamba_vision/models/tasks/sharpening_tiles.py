"""Sharpening large images tile by tile: with tiles that fade into each other, or as FusionMamba was published.

Legend: B batch, h, w rows and columns of the image to sharpen, H = s * h, W = s * w those of its guide, s scale.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mamba_vision.models.layers.padding import crop_to
from mamba_vision.models.tasks.restoration_tiles import Tiling, restore_in_tiles

Network = Callable[[Tensor, Tensor], Tensor]
TILING = Tiling(tile=64)  # as published ones of 256 in the guide


def sharpen_in_tiles(
    network: Network,
    ms: Tensor,
    pan: Tensor,
    tiling: Tiling | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Apply `network` to an image and its guide, of any size, one tile after another, without visible seams.

    Args:
        network: maps (B, bands, h, w) and (B, guide channels, H, W) to (B, bands, H, W).
        ms: (B, bands, h, w); tiles are cut from where it lies, and moved by `network` if need be.
        pan: (B, guide channels, H, W).
        tiling: in pixels of `ms`; default: `TILING`.
        progress: called with tiles done and all tiles.

    Returns:
        (B, bands, H, W), not clamped.

    Raises:
        ValueError: the guide is not a whole number of times larger.
    """
    scale = guide_scale(ms, pan)
    sharpen = of_pairs(network, ms.shape[1], scale)
    return restore_in_tiles(sharpen, paired(ms, pan, scale), scale, tiling or TILING, progress)


def paired(ms: Tensor, pan: Tensor, scale: int) -> Tensor:
    """An image and its guide as one (B, bands + s * s * guide channels, h, w): they are cut, and mirrored, together."""
    return torch.cat([ms, F.pixel_unshuffle(pan, scale).to(ms)], dim=1)


def of_pairs(network: Network, bands: int, scale: int) -> Callable[[Tensor], Tensor]:
    """The network as a function of what `paired` makes."""
    return lambda both: network(both[:, :bands], F.pixel_shuffle(both[:, bands:], scale))


def sharpen_as_published(network: Network, ms: Tensor, pan: Tensor, tile: int = 256, margin: int = 0) -> Tensor:
    """The authors' test: tiles side by side, each computed with a margin that is cut off; seams may be seen.

    The images are mirrored by the margin, and filled up with zeros at their far ends to whole tiles.

    Args:
        network: as for `sharpen_in_tiles`.
        ms, pan: as for `sharpen_in_tiles`.
        tile: side of a tile in pixels of the guide, a multiple of the scale.
        margin: in pixels of the guide, a multiple of the scale.

    Returns:
        (B, bands, H, W) in [0, 1].

    Raises:
        ValueError: the guide is not a whole number of times larger, or tile or margin are not multiples of the scale.
    """
    scale = guide_scale(ms, pan)
    for name, value, least in (("tile", tile, scale), ("margin", margin, 0)):
        if value < least or value % scale:
            raise ValueError(f"{name}: expected a multiple of the scale {scale} from {least}, found {value}")
    size = tuple(pan.shape[2:])
    padded = [_padded(image, tile // factor, margin // factor) for image, factor in ((ms, scale), (pan, 1))]
    rows = []
    for top in range(0, size[0], tile):
        row = []
        for left in range(0, size[1], tile):
            tiles = [
                image[:, :, top // f : (top + tile + 2 * margin) // f, left // f : (left + tile + 2 * margin) // f]
                for image, f in zip(padded, (scale, 1))
            ]
            row.append(network(*tiles).clamp(0, 1)[:, :, margin : margin + tile, margin : margin + tile])
        rows.append(torch.cat(row, dim=3))
    return crop_to(torch.cat(rows, dim=2), size)


def guide_scale(ms: Tensor, pan: Tensor) -> int:
    """How many times larger the guide is.

    Raises:
        ValueError: it is not a whole number, the same for rows and columns, or the batches differ.
    """
    scale = pan.shape[2] // max(ms.shape[2], 1)
    if pan.shape[0] != ms.shape[0] or scale < 1 or any(pan.shape[i] != scale * ms.shape[i] for i in (2, 3)):
        raise ValueError(
            f"pan: found shape {tuple(pan.shape)}, expected as many images as ms, {tuple(ms.shape)}, and a whole "
            "number of times its rows and columns"
        )
    return scale


def _padded(image: Tensor, tile: int, margin: int) -> Tensor:
    """Mirrored by the margin on all sides, then zeros at the far ends to whole tiles."""
    height, width = image.shape[2:]
    if margin >= min(height, width):
        raise ValueError(f"margin: found {margin} pixels of an image of {height} x {width}, expected fewer")
    image = F.pad(image, (margin,) * 4, mode="reflect")
    return F.pad(image, (0, -width % tile, 0, -height % tile))
