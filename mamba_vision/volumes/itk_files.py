"""NRRD and MetaImage files, by SimpleITK: voxels as they are stored, geometry from ITK's LPS to RAS."""

from pathlib import Path
from typing import Any

import numpy as np

from mamba_vision.volumes.volume import FLAT, IMAGE_ENDINGS, NIFTI_ENDINGS, VolumeError

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
        VolumeError: SimpleITK missing, no such file, unreadable or truncated, no 3-D image, complex or colour voxels.
    """
    sitk, header = itk_header(path)
    components, sides = header.GetNumberOfComponents(), list(header.GetSize())
    shape = " x ".join(map(str, sides)) + (f" of {components} values each" if components > 1 else "")
    while len(sides) > 3 and sides[-1] == 1:
        sides.pop()
    if len(sides) + (components > 1) > (4 if stacked else 3):
        raise VolumeError(
            path, f"an image of several values a voxel ({shape})", "a 3-D image of one",
            "Save each time point, channel or layer of segments as its own file",
        )  # fmt: skip
    if len(sides) < 3 or 1 in sides[:3]:
        raise VolumeError(path, f"a 2-D image ({shape})", "a 3-D image", FLAT)
    try:
        image = header.Execute()
    except RuntimeError as e:
        raise VolumeError(
            path, f"truncated or damaged voxel data ({_reason(e)})", "a complete file", "Copy or download it again"
        ) from e
    array = sitk.GetArrayViewFromImage(image)
    array = np.moveaxis(array, -1, 0) if components > 1 else array  # (C, Z, Y, X)
    array = array.reshape((-1, *array.shape[-3:]) if stacked else array.shape[-3:])
    axes = len(image.GetSize())
    direction = np.array(image.GetDirection()).reshape(axes, axes)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = _LPS_TO_RAS @ direction * np.array(image.GetSpacing()[:3])
    affine[:3, 3] = _LPS_TO_RAS @ np.array(image.GetOrigin()[:3])
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
