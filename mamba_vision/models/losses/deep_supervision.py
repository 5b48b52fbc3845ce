"""One loss at every resolution of a decoder."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from mamba_vision.registry import MODELS


@MODELS.register_module()
class DeepSupervisionLoss(nn.Module):
    """The weighted sum of `loss` over logits of falling resolution, as nnU-Net weighs them.

    With n outputs, finest first, output i weighs 1/2^i, the coarsest 0, normalized to sum 1 (one output weighs 1).
    MONAI's class of the same name floors the weights, keeps the coarsest and does not normalize.

    Args:
        loss: config of a loss called as loss(logits, label), or a module.
        weights: one an output, taken as they are, in place of the rule above.
    """

    def __init__(self, loss: dict | nn.Module, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.loss = MODELS.build(loss) if isinstance(loss, dict) else loss
        self.weights = None if weights is None else tuple(float(weight) for weight in weights)

    def weights_for(self, outputs: int) -> tuple[float, ...]:
        """The weights of `outputs` outputs, finest first.

        Raises:
            ValueError: weights were given for another number of outputs.
        """
        if self.weights is not None:
            if len(self.weights) != outputs:
                raise ValueError(f"weights: expected one for each of {outputs} outputs, found {len(self.weights)}")
            return self.weights
        if outputs == 1:
            return (1.0,)
        raw = [0.5**i for i in range(outputs - 1)]
        return (*(weight / sum(raw) for weight in raw), 0.0)

    def forward(self, logits: torch.Tensor | Sequence[torch.Tensor], label: torch.Tensor) -> torch.Tensor:
        """`logits`: one (B, K, *S) or several, finest first; `label` (B, *S), resized by nearest neighbour."""
        outputs = [logits] if isinstance(logits, torch.Tensor) else list(logits)
        total = outputs[0].new_zeros((), dtype=torch.float32)
        for output, weight in zip(outputs, self.weights_for(len(outputs))):
            if weight == 0:
                # In the graph, without cost: distributed training wants a gradient for every parameter.
                total = total + 0.0 * output.flatten()[0].float()
                continue
            resized = label
            if output.shape[2:] != label.shape[1:]:
                resized = F.interpolate(label.unsqueeze(1).float(), output.shape[2:], mode="nearest-exact")[:, 0]
            total = total + weight * self.loss(output, resized)
        return total
