"""Registered pairs of images by two sensors: infrared and visible, MRI and CT, PET or SPECT."""

from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset

from mamba_vision.datasets.restoration import some
from mamba_vision.registry import DATASETS
from mamba_vision.utils.picture_files import SUFFIXES, picture_size

_SETS = {"train": "trainsets", "val": "valsets", "test": "testsets"}
_PUBLISHED = {
    "vif": ("VIR", "IR", "VI_Y"),
    "ct_mri": ("CT-MRI", "MRI", "CT"),
    "pet_mri": ("PET-MRI", "MRI", "PET_Y"),
    "spect_mri": ("SPECT-MRI", "MRI", "SPECT_Y"),
}
# Layout -> split -> (folder of the first images, folder of the second): the second ones bring the colour, if any.
LAYOUTS: dict[str, dict[str, tuple[str, str]]] = {
    "msrs": {split: (f"MSRS/{split}/ir", f"MSRS/{split}/vi") for split in ("train", "test")},
    "tno": {"test": ("TNO/ir", "TNO/vi")},
    "roadscene": {"test": ("RoadScene/cropinfrared", "RoadScene/crop_LR_visible")},
    "m3fd": {"test": ("M3FD/Ir", "M3FD/Vis")},
    **{
        f"harvard_{other.lower()}": {
            split: (f"Harvard/{other}-MRI/{split}/MRI", f"Harvard/{other}-MRI/{split}/{other}")
            for split in ("train", "test")
        }
        for other in ("CT", "PET", "SPECT")
    },
    # as the authors of MambaDFuse keep them, colour taken out
    **{
        f"mambadfuse_{task}": {
            split: (f"Dataset/{folder}/{name}/{first}", f"Dataset/{folder}/{name}/{second}")
            for split, folder in _SETS.items()
        }
        for task, (name, first, second) in _PUBLISHED.items()
    },
}


@DATASETS.register_module()
class FusionPairs(BaseDataset):
    """Pairs of images of one scene; there is no truth.

        data/MSRS
        ├── train/ir   00001D.png ...
        └── train/vi   00001D.png ...

    Args:
        layout: a data set by its name in `LAYOUTS`; None: `first` and `second` say it all.
        split: 'train', 'val' or 'test', of those that the layout has.
        data_root: the folder that these folders lie in.
        first: folder of infrared images or MRI; goes before the layout's.
        second: folder of visible images, CT, PET or SPECT.
        limit: only the first so many pairs.
        options: of MMEngine's BaseDataset, such as `pipeline`.

    Raises:
        ValueError: an unknown layout or split, or pairs of different sizes; all of them are named.
        FileNotFoundError: a folder, or images without a partner of the same name; all of them are named.
    """

    def __init__(
        self, layout: str | None = None, split: str = "train", data_root: str = "data", first: str | None = None,
        second: str | None = None, limit: int | None = None, **options: Any,
    ) -> None:  # fmt: skip
        if layout is not None and layout not in LAYOUTS:
            raise ValueError(f"layout: found {layout!r}, expected one of {', '.join(LAYOUTS)}")
        if layout is not None and split not in LAYOUTS[layout]:
            raise ValueError(f"split: {layout} has {', '.join(LAYOUTS[layout])}, found {split!r}")
        if layout is None and (first is None or second is None):
            raise ValueError("expected a layout, or the folders first and second")
        folders = LAYOUTS[layout][split] if layout is not None else ("", "")
        self.folders = (first or folders[0], second or folders[1])
        self.layout, self.split, self.limit = layout, split, limit
        super().__init__(data_root=str(data_root), **options)

    def load_data_list(self) -> list[dict]:
        """[{first_path, second_path, name[, dataset]}].

        Raises:
            ValueError: pairs of different sizes.
        """
        pairs = pair_by_name(*(Path(self.data_root, folder) for folder in self.folders))[: self.limit]
        differing = []
        for first, second in pairs:
            (height, width), (h, w) = picture_size(first), picture_size(second)
            if (height, width) != (h, w):
                differing.append(f"{first.name} {height} x {width} and {h} x {w}")
        if differing:
            raise ValueError(f"{self.data_root}: pairs of different sizes in {self.folders}: {some(differing)}")
        known = {} if self.layout is None else {"dataset": self.layout}
        return [
            {"first_path": str(first), "second_path": str(second), "name": first.stem, **known}
            for first, second in pairs
        ]


def pair_by_name(first: Path, second: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[tuple[Path, Path]]:
    """Files of two folders that share a name (their endings may differ), sorted.

    Raises:
        FileNotFoundError: a folder is missing or has no such files, or files have no partner.
        ValueError: two files of one folder share a name.
    """
    stems: list[dict[str, Path]] = []
    for folder in (first, second):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder")
        files: dict[str, Path] = {}
        for path in sorted(folder.iterdir()):
            ending = next((suffix for suffix in suffixes if path.name.lower().endswith(suffix)), None)
            if ending is None or path.name.startswith(".") or not path.is_file():
                continue
            stem = path.name[: -len(ending)]
            if stem in files:
                raise ValueError(f"{path}: expected one file of a name, found {files[stem].name}, too")
            files[stem] = path
        if not files:
            raise FileNotFoundError(f"{folder}: no images in it ({', '.join(suffixes)})")
        stems.append(files)
    alone = [str(files[stem]) for files, others in (stems, stems[::-1]) for stem in files if stem not in others]
    if alone:
        raise FileNotFoundError(f"{first} and {second}: no partner of the same name for {some(alone)}")
    return [(stems[0][stem], stems[1][stem]) for stem in sorted(stems[0])]
