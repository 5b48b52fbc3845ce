"""GeoTIFF and other rasters with a place on Earth, through rasterio."""

import logging
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

RASTER_SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".img")
_GEO_TAGS = {33550, 33922, 34264, 34735}  # pixel scale, tie points, transformation, key directory
_SAMPLE = 1024  # pixels a side that the range of values is looked up in


def is_raster(path: str | Path) -> bool:
    """Whether a file is more than a picture: georeferenced, of more bands than colours, or in a raster's format."""
    path = Path(path)
    if path.suffix.lower() not in RASTER_SUFFIXES:
        return False
    if path.suffix.lower() not in (".tif", ".tiff"):
        return True
    logger = logging.getLogger("PIL.TiffImagePlugin")
    logger.disabled, before = True, logger.disabled  # it says of many bands that it cannot decode them
    try:
        with Image.open(path) as image:
            return bool(_GEO_TAGS & set(image.tag_v2)) or image.mode in ("F", "I")
    except OSError:  # Pillow knows no picture of this kind, or it is damaged, which rasterio will say
        return path.is_file()
    finally:
        logger.disabled = before


def rasterio_for(path: str | Path) -> ModuleType:
    """rasterio.

    Raises:
        ImportError: it is not installed; the message says what to do.
    """
    try:
        import rasterio
    except ImportError as error:
        raise ImportError(f"{path}: georeferenced files need rasterio: pip install mamba_vision[remote]") from error
    return rasterio


def open_raster(path: str | Path) -> Any:
    """A rasterio dataset to read from.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no raster, damaged, or holds complex numbers.
        ImportError: rasterio is not installed.
    """
    rasterio, path = rasterio_for(path), Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():  # without georeference, pixels are compared
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            raster = rasterio.open(path)
    except rasterio.errors.RasterioIOError as error:
        raise ValueError(f"{path}: damaged, or no raster ({error})") from error
    if len(set(raster.dtypes)) > 1 or np.dtype(raster.dtypes[0]).kind not in "uif":
        kinds = ", ".join(sorted(set(raster.dtypes)))
        raise ValueError(f"{path}: found bands of {kinds}, expected real numbers of one kind")
    return raster


def check_ground(first: Any, second: Any, scale: int = 1) -> None:
    """Raise where two rasters do not show the same ground, the second's pixels `scale` times finer.

    Corners may differ by half a pixel of the first. Rasters without georeference are compared in pixels alone.

    Raises:
        ValueError: other sizes, coordinate systems, places or pixels; the message names both files.
    """
    names = f"{first.name} and {second.name}"
    want = (first.height * scale, first.width * scale)
    if (second.height, second.width) != want:
        raise ValueError(
            f"{names}: found {first.height} x {first.width} and {second.height} x {second.width} pixels, expected "
            f"{want[0]} x {want[1]} of the second"
        )
    if first.crs is not None and second.crs is not None and first.crs != second.crs:
        raise ValueError(f"{names}: found coordinate systems {first.crs} and {second.crs}, expected one")
    if first.transform.is_identity or second.transform.is_identity:
        return
    pixel = max(np.hypot(first.transform.a, first.transform.d), np.hypot(first.transform.b, first.transform.e))
    for column, row in ((0, 0), (first.width, 0), (0, first.height), (first.width, first.height)):
        one, two = _place(first.transform, column, row), _place(second.transform, scale * column, scale * row)
        apart = np.hypot(*(one - two))
        if apart > 0.5 * pixel:
            raise ValueError(
                f"{names}: their corners lie {apart / pixel:.3g} pixels of the first apart, expected the same ground; "
                "cut and resample one onto the other, for instance with gdalwarp"
            )


def _place(transform: Any, column: int, row: int) -> np.ndarray:
    """Coordinates on the ground of a pixel's near corner."""
    a, b, c, d, e, f, *_ = transform
    return np.array([a * column + b * row + c, d * column + e * row + f])


def check_range(raster: Any, peak: float) -> None:
    """Raise where a raster's values (looked up in a smaller copy) do not go with `peak`, what stands for 1.

    Raises:
        ValueError: values that are not finite, below 0, or far above the peak; or all below a hundredth of it.
    """
    size = [min(side, _SAMPLE) for side in (raster.height, raster.width)]
    values = raster.read(out_shape=(raster.count, *size), masked=True).compressed().astype(np.float64)
    if not values.size:
        raise ValueError(f"{raster.name}: every pixel is marked as missing")
    if not np.isfinite(values).all():
        raise ValueError(
            f"{raster.name}: found values that are not finite; declare them as missing, for instance by "
            "gdal_translate -a_nodata nan"
        )
    low, typical, high = values.min(), np.percentile(values, 99), values.max()
    if low < 0 or typical > peak or high < peak / 100:
        raise ValueError(
            f"{raster.name}: found values from {low:g} to {high:g}, 99 % of them up to {typical:g}; expected 0 to "
            f"{peak:g}. Give the counts that stand for full brightness as peak (--peak)"
        )


def counts_of(raster: Any, wanted: int) -> float:
    """The counts that 1 stands for in a raster of one or three bands, for a network of `wanted` channels.

    Raises:
        ValueError: other bands, or fewer than the network needs.
    """
    if raster.count not in (1, 3):
        raise ValueError(f"{raster.name}: found {raster.count} bands, expected one (gray) or three (RGB)")
    if raster.count < wanted:
        raise ValueError(f"{raster.name}: found one band (gray), this network needs three (RGB)")
    return float(np.iinfo(raster.dtypes[0]).max) if np.dtype(raster.dtypes[0]).kind == "u" else 1.0


def like_raster(path: Path, like: Any, grid: Any, bands: int) -> Any:
    """A GeoTIFF to write: values, bands' names and missing value as of `like`, place and pixels as of `grid`."""
    rasterio = rasterio_for(path)
    dtype = like.dtypes[0]
    raster = rasterio.open(
        path, "w", driver="GTiff", height=grid.height, width=grid.width, count=bands, dtype=dtype,
        crs=grid.crs or like.crs, transform=grid.transform, nodata=like.nodata, tiled=True, blockxsize=256,
        blockysize=256, compress="deflate", predictor=3 if np.dtype(dtype).kind == "f" else 2, bigtiff="IF_SAFER",
    )  # fmt: skip
    if bands == like.count:
        raster.descriptions = like.descriptions
    raster.update_tags(**like.tags())
    if grid.rpcs is not None:
        raster.rpcs = grid.rpcs
    return raster


def as_counts(image: np.ndarray, peak: float, dtype: str) -> np.ndarray:
    """Values of 0 to 1 as counts of `dtype`, rounded where it is whole numbers."""
    counts = np.clip(image, 0, 1) * peak
    kind = np.dtype(dtype)
    return counts.astype(kind) if kind.kind == "f" else np.clip(np.rint(counts), 0, np.iinfo(kind).max).astype(kind)
