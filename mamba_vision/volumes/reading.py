"""Scans and labels from NIfTI, NRRD, MetaImage and DICOM files, and pictures.

Every error names the file, what was found and expected."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from mamba_vision.volumes.dicom import is_dicom_file, read_dicom
from mamba_vision.volumes.dicom_labels import label_file, read_dicom_label
from mamba_vision.volumes.grids import grid_difference, place_in_grid, resample_to_grid
from mamba_vision.volumes.itk_files import is_itk_file, read_itk
from mamba_vision.volumes.pictures import lossy_cure, picture_ending, read_picture
from mamba_vision.volumes.volume import IMAGE_ENDINGS, NIFTI_ENDINGS, SEGMENTS, Volume, VolumeError

GEOMETRY_FIXES = ("error", "resample", "copy")
_READABLE = (
    "a NIfTI, NRRD or MetaImage file (.nii, .nii.gz, .nrrd, .mha, .mhd), a picture (.png, .bmp, .tif, .tiff) or a "
    "DICOM folder"
)
_ROUNDING = 1e-3  # by which a label that went through scl_slope or a float may miss its whole number
_TRUNCATED = "Copy or download the file again"


def read_volume(
    paths: str | Path | Sequence[str | Path],
    series: str | None = None,
    fix_geometry: str = "error",
    stacked: bool = False,
) -> Volume:
    """One scan: a NIfTI, NRRD or MetaImage file, a folder with a DICOM series, or a list with one of these a channel.

    Pictures are read as `pictures` has it; each colour is a channel.

    Args:
        paths: the file or folder, or one a channel; channels must share one grid.
        series: which DICOM series, where a folder holds several: its SeriesInstanceUID, number or description.
        fix_geometry: what to do when a channel lies in another grid than the first: 'error', 'resample' it there
            (linearly), or 'copy' the first's grid (shapes must agree).
        stacked: the one file holds all channels, along its fourth axis (as in the Medical Segmentation Decathlon).

    Returns:
        Volume with array (C, X, Y, Z) float32, the first channel's affine and header.

    Raises:
        VolumeError: missing, unreadable or truncated file, no 3-D image, NaN or Inf, channels in different grids.
    """
    if fix_geometry not in GEOMETRY_FIXES:
        raise ValueError(f"fix_geometry: expected one of {', '.join(GEOMETRY_FIXES)}, found {fix_geometry!r}")
    paths = (Path(paths),) if isinstance(paths, (str, Path)) else tuple(Path(path) for path in paths)
    if not paths:
        raise ValueError("paths: expected at least one file or folder, found an empty list")
    if stacked and len(paths) > 1:
        raise ValueError(f"paths: expected one file that holds all channels, found {len(paths)}")
    array, affine, header = _read_image(paths[0], series, stacked)
    if stacked or (len(paths) == 1 and array.ndim == 4):
        return Volume(array, affine, header, paths)
    channels = [*_channels(array)]
    for path in paths[1:]:
        others, other_affine, _ = _read_image(path, series)
        for other in _channels(others):
            channels.append(
                _onto(path, other, other_affine, channels[0].shape, affine, f"channel {paths[0].name}", fix_geometry)
            )
    stacked = channels[0][None] if len(channels) == 1 else np.stack(channels)
    return Volume(stacked, affine, header, paths)


def read_label(
    path: str | Path,
    like: Volume | None = None,
    fix_geometry: str = "error",
    names: Mapping[str, int] | None = None,
) -> Volume:
    """A label map, (1, X, Y, Z) int16 or int32 (the smaller that holds its values).

    Args:
        path: NIfTI, NRRD or MetaImage file of integers, a DICOM-SEG, an RTSTRUCT, or a folder with one of these.
        like: the scan it belongs to; their grids must agree, or are made to by `fix_geometry`: 'resample' takes
            the nearest voxel, 'copy' takes the scan's geometry (shapes must agree). A DICOM-SEG, and 3D Slicer's
            .seg.nrrd, may hold the part of the scan that has labels; contours are filled in the scan's grid.
        names: values of the structures in a DICOM-SEG or RTSTRUCT; see dicom_labels.read_dicom_label.

    Raises:
        VolumeError: as read_volume, values that are no integers, or a grid other than the scan's.
    """
    if fix_geometry not in GEOMETRY_FIXES:
        raise ValueError(f"fix_geometry: expected one of {', '.join(GEOMETRY_FIXES)}, found {fix_geometry!r}")
    path = label_file(Path(path))
    if is_dicom_file(path):
        values, affine, header = *_placed(path, *read_dicom_label(path, like, names), like), None
    elif path.name.lower().endswith(SEGMENTS):
        values, affine, header = *_placed(path, *read_itk(path), like), None
    elif picture_ending(path):
        values, affine = read_picture(path, True, like)
        values, header = values[0], None
    elif is_itk_file(path):
        values, affine, header = *read_itk(path), None
    else:
        image, affine, header = _load_nifti(path)
        values = _voxels(path, image, None)
    if values.dtype.kind == "f":
        _refuse_not_finite(path, values)
        whole = np.rint(values)
        if (bad := np.abs(values - whole) > _ROUNDING).any():
            found = f"label value {values[bad][0]:.6g}"
            raise VolumeError(path, found, "whole numbers", "Is this file really a label map?")
        values = whole
    low, high = int(values.min()), int(values.max())
    if low < -(2**31) or high >= 2**31:
        raise VolumeError(path, f"label values from {low} to {high}", "class numbers")
    values = values.astype(np.int16 if low >= -(2**15) and high < 2**15 else np.int32)
    if like is not None:
        values = _onto(path, values, affine, like.shape, like.affine, f"its scan {like.name}", fix_geometry)
        affine, header = like.affine, like.header
    return Volume(values[None], affine, header, (path,))


def is_image_file(path: str | Path) -> bool:
    """Whether the name ends as that of an image we read: NIfTI, NRRD or MetaImage."""
    return Path(path).name.lower().endswith(tuple(IMAGE_ENDINGS))


def _channels(array: np.ndarray) -> np.ndarray:
    return array if array.ndim == 4 else array[None]


def is_nifti(path: str | Path) -> bool:
    """Whether the name ends as a NIfTI file's does."""
    return Path(path).name.lower().endswith(tuple(NIFTI_ENDINGS))


def _read_image(
    path: Path, series: str | None, stacked: bool = False
) -> tuple[np.ndarray, np.ndarray, nib.Nifti1Header | None]:
    if path.is_dir() or is_dicom_file(path):
        array, affine = read_dicom(path, series)
        array, header = array[None] if stacked else array, None
    elif picture_ending(path):
        array, affine = read_picture(path)
        array, header = array.astype(np.float32), None
    elif is_itk_file(path):
        array, affine = read_itk(path, stacked)
        array, header = array.astype(np.float32, copy=False), None
    else:
        image, affine, header = _load_nifti(path, stacked)
        array = _voxels(path, image, np.float32, stacked)
    _refuse_not_finite(path, array)
    return array, affine, header


def _placed(path: Path, values: np.ndarray, affine: np.ndarray, like: Volume | None) -> tuple[np.ndarray, np.ndarray]:
    """A label and its affine; in the grid of `like` where it is stored as a part of that."""
    placed = place_in_grid(values, affine, like.shape, like.affine) if like is not None else None
    if placed is None:
        return values, affine
    if placed.any() != values.any():
        raise VolumeError(path, "segments that lie outside the scan", f"segments of {like.name}")
    return placed, like.affine


def _load_nifti(path: Path, stacked: bool = False) -> tuple[nib.Nifti1Image, np.ndarray, nib.Nifti1Header]:
    if not path.exists():
        raise VolumeError(path, "no such file", "an image file or a DICOM folder")
    if path.is_dir():
        raise VolumeError(path, "a folder", "a NIfTI file")
    if path.stat().st_size == 0:
        raise VolumeError(path, "an empty file", "a NIfTI image", _TRUNCATED)
    try:
        with path.open("rb"):
            pass
    except OSError as e:
        raise VolumeError(path, f"a file that can't be opened ({e.strerror})", "a file that you may read") from e
    try:
        image = nib.load(path)
    except (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError, OSError, EOFError, zlib.error) as e:
        kind = "is no image" if not isinstance(e, (EOFError, zlib.error)) else "a truncated gzip file"
        raise VolumeError(path, f"{kind} ({_short(e)})", _READABLE, lossy_cure([path])) from e
    if not isinstance(image, nib.Nifti1Image):
        raise VolumeError(path, f"a {type(image).__name__}", _READABLE)
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    sides = " x ".join(map(str, image.shape))
    if len(shape) > (4 if stacked else 3):
        raise VolumeError(
            path, f"a {len(shape)}-D image ({sides})", "a 3-D image", "Save each time point or channel as its own file"
        )
    if len(shape) < 2 or shape[:3].count(1) > 1:
        raise VolumeError(path, f"a line of voxels ({sides})", "a 3-D image or a slice")
    if 0 in shape:
        raise VolumeError(path, f"no voxels ({sides})", "a 3-D image")
    kind = image.get_data_dtype()
    if kind.kind not in "iuf":
        raise VolumeError(
            path, f"{', '.join(kind.names)} in each voxel" if kind.names else f"voxels of type {kind}",
            "one real number a voxel", "Save each colour as its own file, a channel" if kind.names else "",
        )  # fmt: skip
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise VolumeError(path, "a header whose affine is not invertible", "axes of non-zero length in space")
    return image, affine, image.header


def _voxels(path: Path, image: nib.Nifti1Image, dtype: type | None, stacked: bool = False) -> np.ndarray:
    """The voxels as (X, Y, Z), or (C, X, Y, Z) if `stacked`, with scl_slope applied; of a 2-D file Z is 1."""
    try:
        with np.errstate(all="ignore"):
            array = np.asanyarray(image.dataobj) if dtype is None else image.get_fdata(caching="unchanged", dtype=dtype)
    except (OSError, EOFError, zlib.error, ValueError) as e:
        raise VolumeError(path, f"truncated or damaged voxel data ({_short(e)})", "a complete file", _TRUNCATED) from e
    if stacked:
        return np.moveaxis(array.reshape((*array.shape[:3], -1)), -1, 0)
    return array.reshape((*array.shape, 1)[:3])


def _refuse_not_finite(path: Path, array: np.ndarray) -> None:
    with np.errstate(invalid="ignore"):
        if np.isfinite(array.sum(dtype=np.float64)):  # one pass without a mask; a sum of float32 fits a float64
            return
    count = int(array.size - np.isfinite(array).sum())
    raise VolumeError(
        path, f"{count} NaN or Inf voxels of {array.size}", "finite intensities", "Replace them, e.g. by 0"
    )


def _onto(
    path: Path, array: np.ndarray, affine: np.ndarray, shape, target: np.ndarray, partner: str, fix: str
) -> np.ndarray:
    difference = grid_difference(shape, target, array.shape, affine)
    if difference is None:
        return array
    if fix == "resample":
        return resample_to_grid(array, affine, shape, target, order=1 if array.dtype.kind == "f" else 0)
    if fix == "copy" and array.shape == tuple(shape):
        return array
    cure = "Use --fix-geometry resample (into the scan's grid)"
    if array.shape == tuple(shape):
        cure += " or --fix-geometry copy (if the voxels match and only the header is wrong)"
    raise VolumeError(path, f"{difference}", f"the grid of {partner}", cure)


def _short(error: Exception) -> str:
    """The first line of somebody else's message, at most 100 characters."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text if len(text) <= 100 else text[:97] + "..."
