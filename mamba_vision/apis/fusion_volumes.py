"""Fusing two registered volumes, such as MRI and CT, slice by slice; the affine is kept."""

from pathlib import Path

import nibabel as nib
import numpy as np

from mamba_vision.apis.fusion import Fusing, Progress, run_fuser, to_batch
from mamba_vision.models.tasks.fusion import ImageFuser
from mamba_vision.models.tasks.restoration_tiles import Tiling
from mamba_vision.volumes.grids import grid_difference
from mamba_vision.volumes.reading import read_volume
from mamba_vision.volumes.volume import Volume, VolumeError
from mamba_vision.volumes.writing import write_image

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}  # the patient's axis that the slices follow each other along
Window = tuple[float, float]


def fuse_volumes(
    model: Fusing, first: str | Path, second: str | Path, out: str | Path, plane: str = "axial",
    windows: tuple[Window | None, Window | None] = (None, None), tiling: Tiling | None = None, amp: bool = False,
    progress: Progress | None = None,
) -> Path:  # fmt: skip
    """Two scans of one grid to a NIfTI file of values from 0 to 1, in that grid.

    Args:
        model: an ImageFuser of gray images.
        first, second: NIfTI files or DICOM folders: MRI, then CT, PET or SPECT.
        out: ends in .nii or .nii.gz; written atomically.
        plane: which slices are fused, 'axial' (as published models were trained), 'coronal' or 'sagittal'.
        windows: of both, the values that become 0 and 1; default: the 0.5th and the 99.5th percentile.
        tiling, amp: as for `fuse_pictures`.
        progress: called with slices done and all slices.

    Raises:
        VolumeError: a scan cannot be read, or the two do not share a grid.
        ValueError: another plane, a window that does not rise, or a model for something else.
    """
    if plane not in PLANES:
        raise ValueError(f"plane: expected one of {', '.join(PLANES)}, found {plane!r}")
    if not isinstance(model, ImageFuser) or model.network.in_channels != 1:
        raise ValueError(f"volumes need a model that fuses gray images, found {type(model).__name__}")
    one, two = read_volume(first), read_volume(second)
    if difference := grid_difference(one.shape, one.affine, two.shape, two.affine):
        raise VolumeError(
            second, difference, f"the grid of {first}", "Register and resample one scan onto the other first"
        )
    images = [_scaled(volume, window) for volume, window in zip((one, two), windows)]
    axis = slice_axis(one.affine, plane)
    images = [np.moveaxis(image, axis, 0) for image in images]
    fused = np.empty(images[0].shape, np.float32)
    for k, pair in enumerate(zip(*images)):
        fused[k] = run_fuser(model, *(to_batch(image[..., None]) for image in pair), tiling, amp)[0, 0].numpy()
        if progress is not None:
            progress(k + 1, len(fused))
    return write_image(out, np.moveaxis(fused, 0, axis), one)


def slice_axis(affine: np.ndarray, plane: str) -> int:
    """The stored axis along which slices of a plane follow each other."""
    return int(np.argmax(nib.io_orientation(affine)[:, 0] == PLANES[plane]))


def volume_preview(path: str | Path, plane: str = "axial", window: Window | None = None) -> np.ndarray:
    """The middle slice (H, W, 1) in [0, 1], head up."""
    volume = read_volume(path)
    canonical = nib.as_closest_canonical(nib.Nifti1Image(volume.array[0], volume.affine))
    image = _scaled(Volume(np.asarray(canonical.dataobj)[None], canonical.affine), window)
    middle = np.take(image, image.shape[PLANES[plane]] // 2, axis=PLANES[plane])
    return np.ascontiguousarray(middle.T[::-1, :, None])


def _scaled(volume: Volume, window: Window | None) -> np.ndarray:
    """(X, Y, Z) float32 in [0, 1]."""
    if volume.array.shape[0] != 1:
        raise ValueError(f"{volume.paths[0]}: found {volume.array.shape[0]} channels, expected one")
    image = volume.array[0]
    low, high = np.percentile(image, (0.5, 99.5)) if window is None else window
    if not low < high:
        if window is not None:
            raise ValueError(f"window: expected rising values, found {low:g} and {high:g}")
        low, high = image.min(), max(image.max(), image.min() + 1)
    return np.clip((image - low) / (high - low), 0, 1).astype(np.float32)
