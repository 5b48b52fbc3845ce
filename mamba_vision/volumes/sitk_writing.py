"""Label maps as NRRD or MetaImage, by SimpleITK, in the grid of their scan."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mamba_vision.utils.atomic import atomic_path
from mamba_vision.volumes.volume import Volume, VolumeError
from mamba_vision.volumes.writing import smallest_type

SITK_ENDINGS = (".nrrd", ".mha")
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])


def write_sitk_labels(
    path: str | Path, labels: np.ndarray, like: Volume, names: Mapping[str, int] | None = None
) -> Path:
    """Write a label map (X, Y, Z) as .nrrd or .mha, compressed, atomically.

    Axes and voxel order are those of the scan as it is stored; also sheared axes (gantry tilt) are kept. Names of
    labels become the entry `labels` of the header, as JSON.

    Raises:
        ValueError: labels of another shape than the scan's, or no integers.
        VolumeError: a path with another ending, or SimpleITK missing.
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iub" or labels.shape != tuple(like.shape):
        raise ValueError(f"labels: expected integers of shape {tuple(like.shape)}, found {labels.dtype} {labels.shape}")
    if Path(path).suffix not in SITK_ENDINGS:
        raise VolumeError(path, "a name without a known ending", " or ".join(SITK_ENDINGS))
    try:
        import SimpleITK
    except ImportError as error:
        raise VolumeError(
            path, "no SimpleITK to write it with", "SimpleITK", 'pip install "mamba_vision[dicom]"'
        ) from error
    image = SimpleITK.GetImageFromArray(labels.astype(smallest_type(labels), copy=False).transpose(2, 1, 0))
    spacing = np.array(like.spacing)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((_RAS_TO_LPS @ like.affine[:3, 3]).tolist())
    image.SetDirection((_RAS_TO_LPS @ like.affine[:3, :3] / spacing).ravel().tolist())
    if names:
        image.SetMetaData("labels", json.dumps(dict(names), ensure_ascii=False))
    with atomic_path(path) as temporary:
        SimpleITK.WriteImage(image, str(temporary), useCompression=True)
    return Path(path)
