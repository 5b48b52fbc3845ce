"""NRRD and MetaImage files, by SimpleITK: voxels as they are stored, geometry from ITK's LPS to RAS."""

from pathlib import Path
from typing import Any

import numpy as np

from mamba_vision.utils.picture_depth import PICTURE_DEPTH
from mamba_vision.volumes.volume import IMAGE_ENDINGS, NIFTI_ENDINGS, VolumeError

_ENDINGS = tuple(ending for ending in IMAGE_ENDINGS if ending not in NIFTI_ENDINGS)
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def is_itk_file(path: str | Path) -> bool:
    """Whether the name ends as an NRRD or MetaImage file's does."""
    return Path(path).name.lower().endswith(_ENDINGS)


def read_itk(path: Path, stacked: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (X, Y, Z) in the stored type, and the affine (4, 4) to RAS mm.

    Args:
        stacked: whether the file holds several channels, as vectors or along a fourth axis; then (C, X, Y, Z).

    Raises:
        VolumeError: SimpleITK missing, no such file, unreadable or truncated, complex or colour voxels, a line.
    """
    sitk, header = itk_header(path)
    components, sides = header.GetNumberOfComponents(), list(header.GetSize())
    shape = " x ".join(map(str, sides)) + (f" of {components} values each" if components > 1 else "")
    sides += [1] * (len(sides) == 2)
    while len(sides) > 3 and sides[-1] == 1:
        sides.pop()
    if len(sides) + (components > 1) > (4 if stacked else 3):
        raise VolumeError(
            path, f"an image of several values a voxel ({shape})", "a 3-D image of one",
            "Save each time point, channel or layer of segments as its own file",
        )  # fmt: skip
    if sides[:3].count(1) > 1:
        raise VolumeError(path, f"a line of voxels ({shape})", "a 3-D image or a slice")
    try:
        image = header.Execute()
    except RuntimeError as e:
        raise VolumeError(
            path, f"truncated or damaged voxel data ({_reason(e)})", "a complete file", "Copy or download it again"
        ) from e
    array = sitk.GetArrayViewFromImage(image)
    array = np.moveaxis(array, -1, 0) if components > 1 else array  # (C, Z, Y, X)
    array = array.reshape((-1, *sides[2::-1]) if stacked else sides[2::-1])
    axes = len(image.GetSize())
    used = min(axes, 3)  # a 2-D file says nothing of its third axis
    direction, spacing, affine = np.eye(3), np.array([1, 1, PICTURE_DEPTH]), np.eye(4)
    direction[:used, :used] = np.array(image.GetDirection()).reshape(axes, axes)[:used, :used]
    spacing[:used] = image.GetSpacing()[:used]
    affine[:3, :3] = _LPS_TO_RAS @ direction * spacing
    affine[:used, 3] = _LPS_TO_RAS[:used, :used] @ np.array(image.GetOrigin()[:used])
    turned = array.transpose(*range(array.ndim - 3), -1, -2, -3)
    return turned.copy(order="K"), affine  # a copy: the view dies with the image


def itk_header(path: Path) -> tuple[Any, Any]:
    """(SimpleITK, a reader that has read the header). Raises VolumeError: the package or the file is missing."""
    try:
        import SimpleITK as sitk  # noqa: N813 (its own name for itself)
    except ImportError as e:
        raise VolumeError(
            path, "an NRRD or MetaImage file, but the package SimpleITK is missing", "SimpleITK",
            'pip install "mamba_vision[dicom]"',
        ) from e  # fmt: skip
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise VolumeError(path, found, "an image file or a DICOM folder")
    if path.stat().st_size == 0:
        raise VolumeError(path, "an empty file", "an image", "Copy or download the file again")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # what matters comes as an exception
    try:
        reader.SetImageIO("NrrdImageIO" if path.name.lower().endswith(".nrrd") else "MetaImageIO")
        reader.ReadImageInformation()
    except RuntimeError as e:
        raise VolumeError(path, f"is no image ({_reason(e)})", "an NRRD or MetaImage file") from e
    return sitk, reader


def _reason(error: Exception) -> str:
    """What an ITK exception says at its end, at most 100 characters."""
    lines = [line.strip() for line in str(error).splitlines()]
    text = next((line for line in reversed(lines) if line and line != "Reason: Success"), type(error).__name__)
    return text if len(text) <= 100 else text[:97] + "..."
