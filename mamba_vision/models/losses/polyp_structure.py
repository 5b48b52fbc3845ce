"""The loss by which the polyp field trains: borders weigh more, in cross-entropy and in IoU.

Fan et al., "PraNet", arXiv 2006.11392, equations 6 to 8; the weights are those of F3Net (Wei et al., arXiv 1911.11445).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamba_vision.registry import MODELS


@MODELS.register_module()
class StructureLoss(nn.Module):
    """Weighted cross-entropy plus weighted IoU, each a mean over images.

    A pixel's weight is 1 + `emphasis` times how much its neighbourhood differs from it.

    Args:
        window: side of the neighbourhood, odd.
        emphasis: see above.

    Shape:
        logits (B, 1, H, W) and masks (B, 1, H, W) in [0, 1] to a number.

    Raises:
        ValueError: an even window.
    """

    def __init__(self, window: int = 31, emphasis: float = 5.0) -> None:
        super().__init__()
        if window < 1 or window % 2 == 0:
            raise ValueError(f"window: found {window}, expected an odd number")
        self.window, self.emphasis = window, emphasis

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        mask = mask.to(logits.dtype)
        around = F.avg_pool2d(mask, self.window, stride=1, padding=self.window // 2)
        weight = 1 + self.emphasis * (around - mask).abs()
        entropy = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
        entropy = _sum(weight * entropy) / _sum(weight)
        probability = logits.sigmoid()
        both, either = _sum(weight * probability * mask), _sum(weight * (probability + mask))
        iou = 1 - (both + 1) / (either - both + 1)
        return (entropy + iou).mean()


def _sum(x: Tensor) -> Tensor:
    return x.sum(dim=(1, 2, 3))
