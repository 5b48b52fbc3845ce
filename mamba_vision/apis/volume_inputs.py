"""Any of the kinds of scan that Python users have in hand, as a Volume."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import MetaTensor

from mamba_vision.volumes.orientation import stored_axes
from mamba_vision.volumes.planning import Plan
from mamba_vision.volumes.reading import read_volume
from mamba_vision.volumes.scan_files import ScanFiles, read_scan
from mamba_vision.volumes.volume import Volume, VolumeError

Scan = Any  # path | list of paths (channels) | ScanFiles | Volume | nibabel image(s) | MetaTensor | (array, affine)


def to_volume(scan: Scan, series: str | None = None, fix_geometry: str = "error") -> Volume:
    """Any of the kinds of scan that `inference_volume` takes, as a Volume; `fix_geometry` as for read_volume.

    Raises:
        VolumeError: a file that cannot be read; an array that is not 3-D or not finite.
        ValueError: something else than a scan.
    """
    if isinstance(scan, Volume):
        return _finite(scan)
    if isinstance(scan, ScanFiles):
        return read_scan(scan if series is None else replace(scan, series=series), fix_geometry)
    if isinstance(scan, str | Path):
        return read_volume(scan, series, fix_geometry)
    if isinstance(scan, MetaTensor):
        return _from_array(scan.numpy(force=True), np.asarray(scan.affine, np.float64))
    if isinstance(scan, nib.spatialimages.SpatialImage):
        return _from_nibabel([scan])
    if isinstance(scan, tuple | list) and len(scan):
        if len(scan) == 2 and np.shape(scan[1]) == (4, 4):
            return _from_array(np.asarray(scan[0]), np.asarray(scan[1], np.float64))
        if all(isinstance(one, str | Path) for one in scan):
            return read_volume(list(scan), series, fix_geometry)
        if all(isinstance(one, nib.spatialimages.SpatialImage) for one in scan):
            return _from_nibabel(list(scan))
    raise ValueError(
        f"scan: expected paths, a nibabel image, a MetaTensor or (array, affine), found {type(scan).__name__}"
    )


def check_channels(volume: Volume, plan: Plan) -> None:
    """Raises VolumeError where the scan has not the channels that the model was trained on."""
    found, expected = len(volume.array), len(plan.channels)
    if found != expected:
        raise VolumeError(
            volume.name, f"{found} channel{'s' if found > 1 else ''}", f"{expected} ({', '.join(plan.channels)})",
            "Name a case's files CASE_0000.nii.gz, CASE_0001.nii.gz ... in this order, or list them after --channels",
        )  # fmt: skip


def check_slice(volume: Volume, plan: Plan) -> None:
    """Raises VolumeError for a single slice, where the model was trained on volumes or on slices in another plane."""
    if volume.is_flat and not (plan.slicewise and volume.shape[stored_axes(volume.affine, plan.axes)[0][0]] == 1):
        raise VolumeError(
            volume.name, f"a 2-D image ({' x '.join(map(str, volume.shape))})",
            "a slice in the plane that the model was trained on" if plan.slicewise else "a 3-D image",
            "" if plan.slicewise else "Only models of the configuration 2d segment single slices",
        )  # fmt: skip


def _from_nibabel(images: list[nib.spatialimages.SpatialImage]) -> Volume:
    first = images[0]
    for other in images[1:]:
        if other.shape != first.shape or not np.allclose(other.affine, first.affine, atol=1e-3):
            raise VolumeError("the scan", "channels in different grids", "one shape and affine for all channels")
    sides = first.shape
    while len(sides) > 3 and sides[-1] == 1:  # a single time point or channel, as some programs write it
        sides = sides[:-1]
    array = np.stack([np.asarray(image.dataobj, np.float32).reshape(sides) for image in images])
    header = first.header if isinstance(first, nib.Nifti1Image) else None
    return _from_array(array[0] if len(images) == 1 else array, first.affine, header)


def _from_array(array: np.ndarray, affine: np.ndarray, header: nib.Nifti1Header | None = None) -> Volume:
    shape = array.shape
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or 0 in array.shape or array.shape[1:].count(1) > 1:
        raise VolumeError("the scan", f"an array of shape {shape}", "a 3-D scan (X, Y, Z) or (C, X, Y, Z)")
    return _finite(Volume(array.astype(np.float32, copy=False), affine, header))


def _finite(volume: Volume) -> Volume:
    if not np.isfinite(volume.array.sum(dtype=np.float64)):
        bad = int(volume.array.size - np.isfinite(volume.array).sum())
        raise VolumeError(volume.name, f"{bad} NaN or Inf voxels", "finite intensities", "Replace them, e.g. by 0")
    return volume
