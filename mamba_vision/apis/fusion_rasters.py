"""Fusing GeoTIFFs: read and written piece by piece, so that scenes larger than memory work; georeference kept."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from mamba_vision.apis.fusion import Fusing, Progress, check_channels, fuse_pictures, tiling_for
from mamba_vision.apis.pixel_model import half_precision
from mamba_vision.datasets.fusion_rasters import as_counts, check_ground, check_range, like_raster, open_raster
from mamba_vision.datasets.restoration_images import Picture
from mamba_vision.models.layers.mirror_padding import mirror_to
from mamba_vision.models.tasks.fusion import on_its_device
from mamba_vision.models.tasks.fusion_sharpening import ImageSharpener
from mamba_vision.models.tasks.restoration_tiles import Band, Tiling, restored_strips
from mamba_vision.models.tasks.sharpening_tiles import of_pairs, paired
from mamba_vision.utils.atomic import atomic_path

_PREVIEW = 1000  # pixels a side


def fuse_rasters(
    model: Fusing, first: str | Path, second: str | Path, out: str | Path, peak: float | None = None,
    tiling: Tiling | None = None, amp: bool = False, progress: Progress | None = None,
) -> Path:  # fmt: skip
    """Two rasters of the same ground to a GeoTIFF.

    Of an ImageSharpener, the result has the first raster's bands, their names, number format and missing value, and the
    second one's pixels and place; where either is missing, so is the result. Of an ImageFuser, which takes one or three
    bands, it has the second raster's number format and place.

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
            _fuse(model, one, two, out, peak, tiling, progress)
    return out


def raster_preview(path: str | Path) -> np.ndarray:
    """(h, w, bands) float32 of 0 to 1 (from the least to the largest value), no more than 1000 pixels a side."""
    with open_raster(path) as raster:
        shrink = max(raster.height / _PREVIEW, raster.width / _PREVIEW, 1)
        size = [max(int(side / shrink), 1) for side in (raster.height, raster.width)]
        image = raster.read(out_shape=(raster.count, *size)).astype(np.float32).transpose(1, 2, 0)
    low, high = image.min(), image.max()
    return (image - low) / max(high - low, 1e-6)


def _sharpen(
    model: ImageSharpener, ms: Any, pan: Any, out: Path, peak: float, tiling: Tiling, progress: Progress | None
) -> None:
    scale = model.scale
    check_channels(model, ms.count, pan.count, (ms.name, pan.name))
    check_ground(ms, pan, scale)
    for raster in (ms, pan):
        check_range(raster, peak)

    def read(row: Band, column: Band) -> torch.Tensor:
        """The image and its guide of one tile, mirrored where it ends behind the image."""
        rows, columns = ((band.start, min(band.stop, side)) for band, side in ((row, ms.height), (column, ms.width)))
        ms_tile, pan_tile = (
            torch.from_numpy(_read(raster, rows, columns, factor)[None] / np.float32(peak))
            for raster, factor in ((ms, 1), (pan, scale))
        )
        size = (row.stop - row.start, column.stop - column.start)
        return mirror_to(paired(ms_tile, pan_tile, scale), size, repeat_edge=False)

    network = of_pairs(on_its_device(model.network), ms.count, scale)
    with atomic_path(out) as temporary, like_raster(temporary, ms, pan, ms.count) as result:
        top = 0
        for strip in restored_strips(network, read, (ms.height, ms.width), scale, tiling, progress):
            rows = (top // scale, (top + strip.shape[2]) // scale)
            counts = as_counts(strip[0].float().numpy(), peak, ms.dtypes[0])
            if ms.nodata is not None:
                missing = _missing(ms, rows, 1).repeat(scale, 0).repeat(scale, 1) | _missing(pan, rows, scale)
                counts[:, missing] = ms.nodata
            result.write(counts, window=((top, top + strip.shape[2]), (0, pan.width)))
            top += strip.shape[2]


def _fuse(
    model: Fusing, first: Any, second: Any, out: Path, peak: float | None, tiling: Tiling | None,
    progress: Progress | None,
) -> None:  # fmt: skip
    check_ground(first, second)
    pictures = []
    for raster in (first, second):
        if raster.count not in (1, 3):
            raise ValueError(f"{raster.name}: found {raster.count} bands, expected one (gray) or three (RGB)")
        whole = np.dtype(raster.dtypes[0]).kind == "u"
        top = peak or (float(np.iinfo(raster.dtypes[0]).max) if whole else 1.0)
        check_range(raster, top)
        image = raster.read().astype(np.float32).transpose(1, 2, 0) / top
        pictures.append(Picture(np.clip(image, 0, 1)))
    fused = fuse_pictures(model, *pictures, tiling, progress=progress).color
    with atomic_path(out) as temporary, like_raster(temporary, second, second, fused.shape[2]) as result:
        counts = as_counts(fused.transpose(2, 0, 1), top, second.dtypes[0])
        if second.nodata is not None:
            counts[:, _missing(second, (0, second.height), 1)] = second.nodata
        result.write(counts)


def _read(raster: Any, rows: tuple[int, int], columns: tuple[int, int], factor: int) -> np.ndarray:
    """(bands, rows, columns) float32 of a window in pixels of the coarser raster; missing values as 0."""
    window = tuple((factor * start, factor * stop) for start, stop in (rows, columns))
    return raster.read(window=window, masked=True).filled(0).astype(np.float32)


def _missing(raster: Any, rows: tuple[int, int], factor: int) -> np.ndarray:
    """(rows, columns) bool: pixels that are missing in any band."""
    window = ((factor * rows[0], factor * rows[1]), (0, raster.width))
    return (raster.read_masks(window=window) == 0).any(axis=0)
