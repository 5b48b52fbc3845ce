"""Scores of sharpened images as an MMEngine metric, with a truth or without."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric

from mamba_vision.evaluation.fusion_full_resolution import NYQUIST_GAINS, enlarge, full_resolution_quality
from mamba_vision.evaluation.fusion_sharpening_scores import (
    band_correlation,
    hypercomplex_quality,
    peak_ratio,
    quality_index,
    relative_error,
    spatial_correlation,
    spectral_angle,
    without_border,
)
from mamba_vision.evaluation.restoration_scores import ssim
from mamba_vision.registry import METRICS

# Name in the literature -> score(fused, truth, metric).
SCORES = {
    "PSNR": lambda fused, truth, metric: peak_ratio(fused, truth, metric.peak),
    "SAM": lambda fused, truth, metric: spectral_angle(fused, truth),
    "ERGAS": lambda fused, truth, metric: relative_error(fused, truth, metric.scale),
    "SCC": lambda fused, truth, metric: spatial_correlation(fused, truth),
    "Q": lambda fused, truth, metric: quality_index(fused, truth),
    "Q2n": lambda fused, truth, metric: hypercomplex_quality(fused, truth),
    "CC": lambda fused, truth, metric: band_correlation(fused, truth),
    "SSIM": lambda fused, truth, metric: ssim(*(torch.from_numpy(i) * 255 / metric.peak for i in (fused, truth))),
}
PANSHARPENING = ("PSNR", "SAM", "ERGAS", "SCC", "Q", "Q2n")


@METRICS.register_module()
class SharpeningMetric(BaseMetric):
    """Means over images: `scores` of samples with a truth, D_lambda, D_s and HQNR of others.

    The means are Python floats, so that a checkpoint that remembers them loads weights-only.

    Args:
        peak: counts that 1 stands for: 2047 for 11 bits (WV3, QB), 1023 for 10 bits (GF2).
        scale: of the guide over the image.
        sensor: whose optics D_lambda is about, a name of `NYQUIST_GAINS`.
        cut_border: leave out the border as published tables do, where there is a truth.
        scores: with a truth, some of 'PSNR', 'SAM', 'ERGAS', 'SCC', 'Q', 'Q2n', 'CC' and 'SSIM'.
        prefix: in front of the names, e.g. 'WV3'.

    Raises:
        ValueError: an unknown sensor or score, or a peak that is not positive.
    """

    default_prefix = ""  # the names are clear without one; None would warn

    def __init__(
        self, peak: float = 2047.0, scale: int = 4, sensor: str = "other", cut_border: bool = True,
        scores: Sequence[str] = PANSHARPENING, collect_device: str = "cpu", prefix: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(collect_device, prefix)
        if sensor not in NYQUIST_GAINS:
            raise ValueError(f"sensor: found {sensor!r}, expected one of {', '.join(NYQUIST_GAINS)}")
        if peak <= 0:
            raise ValueError(f"peak: expected a positive number of counts, found {peak!r}")
        if unknown := sorted(set(scores) - set(SCORES)):
            raise ValueError(f"scores: found {unknown}, expected some of {', '.join(SCORES)}")
        self.peak, self.scale, self.sensor, self.cut_border, self.scores = peak, scale, sensor, cut_border, scores

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Score each sample, of values in [0, 1]: `pred_image` (bands, H, W), and `gt_image` of that shape, or
        `pan_image` (1, H, W) with `lms_image` (bands, H, W), else `ms_image` (bands, H / scale, W / scale)."""
        for sample in data_samples:
            fused = self._counts(sample, "pred_image")
            if "gt_image" in sample:
                self.results.append(self._with_truth(fused, self._counts(sample, "gt_image")))
            else:
                stored = "lms_image" in sample
                enlarged = self._counts(sample, "lms_image" if stored else "ms_image")
                enlarged = enlarged if stored else enlarge(enlarged, self.scale)
                pan = self._counts(sample, "pan_image")
                self.results.append(full_resolution_quality(fused, enlarged, pan, self.sensor, self.scale))

    def compute_metrics(self, results: list[dict[str, float]]) -> dict[str, float]:
        """Means over the images that have the score."""
        found: dict[str, list[float]] = {}
        for result in results:
            for name, value in result.items():
                found.setdefault(name, []).append(value)
        return {name: float(np.mean(values)) for name, values in found.items()}

    def _with_truth(self, fused: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        if self.cut_border:
            fused, truth = without_border(fused), without_border(truth)
        return {name: SCORES[name](fused, truth, self) for name in self.scores}

    def _counts(self, sample: dict, name: str) -> np.ndarray:
        return self.peak * sample[name].detach().double().cpu().numpy()
