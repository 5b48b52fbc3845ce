"""PSNR and SSIM as an MMEngine metric."""

from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import BaseMetric

from mamba_vision.evaluation.restoration_scores import prepared, psnr, ssim
from mamba_vision.registry import METRICS

SCORES = {"psnr": psnr, "ssim": ssim}


@METRICS.register_module()
class RestorationMetric(BaseMetric):
    """Means over images of PSNR (dB) and SSIM; see `restoration_scores`. Of several data sets also each one's own.

    The means are Python floats, so that a checkpoint that remembers them loads weights-only.

    Args:
        border: pixels of the result that are left out on every side: the scale in super-resolution, 0 elsewhere.
        y_channel: on luminance (super-resolution, JPEG) instead of all channels (denoising).
        quantize: round results to 256 levels.
        scores: some of 'psnr', 'ssim'.
        prefix: in front of the names, e.g. 'Set5'.

    Raises:
        ValueError: an unknown score.
    """

    default_prefix = ""  # the names are clear without one; None would warn

    def __init__(
        self, border: int = 0, y_channel: bool = False, quantize: bool = True,
        scores: Sequence[str] = ("psnr", "ssim"), collect_device: str = "cpu", prefix: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(collect_device, prefix)
        if unknown := set(scores) - set(SCORES):
            raise ValueError(f"scores: found {sorted(unknown)}, expected some of {', '.join(SCORES)}")
        self.border, self.y_channel, self.quantize, self.scores = border, y_channel, quantize, tuple(scores)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Score each sample: `pred_image` and `gt_image` (C, H, W) in [0, 1].

        Raises:
            ValueError: a result of another shape than the truth.
        """
        for sample in data_samples:
            if sample["pred_image"].shape != sample["gt_image"].shape:
                found, want = (tuple(sample[key].shape) for key in ("pred_image", "gt_image"))
                raise ValueError(
                    f"{sample.get('path', 'image')}: found a result of shape {found}, the truth has {want}"
                )
            pair = [
                prepared(sample[key], self.border, self.y_channel, self.quantize) for key in ("pred_image", "gt_image")
            ]
            scores = {name: SCORES[name](*pair) for name in self.scores}
            self.results.append({"dataset": sample.get("dataset", ""), **scores})

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Means over images, and over those of each data set where there are several."""
        groups: dict[str, list[dict[str, Any]]] = {}
        for result in results:
            groups.setdefault(result["dataset"], []).append(result)
        means = {name: _mean(results, name) for name in self.scores}
        if len(groups) > 1:
            means.update({f"{name}_{group}": _mean(of, name) for group, of in groups.items() for name in self.scores})
        return means


def _mean(results: list[dict[str, Any]], name: str) -> float:
    return sum(result[name] for result in results) / len(results)
