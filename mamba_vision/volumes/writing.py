"""Labels back into the grid of their scan, whole files or none."""

import json
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np

from mamba_vision.utils.atomic import atomic_path
from mamba_vision.volumes.volume import NIFTI_ENDINGS, Volume, VolumeError, image_ending

_COMMENT = 6  # NIfTI extension code of free text
_SCANNER = 1  # NIfTI form code: coordinates of the scanner


def write_labels(path: str | Path, labels: np.ndarray, like: Volume, names: Mapping[str, int] | None = None) -> Path:
    """Write a label map as NIfTI in the grid of `like`, atomically.

    Affine, qform and sform with their codes, and the units of space and time are those of the scan's header, bit by
    bit, also where qform and sform disagree. A scan without a NIfTI header (DICOM, arrays) gets both forms with code
    1 (scanner); where its axes are sheared (gantry tilt), which a qform can't express, the sform alone.

    Args:
        path: ends in .nii or .nii.gz; missing folders are made.
        labels: (X, Y, Z) integers; stored as uint8 where they fit, else uint16, int16 or int32.
        like: the scan.
        names: {name: label}; kept as JSON in the header's comment extension.

    Raises:
        ValueError: labels of another shape than the scan's, or no integers.
        VolumeError: a path with another ending.
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iub":
        raise ValueError(f"labels: expected integers, found {labels.dtype}")
    image = _image(path, labels.astype(smallest_type(labels), copy=False), like)
    if names:
        text = json.dumps({"labels": dict(names)}, ensure_ascii=False).encode()
        image.header.extensions.append(nib.nifti1.Nifti1Extension(_COMMENT, text))
    return _save(path, image)


def write_image(path: str | Path, image: np.ndarray, like: Volume) -> Path:
    """Write real values (X, Y, Z), or (X, Y, Z, K) such as probabilities of K classes, in the grid of `like`."""
    return _save(path, _image(path, np.asarray(image, dtype=np.float32), like))


def smallest_type(labels: np.ndarray) -> type:
    """The smallest of uint8, uint16, int16 and int32 that holds every label.

    Raises:
        ValueError: a label does not fit 32 bits.
    """
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    for dtype in (np.uint8, np.uint16, np.int16, np.int32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return dtype
    raise ValueError(f"labels: expected values that fit 32 bits, found {low} to {high}")


def _image(path: str | Path, array: np.ndarray, like: Volume) -> nib.Nifti1Image:
    if image_ending(path).lower() not in NIFTI_ENDINGS:
        raise VolumeError(path, "a name without a known ending", ".nii or .nii.gz")
    if array.shape[:3] != tuple(like.shape):
        raise ValueError(f"array: expected the scan's shape {tuple(like.shape)}, found {array.shape[:3]}")
    header, affine = _header(like), None  # affine None: nibabel leaves both forms of the header as they are
    if header is None:
        header, affine = nib.Nifti1Header(), like.affine
    image = nib.Nifti1Image(array, affine, header)
    image.header.set_data_dtype(array.dtype)
    image.header.set_slope_inter(1, 0)
    if affine is not None:
        sheared = not np.allclose(affine[:3, :3].T @ affine[:3, :3], np.diag(_squares(affine)), atol=1e-4)
        image.set_sform(affine, code=_SCANNER)
        image.set_qform(affine, code=0 if sheared else _SCANNER)
        image.header.set_xyzt_units("mm")
    return image


def _squares(affine: np.ndarray) -> np.ndarray:
    return (affine[:3, :3] ** 2).sum(axis=0)


def _header(like: Volume) -> nib.Nifti1Header | None:
    """The scan's header freed of what described its voxels, or None if it doesn't describe the scan's grid."""
    if like.header is None or not np.allclose(like.header.get_best_affine(), like.affine, rtol=1e-5, atol=1e-5):
        return None
    header = nib.Nifti1Header.from_header(like.header) if type(like.header) is not nib.Nifti1Header else like.header
    header = header.copy()
    header.extensions.clear()  # they may carry whole DICOM headers with names of patients
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        if field in header:
            header[field] = b""
    for field in ("cal_min", "cal_max", "intent_code", "intent_p1", "intent_p2", "intent_p3"):
        header[field] = 0
    return header


def _save(path: str | Path, image: nib.Nifti1Image) -> Path:
    with atomic_path(path) as temporary:
        nib.save(image, temporary)
    return Path(path)
