"""How far generated data are from real ones, as an MMEngine metric."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from mamba_vision.registry import METRICS


class _AsTheyAre(nn.Module):
    """Features of the right width already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


@METRICS.register_module()
class FrechetDistance(BaseMetric):
    """Frechet distance between normal distributions fitted to features of `pred_img` and `gt_img` (arXiv 1706.08500).

    Args:
        features: 'inception' is FID, of pictures in [-1, 1], by torchmetrics with torch-fidelity's published network;
            'pixels' takes the values themselves: for small pictures and latents, comparable only with itself.

    The result is `fid` or `frechet_pixels`; the sample covariance wants more samples than features to mean much.

    Raises:
        ValueError: other features.
    """

    default_prefix = ""  # the names are clear without one; None would warn

    def __init__(self, features: str = "inception", collect_device: str = "cpu", prefix: str | None = None) -> None:
        super().__init__(collect_device, prefix)
        if features not in ("inception", "pixels"):
            raise ValueError(f"features: found {features!r}, expected 'inception' or 'pixels'")
        self.features = features
        self._network = FrechetInceptionDistance(2048).inception if features == "inception" else None

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the features of every sample's `pred_img` and `gt_img`, (C, H, W)."""
        drawn, real = (
            self._features(torch.stack([sample[name].float() for sample in data_samples])).cpu()
            for name in ("pred_img", "gt_img")
        )
        self.results += list(zip(drawn, real))

    def compute_metrics(self, results: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """The distance over all samples."""
        drawn, real = (torch.stack(list(part)) for part in zip(*results))
        distance = FrechetInceptionDistance(_AsTheyAre(drawn.shape[1]))
        distance.update(real, real=True)
        distance.update(drawn, real=False)
        return {"fid" if self._network is not None else "frechet_pixels": float(distance.compute())}

    def _features(self, pictures: Tensor) -> Tensor:
        if self._network is None:
            return pictures.flatten(1)
        colour = pictures if pictures.shape[1] == 3 else pictures[:, :1].expand(-1, 3, -1, -1)
        pixels = (127.5 * colour + 128).clamp(0, 255).byte()
        return self._network.to(pixels.device)(pixels).flatten(1)
