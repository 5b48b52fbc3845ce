"""The scores of the polyp field as an MMEngine metric, apart for every data set and kind of prompt."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from torch import Tensor

from mamba_vision.evaluation import polyp_scores as scores
from mamba_vision.registry import METRICS

NAMES = ("dice", "iou", "mdice", "miou", "wfm", "sm", "em", "mae")


@METRICS.register_module()
class PolypMetric(BaseMetric):
    """Means over the images of a data set.

    `dice` and `iou` of the mask at one threshold. As the field's papers report them, from the map stretched to 256
    levels: `mdice`, `miou` (means over all thresholds), `wfm` (weighted F), `sm` (structure measure), `em` (the highest
    enhanced alignment over the thresholds, of the curve's mean over images), `mae`.

    Names are MODE/NAME, such as 'gt_box/dice'; of several data sets also MODE/DATASET/NAME, and MODE/NAME is the mean
    over these. Boxes from the truth tell the place and size of the answer: such scores compare with none of a method
    that has no prompts.

    Args:
        threshold: probability from which a pixel counts as found, for `dice` and `iou`.
        prefix: in front of the names.

    Raises:
        ValueError: a threshold outside (0, 1).
    """

    default_prefix = ""  # the names are clear without one; None would warn

    def __init__(self, threshold: float = 0.5, collect_device: str = "cpu", prefix: str | None = None) -> None:
        super().__init__(collect_device, prefix)
        if not 0 < threshold < 1:
            raise ValueError(f"threshold: expected more than 0 and less than 1, found {threshold}")
        self.threshold = threshold

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Score each sample: `pred_prob` (H, W) in [0, 1] and `gt_mask` (H, W) bool.

        Raises:
            ValueError: a map of another size than its mask.
        """
        for sample in data_samples:
            probability, mask = (_array(sample[key]) for key in ("pred_prob", "gt_mask"))
            if probability.shape != mask.shape:
                raise ValueError(f"{sample.get('path', 'image')}: found a map {probability.shape}, mask {mask.shape}")
            found = score_map(probability.astype(np.float64), mask.astype(bool), self.threshold)
            self.results.append((sample.get("prompt_mode") or "", sample.get("dataset") or "", found))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """See the class."""
        groups: dict[str, dict[str, list]] = {}
        for mode, dataset, found in results:
            groups.setdefault(mode, {}).setdefault(dataset, []).append(found)
        metrics = {}
        for mode, datasets in groups.items():
            means = {dataset: _means(found) for dataset, found in datasets.items()}
            for name in NAMES:
                metrics[_name(mode, name)] = float(np.mean([mean[name] for mean in means.values()]))
            if len(means) > 1:
                metrics |= {_name(mode, dataset, name): mean[name] for dataset, mean in means.items() for name in NAMES}
        return metrics


def score_map(probability: np.ndarray, mask: np.ndarray, threshold: float = 0.5) -> dict[str, Any]:
    """All scores of one map (H, W) in [0, 1]; `em` is the curve over thresholds."""
    levels = scores.eight_bits(probability)
    dice, iou = scores.dice_and_iou(probability >= threshold, mask)
    dice_curve, iou_curve = scores.dice_and_iou_curves(levels, mask)
    return {
        "dice": dice,
        "iou": iou,
        "mdice": float(dice_curve.mean()),
        "miou": float(iou_curve.mean()),
        "wfm": scores.weighted_f_measure(levels, mask),
        "sm": scores.s_measure(levels, mask),
        "em": scores.e_measure_curve(levels, mask),
        "mae": scores.mean_absolute_error(levels, mask),
    }


def _means(found: list[dict[str, Any]]) -> dict[str, float]:
    return {name: float(np.max(np.mean([one[name] for one in found], axis=0))) for name in NAMES}


def _name(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def _array(value: Tensor | np.ndarray) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
