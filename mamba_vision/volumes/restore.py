"""From the network's logits back to the scan: resampled, uncropped, turned back, in bounded memory.

K classes at the scan's resolution do not fit in memory for large scans (the commonest crash of such pipelines). So the
result is made slab by slab, and within a slab class by class, with a running arg-max: the memory does not depend on
the number of classes, and by the thickness of the slab not on the size of the scan.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy.special import entr, expit

from mamba_vision.volumes.orientation import Geometry, to_network
from mamba_vision.volumes.plan import Plan
from mamba_vision.volumes.resampling import LINEAR, axis_matrix, axis_orders, coarse_axis, resample_slab

Progress = Callable[[int, int], None]  # planes done, planes in all


def restore_labels(
    logits: Any, geometry: Geometry, plan: Plan, max_memory: int = 2**30, progress: Progress | None = None
) -> np.ndarray:
    """The most likely label of every voxel of the scan; with regions, those above one half painted in their order.

    Args:
        logits: (K, *S) array, memory map or torch tensor on any device, S = geometry.resampled_shape.
        geometry: from preprocess.
        plan: gives the values of the labels.
        max_memory: bytes for everything but `logits` and the result.
        progress: called after every slab.

    Returns:
        (X, Y, Z) as the scan is stored; uint8, or uint16 beyond 255. Background outside the crop.

    Raises:
        ValueError: logits of another shape.
    """
    _check(logits, geometry, plan, max_memory)
    values = plan.label_values.astype(np.uint8 if plan.label_values[-1] < 256 else np.uint16)
    result = np.full(geometry.shape, values[0], dtype=values.dtype)
    inside = _crop_of(result, geometry)
    matrices = _matrices(geometry, plan)
    for rows in _slabs(geometry, max_memory, arrays=4):
        if plan.regions:
            painted = np.zeros(inside[rows].shape, dtype=values.dtype)
            for number, value in enumerate(plan.region_order):
                painted[resample_slab(_reader(logits, number), matrices, rows) > 0] = value
            inside[rows] = painted
            if progress is not None:
                progress(rows.stop, geometry.cropped_shape[0])
            continue
        best = np.array(resample_slab(_reader(logits, 0), matrices, rows))  # a copy: it may be a view of the logits
        classes = np.zeros(best.shape, dtype=values.dtype)
        for number in range(1, plan.num_classes):
            score = resample_slab(_reader(logits, number), matrices, rows)
            better = score > best
            classes[better] = values[number]
            np.maximum(best, score, out=best)
            del score, better  # else they live on beside the next class's
        inside[rows] = classes
        if progress is not None:
            progress(rows.stop, geometry.cropped_shape[0])
    return result


def restore_probabilities(
    logits: Any,
    geometry: Geometry,
    plan: Plan,
    out: np.ndarray | None = None,
    max_memory: int = 2**30,
    progress: Progress | None = None,
    add: bool = False,
) -> np.ndarray:
    """Probabilities at every voxel of the scan, (K, X, Y, Z): softmax of the classes, or sigmoid of each region.

    Args:
        out: where to write, e.g. a memory map, any float dtype; by default a new float32 array, which takes
            4 * K bytes a voxel.
        add: add to what `out` holds, for the mean of several models.

    The others are those of restore_labels. Outside the crop background has probability 1, and regions have 0.

    Raises:
        ValueError: `out` has another shape, or no float type.
    """
    _check(logits, geometry, plan, max_memory)
    expected = (plan.num_outputs, *geometry.shape)
    out = np.empty(expected, dtype=np.float32) if out is None else out
    if out.shape != expected or out.dtype.kind != "f":
        raise ValueError(f"out: expected a float array of shape {expected}, found {out.dtype} {out.shape}")
    inside = _crop_of(out, geometry)
    background = 0 if plan.regions else 1
    if add:
        out[0] += background
        inside[0] -= background
    else:
        out[0], out[1:] = background, 0
    matrices = _matrices(geometry, plan)
    for rows in _slabs(geometry, max_memory, arrays=3 * plan.num_outputs):
        scores = np.stack([resample_slab(_reader(logits, k), matrices, rows) for k in range(plan.num_outputs)])
        if plan.regions:
            scores = expit(scores, out=scores)
        else:
            scores -= scores.max(axis=0)
            np.exp(scores, out=scores)
            scores /= scores.sum(axis=0)
        if add:
            inside[:, rows] += scores
        else:
            inside[:, rows] = scores
        if progress is not None:
            progress(rows.stop, geometry.cropped_shape[0])
    return out


def labels_from_probabilities(
    probabilities: np.ndarray, plan: Plan, models: int = 1, max_memory: int = 2**30, progress: Progress | None = None
) -> np.ndarray:
    """The most likely label of every voxel, (X, Y, Z); `probabilities` (K, X, Y, Z) become their mean, in place.

    Args:
        probabilities: sums over models.
        models: how many were added up.
        max_memory, progress: as in restore_labels.
    """
    values = plan.label_values.astype(np.uint8 if plan.label_values[-1] < 256 else np.uint16)
    sides = probabilities.shape[1:]
    result = np.empty(sides, dtype=values.dtype)
    rows = max(1, int(max_memory // (16 * sides[1] * sides[2])))  # arg-max makes 8 bytes a voxel
    for start in range(0, sides[0], rows):
        part = probabilities[:, start : start + rows]
        if models > 1:
            part /= models
        if plan.regions:
            result[start : start + rows] = 0
            for probability, value in zip(part, plan.region_order):
                result[start : start + rows][probability > 0.5] = value
        else:
            result[start : start + rows] = values[part.argmax(axis=0)]
        if progress is not None:
            progress(min(start + rows, sides[0]), sides[0])
    return result


def voxel_uncertainty(probabilities: np.ndarray, plan: Plan, max_memory: int = 2**30) -> np.ndarray:
    """How undecided each voxel is, (X, Y, Z) float32 from 0 to 1: the entropy of its probabilities over the highest.

    1 where every class is as likely as any other; of regions it is the most undecided one's. The probabilities of an
    ensemble are means, so that models which contradict one another count as undecided too.

    Args:
        probabilities: (K, X, Y, Z).
        plan: says whether these are classes or regions.
        max_memory: bytes for what lies between.
    """
    sides = probabilities.shape[1:]
    result = np.empty(sides, dtype=np.float32)
    rows = max(1, int(max_memory // (8 * (len(probabilities) + 1) * sides[1] * sides[2])))
    for start in range(0, sides[0], rows):
        part = np.clip(probabilities[:, start : start + rows], 0, 1).astype(np.float32)
        if plan.regions:
            found = (entr(part) + entr(1 - part)).max(axis=0) / np.log(2)
        else:
            found = entr(part).sum(axis=0) / np.log(len(part))
        result[start : start + rows] = np.clip(found, 0, 1)
    return result


def _check(logits: Any, geometry: Geometry, plan: Plan, max_memory: int) -> None:
    expected = (plan.num_outputs, *geometry.resampled_shape)
    if tuple(logits.shape) != expected:
        raise ValueError(f"logits: expected shape {expected} (classes, resampled scan), found {tuple(logits.shape)}")
    if max_memory <= 0:
        raise ValueError(f"max_memory: expected bytes above 0, found {max_memory}")


def _crop_of(array: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The cropped region of (..., X, Y, Z), a view along the network axes: writing there turns back by itself."""
    return to_network(array, geometry.stored_axes, geometry.flipped)[
        (..., *(slice(first, last) for first, last in geometry.box))
    ]


def _matrices(geometry: Geometry, plan: Plan) -> list[np.ndarray]:
    orders = axis_orders(LINEAR, coarse_axis(plan.spacing, geometry.spacing))
    return [axis_matrix(*sides) for sides in zip(geometry.resampled_shape, geometry.cropped_shape, orders)]


def _slabs(geometry: Geometry, max_memory: int, arrays: int) -> Iterator[slice]:
    """Planes along axis 0 that together stay below `max_memory`; one plane at least.

    `arrays` full-resolution float32 slabs live at once, beside the input's planes and what lies between.
    """
    (old, height, width), (new, full_height, full_width) = geometry.resampled_shape, geometry.cropped_shape
    between = 2 * height * width + full_height * width
    plane = 4 * (arrays * full_height * full_width + between + height * width * old / new)
    fixed = 4 * 2 * height * width  # the planes that a slab reads beyond its own ends
    rows = int(max((max_memory - fixed) // plane, 1))
    for start in range(0, new, rows):
        yield slice(start, min(start + rows, new))


def _reader(logits: Any, number: int) -> Callable[[slice], np.ndarray]:
    def read(planes: slice) -> np.ndarray:
        part = logits[number, planes]
        if hasattr(part, "detach"):  # torch, without importing it
            part = part.detach().float().cpu().numpy()
        return np.asarray(part, dtype=np.float32)

    return read
