"""Fusing GeoTIFFs: read and written piece by piece, so that scenes larger than memory work; georeference kept."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mamba_vision.apis.fusion import Fusing, Progress, as_given, check_channels, recolored, tiling_for, to_batch
from mamba_vision.apis.pixel_model import half_precision
from mamba_vision.models.layers.mirror_padding import mirror_to
from mamba_vision.models.tasks.fusion import ImageFuser, on_its_device
from mamba_vision.models.tasks.fusion_sharpening import ImageSharpener
from mamba_vision.models.tasks.restoration_tiles import Band, Tiling, restored_strips
from mamba_vision.models.tasks.sharpening_tiles import of_pairs, paired
from mamba_vision.utils.atomic import atomic_path
from mamba_vision.utils.rasters import as_counts, check_ground, check_range, counts_of, like_raster, open_raster

_PREVIEW = 1000  # pixels a side


def fuse_rasters(
    model: Fusing, first: str | Path, second: str | Path, out: str | Path, peak: float | None = None,
    tiling: Tiling | None = None, amp: bool = False, progress: Progress | None = None,
) -> Path:  # fmt: skip
    """Two rasters of the same ground to a GeoTIFF.

    Of an ImageSharpener, the result has the first raster's bands, their names, number format and missing value, and the
    second one's pixels and place; where either is missing, so is the result. Of an ImageFuser, which takes one or three
    bands, it has the second raster's number format, missing value and place, and is missing where either is.

    Args:
        out: ends in .tif or .tiff; written atomically.
        peak: counts that 1 stands for, of both; default: what the model was trained with.
        tiling, amp, progress: as for `fuse_pictures`.

    Raises:
        FileNotFoundError, ImportError: a file, or rasterio, is missing.
        ValueError: a file is no raster; bands, scale, place or values do not fit the model or each other.
    """
    out = Path(out)
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise ValueError(f"{out}: expected a name ending in .tif for a georeferenced result")
    with open_raster(first) as one, open_raster(second) as two, torch.no_grad(), half_precision(model, amp):
        if isinstance(model, ImageSharpener):
            _sharpen(model, one, two, out, peak or model.peak, tiling or tiling_for(model), progress)
        else:
            _fuse(model, one, two, out, peak, tiling or tiling_for(model), progress)
    return out


def raster_preview(path: str | Path) -> np.ndarray:
    """(h, w, bands) float32, no more than 1000 pixels a side, of 0 (the least value, or missing) to 1 (the largest)."""
    with open_raster(path) as raster:
        shrink = max(raster.height / _PREVIEW, raster.width / _PREVIEW, 1)
        size = [max(int(side / shrink), 1) for side in (raster.height, raster.width)]
        image = raster.read(out_shape=(raster.count, *size), masked=True).astype(np.float32).transpose(1, 2, 0)
    known = image.compressed()
    low, high = (known.min(), known.max()) if known.size else (0, 1)
    return (image.filled(low) - low) / max(high - low, 1e-6)


def _sharpen(
    model: ImageSharpener, ms: Any, pan: Any, out: Path, peak: float, tiling: Tiling, progress: Progress | None
) -> None:
    scale = model.scale
    check_channels(model, ms.count, pan.count, (ms.name, pan.name))
    check_ground(ms, pan, scale)
    for raster in (ms, pan):
        check_range(raster, peak)

    def load(rows: tuple[int, int], columns: tuple[int, int]) -> torch.Tensor:
        tiles = [_read(raster, rows, columns, factor) / np.float32(peak) for raster, factor in ((ms, 1), (pan, scale))]
        return paired(*(torch.from_numpy(tile[None]) for tile in tiles), scale)

    network = of_pairs(on_its_device(model.network), ms.count, scale)
    strips = restored_strips(network, _mirrored(load, ms), (ms.height, ms.width), scale, tiling, progress)
    with atomic_path(out) as temporary, like_raster(temporary, ms, pan, ms.count) as result:
        for rows, strip in _with_rows(strips, scale):
            missing = _missing(ms, rows, 1).repeat(scale, 0).repeat(scale, 1) | _missing(pan, rows, scale)
            _write(result, rows, scale, as_counts(strip, peak, ms.dtypes[0]), missing)


def _fuse(
    model: ImageFuser, first: Any, second: Any, out: Path, peak: float | None, tiling: Tiling,
    progress: Progress | None,
) -> None:  # fmt: skip
    check_ground(first, second)
    peaks = [_check_picture(raster, model.network.in_channels, peak) for raster in (first, second)]

    def load(raster: Any, top: float, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
        return np.clip(_read(raster, rows, columns, 1).transpose(1, 2, 0) / np.float32(top), 0, 1)

    def load_both(*window: tuple[int, int]) -> torch.Tensor:
        images = (load(raster, top, *window) for raster, top in zip((first, second), peaks))
        return torch.cat([to_batch(as_given(model, image)) for image in images], dim=1)

    network = on_its_device(model.network)
    strips = restored_strips(
        lambda tile: network(*tile.chunk(2, dim=1)), _mirrored(load_both, first), (first.height, first.width), 1,
        tiling, progress,
    )  # fmt: skip
    colored = next((pair for pair in zip((second, first), peaks[::-1]) if pair[0].count == 3), None)
    bands = 1 if colored is None else 3
    with atomic_path(out) as temporary, like_raster(temporary, second, second, bands) as result:
        for rows, strip in _with_rows(strips, 1):
            fused = np.clip(strip.transpose(1, 2, 0), 0, 1)
            if colored is not None:
                fused = recolored(fused, load(*colored, rows, (0, first.width)))
            missing = _missing(first, rows, 1) | _missing(second, rows, 1)
            _write(result, rows, 1, as_counts(fused.transpose(2, 0, 1), peaks[1], second.dtypes[0]), missing)


def _check_picture(raster: Any, wanted: int, peak: float | None) -> float:
    """The counts that 1 stands for in a raster of one or three bands, whose values go with it."""
    usual = counts_of(raster, wanted)
    top = peak or usual
    check_range(raster, top)
    return top


def _mirrored(load: Callable[..., torch.Tensor], raster: Any) -> Callable[[Band, Band], torch.Tensor]:
    """`load(rows, columns)` for tiles that may end behind the raster: they are mirrored there."""

    def read(row: Band, column: Band) -> torch.Tensor:
        window = ((band.start, min(band.stop, side)) for band, side in ((row, raster.height), (column, raster.width)))
        return mirror_to(load(*window), (row.stop - row.start, column.stop - column.start), repeat_edge=False)

    return read


def _with_rows(strips: Iterable[torch.Tensor], scale: int) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """Strips (bands, rows, columns) float32 with their first and last row in pixels of the input."""
    top = 0
    for strip in strips:
        rows = (top, top + strip.shape[2] // scale)
        yield rows, strip[0].float().numpy()
        top = rows[1]


def _write(result: Any, rows: tuple[int, int], scale: int, counts: np.ndarray, missing: np.ndarray) -> None:
    """Put a strip in the result, with its missing value, if it has one, where `missing`."""
    if result.nodata is not None:
        counts[:, missing] = result.nodata
    result.write(counts, window=((scale * rows[0], scale * rows[1]), (0, result.width)))


def _read(raster: Any, rows: tuple[int, int], columns: tuple[int, int], factor: int) -> np.ndarray:
    """(bands, rows, columns) float32 of a window in pixels of the coarser raster; missing values as 0."""
    window = tuple((factor * start, factor * stop) for start, stop in (rows, columns))
    return raster.read(window=window, masked=True).filled(0).astype(np.float32)


def _missing(raster: Any, rows: tuple[int, int], factor: int) -> np.ndarray:
    """(rows, columns) bool: pixels that are missing in any band."""
    window = ((factor * rows[0], factor * rows[1]), (0, raster.width))
    return (raster.read_masks(window=window) == 0).any(axis=0)
