"""Training data for sharpening from scenes at hand, by Wald's protocol (Wald, Ranchin and Mangolini, 1997).

Image and guide are made `scale` times smaller, the image as the sensor's optics would; what was the image is the truth.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mamba_vision.apis.restoration_preparation import starts
from mamba_vision.evaluation.fusion_full_resolution import enlarge, through_optics
from mamba_vision.utils.atomic import atomic_path
from mamba_vision.utils.bicubic import bicubic_down
from mamba_vision.utils.rasters import check_ground, open_raster

_MARGIN = 24  # pixels around a patch that the optics' filter of 41 taps reaches into


def wald_patches(
    image: str | Path, guide: str | Path, out: str | Path, sensor: str = "other", scale: int = 4, size: int = 64,
    step: int = 64, report: Callable[[int, int], None] = lambda done, total: None,
) -> int:  # fmt: skip
    """Patches of a scene as an HDF5 file in PanCollection's layout; how many.

    Patches with missing values are left out. Values stay counts.

    Args:
        image, guide: rasters of the same ground, the guide's pixels `scale` times finer.
        sensor: whose optics, a name of `NYQUIST_GAINS`.
        scale: 2 or 4, as the guide's.
        size: side of a patch of the truth, a multiple of the scale.
        step: from patch to patch, in pixels of the truth.
        report: called with patches done and all patches.

    Raises:
        FileNotFoundError, ImportError: a file, rasterio or h5py is missing.
        ValueError: a setting out of range; rasters that do not go together, are smaller than a patch, or have no patch
            without missing values.
    """
    if scale not in (2, 4) or size % scale or size < scale or step < 1:
        raise ValueError(f"expected scale 2 or 4, size a multiple of it and step >= 1, found {scale}, {size}, {step}")
    with open_raster(image) as ms, open_raster(guide) as pan:
        check_ground(ms, pan, scale)
        if min(ms.height, ms.width) < size:
            raise ValueError(f"{image}: found {ms.height} x {ms.width} pixels, expected at least {size} a side")
        places = [(t, x) for t in starts(ms.height, size, step) for x in starts(ms.width, size, step)]
        found = []
        for number, place in enumerate(places, start=1):
            if (patch := _patch(ms, pan, place, size, scale, sensor)) is not None:
                found.append(patch)
            report(number, len(places))
    if not found:
        raise ValueError(f"{image}: every patch has missing values")
    _write(Path(out), {key: np.stack([patch[key] for patch in found]) for key in found[0]})
    return len(found)


def _patch(ms: Any, pan: Any, place: tuple[int, int], size: int, scale: int, sensor: str) -> dict | None:
    """gt, ms, lms and pan (channels, rows, columns) of one patch; None where values are missing."""
    # The filters see what lies around the patch, as far as there is something, in whole pixels of the small image.
    wide = []
    for start, side in zip(place, (ms.height, ms.width)):
        before, behind = (min(room, _MARGIN) // scale * scale for room in (start, side - start - size))
        wide.append((start - before, start + size + behind))
    around = ms.read(window=tuple(wide), masked=True)
    fine = pan.read(window=tuple((scale * first, scale * last) for first, last in wide), masked=True)
    if np.ma.is_masked(around) or np.ma.is_masked(fine):
        return None
    truth, fine = (np.asarray(array, dtype=np.float64) for array in (around, fine))
    inner = [slice(start - first, start - first + size) for start, (first, _) in zip(place, wide)]
    small = [slice(part.start // scale, part.stop // scale) for part in inner]
    # every scale-th pixel of the blurred image, as the protocol's toolbox takes them: near the middle of each block
    blurred = through_optics(truth, sensor, scale)[:, scale // 2 :: scale, scale // 2 :: scale]
    less = bicubic_down(np.ascontiguousarray(fine.transpose(1, 2, 0)), scale).transpose(2, 0, 1)
    ms_patch = blurred[:, small[0], small[1]]
    return {
        "gt": truth[:, inner[0], inner[1]].astype(np.float32),
        "ms": ms_patch.astype(np.float32),
        "lms": enlarge(ms_patch, scale).astype(np.float32),
        "pan": less[:, inner[0], inner[1]].astype(np.float32),
    }


def _write(out: Path, arrays: dict[str, np.ndarray]) -> None:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f"{out}: writing HDF5 needs h5py: pip install mamba_vision[remote]") from error
    with atomic_path(out) as temporary, h5py.File(temporary, "w") as file:
        for key, array in arrays.items():
            file.create_dataset(key, data=array, chunks=(1, *array.shape[1:]), compression="gzip")
