"""Losses between images, pixel by pixel."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamba_vision.models.layers.options import one_of
from mamba_vision.registry import MODELS


@MODELS.register_module()
class PixelLoss(nn.Module):
    """The mean over all pixels and channels of a penalty on the difference, times a weight.

    Args:
        kind: 'l1' |d|; 'charbonnier' sqrt(d^2 + eps); 'l2' d^2.
        weight: factor.
        eps: of Charbonnier's penalty (Charbonnier et al., ICIP 1994).

    Raises:
        ValueError: another kind.
    """

    def __init__(self, kind: str = "l1", weight: float = 1.0, eps: float = 1e-12) -> None:
        super().__init__()
        self.kind, self.weight, self.eps = one_of("kind", kind, ("l1", "charbonnier", "l2")), weight, eps

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of images (B, C, H, W).

        Raises:
            ValueError: images of different shapes.
        """
        if pred.shape != target.shape:
            raise ValueError(f"target: found shape {tuple(target.shape)}, expected that of pred, {tuple(pred.shape)}")
        if self.kind == "l1":
            loss = F.l1_loss(pred, target)
        elif self.kind == "l2":
            loss = F.mse_loss(pred, target)
        else:
            loss = torch.sqrt((pred - target).square() + self.eps).mean()
        return self.weight * loss
