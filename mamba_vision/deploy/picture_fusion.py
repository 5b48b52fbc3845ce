"""Sharpening and fusing files with an exported model, as tools/fuse.py does it: pictures, GeoTIFFs (whole in memory).

Layouts: pictures (H, W, C), rasters (bands, H, W).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mamba_vision.deploy.restore import Fuser, Sharpener
from mamba_vision.utils.atomic import atomic_path
from mamba_vision.utils.picture_files import as_format_has_it, luminance, read_picture, write_picture
from mamba_vision.utils.rasters import as_counts, check_ground, check_range, counts_of, like_raster, open_raster


def fuse_pictures(model: Sharpener | Fuser, first: Path, second: Path, out: Path) -> None:
    """Two pictures to one, of the larger depth.

    Raises:
        FileNotFoundError: one is missing.
        ValueError: one is damaged, or they do not go with each other or the model.
    """
    one, two = read_picture(first), read_picture(second)
    if isinstance(model, Sharpener):
        guide = luminance(two.color) if model.model.info["guide_channels"] == 1 else two.color
        color = model.sharpen(one.color.transpose(2, 0, 1), guide.transpose(2, 0, 1)).transpose(1, 2, 0)
        like, alpha = one, two.alpha
    else:
        color = model(one.color, two.color)
        like = one if two.is_gray and not one.is_gray else two
        alpha = one.alpha if two.alpha is None else two.alpha
    result = replace(like, color=color, alpha=alpha, bits=max(one.bits, two.bits))
    write_picture(out, as_format_has_it(result, out.suffix.lower()))


def fuse_rasters(model: Sharpener | Fuser, first: Path, second: Path, out: Path) -> None:
    """Two rasters of the same ground to a GeoTIFF, written whole or not at all.

    Sharpened, it has the first one's bands, number format and missing value, fused the second one's; the place is the
    second one's, and it is missing where either is.

    Raises:
        FileNotFoundError, ImportError: a file, or rasterio, is missing.
        ValueError: a file is no raster; bands, scale, place or values do not fit the model or each other.
    """
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise ValueError(f"{out}: expected a name ending in .tif for a georeferenced result")
    with open_raster(first) as one, open_raster(second) as two:
        check_ground(one, two, model.scale)
        sharpens = isinstance(model, Sharpener)
        peaks = [model.peak if sharpens else counts_of(raster, model.channels) for raster in (one, two)]
        for raster, peak in zip((one, two), peaks):
            check_range(raster, peak)
        images = [
            raster.read(masked=True).filled(0).astype(np.float32) / np.float32(peak)
            for raster, peak in zip((one, two), peaks)
        ]
        if sharpens:
            result, like = model.sharpen(*images), one
        else:
            result, like = model(*(np.clip(x, 0, 1).transpose(1, 2, 0) for x in images)).transpose(2, 0, 1), two
        counts = as_counts(result, peaks[1], like.dtypes[0])
        if like.nodata is not None:
            missing = _missing(one).repeat(model.scale, 0).repeat(model.scale, 1) | _missing(two)
            counts[:, missing] = like.nodata
        with atomic_path(out) as temporary, like_raster(temporary, like, two, len(counts)) as raster:
            raster.write(counts)


def _missing(raster: Any) -> np.ndarray:
    """(H, W) bool: pixels that are missing in any band."""
    return (raster.read_masks() == 0).any(axis=0)
