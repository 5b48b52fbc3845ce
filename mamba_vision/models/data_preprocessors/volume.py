"""From a list of volumes to a batch on the model's device."""

import torch
from mmengine.model import BaseDataPreprocessor

from mamba_vision.registry import MODELS


@MODELS.register_module()
class VolumePreprocessor(BaseDataPreprocessor):
    """Stacks volumes of one shape and moves them to the device.

    Intensities are normalized when the data are prepared, not here: the scheme needs the whole scan.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """`data`: `inputs`, a list of (C, *S) or a tensor (B, C, *S); `data_samples`, a list or None.

        Returns the same keys, inputs as (B, C, *S) float32.

        Raises:
            ValueError: volumes of different shapes in one batch.
        """
        data = self.cast_data(data)
        inputs = data["inputs"]
        if not isinstance(inputs, torch.Tensor):
            shapes = {tuple(volume.shape) for volume in inputs}
            if len(shapes) > 1:
                raise ValueError(
                    f"inputs: a batch holds volumes of one shape, found {sorted(shapes)}; use batch_size=1"
                )
            inputs = torch.stack(list(inputs))
        return {"inputs": inputs.float(), "data_samples": data.get("data_samples")}
