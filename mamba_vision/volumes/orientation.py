"""Between the scan's own voxel order and the network's axes, and back: transpositions and flips alone."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import nibabel as nib
import numpy as np


@dataclass(frozen=True)
class Geometry:
    """What was done to one scan on its way to the network; all that is needed to go back. JSON can hold it.

    Attributes:
        shape: voxels as stored (X, Y, Z).
        stored_axes: the stored axis that became each network axis.
        flipped: whether each network axis runs against its stored axis.
        spacing: mm before resampling, along the network axes.
        box: (first, past-the-last) voxel of the crop, along the network axes.
        resampled_shape: voxels after resampling, along the network axes.
    """

    shape: tuple[int, int, int]
    stored_axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    spacing: tuple[float, float, float]
    box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    resampled_shape: tuple[int, int, int]

    @property
    def cropped_shape(self) -> tuple[int, int, int]:
        """Voxels after the crop, before resampling, along the network axes."""
        return tuple(last - first for first, last in self.box)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Geometry":
        """The inverse of to_dict, also after JSON made lists of the tuples."""
        values = {item.name: tuple(content[item.name]) for item in fields(cls)}
        return cls(**{**values, "box": tuple(tuple(side) for side in content["box"])})


def stored_axes(affine: np.ndarray, axes: Sequence[int]) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """The stored axis and the direction of each network axis.

    Args:
        affine: (4, 4), stored voxel index to RAS mm; oblique ones count as the nearest anatomical axes.
        axes: canonical axis (0 right, 1 front, 2 up) of each network axis.
    """
    orientation = nib.io_orientation(affine)
    stored_of = {int(canonical): stored for stored, canonical in enumerate(orientation[:, 0])}
    order = tuple(stored_of[axis] for axis in axes)
    return order, tuple(bool(orientation[stored, 1] < 0) for stored in order)


def to_network(array: np.ndarray, order: Sequence[int], flipped: Sequence[bool]) -> np.ndarray:
    """A view of (..., X, Y, Z) along the network axes."""
    lead = array.ndim - 3
    view = array.transpose(*range(lead), *(lead + axis for axis in order))
    return view[(..., *(slice(None, None, -1 if flip else None) for flip in flipped))]


def to_stored(array: np.ndarray, order: Sequence[int], flipped: Sequence[bool]) -> np.ndarray:
    """The inverse of to_network, again a view."""
    lead = array.ndim - 3
    view = array[(..., *(slice(None, None, -1 if flip else None) for flip in flipped))]
    return view.transpose(*range(lead), *(lead + axis for axis in np.argsort(order)))
