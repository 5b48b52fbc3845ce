"""Scores of one segmented volume, class by class: Dice, surface Dice, 95 % Hausdorff distance, volumes.

Distances are in mm. The conventions where a class is missing, which change averages more than most networks do:

    missing in          Dice and surface Dice   HD95
    neither             computed                computed
    truth only          0                       undefined (NaN)
    prediction only     0                       undefined (NaN)
    both                undefined (NaN)         undefined (NaN)

Undefined values are left out of means; `missing` says which case it is.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice

METRICS = ("dice", "hd95", "surface_dice")


@dataclass(frozen=True)
class ClassScore:
    """One class of one case. `missing` is '', 'truth', 'prediction' or 'both': where the class has no voxel."""

    case: str
    label: int
    name: str
    dice: float
    surface_dice: float
    hd95_mm: float
    volume_true_ml: float
    volume_predicted_ml: float
    missing: str

    @property
    def volume_error_ml(self) -> float:
        return self.volume_predicted_ml - self.volume_true_ml


def score_volume(
    prediction: np.ndarray | torch.Tensor,
    truth: np.ndarray | torch.Tensor,
    spacing: Sequence[float],
    classes: Sequence[str],
    *,
    case: str = "",
    metrics: Sequence[str] = METRICS,
    tolerance: float | Sequence[float] = 2.0,
    ignore_index: int | None = None,
) -> list[ClassScore]:
    """Scores of the foreground classes 1, 2, ... of `classes` (background first).

    Args:
        prediction, truth: integer labels (*S).
        spacing: voxel size in mm, an axis each.
        metrics: which to compute; the others are NaN.
        tolerance: of the surface Dice, in mm; one number or one a foreground class.
        ignore_index: label of the truth whose voxels do not count (in distances they count as background).

    Raises:
        ValueError: shapes that differ, an unknown metric, a wrong number of tolerances or spacings.
    """
    check_metrics(metrics)
    prediction, truth = _tensor(prediction), _tensor(truth)
    if prediction.shape != truth.shape:
        raise ValueError(
            f"prediction{f' of {case}' if case else ''}: expected the truth's shape {tuple(truth.shape)}, "
            f"found {tuple(prediction.shape)}"
        )
    spacing = [float(step) for step in spacing]
    if len(spacing) != truth.ndim:
        raise ValueError(f"spacing: expected {truth.ndim} numbers, found {spacing}")
    tolerances = tolerances_for(tolerance, len(classes) - 1)
    if ignore_index is not None:
        counted = truth != ignore_index
        prediction, truth = prediction * counted, truth * counted
    voxel_ml = float(np.prod(spacing)) / 1000
    scores = []
    for label in range(1, len(classes)):
        mine, true = prediction == label, truth == label
        n_mine, n_true = int(mine.sum()), int(true.sum())
        missing = {(True, True): "both", (False, True): "truth", (True, False): "prediction"}.get(
            (n_mine == 0, n_true == 0), ""
        )
        dice = surface = hd95 = float("nan")
        if missing != "both":
            dice = 2 * int((mine & true).sum()) / (n_mine + n_true) if "dice" in metrics else dice
            surface = 0.0 if missing and "surface_dice" in metrics else surface
        if not missing:
            surface, hd95 = _distances(mine, true, spacing, tolerances[label - 1], metrics)
        scores.append(
            ClassScore(case, label, classes[label], dice, surface, hd95, n_true * voxel_ml, n_mine * voxel_ml, missing)
        )
    return scores


def check_metrics(metrics: Sequence[str]) -> None:
    """Raise ValueError if one of `metrics` is unknown."""
    unknown = [metric for metric in metrics if metric not in METRICS]
    if unknown:
        raise ValueError(f"metrics: expected some of {', '.join(METRICS)}, found {', '.join(map(repr, unknown))}")


def tolerances_for(tolerance: float | Sequence[float], classes: int) -> list[float]:
    """One tolerance in mm for each of `classes` foreground classes."""
    if isinstance(tolerance, (int, float)):
        return [float(tolerance)] * classes
    if len(tolerance) != classes:
        raise ValueError(f"tolerance: expected one number, or one for each of {classes} classes, found {tolerance}")
    return [float(value) for value in tolerance]


def _tensor(labels: np.ndarray | torch.Tensor) -> torch.Tensor:
    return labels.cpu() if isinstance(labels, torch.Tensor) else torch.from_numpy(np.array(labels, dtype=np.int32))


def _distances(
    prediction: torch.Tensor, truth: torch.Tensor, spacing: list[float], tolerance: float, metrics: Sequence[str]
) -> tuple[float, float]:
    """Surface Dice and HD95 of two masks that both have voxels, by MONAI on the box that holds them."""
    box = []
    for axis in range(truth.ndim):
        rest = tuple(other for other in range(truth.ndim) if other != axis)
        used = (prediction | truth).any(dim=rest).nonzero()
        # A rim of one background voxel: the surface of a mask that fills its box would otherwise be lost.
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    pad = (1, 1) * truth.ndim
    pair = [torch.nn.functional.pad(mask[tuple(box)], pad)[None, None] for mask in (prediction, truth)]
    surface = hd95 = float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "surface_dice" in metrics:
            surface = float(compute_surface_dice(*pair, [tolerance], include_background=True, spacing=spacing))
        if "hd95" in metrics:
            hd95 = float(compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing))
    return surface, hd95
