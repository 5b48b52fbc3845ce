"""Scores of fused images as an MMEngine metric."""

from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import BaseMetric
from torch import Tensor

from mamba_vision.evaluation.fusion_scores import SCORES, score_fusion
from mamba_vision.evaluation.restoration_scores import psnr
from mamba_vision.registry import METRICS


@METRICS.register_module()
class FusionMetric(BaseMetric):
    """Means over images of scores against both sources; see `fusion_scores`.

    The means are Python floats, so that a checkpoint that remembers them loads weights-only.

    Args:
        scores: some of 'EN', 'SD', 'SF', 'AG', 'MI', 'SCD', 'VIF', 'Qabf', 'SSIM'.
        quantize: round all images to 256 levels, as the published evaluator reads them from files: a color image's
            luminance is no whole number, and mutual information is of the exact values.
        truth: also 'PSNR' in dB, against the samples' `gt_image`: for pairs that were made of one image.
        prefix: in front of the names, e.g. 'MSRS'.

    Raises:
        ValueError: an unknown score.
    """

    default_prefix = ""  # the names are clear without one; None would warn

    def __init__(
        self, scores: Sequence[str] = tuple(SCORES), quantize: bool = True, truth: bool = False,
        collect_device: str = "cpu", prefix: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(collect_device, prefix)
        if unknown := sorted(set(scores) - set(SCORES)):
            raise ValueError(f"scores: found {unknown}, expected some of {', '.join(SCORES)}")
        self.scores, self.quantize, self.truth = tuple(scores), quantize, truth

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Score each sample: `pred_image`, `first_image`, `second_image`, (1, H, W) in [0, 1] each."""
        for sample in data_samples:
            images = {name: self._gray(sample, name) for name in ("pred_image", "first_image", "second_image")}
            found = score_fusion(*(image.numpy() for image in images.values()), self.scores)
            if self.truth:
                found["PSNR"] = psnr(images["pred_image"], self._gray(sample, "gt_image"))
            self.results.append(found)

    def compute_metrics(self, results: list[dict[str, float]]) -> dict[str, float]:
        """Means over images."""
        return {name: sum(result[name] for result in results) / len(results) for name in results[0]}

    def _gray(self, sample: dict, name: str) -> Tensor:
        """The sample's image (H, W), 0 to 255.

        Raises:
            ValueError: it has color.
        """
        image = sample[name]
        if image.ndim != 3 or image.shape[0] != 1:
            where = sample.get("path", "image")
            raise ValueError(f"{where}: {name} has shape {tuple(image.shape)}, expected (1, H, W): luminance alone")
        levels = 255 * image[0].detach().double().cpu().clamp(0, 1)
        return levels.round() if self.quantize else levels
