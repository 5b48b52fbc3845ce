"""Restoring large images tile by tile: the published geometry, with seams blended away or, as published, cut.

Published code pastes each tile without its margins. A network that looks at whole tiles, as state space models do, then
leaves seams that can be seen; here neighbours fade into each other around their common border instead.

Legend: B batch, C channels, H, W rows and columns, s scale.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mamba_vision.models.layers.mirror_padding import mirror_to
from mamba_vision.utils.tiling import Band, Tiling, bands


def restore_in_tiles(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    scale: int = 1,
    tiling: Tiling | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Apply `network` to an image of any size, one tile after another.

    Args:
        network: maps (B, C, h, w) to (B, C', s * h, s * w).
        image: (B, C, H, W); tiles are cut from where it lies, and moved by `network` if need be.
        scale: s.
        tiling: by default the published tiles, blended.
        progress: called with tiles done and all tiles.

    Returns:
        (B, C', s * H, s * W), where the network's results lie.

    Raises:
        ValueError: the network's result is not s times its input.
    """
    tiling = tiling or Tiling()
    size = tuple(image.shape[2:])
    image = mirror_to(image, [bands(side, tiling)[-1].core_stop for side in size], repeat_edge=False)

    def read(row: Band, column: Band) -> Tensor:
        return image[:, :, row.start : row.stop, column.start : column.stop]

    return torch.cat(list(restored_strips(network, read, size, scale, tiling, progress)), dim=2)


def restored_strips(
    network: Callable[[Tensor], Tensor],
    read: Callable[[Band, Band], Tensor],
    size: tuple[int, int],
    scale: int,
    tiling: Tiling,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Tensor]:
    """As `restore_in_tiles`, of an image that need not be in memory: strips of the result as they get ready.

    Args:
        network, scale, tiling, progress: as there.
        read: gives the tile (B, C, h, w) of a band of rows and one of columns, which may end behind the image: it is
            mirrored there.
        size: (H, W) of the image.

    Yields:
        (B, C', rows, s * W), top to bottom, s * H rows in all.

    Raises:
        ValueError: the network's result is not `scale` times as large.
    """
    rows, columns = (bands(side, tiling) for side in size)
    total, done, strip, given = len(rows) * len(columns), 0, None, 0
    for row, following in zip(rows, [*rows[1:], None]):
        rest = strip  # what the row of tiles above has left in the rows that it shares with this one
        strip = None
        for column in columns:
            tile = read(row, column)
            result = network(tile)
            want = tuple(scale * side for side in tile.shape[2:])
            if tuple(result.shape[2:]) != want:
                raise ValueError(f"scale: found a result of {tuple(result.shape[2:])} pixels, expected {want}")
            if strip is None:
                strip = result.new_zeros(*result.shape[:2], want[0], scale * columns[-1].core_stop)
            _add(strip, result, row, column, scale, tiling.blend)
            done += 1
            if progress is not None:
                progress(done, total)
        if rest is not None:
            strip[:, :, : rest.shape[2]] += rest
        end = scale * (size[0] if following is None else following.start)
        ready = end - given
        yield strip[:, :, :ready, : scale * size[1]]
        strip, given = strip[:, :, ready:].clone(), end


def _add(strip: Tensor, result: Tensor, row: Band, column: Band, scale: int, blend: bool) -> None:
    """Put a tile's result in the strip of its row, weighted so that the weights of all tiles add up to one."""
    if blend:
        weights = [_weights(band, scale, result) for band in (row, column)]
        strip[:, :, :, scale * column.start : scale * column.stop] += result * weights[0][:, None] * weights[1]
        return
    inner = [slice(scale * (b.core_start - b.start), scale * (b.core_stop - b.start)) for b in (row, column)]
    place = slice(scale * column.core_start, scale * column.core_stop)
    strip[:, :, inner[0], place] = result[:, :, inner[0], inner[1]]


def _weights(band: Band, scale: int, like: Tensor) -> Tensor:
    """One along the band, zero in the outer halves of its margins, where the border of the tile is near, and straight
    slopes across the core's ends between them: those of neighbours add up to one."""
    weights = torch.ones(scale * (band.stop - band.start), dtype=like.dtype, device=like.device)
    for margin, ends in ((band.core_start - band.start, False), (band.stop - band.core_stop, True)):
        if margin == 0:
            continue
        half = margin // 2
        slope = (torch.arange(2 * scale * half, dtype=like.dtype, device=like.device) + 0.5) / max(2 * scale * half, 1)
        edge = torch.cat([slope.new_zeros(scale * (margin - half)), slope])
        if ends:
            weights[-len(edge) :] *= edge.flip(0)
        else:
            weights[: len(edge)] *= edge
    return weights
