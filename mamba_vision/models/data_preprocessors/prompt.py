"""Images that prompts go with, normalized and stacked."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from mamba_vision.registry import MODELS


@MODELS.register_module()
class PromptPreprocessor(BaseDataPreprocessor):
    """Stacks images (C, H, W) of 0 to 255 of one shape, normalizes them and moves them to the device.

    Args:
        mean, std: of the channels, in units of 0 to 255; ImageNet's by default.
    """

    def __init__(
        self, mean: Sequence[float] = (123.675, 116.28, 103.53), std: Sequence[float] = (58.395, 57.12, 57.375),
        non_blocking: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(non_blocking)
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """`data`: `inputs`, a list of (C, H, W) or a tensor (B, C, H, W); `data_samples`, a list or None.

        Raises:
            ValueError: images of different shapes in one batch.
        """
        data = self.cast_data(data)
        inputs = data["inputs"]
        if not isinstance(inputs, Tensor):
            shapes = {tuple(image.shape) for image in inputs}
            if len(shapes) > 1:
                raise ValueError(f"inputs: a batch holds images of one shape, found {sorted(shapes)}; resize them")
            inputs = torch.stack(list(inputs))
        inputs = (inputs.float() - self.mean) / self.std
        return {**data, "inputs": inputs, "data_samples": data.get("data_samples")}
