"""Pairs of images for restoration: the published data sets in their layouts, any folders, photographs at hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset

from mamba_vision.registry import DATASETS
from mamba_vision.utils.picture_files import images_in, picture_size

# Folders below data_root; {scale} and {quality} are filled in. Without lq, degraded images are made by the pipeline.
_BY_SCALE = "{stem}x{scale}"
LAYOUTS: dict[str, dict[str, str]] = {
    "df2k": dict(gt="DF2K/HR", lq="DF2K/LR_bicubic/X{scale}", lq_name=_BY_SCALE),
    **{
        f"div2k_{part}": dict(
            gt=f"DIV2K/DIV2K_{part}_HR", lq=f"DIV2K/DIV2K_{part}_LR_bicubic/X{{scale}}", lq_name=_BY_SCALE
        )
        for part in ("train", "valid")
    },
    "flickr2k": dict(gt="Flickr2K/Flickr2K_HR", lq="Flickr2K/Flickr2K_LR_bicubic/X{scale}", lq_name=_BY_SCALE),
    **{
        name.lower(): dict(gt=f"SR/{name}/HR", lq=f"SR/{name}/LR_bicubic/X{{scale}}", lq_name=_BY_SCALE)
        for name in ("Set5", "Set14", "B100", "Urban100")
    },
    "manga109": dict(gt="SR/Manga109/HR", lq="SR/Manga109/LR_bicubic/X{scale}", lq_name="{stem}_LRBI_x{scale}"),
    "dfwb": dict(gt="DFWB_RGB/HQ"),
    "dfwb_car": dict(gt="DFWB_CAR/HQ", lq="DFWB_CAR/LQ/{quality}", lq_name="{stem}"),
    **{f"{name.lower()}_color": dict(gt=f"ColorDN/{name}HQ") for name in ("CBSD68", "Kodak24", "McMaster", "Urban100")},
    **{
        name.lower(): dict(gt=f"CAR/{name}/{name}_HQ", lq=f"CAR/{name}/{name}_LQ/{{quality}}", lq_name="{stem}")
        for name in ("classic5", "LIVE1")
    },
    **{
        f"sidd_{part}": dict(gt=f"SIDD/{part}/target_crops", lq=f"SIDD/{part}/input_crops", lq_name="{stem}")
        for part in ("train", "val")
    },
}
LAYOUTS["bsd100"] = LAYOUTS["b100"]
_SIDD_FILES = {"lq": "ValidationNoisyBlocksSrgb", "gt": "ValidationGtBlocksSrgb"}


@DATASETS.register_module()
class RestorationDataset(BaseDataset):
    """Images and, where they are stored, their degraded versions.

        data/SR/Set5
        ├── HR              baby.png ...
        └── LR_bicubic/X2   babyx2.png ...

    Args:
        layout: a data set by its name in `LAYOUTS`, or several, one after another; None: `gt` and `lq` say it all.
        data_root: the folder that these folders lie in.
        gt: folder of the truths; goes before the layout's.
        lq: folder of the degraded images; goes before the layout's. '' leaves them to the pipeline.
        lq_name: name of a degraded image without its suffix, from {stem}, {scale} and {quality}.
        scale: sides of the truths over those of the degraded images.
        quality: of JPEG, where the layout has folders by quality.
        limit: only the first so many images of each.
        options: of MMEngine's BaseDataset, such as `pipeline`.

    Raises:
        ValueError: an unknown layout, or a setting that it needs is missing.
        FileNotFoundError: a folder or degraded images are missing; all of them are named.
        ValueError: pairs whose sizes do not go together; all of them are named.
    """

    def __init__(
        self, layout: str | Sequence[str] | None = None, data_root: str = "data", gt: str | None = None,
        lq: str | None = None, lq_name: str | None = None, scale: int = 1, quality: int | None = None,
        limit: int | None = None, **options: Any,
    ) -> None:  # fmt: skip
        self.layouts = (layout,) if layout is None or isinstance(layout, str) else tuple(layout)
        given = {key: value for key, value in dict(gt=gt, lq=lq, lq_name=lq_name).items() if value is not None}
        self.folders = []
        for name in self.layouts:
            if name is not None and name not in LAYOUTS:
                raise ValueError(f"layout: found {name!r}, expected one of {', '.join(LAYOUTS)}")
            folders = {"lq": "", "lq_name": "{stem}", **LAYOUTS.get(name or "", {}), **given}
            if "gt" not in folders:
                raise ValueError("gt: expected a folder of images, or a layout")
            if "{quality}" in folders["lq"] and quality is None:
                raise ValueError(f"quality: layout {name!r} has degraded images by quality; expected one, such as 40")
            self.folders.append(folders)
        self.scale, self.quality, self.limit = scale, quality, limit
        super().__init__(data_root=str(data_root), **options)

    def load_data_list(self) -> list[dict]:
        """[{gt_path, name, scale[, lq_path, dataset]}]."""
        return [entry for each in zip(self.layouts, self.folders) for entry in self._entries(*each)]

    def _entries(self, layout: str | None, folders: dict[str, str]) -> list[dict]:
        truths = images_in(Path(self.data_root, folders["gt"]))[: self.limit]
        known = {"scale": self.scale} | ({} if layout is None else {"dataset": layout})
        entries = [{"gt_path": str(path), "name": path.stem, **known} for path in truths]
        if not folders["lq"]:
            return entries
        folder = Path(self.data_root, folders["lq"].format(scale=self.scale, quality=self.quality))
        stored = {path.stem: path for path in images_in(folder)}
        missing, differing = [], []
        for entry, path in zip(entries, truths):
            name = folders["lq_name"].format(stem=path.stem, scale=self.scale, quality=self.quality)
            if name not in stored:
                missing.append(name)
                continue
            entry["lq_path"] = str(stored[name])
            (height, width), (h, w) = picture_size(path), picture_size(stored[name])
            if not (0 <= height - self.scale * h < self.scale and 0 <= width - self.scale * w < self.scale):
                differing.append(f"{path.name} {height} x {width} and {stored[name].name} {h} x {w}")
        if missing:
            raise FileNotFoundError(f"{folder}: no degraded images {some(missing)}, for images of {truths[0].parent}")
        if differing:
            raise ValueError(f"{folder}: sizes do not go together at scale {self.scale}: {some(differing)}")
        return entries


@DATASETS.register_module()
class SIDDBlocks(BaseDataset):
    """SIDD's validation blocks: 40 images of 32 blocks of 256 x 256, in two MATLAB files.

    Args:
        data_root: folder of ValidationNoisyBlocksSrgb.mat and ValidationGtBlocksSrgb.mat.
        options: of MMEngine's BaseDataset, such as `pipeline`.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file holds something else.
    """

    def __init__(self, data_root: str = "data/RealDN/SIDD", **options: Any) -> None:
        self._blocks: dict[str, np.ndarray] = {}
        super().__init__(data_root=str(data_root), **options)

    def load_data_list(self) -> list[dict]:
        """One entry a block.

        Raises:
            FileNotFoundError: one of the two files is missing.
            ValueError: their arrays are no blocks of pictures, or differ.
        """
        from scipy.io import loadmat

        for key, name in _SIDD_FILES.items():
            path = Path(self.data_root, f"{name}.mat")
            if not path.is_file():
                raise FileNotFoundError(f"{path}: no such file; it is a part of SIDD's validation data")
            blocks = loadmat(path).get(name)
            if blocks is None or blocks.ndim != 5 or blocks.dtype != np.uint8 or blocks.shape[-1] != 3:
                raise ValueError(f"{path}: expected {name}, uint8 of shape (images, blocks, rows, columns, 3)")
            self._blocks[key] = blocks
        if self._blocks["lq"].shape != self._blocks["gt"].shape:
            raise ValueError(f"{self.data_root}: noisy and clean blocks differ in number or size")
        images, blocks = self._blocks["gt"].shape[:2]
        return [{"image": i, "block": j, "name": f"{i:02}_{j:02}"} for i in range(images) for j in range(blocks)]

    def get_data_info(self, idx: int) -> dict:
        """Entry `idx` with its two blocks."""
        info = super().get_data_info(idx)
        for key, blocks in self._blocks.items():
            info[key] = blocks[info["image"], info["block"]].astype(np.float32) / 255
        return info


@DATASETS.register_module()
class SamplePhotographs(BaseDataset):
    """The two photographs (427 x 640) that scikit-learn carries, for demonstrations without a download.

    The left part of each is for training, the rest for testing, in tiles that do not overlap.

    Args:
        split: 'train' or 'test'.
        tile: side of the test tiles.
        share: of the columns that is for training.
        detail: least standard deviation of the gray levels of a test tile, in [0, 1]: most of the photographs is sky
            and blurred background, whose scores say nothing.
        repeat: how often training runs through both in an epoch.
        options: of MMEngine's BaseDataset, such as `pipeline`.

    Raises:
        ValueError: a setting out of range.
        ImportError: scikit-learn is not installed.
    """

    def __init__(
        self, split: str = "train", tile: int = 96, share: float = 0.7, detail: float = 0.0, repeat: int = 1,
        **options: Any,
    ) -> None:  # fmt: skip
        if split not in ("train", "test"):
            raise ValueError(f"split: found {split!r}, expected 'train' or 'test'")
        if not 0 < share < 1 or not 16 <= tile <= 192 or repeat < 1:
            raise ValueError(
                f"expected 0 < share < 1, tile from 16 to 192, repeat >= 1, found {share}, {tile}, {repeat}"
            )
        self.split, self.tile, self.share, self.detail, self.repeat = split, tile, share, detail, repeat
        super().__init__(**options)

    def load_data_list(self) -> list[dict]:
        """One entry a photograph to train on, one a tile to test on."""
        self._photographs = _sample_photographs()
        if self.split == "train":
            return [{"name": name, "corner": None} for name in self._photographs] * self.repeat
        entries = []
        for name, photograph in self._photographs.items():
            rows, columns = photograph.shape[:2]
            for top in range(0, rows - self.tile + 1, self.tile):
                for left in range(round(self.share * columns), columns - self.tile + 1, self.tile):
                    pixels = photograph[top : top + self.tile, left : left + self.tile]
                    if pixels.mean(2).std() / 255 >= self.detail:
                        entries.append({"name": f"{name}_{top}_{left}", "corner": (name, top, left)})
        return entries

    def get_data_info(self, idx: int) -> dict:
        """Entry `idx` with its pixels."""
        info = super().get_data_info(idx)
        corner = info.pop("corner")
        if corner is None:
            photograph = self._photographs[info["name"]]
            pixels = photograph[:, : round(self.share * photograph.shape[1])]
        else:
            name, top, left = corner
            pixels = self._photographs[name][top : top + self.tile, left : left + self.tile]
        info["gt"] = pixels.astype(np.float32) / 255
        return info


def _sample_photographs() -> dict[str, np.ndarray]:
    from sklearn.datasets import load_sample_image

    return {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}


def some(names: list[str]) -> str:
    """The first five names, and how many there are besides."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
