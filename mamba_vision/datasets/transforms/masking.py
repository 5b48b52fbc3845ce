"""Putting back the 0 outside the non-zero region, which augmentation of intensities has shifted."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import MapTransform

from mamba_vision.registry import TRANSFORMS


@TRANSFORMS.register_module()
class MaskOutsided(MapTransform):
    """Sets channels to 0 where the label says that a voxel lies outside (below 0), as nnU-Net does.

    For channels that were normalized inside a mask: outside it there is 0 before and after augmentation, so that the
    network never learns to tell augmented background from tissue.

    Args:
        keys: of images (C, *S).
        label_key: of the label (1, *S).
        channels: which channels; None: all.
    """

    def __init__(self, keys: str | Sequence[str], label_key: str = "label", channels: Sequence[int] | None = None):
        super().__init__(keys)
        self.label_key, self.channels = label_key, None if channels is None else [int(one) for one in channels]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with masked images."""
        item = dict(data)
        outside = torch.as_tensor(item[self.label_key])[0] < -0.5
        for key in self.key_iterator(item):
            image = item[key].clone()
            for channel in range(len(image)) if self.channels is None else self.channels:
                image[channel][outside] = 0
            item[key] = image
        return item
