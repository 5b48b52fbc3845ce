"""Remote-sensing scene classification: UC Merced, AID and NWPU-RESISC45, in the layout of their downloads."""

from pathlib import Path

import numpy as np

from mamba_vision.registry import DATASETS
from mamba_vision.utils.quiet import quiet_imports

with quiet_imports():
    from mmpretrain.datasets import BaseDataset

# RSMamba's published weights are bound to these orders.
CLASSES = {
    "uc": """harbor parkinglot buildings mediumresidential sparseresidential forest agricultural overpass golfcourse
        freeway baseballdiamond beach intersection runway mobilehomepark chaparral airplane river storagetanks
        tenniscourt denseresidential""",
    "aid": """Port Square River Pond Playground Mountain Park Airport SparseResidential Stadium Industrial Church
        DenseResidential Parking Farmland Desert Viaduct Forest StorageTanks Center Meadow MediumResidential School
        BareLand Commercial BaseballField RailwayStation Resort Bridge Beach""",
    "nwpu": """river terrace snowberg stadium parking_lot thermal_power_station rectangular_farmland cloud intersection
        meadow palace ground_track_field commercial_area beach church baseball_diamond ship industrial_area bridge
        freeway medium_residential circular_farmland mobile_home_park railway forest sparse_residential harbor wetland
        mountain airport golf_course overpass dense_residential chaparral basketball_court airplane tennis_court runway
        storage_tank island railway_station lake sea_ice desert roundabout""",
}
IMAGES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"}


@DATASETS.register_module()
class SceneDataset(BaseDataset):
    """Images in one folder a class, split by a list or by drawing.

        data/uc_merced
        ├── agricultural
        │   ├── agricultural00.tif
        │   └── ...
        ├── ...
        ├── train.txt      one `class/file` a line (optional)
        └── val.txt

    Labels are positions in `CLASSES`, which is not alphabetical.

    Args:
        name: 'uc', 'aid' or 'nwpu'.
        data_root: the folder above.
        split: 'train' or 'val'.
        ann_file: list of this split's images. None: `<split>.txt` in the folder if it is there; otherwise `train_share`
            of every class, drawn with `seed`, is for training and the rest for validation.
        train_share: see above. Published: 0.7 for UC Merced and NWPU-RESISC45, 0.5 for AID.
        seed: of the drawing.
        options: of MMPretrain's BaseDataset, such as `pipeline`.

    Raises:
        ValueError: an unknown name or split, or a share outside (0, 1).
        FileNotFoundError: folders of classes or images of the list are missing; all of them are named at once.
    """

    def __init__(
        self, name: str, data_root: str, split: str, ann_file: str | None = None, train_share: float = 0.7,
        seed: int = 0, **options,
    ) -> None:  # fmt: skip
        if name not in CLASSES:
            raise ValueError(f"name: found {name!r}, expected one of {', '.join(CLASSES)}")
        if split not in ("train", "val"):
            raise ValueError(f"split: found {split!r}, expected 'train' or 'val'")
        if not 0 < train_share < 1:
            raise ValueError(f"train_share: found {train_share}, expected a number between 0 and 1")
        self.split, self.train_share, self.seed = split, train_share, seed
        options.setdefault("metainfo", {"classes": tuple(CLASSES[name].split())})
        options.setdefault("test_mode", split == "val")
        super().__init__(ann_file=ann_file or "", data_root=str(data_root), **options)

    def load_data_list(self) -> list[dict]:
        """[{img_path, gt_label}] of the split.

        Raises:
            FileNotFoundError: pictures that the list names are missing, or their classes.
        """
        root, classes = Path(self.data_root), list(self.metainfo["classes"])
        listed = Path(self.ann_file) if self.ann_file else root / f"{self.split}.txt"
        if self.ann_file or listed.is_file():
            names = [line.strip() for line in listed.read_text().splitlines() if line.strip()]
        else:
            names = self._drawn(root, classes)
        missing = [name for name in names if not (root / name).is_file()]
        unknown = [name for name in names if name.split("/")[0] not in classes]
        for problem, found in (("no such image", missing), ("of no known class", unknown)):
            if found:
                shown = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
                raise FileNotFoundError(f"{listed}: {problem} in {root}: {shown}")
        return [{"img_path": str(root / name), "gt_label": classes.index(name.split("/")[0])} for name in names]

    def _drawn(self, root: Path, classes: list[str]) -> list[str]:
        missing = [name for name in classes if not (root / name).is_dir()]
        if missing:
            raise FileNotFoundError(
                f"{root}: expected a folder for each of {len(classes)} classes, missing are {missing}"
            )
        names = []
        for number, folder in enumerate(classes):
            images = sorted(file.name for file in (root / folder).iterdir() if file.suffix.lower() in IMAGES)
            order = np.random.RandomState([self.seed, number]).permutation(len(images))
            cut = round(self.train_share * len(images))
            chosen = order[:cut] if self.split == "train" else order[cut:]
            names += [f"{folder}/{images[i]}" for i in sorted(chosen)]
        return names
