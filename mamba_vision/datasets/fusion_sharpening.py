"""Images and their sharper guides in HDF5 files: PanCollection, HyperPanCollection and CAVE in their layouts."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset

from mamba_vision.registry import DATASETS


@dataclass(frozen=True)
class SharpeningLayout:
    """One published data set.

    Attributes:
        bands, guide_channels: of the image and of its guide.
        peak: counts that 1 stands for.
        sensor: whose optics the scores at full resolution are about.
    """

    bands: int
    guide_channels: int = 1
    peak: float = 1.0
    sensor: str = "other"


# 11 bits; but for GF2, 10. The hyperspectral files hold values of 0 to 1.
LAYOUTS = {
    "wv3": SharpeningLayout(8, peak=2047.0, sensor="WV3"),
    "qb": SharpeningLayout(4, peak=2047.0, sensor="QB"),
    "gf2": SharpeningLayout(4, peak=1023.0, sensor="GF2"),
    "pavia": SharpeningLayout(102),
    "botswana": SharpeningLayout(145),
    "wdc": SharpeningLayout(191),
    "cave": SharpeningLayout(31, guide_channels=3),
}
FILES = {
    "train": "train_{name}.h5",
    "valid": "valid_{name}.h5",
    "reduced": "test_{name}_multiExm1.h5",
    "full": "test_{name}_OrigScale_multiExm1.h5",
}
# Names of the arrays: PanCollection's, and CAVE's in files of other authors.
_KEYS = {"gt": ("gt", "GT"), "ms": ("ms", "LRHSI"), "lms": ("lms", "HSI_up"), "pan": ("pan", "RGB")}
_WITHOUT_H5PY = "reading HDF5 needs h5py: pip install mamba_vision[remote]"


@DATASETS.register_module()
class SharpeningDataset(BaseDataset):
    """Images of many bands, their guides and, but at full resolution, the truth.

        data/PanCollection
        ├── train_wv3.h5, valid_wv3.h5
        ├── test_wv3_multiExm1.h5              reduced resolution
        └── test_wv3_OrigScale_multiExm1.h5    full resolution, without gt

    A file is found in `data_root` or in any folder below. Its arrays are `ms` (N, bands, h, w), `pan` (N, channels,
    H, W), `gt` (N, bands, H, W) and `lms`, the image interpolated, of the same shape; `gt` and `lms` may be missing.
    Only what is asked for is read, when it is asked for.

    Args:
        layout: a data set by its name in `LAYOUTS`; None: bands, channels and peak are what the file and `peak` say.
        split: 'train', 'valid', 'reduced' or 'full': which file of the layout; or several, one after another.
        data_root: the folder to look for it in.
        file: a file's name or path in place of the layout's, of one split.
        peak: counts that 1 stands for; default: the layout's.
        limit: only the first so many images of each.
        options: of MMEngine's BaseDataset, such as `pipeline`.

    Raises:
        ValueError: an unknown layout or split; a file that holds something else: arrays missing, another number of
            bands, guides that are not a whole number of times larger, values that the peak does not fit.
        FileNotFoundError: no such file.
        ImportError: h5py is not installed.
    """

    def __init__(
        self, layout: str | None = None, split: str | Sequence[str] = "train", data_root: str = "data/PanCollection",
        file: str | None = None, peak: float | None = None, limit: int | None = None, **options: Any,
    ) -> None:  # fmt: skip
        if layout is not None and layout not in LAYOUTS:
            raise ValueError(f"layout: found {layout!r}, expected one of {', '.join(LAYOUTS)}")
        if layout is None and (file is None or peak is None):
            raise ValueError("expected a layout, or file and peak")
        self.splits = (split,) if isinstance(split, str) else tuple(split)
        if unknown := set(self.splits) - set(FILES):
            raise ValueError(f"split: found {sorted(unknown)}, expected some of {', '.join(FILES)}")
        if file is not None and len(self.splits) > 1:
            raise ValueError(f"file: one file is of one split, found {split!r}")
        self.layout, self.limit = layout, limit
        self.peak = LAYOUTS[layout].peak if peak is None else float(peak)
        if self.peak <= 0:
            raise ValueError(f"peak: expected a positive number of counts, found {peak!r}")
        self.names = [file] if file is not None else [FILES[one].format(name=layout) for one in self.splits]
        self._opened: dict[tuple[int, str], Any] = {}
        super().__init__(data_root=str(data_root), **options)

    def load_data_list(self) -> list[dict]:
        """One entry an image: {path, index, name[, dataset]}."""
        entries = []
        for split, name in zip(self.splits, self.names):
            path = _find(Path(self.data_root), name)
            with _open(path) as file:
                scale, count = self._check(path, _arrays(path, file, with_truth=split != "full"))
            known = {"path": str(path), "scale": scale}
            known |= {} if self.layout is None else {"dataset": f"{self.layout}_{split}"}
            count = count if self.limit is None else min(count, self.limit)
            entries += [{"index": i, "name": f"{path.stem}_{i}", **known} for i in range(count)]
        return entries

    def get_data_info(self, idx: int) -> dict:
        """Entry `idx` with its images, (H, W, channels) float32, divided by the peak.

        Raises:
            ValueError: values that the peak does not fit.
        """
        info = super().get_data_info(idx)
        path = info["path"]
        for key, array in _arrays(path, self._file(path), with_truth=False).items():
            pixels = np.asarray(array[info["index"]], dtype=np.float32).transpose(1, 2, 0) / self.peak
            if key != "lms" and not (pixels.min() >= -0.01 and pixels.max() <= 2):  # interpolation may overshoot
                low, high = self.peak * pixels.min(), self.peak * pixels.max()
                raise ValueError(
                    f"{path}: {key}[{info['index']}] has values from {low:g} to {high:g}, expected 0 to "
                    f"{self.peak:g}; set peak to the counts that stand for full brightness"
                )
            info[key] = pixels
        return info

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_opened": {}}  # open files do not go to other processes

    def _file(self, path: str) -> Any:
        """A file, opened once in every process."""
        place = (os.getpid(), path)
        if place not in self._opened:
            self._opened[place] = _open(Path(path))
        return self._opened[place]

    def _check(self, path: Path, arrays: Mapping[str, Any]) -> tuple[int, int]:
        """(scale, number of images)."""
        shapes = {key: tuple(array.shape) for key, array in arrays.items()}
        if any(len(shape) != 4 or 0 in shape for shape in shapes.values()):
            raise ValueError(f"{path}: found shapes {shapes}, expected (images, channels, rows, columns) of all")
        (count, bands, rows, columns), (guides, channels, height, width) = shapes["ms"], shapes["pan"]
        scale = height // rows
        if guides != count or scale < 1 or (height, width) != (scale * rows, scale * columns):
            raise ValueError(
                f"{path}: found ms {shapes['ms']} and pan {shapes['pan']}, expected as many guides as images, a "
                "whole number of times larger"
            )
        for key in ("gt", "lms"):
            if key in shapes and shapes[key] != (count, bands, height, width):
                raise ValueError(
                    f"{path}: found {key} {shapes[key]}, expected {(count, bands, height, width)} beside ms "
                    f"{shapes['ms']} and pan {shapes['pan']}"
                )
        if self.layout is not None:
            want = (LAYOUTS[self.layout].bands, LAYOUTS[self.layout].guide_channels)
            if (bands, channels) != want:
                raise ValueError(
                    f"{path}: found {bands} bands and {channels} channels of the guide, expected {want[0]} and "
                    f"{want[1]} of {self.layout}"
                )
        return scale, count


def _arrays(path: str | Path, file: Mapping, with_truth: bool) -> dict[str, Any]:
    found = {key: file[name] for key, names in _KEYS.items() for name in names if name in file}
    wanted = ("ms", "pan", "gt") if with_truth else ("ms", "pan")
    if missing := [key for key in wanted if key not in found]:
        names = ", ".join(file) or "nothing"
        raise ValueError(f"{path}: found arrays {names}; expected {', '.join(wanted)}, missing {missing}")
    return found


def _open(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f"{path}: {_WITHOUT_H5PY}") from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: damaged, or no HDF5 file ({error})") from error


def _find(root: Path, name: str) -> Path:
    if (root / name).is_file():  # also an absolute path
        return root / name
    found = sorted(root.rglob(name)) if root.is_dir() and not Path(name).is_absolute() else []
    if len(found) != 1:
        where = f"{len(found)} files: {', '.join(map(str, found[:5]))}" if found else "none"
        raise FileNotFoundError(f"{root / name}: expected this file, there or in one folder below; found {where}")
    return found[0]
