"""Small real pictures with nothing to download, for demonstrations and tests."""

from typing import Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset

from mamba_vision.registry import DATASETS

SMALL = {
    "digits": tuple(str(digit) for digit in range(10)),
    "photos": ("temple", "flower"),
}


@DATASETS.register_module()
class SmallPictures(BaseDataset):
    """Real pictures that scikit-learn brings along: no download.

    Args:
        name: 'digits', 1797 handwritten digits of 8 x 8, grey; or 'photos', tiles of two photographs, colour.
        split: 'train', or 'val' for every sixth digit or the right sixth of each photograph.
        size: side of the pictures; digits are enlarged.
        stride: step between tiles.
        options: of MMEngine's BaseDataset, such as `pipeline`.

    Raises:
        ValueError: another name or split.
        ModuleNotFoundError: scikit-learn is not installed.
    """

    def __init__(self, name: str, split: str, size: int | None = None, stride: int = 16, **options: Any) -> None:
        if name not in SMALL:
            raise ValueError(f"name: found {name!r}, expected one of {', '.join(SMALL)}")
        if split not in ("train", "val"):
            raise ValueError(f"split: found {split!r}, expected 'train' or 'val'")
        self.name, self.split, self.size, self.stride = name, split, size, stride
        super().__init__(metainfo={"classes": SMALL[name]}, **options)

    def load_data_list(self) -> list[dict]:
        """[{img, gt_label}] of the split.

        Raises:
            ModuleNotFoundError: scikit-learn, which brings the pictures, is not installed.
        """
        try:
            from sklearn import datasets
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"the {self.name} come with scikit-learn: pip install scikit-learn") from error
        validating = self.split == "val"
        if self.name == "digits":
            digits = zip(datasets.load_digits().images, datasets.load_digits().target)
            chosen = [pair for number, pair in enumerate(digits) if (number % 6 == 5) == validating]
            return [{"img": _enlarged(picture, self.size or 8), "gt_label": int(label)} for picture, label in chosen]
        entries = []
        for label, photo in enumerate(datasets.load_sample_images().images):
            edge = photo.shape[1] * 5 // 6
            part = photo[:, edge:] if validating else photo[:, :edge]
            entries += [{"img": tile, "gt_label": label} for tile in _tiles(part, self.size or 64, self.stride)]
        return entries


def _enlarged(digit: np.ndarray, size: int) -> np.ndarray:
    """(8, 8) from 0 to 16 as (size, size, 1) uint8."""
    picture = torch.from_numpy(digit / 16).float()[None, None]
    if size != 8:
        picture = torch.nn.functional.interpolate(picture, (size, size), mode="bilinear", align_corners=False)
    return (255 * picture[0, 0, :, :, None]).round().byte().numpy()


def _tiles(photo: np.ndarray, size: int, stride: int) -> list[np.ndarray]:
    rows, columns = (range(0, side - size + 1, stride) for side in photo.shape[:2])
    return [photo[row : row + size, column : column + size].copy() for row in rows for column in columns]
