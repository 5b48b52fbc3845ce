"""Augmentation of what a low-resolution network has found, so that the next one does not trust it blindly.

nnU-Net's two perturbations, on class numbers instead of one-hot channels: every class is dilated, eroded, opened or
closed by a ball; and a piece of a class, not too large a one, goes missing.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform, RandomizableTransform
from scipy import ndimage

from mamba_vision.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandPerturbClassesd(RandomizableTransform, MapTransform):
    """Reshapes classes at random.

    Args:
        keys: of class numbers (1, *S), 0 background.
        classes: how many, background included.
        prob: chance that an item is reshaped.
        prob_remove: chance that each class of an item loses a piece.
        radius: smallest and largest ball, voxels.
        largest: pieces that fill a larger part of the patch than this stay.
    """

    def __init__(
        self,
        keys: str | Sequence[str],
        classes: int,
        prob: float = 0.4,
        prob_remove: float = 0.2,
        radius: tuple[int, int] = (1, 8),
        largest: float = 0.15,
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.classes, self.prob_remove, self.radius, self.largest = classes, prob_remove, radius, largest

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with reshaped classes."""
        item = dict(data)
        reshape, remove = self.R.random() < self.prob, self.R.random() < self.prob_remove
        for key in self.key_iterator(item):
            labels = np.array(torch.as_tensor(item[key])[0].numpy().round(), dtype=np.int16)
            if reshape:
                for number in self.R.permutation(np.arange(1, self.classes)):
                    self._reshape(labels, number)
            if remove:
                for number in range(1, self.classes):
                    self._remove_piece(labels, number)
            changed = torch.from_numpy(labels[None]).to(torch.as_tensor(item[key]).dtype)
            item[key] = changed
        return item

    def _reshape(self, labels: np.ndarray, number: int) -> None:
        operation = _OPERATIONS[self.R.randint(len(_OPERATIONS))]
        radius = self.R.randint(self.radius[0], self.radius[1] + 1)
        box = _box(labels, number, radius + 1)
        if box is not None:
            part = labels[box]
            mask = part == number
            changed = operation(mask, radius)
            part[mask & ~changed] = 0
            part[changed] = number

    def _remove_piece(self, labels: np.ndarray, number: int) -> None:
        box = _box(labels, number, 0)
        if box is None:
            return
        pieces, _ = ndimage.label(labels[box] == number)
        sizes = np.bincount(pieces.ravel())[1:]
        small = np.flatnonzero(sizes < self.largest * labels.size)
        if small.size:
            labels[box][pieces == 1 + small[self.R.randint(small.size)]] = 0


def _box(labels: np.ndarray, number: int, margin: int) -> tuple[slice, ...] | None:
    """Where the class lies, and so many voxels around; None where it is not. Most classes fill little of a patch."""
    found = ndimage.find_objects((labels == number).astype(np.int8))
    if not found:
        return None
    return tuple(slice(max(one.start - margin, 0), one.stop + margin) for one in found[0])


def _dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    return ndimage.distance_transform_edt(~mask) <= radius if mask.any() else mask


def _erode(mask: np.ndarray, radius: int) -> np.ndarray:
    return mask if mask.all() else ndimage.distance_transform_edt(mask) > radius


_OPERATIONS: tuple[Callable[[np.ndarray, int], np.ndarray], ...] = (
    _dilate,
    _erode,
    lambda mask, radius: _erode(_dilate(mask, radius), radius),
    lambda mask, radius: _dilate(_erode(mask, radius), radius),
)
