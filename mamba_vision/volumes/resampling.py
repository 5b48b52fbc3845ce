"""Resampling between voxel grids of the same extent, axis by axis.

Interpolation by splines is separable, and linear in the voxels: along one axis it is a matrix, taken here from SciPy's
`ndimage.zoom` (half-pixel centres, edge voxels repeated). Axis after axis by matrix products gives what `zoom` gives at
once, in a fraction of the time, and a part of the result needs only a part of the input.

As in nnU-Net: images by cubic splines and cut to the range they had, labels and logits linearly; along an axis more
than three times coarser than the finest, the nearest slice, slice by slice.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from scipy import ndimage

from mamba_vision.volumes.topology import ANISOTROPY

CUBIC, LINEAR, NEAREST = 3, 1, 0


def coarse_axis(spacing: Sequence[float], target: Sequence[float]) -> int | None:
    """The axis to treat apart: the one coarse in the present spacing, else in the target's; None if not just one is."""
    for candidate in (spacing, target):
        candidate = np.asarray(candidate, dtype=np.float64)
        if candidate.max() / candidate.min() > ANISOTROPY:
            coarsest = np.flatnonzero(candidate == candidate.max())
            return int(coarsest[0]) if coarsest.size == 1 else None
    return None


def axis_orders(order: int, coarse: int | None) -> tuple[int, int, int]:
    """Interpolation order along each axis: `order`, but the nearest voxel along the coarse one."""
    return tuple(NEAREST if axis == coarse else order for axis in range(3))


@lru_cache(maxsize=64)
def axis_matrix(old: int, new: int, order: int) -> np.ndarray:
    """(new, old) float32: row i holds the weights of the old voxels in the new voxel i. Read-only."""
    if order == NEAREST:  # a new voxel takes the old one that its centre lies in
        matrix = np.zeros((new, old), dtype=np.float32)
        nearest = np.floor((np.arange(new) + 0.5) * old / new).astype(int)
        matrix[np.arange(new), nearest.clip(0, old - 1)] = 1
    elif old == new:
        matrix = np.eye(old, dtype=np.float32)
    else:
        columns = [ndimage.zoom(unit, new / old, order=order, mode="nearest", grid_mode=True) for unit in np.eye(old)]
        matrix = np.stack(columns, axis=1).astype(np.float32)
    matrix.setflags(write=False)
    return matrix


def apply_axis(array: np.ndarray, matrix: np.ndarray, axis: int) -> np.ndarray:
    """`matrix` (new, old) along one axis of (S0, S1, S2) float32; contiguous."""
    if matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, np.eye(len(matrix), dtype=np.float32)):
        return np.ascontiguousarray(array)
    if (np.count_nonzero(matrix, axis=1) <= 2).all():
        return _interpolate(array, matrix, axis)
    if axis == 0:
        flat = np.ascontiguousarray(array).reshape(array.shape[0], -1)
        return (matrix @ flat).reshape(matrix.shape[0], *array.shape[1:])
    if axis == 2:
        return np.ascontiguousarray(array) @ matrix.T
    return np.matmul(matrix, array)


def _interpolate(array: np.ndarray, matrix: np.ndarray, axis: int) -> np.ndarray:
    """apply_axis where a new voxel has two old ones at most, as in linear interpolation: several times faster."""
    used = matrix != 0
    first, last = used.argmax(axis=1), matrix.shape[1] - 1 - used[:, ::-1].argmax(axis=1)
    rows, shape = np.arange(len(matrix)), tuple(-1 if one == axis else 1 for one in range(3))
    result = np.take(array, first, axis)
    result *= matrix[rows, first].reshape(shape)
    part = np.take(array, last, axis)
    part *= np.where(first == last, 0, matrix[rows, last]).reshape(shape)
    result += part
    return result


def resample_image(array: np.ndarray, shape: Sequence[int], coarse: int | None = None) -> np.ndarray:
    """One channel (S0, S1, S2) float32 onto `shape` voxels by cubic splines.

    The result keeps the range of its input: of the volume, or of each slice where `coarse` names the slices' axis.
    """
    if array.shape == tuple(shape):
        return np.ascontiguousarray(array, dtype=np.float32)
    others = None if coarse is None else tuple(axis for axis in range(3) if axis != coarse)
    low, high = array.min(axis=others, keepdims=True), array.max(axis=others, keepdims=True)
    if coarse is not None:
        nearest = axis_matrix(array.shape[coarse], shape[coarse], NEAREST).argmax(axis=1)
        low, high = np.take(low, nearest, coarse), np.take(high, nearest, coarse)
    result = np.asarray(array, dtype=np.float32)
    matrices = [axis_matrix(*sides, order) for *sides, order in zip(array.shape, shape, axis_orders(CUBIC, coarse))]
    for axis in sorted(range(3), key=lambda axis: shape[axis] / array.shape[axis]):  # shrink first: less to carry
        result = apply_axis(result, matrices[axis], axis)
    return np.clip(result, low, high, out=result)


def resample_labels(labels: np.ndarray, shape: Sequence[int], coarse: int | None = None) -> np.ndarray:
    """Class numbers (S0, S1, S2) of 0 or more onto `shape` voxels.

    Every class is interpolated linearly as a mask; a voxel takes the highest class whose mask reaches one half.
    """
    if labels.shape == tuple(shape):
        return np.ascontiguousarray(labels)
    result = np.zeros(tuple(shape), dtype=labels.dtype)
    matrices = [axis_matrix(*sides, order) for *sides, order in zip(labels.shape, shape, axis_orders(LINEAR, coarse))]
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        # Only where the class may reach: rows of the matrices that touch its box, grown by the reach of its neighbours.
        parts = [_rows_touching(matrix, side) for matrix, side in zip(matrices, box)]
        if any(part.start == part.stop for part in parts):
            continue
        mask = (labels[box] == number).astype(np.float32)
        for axis in range(3):
            mask = apply_axis(mask, matrices[axis][parts[axis], box[axis]], axis)
        result[tuple(parts)][mask >= 0.5] = number
    return result


def resample_slab(read: Callable[[slice], np.ndarray], matrices: Sequence[np.ndarray], rows: slice) -> np.ndarray:
    """Planes `rows` (along axis 0) of a resampled volume, from the planes of the input that they need.

    Args:
        read: gives the input's planes of a slice along axis 0, (h, S1, S2) float32.
        matrices: one (new, old) an axis.
        rows: of the result.
    """
    needed = np.flatnonzero(matrices[0][rows].any(axis=0))
    source = slice(int(needed[0]), int(needed[-1]) + 1)
    slab = apply_axis(read(source), matrices[0][rows, source], 0)
    return apply_axis(apply_axis(slab, matrices[1], 1), matrices[2], 2)


def _rows_touching(matrix: np.ndarray, columns: slice) -> slice:
    rows = np.flatnonzero(matrix[:, columns].any(axis=1))
    return slice(int(rows[0]), int(rows[-1]) + 1) if rows.size else slice(0, 0)
