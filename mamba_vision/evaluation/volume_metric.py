"""Scores of segmented volumes as an MMEngine metric."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmengine.evaluator import BaseMetric

from mamba_vision.evaluation.volume_scores import ClassScore, ScoreOptions, score_structures, tolerances_for
from mamba_vision.registry import METRICS as METRICS_REGISTRY

_FIELDS = (
    ("dice", "dice"), ("iou", "iou"), ("sensitivity", "sensitivity"), ("precision", "precision"),
    ("surface_dice", "surface_dice"), ("hd95", "hd95_mm"), ("assd", "assd_mm"), ("lesions", "lesion_f1"),
    ("lesions", "lesion_dice"),
)  # fmt: skip


@METRICS_REGISTRY.register_module()
class VolumeMetric(BaseMetric):
    """Mean scores over cases, for each foreground class and over classes; by default Dice, HD95 and surface Dice.

    Results are `dice`, `dice_<class>`, `hd95_mm`, ...: first the mean over cases for each class, without undefined
    values (see volume_scores), then the plain mean over classes. Values are Python floats, so that a checkpoint that
    remembers them loads weights-only.

    Args:
        classes: names, background first.
        scores: some of volume_scores.METRICS. (MMEngine takes a config with `metrics` for another class.)
        tolerance: of the surface Dice, mm; one number or one a foreground class.
        ignore_index: label of the truth that does not count.
        regions: name -> class numbers, scored in place of the classes.
    """

    default_prefix = ""  # the names are clear without one; None would warn

    def __init__(
        self,
        classes: Sequence[str],
        scores: Sequence[str] = ("dice", "hd95", "surface_dice"),
        tolerance: float | Sequence[float] = 2.0,
        ignore_index: int | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
        regions: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        super().__init__(collect_device, prefix)
        self.structures = dict(regions or {name: number for number, name in enumerate(classes) if number})
        self.scores = tuple(scores)
        self.tolerance = tolerances_for(tolerance, len(self.structures))
        self.options = ScoreOptions(self.scores, self.tolerance)
        self.ignore_index = ignore_index

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Score each sample: `pred_label` and `gt_label` (*S), `spacing` in mm, `case`."""
        for sample in data_samples:
            scores = score_structures(
                sample["pred_label"], sample["gt_label"], sample["spacing"], self.structures, self.options,
                case=sample.get("case", ""), ignore_index=self.ignore_index,
            )  # fmt: skip
            self.results.append(scores)

    def compute_metrics(self, results: list[list[ClassScore]]) -> dict[str, float]:
        """Means over cases and classes."""
        scores = [score for case in results for score in case]
        summary = {}
        for metric, field in _FIELDS:
            if metric not in self.scores:
                continue
            per_class = {
                name: _mean(getattr(score, field) for score in scores if score.name == name) for name in self.structures
            }
            summary[field] = _mean(per_class.values())
            summary.update({f"{field}_{name.replace(' ', '_')}": value for name, value in per_class.items()})
        return summary


def _mean(values: Iterable[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else float("nan")
