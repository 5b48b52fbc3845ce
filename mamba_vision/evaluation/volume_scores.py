"""Scores of one segmented volume, structure by structure: overlap, surfaces, volumes, lesions.

Distances are in mm. The conventions where a structure is missing, which change averages more than most networks do:

    voxels in         Dice, IoU, NSD   sensitivity   precision   HD95, ASSD       lesion-wise F1, Dice
    both              computed         computed      computed    computed         computed
    prediction only   0                undefined     0           undefined [1]    0
    truth only        0                0             undefined   undefined [1]    0
    neither           undefined [2]    undefined     undefined   undefined [2]    undefined [2]

Undefined values are NaN and left out of means; `missing` says which case it is. [1] Or `missing_distance_mm`. [2] With
both_empty='perfect', as BraTS counts: 1, and a distance of 0.

In a single slice, an axis of which has one voxel, surfaces are outlines: distances are those in the plane, and lesions
have areas (mm^2) in place of volumes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from mamba_vision.evaluation.mask_scores import (
    LESION_DILATION,
    LESION_MIN_MM3,
    assd,
    hd95,
    lesion_scores,
    overlap_box,
    surface_dice,
    surface_distances,
)

METRICS = ("dice", "iou", "sensitivity", "precision", "surface_dice", "hd95", "assd", "lesions")
Metric = Literal["dice", "iou", "sensitivity", "precision", "surface_dice", "hd95", "assd", "lesions"]
NAN = float("nan")


@dataclass(frozen=True)
class ClassScore:
    """One structure of one case. `missing` is '', 'truth', 'prediction' or 'both': where it has no voxel.

    `label` is the value in the label map, or several joined by '+' for a region.
    """

    case: str
    label: int | str
    name: str
    dice: float
    surface_dice: float
    hd95_mm: float
    volume_true_ml: float
    volume_predicted_ml: float
    missing: str
    iou: float = NAN
    sensitivity: float = NAN
    precision: float = NAN
    assd_mm: float = NAN
    lesions_found: float = NAN
    lesions_missed: float = NAN
    lesions_false: float = NAN
    lesion_f1: float = NAN
    lesion_dice: float = NAN
    lesion_hd95_mm: float = NAN

    @property
    def volume_error_ml(self) -> float:
        return self.volume_predicted_ml - self.volume_true_ml

    @property
    def volume_error_percent(self) -> float:
        """Of the true volume; undefined where that is 0."""
        return 100 * self.volume_error_ml / self.volume_true_ml if self.volume_true_ml else NAN

    @property
    def empty_truth(self) -> bool:
        return self.missing in ("truth", "both")


@dataclass(frozen=True)
class ScoreOptions:
    """How to score; see the table above for the last two.

    Attributes:
        metrics: which to compute, of METRICS; the others are NaN.
        tolerance: of the surface Dice, in mm; one number or one a structure.
        lesion_dilation, lesion_min_mm3: see mask_scores.lesion_scores.
        both_empty: 'undefined' or 'perfect'.
        missing_distance_mm: HD95 and ASSD where only one of the two has the structure, and HD95 of a missed or false
            lesion.

    Raises:
        ValueError: an unknown metric or policy.
    """

    metrics: Sequence[Metric] = METRICS
    tolerance: float | Sequence[float] = 2.0
    lesion_dilation: int = LESION_DILATION
    lesion_min_mm3: float = LESION_MIN_MM3
    both_empty: Literal["undefined", "perfect"] = "undefined"
    missing_distance_mm: float = NAN

    def __post_init__(self) -> None:
        check_metrics(self.metrics)
        if self.both_empty not in ("undefined", "perfect"):
            raise ValueError(f"both_empty: expected 'undefined' or 'perfect', found {self.both_empty!r}")
        if self.lesion_dilation < 0:
            raise ValueError(f"lesion_dilation: expected 0 or more voxels, found {self.lesion_dilation}")


def score_structures(
    prediction: np.ndarray | torch.Tensor,
    truth: np.ndarray | torch.Tensor,
    spacing: Sequence[float],
    structures: Mapping[str, int | Sequence[int]],
    options: ScoreOptions | None = None,
    *,
    case: str = "",
    ignore_index: int | None = None,
) -> list[ClassScore]:
    """Scores of each structure, a label value or the union of several (a region).

    Args:
        prediction, truth: integer labels (*S).
        spacing: voxel size in mm, an axis each.
        structures: {name: value} or {name: values}.
        options: see ScoreOptions.
        ignore_index: value of the truth whose voxels do not count (in distances they count as background).

    Raises:
        ValueError: shapes that differ, a wrong number of tolerances or spacings.
    """
    options = options or ScoreOptions()
    prediction, truth = _array(prediction), _array(truth)
    if prediction.shape != truth.shape:
        raise ValueError(
            f"prediction{f' of {case}' if case else ''}: expected the truth's shape {truth.shape}, "
            f"found {prediction.shape}"
        )
    spacing = [float(step) for step in spacing]
    if len(spacing) != truth.ndim:
        raise ValueError(f"spacing: expected {truth.ndim} numbers, found {spacing}")
    tolerances = tolerances_for(options.tolerance, len(structures))
    if ignore_index is not None:
        counted = truth != ignore_index
        prediction, truth = prediction * counted, truth * counted
    voxel_ml = float(np.prod(spacing)) / 1000
    if truth.ndim == 3 and truth.shape.count(1) == 1:
        through = truth.shape.index(1)
        prediction, truth = prediction.squeeze(through), truth.squeeze(through)
        spacing.pop(through)
    scores = []
    for (name, values), tolerance in zip(structures.items(), tolerances):
        values = (values,) if isinstance(values, int) else tuple(values)
        mine, true = (
            np.isin(labels, values) if len(values) > 1 else labels == values[0] for labels in (prediction, truth)
        )
        label = values[0] if len(values) == 1 else "+".join(map(str, values))
        scores.append(_score(case, label, name, mine, true, spacing, voxel_ml, tolerance, options))
    return scores


def score_volume(
    prediction: np.ndarray | torch.Tensor,
    truth: np.ndarray | torch.Tensor,
    spacing: Sequence[float],
    classes: Sequence[str],
    *,
    case: str = "",
    metrics: Sequence[Metric] = METRICS,
    tolerance: float | Sequence[float] = 2.0,
    ignore_index: int | None = None,
) -> list[ClassScore]:
    """Scores of the foreground classes 1, 2, ... of `classes` (background first); otherwise as score_structures."""
    structures = {name: number for number, name in enumerate(classes) if number}
    options = ScoreOptions(metrics, tolerance)
    return score_structures(prediction, truth, spacing, structures, options, case=case, ignore_index=ignore_index)


def check_metrics(metrics: Sequence[str]) -> None:
    """Raise ValueError if one of `metrics` is unknown."""
    unknown = [metric for metric in metrics if metric not in METRICS]
    if unknown:
        raise ValueError(f"metrics: expected some of {', '.join(METRICS)}, found {', '.join(map(repr, unknown))}")


def tolerances_for(tolerance: float | Sequence[float], classes: int) -> list[float]:
    """One tolerance in mm for each of `classes` foreground classes.

    Raises:
        ValueError: neither one number nor one a class.
    """
    if isinstance(tolerance, (int, float)):
        return [float(tolerance)] * classes
    if len(tolerance) != classes:
        raise ValueError(f"tolerance: expected one number, or one for each of {classes} classes, found {tolerance}")
    return [float(value) for value in tolerance]


def _array(labels: np.ndarray | torch.Tensor) -> np.ndarray:
    return labels.numpy(force=True) if isinstance(labels, torch.Tensor) else np.asarray(labels)


def _score(
    case: str, label: int | str, name: str, mine: np.ndarray, true: np.ndarray, spacing: list[float], voxel_ml: float,
    tolerance: float, options: ScoreOptions,
) -> ClassScore:  # fmt: skip
    """Every score of one structure; what was not asked for is taken out at the end."""
    n_mine, n_true = int(mine.sum()), int(true.sum())
    missing = {(0, 0): "both", (0, 1): "prediction", (1, 0): "truth"}.get((min(n_mine, 1), min(n_true, 1)), "")
    wanted = set(options.metrics)
    found: dict[str, float] = {}
    if missing == "both":
        if options.both_empty == "perfect":
            found = dict.fromkeys(("dice", "iou", "surface_dice", "lesion_f1", "lesion_dice"), 1.0)
            found |= dict.fromkeys(("hd95_mm", "assd_mm", "lesion_hd95_mm"), 0.0)
        found |= dict.fromkeys(("lesions_found", "lesions_missed", "lesions_false"), 0)
    else:
        box = overlap_box(mine, true, margin=options.lesion_dilation + 1)
        mine, true = mine[box], true[box]
        shared = int((mine & true).sum())
        found = {"dice": 2 * shared / (n_mine + n_true), "iou": shared / (n_mine + n_true - shared)}
        found["sensitivity"] = shared / n_true if n_true else NAN
        found["precision"] = shared / n_mine if n_mine else NAN
        if missing:
            found |= {"surface_dice": 0.0, "hd95_mm": options.missing_distance_mm}
            found["assd_mm"] = options.missing_distance_mm
        elif wanted & {"surface_dice", "hd95", "assd"}:
            distances = surface_distances(mine, true, spacing)
            found |= {"surface_dice": surface_dice(distances, tolerance), "hd95_mm": hd95(distances)}
            found["assd_mm"] = assd(distances)
        if "lesions" in wanted:
            found |= _lesions(mine, true, spacing, options)
    kept = {key: value for key, value in found.items() if _metric_of(key) in wanted}
    always = {"dice": NAN, "surface_dice": NAN, "hd95_mm": NAN, **kept}
    return ClassScore(
        case, label, name, volume_true_ml=n_true * voxel_ml, volume_predicted_ml=n_mine * voxel_ml, missing=missing,
        **always,
    )  # fmt: skip


def _lesions(mine: np.ndarray, true: np.ndarray, spacing: list[float], options: ScoreOptions) -> dict[str, float]:
    lesions = lesion_scores(
        mine, true, spacing, dilation=options.lesion_dilation, min_mm3=options.lesion_min_mm3,
        missing_mm=options.missing_distance_mm,
    )  # fmt: skip
    return {
        "lesions_found": lesions.found,
        "lesions_missed": lesions.missed,
        "lesions_false": lesions.false,
        "lesion_f1": lesions.f1,
        "lesion_dice": lesions.dice,
        "lesion_hd95_mm": lesions.hd95_mm,
    }


def _metric_of(field: str) -> str:
    return "lesions" if field.startswith("lesion") else field.removesuffix("_mm")
