"""The loss that FusionMamba is trained with: absolute differences, and ERGAS if wanted."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamba_vision.registry import MODELS


def ergas(pred: Tensor, target: Tensor, scale: float) -> Tensor:
    """Relative dimensionless global error in synthesis (Wald, 2000), the mean over the batch: lower is better.

    (100 / scale) * sqrt(mean over bands of (mean square error / squared mean of the target)), an image.

    Args:
        pred, target: (B, bands, H, W).
        scale: how many times finer the guide's pixels are than the image's were.
    """
    errors_BC = (pred - target).square().mean(dim=(2, 3))
    relative_BC = errors_BC / target.mean(dim=(2, 3)).square()
    return (100 / scale * relative_BC.mean(dim=1).sqrt()).mean()


@MODELS.register_module()
class SharpeningLoss(nn.Module):
    """Mean absolute difference, plus `ergas_weight` times ERGAS.

    Args:
        ergas_weight: 0 as published weights were trained; the authors' option is 1e-4.
        scale: of ERGAS, see `ergas`.

    Raises:
        ValueError: a negative weight, or a scale that is not positive.
    """

    def __init__(self, ergas_weight: float = 0.0, scale: float = 4) -> None:
        super().__init__()
        if ergas_weight < 0:
            raise ValueError(f"ergas_weight: expected a number from 0, found {ergas_weight!r}")
        if scale <= 0:
            raise ValueError(f"scale: expected a positive number, found {scale!r}")
        self.ergas_weight, self.scale = ergas_weight, scale

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of images (B, bands, H, W).

        Raises:
            ValueError: images of different shapes.
        """
        if pred.shape != target.shape:
            raise ValueError(f"target: found shape {tuple(target.shape)}, expected that of pred, {tuple(pred.shape)}")
        loss = F.l1_loss(pred, target)
        if not self.ergas_weight:
            return loss
        # In half precision, squares of small differences vanish.
        wide = torch.promote_types(pred.dtype, torch.float32)
        return loss + self.ergas_weight * ergas(pred.to(wide), target.to(wide), self.scale)
