"""Slices of a real brain on which prompts decide what is meant, without a download."""

import warnings
from functools import cache
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset

from mamba_vision.datasets.prompt_simulation import pieces
from mamba_vision.datasets.prompt_transforms import MODES
from mamba_vision.registry import DATASETS

# Coronal slices of the 2 mm grid, from back to front. Two bands are held out, with a slice left out beside them.
_FIRST, _LAST, _HELD_OUT = 22, 98, ((38, 46), (68, 76))


@DATASETS.register_module()
class BrainSlicePieces(BaseDataset):
    """Coronal slices of the MNI152 T1 template (2 mm), with pieces of its white matter as what is meant.

    In a slice white matter falls apart into pieces: hemispheres, temporal lobes, cerebellum, brain stem. With a prompt
    one piece is meant, without one all of them. Image and truth come with the package nilearn. It is one brain, an
    average of many, and slices of one brain are alike: this shows that training works, and nothing about patients.

    Args:
        split: 'train', or 'test' for two bands of slices that training does not see.
        least: pixels of the smallest piece.
        prompt_modes: of test entries; entries with mode 'none' mean all white matter.
        options: of MMEngine's BaseDataset, such as `pipeline`.

    Raises:
        ValueError: an unknown split or mode.
        ModuleNotFoundError: nilearn is not installed.
    """

    def __init__(
        self, split: str = "train", least: int = 40, prompt_modes: tuple[str, ...] = ("none", "gt_box", "point"),
        **options: Any,
    ) -> None:  # fmt: skip
        if split not in ("train", "test"):
            raise ValueError(f"split: found {split!r}, expected 'train' or 'test'")
        if unknown := [mode for mode in prompt_modes if mode not in MODES or mode == "detector"]:
            raise ValueError(f"prompt_modes: found {', '.join(unknown)}, expected none, gt_box, gt_box_jitter or point")
        self.split, self.least, self.prompt_modes = split, least, tuple(prompt_modes)
        super().__init__(**options)

    def load_data_list(self) -> list[dict]:
        """[{image, mask, name, path, dataset[, prompt_mode]}]."""
        image, white = _template()
        entries = []
        for number in range(_FIRST, _LAST):
            if self._part(number) != self.split:
                continue
            # Columns run from left to right, rows from top to bottom.
            rgb = np.repeat(np.rint(image[:, number].T[::-1] * 255).astype(np.uint8)[..., None], 3, axis=2)
            whole = np.ascontiguousarray(white[:, number].T[::-1])
            common = dict(image=rgb, path=f"coronal_{number}.png", dataset="MNI152")
            entries.append({**common, "mask": whole, "name": f"coronal_{number}", "prompt_mode": "none"})
            modes = [None] if self.split == "train" else [mode for mode in self.prompt_modes if mode != "none"]
            for index, piece in enumerate(pieces(whole, self.least)):
                name = f"coronal_{number}_piece_{index}"
                entry = {**common, "mask": piece, "name": name}
                entries += [entry if mode is None else {**entry, "prompt_mode": mode} for mode in modes]
        if self.split == "test" and "none" not in self.prompt_modes:
            entries = [entry for entry in entries if entry["prompt_mode"] != "none"]
        return entries

    def _part(self, number: int) -> str:
        if any(low <= number < high for low, high in _HELD_OUT):
            return "test"
        return "beside" if any(low - 1 <= number < high + 1 for low, high in _HELD_OUT) else "train"


@cache
def _template() -> tuple[np.ndarray, np.ndarray]:
    """T1 in [0, 1] and white matter, (96, Y, 96): left to right, back to front, bottom to top."""
    try:
        from nilearn import datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the brain template comes with nilearn: pip install nilearn") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nilearn announces future defaults of its own
        t1 = datasets.load_mni152_template(resolution=2).get_fdata(dtype=np.float32)
        white = datasets.load_mni152_wm_template(resolution=2).get_fdata(dtype=np.float32)
    # 99 columns and 95 rows become 96, which patches fill.
    t1, white = (np.pad(v[1:-2], ((0, 0), (0, 0), (0, 96 - v.shape[2]))) for v in (t1, white))
    return np.clip(t1, 0, 1), white > 0.5
