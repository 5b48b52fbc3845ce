"""A scan in memory: the voxels as they are stored, and where they lie in the patient."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np


class VolumeError(ValueError):
    """A scan, label or data set that cannot be used as it is.

    Attributes:
        file: the file or folder it is about.
        found: what is there.
        expected: what should be there.
        cure: what the user can do, or an empty string.
    """

    def __init__(self, file: str | Path, found: str, expected: str, cure: str = "") -> None:
        self.file, self.found, self.expected, self.cure = str(file), found, expected, cure
        super().__init__(f"{file}: {found}; expected {expected}" + (f". {cure}" if cure else ""))

    def __reduce__(self):
        return type(self), (self.file, self.found, self.expected, self.cure)


class SeveralSeriesError(VolumeError):
    """DICOM series of which nobody has chosen one."""


@dataclass(frozen=True)
class Volume:
    """One scan, its axes and voxel order as stored.

    Attributes:
        array: (C, X, Y, Z), channels first.
        affine: (4, 4) float64, voxel index to RAS+ millimetres.
        header: the NIfTI header it was read with (for writing labels into the same grid), or None.
        paths: files, or DICOM folders, it was read from; one a channel.

    Raises:
        ValueError: the array has not four axes, or the affine cannot be inverted.
    """

    array: np.ndarray
    affine: np.ndarray
    header: nib.Nifti1Header | None = None
    paths: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if np.ndim(self.array) != 4:
            raise ValueError(f"array: expected 4 axes (channel, x, y, z), found shape {np.shape(self.array)}")
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
            raise ValueError(f"affine: expected an invertible 4 x 4 matrix, found {affine.tolist()}")
        object.__setattr__(self, "affine", affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along the stored axes (X, Y, Z)."""
        return self.array.shape[1:]

    @property
    def is_flat(self) -> bool:
        """Whether it is a single slice."""
        return 1 in self.shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres from voxel to voxel along the stored axes."""
        return tuple(float(size) for size in np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return str(self.paths[0]) if self.paths else "the volume"


def stem(path: str | Path) -> str:
    """File name without its (double) suffix: 'liver.nii.gz' -> 'liver'; a folder's name as it is."""
    name = Path(path).name
    return name[: len(name) - len(image_ending(path))]


def image_ending(path: str | Path) -> str:
    """The (double) suffix of an image's name: 'liver.nii.gz' -> '.nii.gz'; '' for other names."""
    name = Path(path).name
    return next(
        (name[-len(ending) :] for ending in (*IMAGE_ENDINGS, *PICTURE_ENDINGS) if name.lower().endswith(ending)), ""
    )


NIFTI_ENDINGS: Sequence[str] = (".nii.gz", ".nii")
PICTURE_ENDINGS: Sequence[str] = (".png", ".bmp", ".tif", ".tiff")
SEGMENTS = ".seg.nrrd"  # 3D Slicer's
IMAGE_ENDINGS: Sequence[str] = (*NIFTI_ENDINGS, SEGMENTS, ".nrrd", ".mha", ".mhd")
