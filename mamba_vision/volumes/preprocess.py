"""One scan on its way to the network: axes, crop, intensities, voxel size, in this order (nnU-Net's)."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from mamba_vision.volumes.fingerprint import nonzero_box
from mamba_vision.volumes.orientation import Geometry, stored_axes, to_network
from mamba_vision.volumes.plan import Plan
from mamba_vision.volumes.planning import resampled_shape
from mamba_vision.volumes.resampling import coarse_axis, resample_image, resample_labels
from mamba_vision.volumes.volume import Volume, VolumeError

OUTSIDE = -1
_LEAST_STD = 1e-8


@dataclass(frozen=True)
class Case:
    """What the network sees, and the way back.

    Attributes:
        image: (C, *S) float32, S along the network axes.
        label: (*S) int16 class numbers from 0, plan.ignore_class where nobody annotated, and OUTSIDE where every
            channel is 0 and the plan normalizes inside a mask (augmentation puts the 0 back there); or None.
        geometry: for volumes.restore.
    """

    image: np.ndarray
    label: np.ndarray | None
    geometry: Geometry


def preprocess(volume: Volume, plan: Plan, label: Volume | np.ndarray | None = None) -> Case:
    """Turn to the network axes, crop to non-zero voxels, normalize, resample to the plan's spacing.

    Args:
        volume: the scan, as read_volume gives it.
        plan: of the data set.
        label: its labels in the same grid, a Volume or (X, Y, Z), with the values of the label files.

    Raises:
        VolumeError: another number of channels than the plan's, or label values that the plan does not have.
        ValueError: a label of another shape.
    """
    if len(volume.array) != len(plan.channels):
        raise VolumeError(
            volume.name,
            f"{len(volume.array)} channel{'s' if len(volume.array) > 1 else ''}",
            f"{len(plan.channels)} ({', '.join(plan.channels)})",
            "Give one file a channel: CASE_0000, CASE_0001, ... in this order",
        )
    order, flipped = stored_axes(volume.affine, plan.axes)
    turned = to_network(volume.array, order, flipped)
    box = nonzero_box(turned)
    cropped = turned[(slice(None), *box)]
    spacing = tuple(volume.spacing[axis] for axis in order)
    target = plan.spacing_for(spacing)
    shape = resampled_shape(cropped.shape[1:], spacing, target)
    coarse = coarse_axis(spacing, target)
    mask = _nonzero_mask(cropped) if any(plan.use_mask) else None
    image = np.empty((len(cropped), *shape), dtype=np.float32)
    for index, channel in enumerate(cropped):
        image[index] = resample_image(normalize(channel, plan, index, mask), shape, coarse)
    geometry = Geometry(
        tuple(int(side) for side in volume.shape),
        order,
        flipped,
        spacing,
        tuple((side.start, side.stop) for side in box),
        shape,
    )
    if label is None:
        return Case(image, None, geometry)
    stored = label.array[0] if isinstance(label, Volume) else np.asarray(label)
    if stored.shape != tuple(volume.shape):
        raise ValueError(f"label: expected the scan's shape {tuple(volume.shape)}, found {stored.shape}")
    resampled = prepare_labels(stored, geometry, plan, label.name if isinstance(label, Volume) else "label")
    if mask is not None:
        outside = resample_labels(np.ascontiguousarray(~mask, dtype=np.int16), shape, coarse) > 0
        resampled[outside & (resampled == 0)] = OUTSIDE
    return Case(image, resampled, geometry)


def prepare_labels(labels: np.ndarray, geometry: Geometry, plan: Plan, name: str = "label") -> np.ndarray:
    """Values (X, Y, Z) in a scan's grid -> class numbers (*S) int16 where `preprocess` has put its image.

    Raises:
        VolumeError: values that the plan does not have; it calls the labels `name`.
    """
    classes = to_network(_to_classes(labels, plan, name), geometry.stored_axes, geometry.flipped)
    inside = np.ascontiguousarray(classes[tuple(slice(first, last) for first, last in geometry.box)])
    coarse = coarse_axis(geometry.spacing, plan.spacing_for(geometry.spacing))
    return resample_labels(inside, geometry.resampled_shape, coarse)


def normalize(channel: np.ndarray, plan: Plan, index: int, mask: np.ndarray | None = None) -> np.ndarray:
    """A new float32 array with the intensities that the plan wants of its channel `index`.

    'ct' clips to the data set's foreground percentiles 0.5 and 99.5, then subtracts its mean and divides by its
    standard deviation; 'zscore' uses the scan's own mean and deviation (inside `mask` if the plan says so, 0 outside);
    'rescale' maps the scan's range to 0 ... 1; 'rgb' divides by 255; 'none' changes nothing.

    Raises:
        ValueError: the plan wants a mask, and there is none.
    """
    scheme, numbers = plan.normalization[index], plan.intensities[index]
    image = np.array(channel, dtype=np.float32, order="C")
    if scheme == "ct":
        np.clip(image, numbers["percentile_00_5"], numbers["percentile_99_5"], out=image)
        image -= np.float32(numbers["mean"])
        image /= np.float32(max(numbers["std"], _LEAST_STD))
    elif scheme == "zscore" and plan.use_mask[index]:
        if mask is None:
            raise ValueError(f"mask: expected the non-zero mask, as the plan asks for it in {plan.channels[index]}")
        mean, std = _mean_std(image[mask])
        image -= np.float32(mean)
        image /= np.float32(max(std, _LEAST_STD))
        image[~mask] = 0
    elif scheme == "zscore":
        mean, std = _mean_std(image)
        image -= np.float32(mean)
        image /= np.float32(max(std, _LEAST_STD))
    elif scheme == "rescale":
        image -= image.min()
        image /= np.float32(max(float(image.max()), _LEAST_STD))
    elif scheme == "rgb":
        image /= np.float32(255)
    return image


def _mean_std(values: np.ndarray) -> tuple[float, float]:
    """In float64, plane by plane: no second copy of the volume."""
    if values.size == 0:
        return 0.0, 1.0
    mean = float(values.sum(dtype=np.float64)) / values.size
    planes = values if values.ndim > 1 else np.array_split(values, max(1, values.size >> 20))
    squares = sum(float(np.square(plane - mean, dtype=np.float64).sum()) for plane in planes)
    return mean, (squares / values.size) ** 0.5


def _nonzero_mask(cropped: np.ndarray) -> np.ndarray:
    """Where any channel is not 0, holes filled. (*S) bool."""
    return ndimage.binary_fill_holes((cropped != 0).any(axis=0))


def _to_classes(labels: np.ndarray, plan: Plan, name: str) -> np.ndarray:
    """Values of the label file -> class numbers, int16."""
    values = np.array(plan.scheme.values)  # 'ignore' behind the classes
    low, high = int(labels.min()), int(labels.max())
    table = np.full(max(int(values[-1]), high, 0) + 1, -1, dtype=np.int16)
    table[values] = np.arange(len(values), dtype=np.int16)
    classes = table[labels] if low >= 0 else None
    if classes is None or (classes < 0).any():
        wrong = sorted(set(np.unique(labels).tolist()) - set(values.tolist()))
        raise VolumeError(name, f"label values {wrong[:10]}", f"one of {values.tolist()}")
    return classes
