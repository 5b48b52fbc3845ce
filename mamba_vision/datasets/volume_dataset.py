"""Patches of prepared volumes for training, whole ones for validation."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from torch.utils.data import Dataset

from mamba_vision.datasets.patch_sampler import Draw
from mamba_vision.datasets.prepared_case import PreparedCase, crop_box
from mamba_vision.registry import DATASETS, TRANSFORMS
from mamba_vision.structures import VolumeDataSample


@DATASETS.register_module()
class VolumeDataset(Dataset):
    """Cases that tools/train.py prepared from scans, below one folder (see prepared_case).

    An item is dict(inputs=(C, *S) float32 tensor, data_samples=VolumeDataSample with gt_label (*S) int16). With a
    `patch_size` items are patches, asked for by Draw (see patch_sampler) or a plain number; without, whole cases in
    the order of the split.

    Beyond the volume a patch holds image 0 and label -1. The pipeline sees the -1; it leaves the dataset as background.
    With a `patch_size` of two numbers patches are single slices, and (C, *S) has one axis less than the volumes.

    Args:
        root: folder of the prepared cases, as volumes.cache wrote them.
        splits: JSON file: a list of folds, each {"train": [cases], "val": [cases]}; nnU-Net's splits_final.json is one.
        fold: number of the fold; or 'all', whose two parts are both every case.
        split: 'train' or 'val'.
        classes: names, background first. Labels must lie below their number, except `ignore_index`.
        patch_size: size of what the network sees, or None for whole volumes; if `pipeline` ends with a crop, what the
            crop is given.
        final_size: size after the pipeline, if it crops; patches may then leave the volume by half of the difference.
        pipeline: configs of MONAI dictionary transforms on 'image' (C, *S) and 'label' (1, *S), for patches.
        ignore_index: a label above the classes that the loss ignores.
        previous: folder with CASE.npy, class numbers that another network has found (a cascade): they come one-hot,
            without background, as further channels behind the image's. The pipeline sees them as 'previous'.

    Raises:
        ValueError: everything that is wrong with splits, files and labels, in one message.
    """

    def __init__(
        self,
        root: str | Path,
        splits: str | Path,
        fold: int | str,
        split: str,
        classes: Sequence[str],
        patch_size: Sequence[int] | None = None,
        final_size: Sequence[int] | None = None,
        pipeline: Sequence[Mapping[str, Any]] = (),
        ignore_index: int | None = None,
        previous: str | Path | None = None,
    ) -> None:
        self.root = Path(root)
        self.previous = None if previous is None else Path(previous)
        self.patch_size = None if patch_size is None else tuple(int(side) for side in patch_size)
        self.final_size = self.patch_size if final_size is None else tuple(int(side) for side in final_size)
        self.pipeline = Compose([TRANSFORMS.build(dict(step)) for step in pipeline])
        self.ignore_index = ignore_index
        self.metainfo = {"classes": tuple(classes), "split": split}
        names = split_cases(splits, fold, split)
        self.cases = self._open(names)

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int | Draw) -> dict[str, Any]:
        if self.patch_size is None:
            return self._whole(self.cases[index])
        draw = index if isinstance(index, Draw) else Draw(0, int(index), False)
        random = np.random.default_rng((draw.seed, draw.number))
        case = self.cases[int(random.integers(len(self.cases)))]
        slices = len(case.shape) - len(self.patch_size)
        corner = self._corner(case, draw.foreground, random)
        image, label = case.crop(corner, (*(1,) * slices, *self.patch_size))
        item = {"image": image, "label": label[None]}
        if self.previous is not None:
            item["previous"] = crop_box(self._previous_of(case)[None], corner, (*(1,) * slices, *self.patch_size), 0)
        item = {key: _as_meta(value[:, 0] if slices else value) for key, value in item.items()}
        self.pipeline.set_random_state(seed=int(random.integers(2**32)))
        item = {key: _plain(value) for key, value in self.pipeline(item).items() if isinstance(value, torch.Tensor)}
        image = self._with_previous(item["image"], item.get("previous"))
        return self._pack(case, image, item["label"][0].round(), corner)

    def _whole(self, case: PreparedCase) -> dict[str, Any]:
        image, label = torch.from_numpy(np.array(case.image, dtype=np.float32)), torch.from_numpy(np.array(case.label))
        found = None if self.previous is None else torch.from_numpy(np.array(self._previous_of(case)))[None]
        return self._pack(case, self._with_previous(image, found), label, np.zeros(label.ndim, dtype=int))

    def _previous_of(self, case: PreparedCase) -> np.ndarray:
        return np.load(self.previous / f"{case.name}.npy", mmap_mode="r", allow_pickle=False)

    def _with_previous(self, image: torch.Tensor, found: torch.Tensor | None) -> torch.Tensor:
        if found is None:
            return image
        numbers = torch.arange(1, len(self.metainfo["classes"])).reshape(-1, *[1] * (found.ndim - 1))
        return torch.cat([image, (found.round() == numbers).to(image.dtype)])

    def _pack(self, case: PreparedCase, image: torch.Tensor, label: torch.Tensor, corner: np.ndarray) -> dict[str, Any]:
        sample = VolumeDataSample(
            metainfo={"case": case.name, "spacing": case.spacing, "corner": tuple(int(first) for first in corner)}
        )
        sample.gt_label = label.clamp(min=0).to(torch.int16)
        return {"inputs": image.contiguous(), "data_samples": sample}

    def _corner(self, case: PreparedCase, foreground: bool, random: np.random.Generator) -> np.ndarray:
        """First voxel of a patch: anywhere, or so that a voxel of some class is in the middle.

        A patch leaves the volume by half of what the pipeline will crop, or of what the volume is too small by.
        """
        slices = (1,) * (len(case.shape) - len(self.patch_size))
        size, shape = np.array((*slices, *self.patch_size)), np.asarray(case.shape)
        beyond = np.maximum(size - np.array((*slices, *self.final_size)), size - shape)
        low = -(np.maximum(beyond, 0) // 2)
        high = shape + (np.maximum(beyond, 0) + 1) // 2 - size
        target = None
        if foreground and case.targets:
            target = case.targets[int(random.integers(len(case.targets)))]
        elif case.partly_annotated:
            target = "annotated"
        if target is not None:
            places = case.foreground(target)
            middle = np.asarray(places[int(random.integers(len(places)))])
            return np.clip(middle - size // 2, low, np.maximum(high, low))
        return random.integers(low, np.maximum(high, low) + 1)

    def _open(self, names: Sequence[str]) -> list[PreparedCase]:
        cases, problems = [], []
        for name in names:
            try:
                case = PreparedCase.open(self.root, name)
                self._check(case)
                cases.append(case)
            except ValueError as error:
                problems.append(str(error))
        if problems:
            raise ValueError(f"{len(problems)} of {len(names)} cases can't be used:\n  " + "\n  ".join(problems))
        channels = {case.name: case.channels for case in cases}
        if len(set(channels.values())) > 1:
            raise ValueError(f"{self.root}: cases have different numbers of channels: {channels}")
        return cases

    def _check(self, case: PreparedCase) -> None:
        classes = len(self.metainfo["classes"])
        wrong = [label for label in case.classes if label >= classes and label != self.ignore_index]
        if wrong:
            raise ValueError(f"{self.root / case.name}: expected labels below {classes}, found {wrong}")
        if self.patch_size is not None and len(self.patch_size) not in (len(case.shape), len(case.shape) - 1):
            raise ValueError(
                f"{self.root / case.name}: expected {len(self.patch_size)} axes, as patch_size has, or one more for "
                f"slices, found {case.shape}"
            )
        if self.previous is not None:
            found = self.previous / f"{case.name}.npy"
            if not found.is_file():
                raise ValueError(f"{found}: does not exist; tools/train.py makes it from the low-resolution models")
            if np.load(found, mmap_mode="r", allow_pickle=False).shape != case.shape:
                raise ValueError(f"{found}: expected shape {case.shape}, as {self.root / case.name} has")


def _as_meta(array: np.ndarray) -> MetaTensor:
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)))


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor


def split_cases(splits: str | Path, fold: int | str, split: str) -> list[str]:
    """Names of the cases of one part of one fold, sorted.

    Args:
        splits: splits.json, as tools/plan.py writes it.
        fold: its number, from 0; or 'all', which has every case in both parts.
        split: 'train' or 'val'.

    Raises:
        ValueError: another split, a file that holds no folds, or a fold that it does not hold.
    """
    if split not in ("train", "val"):
        raise ValueError(f"split: expected 'train' or 'val', found {split!r}")
    path = Path(splits)
    if not path.is_file():
        raise ValueError(f"splits: {path} does not exist; tools/plan.py writes it")
    folds = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(folds, list) or not all(
        isinstance(one, dict) and {"train", "val"} <= one.keys() for one in folds
    ):
        raise ValueError(f'{path}: expected a list of folds like {{"train": [...], "val": [...]}}')
    if str(fold) == "all":
        return sorted({name for one in folds for part in ("train", "val") for name in one[part]})
    if not str(fold).isdigit() or int(fold) >= len(folds):
        raise ValueError(
            f"fold: {path} holds folds 0 to {len(folds) - 1}; expected one of them or 'all', found {fold!r}"
        )
    train, val = set(folds[int(fold)]["train"]), set(folds[int(fold)]["val"])
    both = train & val
    if both and train != val:  # a data set of one case does both with it
        raise ValueError(f"{path}: fold {fold} has cases both for training and validation: {sorted(both)}")
    names = sorted(folds[int(fold)][split])
    if not names:
        raise ValueError(f"{path}: fold {fold} has no case for {split!r}")
    return names
