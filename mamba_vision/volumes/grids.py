"""Whether two scans share a grid, and bringing one onto the other's."""

import nibabel as nib
import numpy as np
from scipy import ndimage

RELATIVE_TOLERANCE = 1e-3  # of the voxel size: direction and spacing
ABSOLUTE_TOLERANCE = 0.1  # mm: where the first voxel lies


def grid_difference(shape, affine: np.ndarray, other_shape, other_affine: np.ndarray) -> str | None:
    """What sets the second grid apart from the first, in words, or None if they agree.

    Affines agree when every column differs by at most RELATIVE_TOLERANCE of the voxel size and the origin by at most
    ABSOLUTE_TOLERANCE millimetres.
    """
    if tuple(shape) != tuple(other_shape):
        return f"shape {' x '.join(map(str, other_shape))} instead of {' x '.join(map(str, shape))}"
    spacing, other_spacing = voxel_sizes(affine), voxel_sizes(other_affine)
    if (np.abs(spacing - other_spacing) > RELATIVE_TOLERANCE * spacing).any():
        return f"spacing {_mm(other_spacing)} instead of {_mm(spacing)} mm"
    if (np.linalg.norm((affine - other_affine)[:3, :3], axis=0) > RELATIVE_TOLERANCE * spacing).any():
        codes, other_codes = ("".join(nib.aff2axcodes(matrix)) for matrix in (affine, other_affine))
        return f"orientation {other_codes} instead of {codes}" if codes != other_codes else "axes turned in space"
    shift = affine[:3, 3] - other_affine[:3, 3]
    if np.linalg.norm(shift) > ABSOLUTE_TOLERANCE:
        return f"first voxel {np.linalg.norm(shift):.3g} mm away (origin {_mm(other_affine[:3, 3])})"
    return None


def place_in_grid(array: np.ndarray, affine: np.ndarray, shape, target_affine: np.ndarray) -> np.ndarray | None:
    """`array` (X, Y, Z) copied to where it lies in another grid whose voxels are the same, 0 elsewhere.

    Axes may be permuted and reversed, and parts that lie outside are cut off. None where the voxels are others: turned,
    of another size, or shifted by a part of a voxel.
    """
    matrix = np.linalg.inv(target_affine) @ affine  # index here -> index there
    steps, corner = np.rint(matrix[:3, :3]), np.rint(matrix[:3, 3])
    spacing = voxel_sizes(target_affine)
    moved = np.linalg.norm((matrix - np.rint(matrix))[:3, 3] * spacing)
    if np.abs(matrix[:3, :3] - steps).max() > RELATIVE_TOLERANCE or moved > ABSOLUTE_TOLERANCE:
        return None
    if (np.abs(steps).sum(axis=0) != 1).any() or (np.abs(steps).sum(axis=1) != 1).any():
        return None
    order = np.abs(steps).argmax(axis=1)  # axis here of each axis there
    placed = np.zeros(shape, dtype=array.dtype)
    turned = array.transpose(order)
    here, there = [], []
    for axis, source in enumerate(order):
        size, first = array.shape[source], int(corner[axis])
        if steps[axis, source] < 0:
            turned = np.flip(turned, axis)
            first -= size - 1
        start, stop = max(first, 0), max(min(first + size, shape[axis]), 0)
        there.append(slice(start, max(stop, start)))
        here.append(slice(start - first, max(stop, start) - first))
    placed[tuple(there)] = turned[tuple(here)]
    return placed


def voxel_sizes(affine: np.ndarray) -> np.ndarray:
    """Millimetres from voxel to voxel along each array axis."""
    return np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)


def resample_to_grid(array: np.ndarray, affine: np.ndarray, shape, target_affine: np.ndarray, order: int) -> np.ndarray:
    """`array` (X, Y, Z) as it lies at the voxels of another grid; 0 outside. Order 0 for labels, 1 for images."""
    matrix = np.linalg.inv(affine) @ target_affine
    return ndimage.affine_transform(
        array, matrix[:3, :3], matrix[:3, 3], output_shape=tuple(shape), order=order, mode="constant", cval=0
    )


def _mm(values: np.ndarray) -> str:
    return " x ".join(f"{value:.4g}" for value in values)
