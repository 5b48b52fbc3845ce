"""Soft Dice plus binary cross-entropy for regions that overlap, nnU-Net's loss where dataset.json has regions."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from mamba_vision.registry import MODELS


@MODELS.register_module()
class DiceBCELoss(nn.Module):
    """`weight_dice` * (1 - soft Dice) + `weight_bce` * binary cross-entropy, both means over the regions.

    Each channel of the logits is one region, on its own scale (sigmoid). Dice is that of DiceCELoss, with every region
    in it; nnU-Net's value is this one minus `weight_dice`.

    Args:
        regions: class numbers of each region, one list a channel.
        batch_dice: sum over the batch before dividing.
        weight_dice, weight_bce: factors.
        ignore_index: label that neither term sees.

    Raises:
        ValueError: no regions, or one without classes.
    """

    def __init__(
        self,
        regions: Sequence[Sequence[int]],
        batch_dice: bool = False,
        weight_dice: float = 1.0,
        weight_bce: float = 1.0,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        self.regions = [[int(number) for number in numbers] for numbers in regions]
        if not self.regions or not all(self.regions):
            raise ValueError(f"regions: expected lists of class numbers, found {regions}")
        self.batch_dice = batch_dice
        self.weight_dice, self.weight_bce = weight_dice, weight_bce
        self.ignore_index = ignore_index

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """The loss, a float32 scalar, of logits (B, regions, *S) and integer labels (B, *S).

        Raises:
            ValueError: shapes that do not match.
        """
        if logits.ndim != label.ndim + 1 or logits.shape[2:] != label.shape[1:]:
            raise ValueError(f"label: expected (B, *S) for logits {tuple(logits.shape)}, found {tuple(label.shape)}")
        if logits.shape[1] != len(self.regions):
            raise ValueError(f"logits: expected a channel for each of {len(self.regions)} regions, {logits.shape[1]}")
        logits, label = logits.float(), label.long()
        mask = torch.ones_like(label, dtype=torch.bool) if self.ignore_index is None else label != self.ignore_index
        mask = mask.unsqueeze(1)
        members = [torch.isin(label, torch.tensor(numbers, device=label.device)) for numbers in self.regions]
        target = (torch.stack(members, dim=1) & mask).to(logits.dtype)
        # Padding, OUTSIDE and ignored voxels are 0 in the target; ignored ones also in the prediction.
        chance = logits.sigmoid() * mask
        axes = ([0] if self.batch_dice else []) + list(range(2, logits.ndim))
        shared, both = (chance * target).sum(axes), chance.sum(axes) + target.sum(axes)
        dice = ((2 * shared + 1e-5) / (both + 1e-5)).mean()
        entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * mask
        entropy = entropy.sum() / (mask.sum() * len(self.regions)).clamp(min=1)
        return self.weight_dice * (1 - dice) + self.weight_bce * entropy
