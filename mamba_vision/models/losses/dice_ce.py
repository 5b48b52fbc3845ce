"""Soft Dice plus cross-entropy, the loss of nnU-Net, with voxels that do not count.

Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation", Nature
Methods 18 (2021).
"""

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import nn

from mamba_vision.registry import MODELS


@MODELS.register_module()
class DiceCELoss(nn.Module):
    """`weight_dice` * (1 - soft Dice of the foreground classes) + `weight_ce` * cross-entropy of all classes.

    Per class, Dice = (2 I + s) / (P + G + s) with s = 1e-5, averaged over (sample, class), or over classes with sums
    over the batch if `batch_dice`. MONAI's DiceLoss does the sums; probabilities and truth are masked before, since
    its own masking differs between releases. nnU-Net's value is this one minus `weight_dice`.

    Args:
        batch_dice: sum over the batch before dividing.
        include_background: let class 0 take part in the Dice.
        ignore_index: label that neither term sees.
    """

    def __init__(
        self,
        batch_dice: bool = False,
        include_background: bool = False,
        weight_dice: float = 1.0,
        weight_ce: float = 1.0,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        self.dice = DiceLoss(
            include_background=include_background, batch=batch_dice, smooth_nr=1e-5, smooth_dr=1e-5, reduction="mean"
        )
        self.weight_dice = weight_dice
        self.weight_ce = weight_ce
        self.ignore_index = ignore_index

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """The loss, a float32 scalar, of logits (B, K, *S) and integer labels (B, *S).

        Raises:
            ValueError: shapes that do not match, or a label outside 0..K-1 that is not `ignore_index`.
        """
        if logits.ndim != label.ndim + 1 or logits.shape[2:] != label.shape[1:]:
            raise ValueError(f"label: expected (B, *S) for logits {tuple(logits.shape)}, found {tuple(label.shape)}")
        classes = logits.shape[1]
        label = label.long()
        counted = torch.ones_like(label, dtype=torch.bool) if self.ignore_index is None else label != self.ignore_index
        target = label.where(counted, 0)
        lowest, highest = torch.aminmax(target)
        if lowest < 0 or highest >= classes:
            found = lowest if lowest < 0 else highest
            raise ValueError(
                f"label: expected 0 to {classes - 1}, one for each channel of the logits, found {int(found)}"
            )
        logits = logits.float()
        mask = counted.unsqueeze(1)
        one_hot = F.one_hot(target, classes).movedim(-1, 1) * mask
        dice = self.dice(logits.softmax(1) * mask, one_hot.to(logits.dtype))
        entropy = F.cross_entropy(logits, target, reduction="none")
        entropy = (entropy * counted).sum() / counted.sum().clamp(min=1)
        return self.weight_dice * dice + self.weight_ce * entropy
