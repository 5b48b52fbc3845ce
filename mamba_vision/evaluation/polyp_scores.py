"""Scores of a map of probabilities against a mask, as papers on polyps and on salient objects report them.

The map comes as 256 levels (0 to 255), stretched to the full range as these papers' tools do, unless said otherwise;
the mask is (H, W) bool. All results are in [0, 1]. Written from the definitions, because the maintained library of
these scores (PySODMetrics) wants older versions of NumPy and OpenCV than the toolkit; tests hold both together.
"""

import numpy as np
from scipy import ndimage

_EPS = np.finfo(np.float64).eps


def eight_bits(probability: np.ndarray) -> np.ndarray:
    """(H, W) in [0, 1] to 0 ... 255, the lowest value to 0 and the highest to 255; a constant map is not stretched."""
    low, high = float(probability.min()), float(probability.max())
    if high > low:
        probability = (probability - low) / (high - low)
    return np.rint(np.clip(probability, 0, 1) * 255).astype(np.uint8)


def dice_and_iou(predicted: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Dice and IoU of two masks; both are 1 if both are empty."""
    both, sizes = int((predicted & mask).sum()), int(predicted.sum()) + int(mask.sum())
    return (2 * both / sizes, both / (sizes - both)) if sizes else (1.0, 1.0)


def _above(levels: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of at least each of the 256 levels, inside and outside of the mask, (256,) each."""
    inside = np.bincount(levels[mask], minlength=256)
    outside = np.bincount(levels[~mask], minlength=256)
    return tuple(np.flip(np.cumsum(np.flip(counts))).astype(np.float64) for counts in (inside, outside))


def dice_and_iou_curves(levels: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dice and IoU at each of the 256 thresholds (levels >= threshold); their means are the papers' mDice and mIoU."""
    both, wrong = _above(levels, mask)
    either = wrong + mask.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        dice = np.where(both + either > 0, 2 * both / (both + either), 1.0)
        iou = np.where(either > 0, both / either, 1.0)
    return dice, iou


def e_measure_curve(levels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Enhanced alignment at each of the 256 thresholds (Fan et al., arXiv 1805.10421, equations 2 to 5).

    A thresholded map and a mask meet in four kinds of pixels, each of one value, so that counting them is enough.
    """
    right, wrong = _above(levels, mask)
    pixels, size = mask.size, float(mask.sum())
    if size == 0:
        return (pixels - wrong) / (pixels - 1 + _EPS)
    if size == pixels:
        return right / (pixels - 1 + _EPS)
    mean, truth = (right + wrong) / pixels, size / pixels
    total = np.zeros(256)
    kinds = (
        (right, 1, 1), (wrong, 1, 0), (size - right, 0, 1), (pixels - size - wrong, 0, 0),
    )  # fmt: skip
    for count, predicted, true in kinds:
        a, b = predicted - mean, true - truth
        alignment = 2 * a * b / (a * a + b * b + _EPS)
        total += count * (alignment + 1) ** 2 / 4
    return total / (pixels - 1 + _EPS)


def s_measure(levels: np.ndarray, mask: np.ndarray, alpha: float = 0.5) -> float:
    """Structure measure (Fan et al., arXiv 1708.00786): `alpha` of the object's likeness, the rest of the regions'."""
    map_, share = levels / 255.0, float(mask.mean())
    if share == 0:
        return float(1 - map_.mean())
    if share == 1:
        return float(map_.mean())
    objects = share * _likeness(map_[mask]) + (1 - share) * _likeness(1 - map_[~mask])
    return max(float(alpha * objects + (1 - alpha) * _regions(map_, mask)), 0.0)


def weighted_f_measure(levels: np.ndarray, mask: np.ndarray, beta_squared: float = 1.0) -> float:
    """Weighted F (Margolin et al., CVPR 2014): errors near the object's pixels share, far ones outside weigh more.

    0 for an empty mask, as in the field's tools.
    """
    if not mask.any():
        return 0.0
    error = np.abs(levels / 255.0 - mask)
    distance, nearest = ndimage.distance_transform_edt(~mask, return_indices=True)
    spread = error.copy()
    spread[~mask] = error[tuple(nearest[:, ~mask])]
    offsets = np.arange(-3, 4)
    kernel = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 5.0**2))
    smooth = ndimage.convolve(spread, kernel / kernel.sum(), mode="constant")
    shared = np.where(mask & (smooth < error), smooth, error)
    weighted = shared * np.where(mask, 1.0, 2 - np.exp(np.log(0.5) / 5 * distance))
    found = mask.sum() - weighted[mask].sum()
    recall = 1 - weighted[mask].mean()
    precision = found / (found + weighted[~mask].sum() + _EPS)
    return float((1 + beta_squared) * recall * precision / (recall + beta_squared * precision + _EPS))


def mean_absolute_error(levels: np.ndarray, mask: np.ndarray) -> float:
    """Mean of |map - mask|."""
    return float(np.abs(levels / 255.0 - mask).mean())


def _likeness(values: np.ndarray) -> float:
    """How close values come to an even 1 (the paper's equation 5)."""
    mean = values.mean()
    spread = values.std(ddof=1) if values.size > 1 else 0.0
    return 2 * mean / (mean**2 + 1 + spread + _EPS)


def _regions(map_: np.ndarray, mask: np.ndarray) -> float:
    """Structural similarity of the four regions around the mask's centroid, weighted by their area (equation 8)."""
    rows, columns = mask.shape
    y, x = (int(np.rint(where.mean())) + 1 for where in np.nonzero(mask))
    total = 0.0
    for vertical in (slice(0, y), slice(y, rows)):
        for horizontal in (slice(0, x), slice(x, columns)):
            part, truth = map_[vertical, horizontal], mask[vertical, horizontal].astype(np.float64)
            if part.size:
                total += part.size / mask.size * _similarity(part, truth)
    return total


def _similarity(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM of whole patches without constants, 1 where both have neither mean nor spread."""
    n = a.size
    mean_a, mean_b = a.mean(), b.mean()
    over = max(n - 1, 1)
    var_a, var_b = ((a - mean_a) ** 2).sum() / over, ((b - mean_b) ** 2).sum() / over
    both = ((a - mean_a) * (b - mean_b)).sum() / over
    top, bottom = 4 * mean_a * mean_b * both, (mean_a**2 + mean_b**2) * (var_a + var_b)
    if top != 0:
        return top / (bottom + _EPS)
    return 1.0 if bottom == 0 else 0.0
