"""Scores of one segmented structure: two masks in, numbers out. Distances in mm, lesions counted one by one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

# BraTS 2023: voxels by which the truth grows before its pieces are counted; mm^3 up to which a lesion is passed over
LESION_DILATION, LESION_MIN_MM3 = 3, 50.0


@dataclass(frozen=True)
class LesionScores:
    """Lesions of one structure. `f1`, `dice` and `hd95_mm` are NaN where nothing was to be found or was found.

    Attributes:
        found, missed: lesions of the truth that the prediction touches, or doesn't.
        false: pieces of the prediction that touch no lesion.
        f1: 2 found / (2 found + missed + false).
        dice: sum of the lesions' Dice / (found + missed + false).
        hd95_mm: likewise for HD95, a missed or false lesion counting `missing_mm` each.
    """

    found: int
    missed: int
    false: int
    f1: float
    dice: float
    hd95_mm: float


def overlap_box(*masks: np.ndarray, margin: int = 0) -> tuple[slice, ...]:
    """The smallest box that holds every True voxel of the masks, grown by `margin` inside the volume."""
    box = []
    for axis, size in enumerate(masks[0].shape):
        rest = tuple(other for other in range(masks[0].ndim) if other != axis)
        used = np.flatnonzero(np.any([mask.any(axis=rest) for mask in masks], axis=0))
        box.append(
            slice(max(int(used[0]) - margin, 0), min(int(used[-1]) + 1 + margin, size)) if used.size else slice(0)
        )
    return tuple(box)


def surface_distances(
    prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """From each surface voxel of the prediction to the truth's surface, and the other way, in mm.

    A surface voxel is one with a background voxel, or the outside of the volume, beside one of its faces; distances
    run from centre to centre. Both masks must have voxels.
    """
    box = overlap_box(prediction, truth)
    mine, true = (mask[box] ^ ndimage.binary_erosion(mask[box]) for mask in (prediction, truth))
    to_truth = ndimage.distance_transform_edt(~true, sampling=spacing)[mine]
    to_prediction = ndimage.distance_transform_edt(~mine, sampling=spacing)[true]
    return to_truth, to_prediction


def hd95(distances: tuple[np.ndarray, np.ndarray]) -> float:
    """The larger of the two directions' 95th percentiles (MONAI's and the Metrics Reloaded definition)."""
    return float(max(np.percentile(one, 95) for one in distances))


def assd(distances: tuple[np.ndarray, np.ndarray]) -> float:
    """Average symmetric surface distance: the mean over the surface voxels of both masks."""
    return float(np.concatenate(distances).mean())


def surface_dice(distances: tuple[np.ndarray, np.ndarray], tolerance: float) -> float:
    """The share of both surfaces' voxels that lie within `tolerance` mm of the other (NSD, arXiv 1809.04430)."""
    near = sum(int((one <= tolerance).sum()) for one in distances)
    return near / sum(one.size for one in distances)


def lesion_scores(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing: Sequence[float],
    *,
    dilation: int = LESION_DILATION,
    min_mm3: float = LESION_MIN_MM3,
    missing_mm: float = float("nan"),
) -> LesionScores:
    """Detection lesion by lesion, as BraTS 2023 defines it (arXiv 2305.17033; its evaluation sets 374 mm for a miss).

    Pieces of the truth that meet once the truth has grown by `dilation` voxels (neighbours across faces and edges) are
    one lesion. A connected piece of the prediction belongs to every lesion whose grown shape it touches; it counts
    whole in that lesion's Dice. Lesions of at most `min_mm3` are passed over, but a prediction that touches one is not
    false.

    Args:
        prediction, truth: masks (*S).
        spacing: mm, an axis each.
        dilation: voxels.
        min_mm3: volume up to which a lesion of the truth is not counted.
        missing_mm: HD95 of a missed or a false lesion; NaN leaves them out of `hd95_mm`.
    """
    box = overlap_box(prediction, truth, margin=dilation + 1)
    prediction, truth = prediction[box], truth[box]
    full = np.ones((3,) * truth.ndim, dtype=bool)  # 26 neighbours in a volume
    near = ndimage.generate_binary_structure(truth.ndim, 2)
    pieces, count = ndimage.label(prediction, full)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    grown = ndimage.binary_dilation(truth, near, iterations=dilation) if dilation else truth
    lesions = ndimage.label(grown, full)[0] * truth
    voxel_mm3 = float(np.prod(spacing))
    touched, dices, distances, missed = set(), [], [], 0
    for number, place in enumerate(ndimage.find_objects(lesions), 1):
        if place is None:
            continue
        room = tuple(slice(max(side.start - dilation, 0), side.stop + dilation) for side in place)
        lesion = lesions[room] == number
        reach = ndimage.binary_dilation(lesion, near, iterations=dilation) if dilation else lesion
        mine = np.unique(pieces[room][reach])
        mine = mine[mine > 0]
        touched.update(mine.tolist())
        volume = int(lesion.sum())
        if volume * voxel_mm3 <= min_mm3:
            continue
        if not mine.size:
            missed += 1
            continue
        shared = int(np.isin(pieces[room][lesion], mine).sum())
        dices.append(2 * shared / (volume + int(sizes[mine].sum())))
        distances.append(hd95(surface_distances(np.isin(pieces, mine), lesions == number, spacing)))
    found, false = len(dices), count - len(touched)
    total = found + missed + false
    if not total:
        return LesionScores(0, 0, 0, float("nan"), float("nan"), float("nan"))
    if not np.isnan(missing_mm):
        distances += [missing_mm] * (missed + false)
    return LesionScores(
        found,
        missed,
        false,
        2 * found / (2 * found + missed + false),
        sum(dices) / total,
        float(np.mean(distances)) if distances else float("nan"),
    )
