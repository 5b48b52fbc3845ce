"""Polyp data sets in the layout in which PraNet's authors share them, which the whole field trains and tests on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset

from mamba_vision.datasets.prompt_transforms import MODES
from mamba_vision.registry import DATASETS
from mamba_vision.utils.picture_files import SUFFIXES, picture_size

# Below data_root. The first two are of the sources that training has seen, the others are not.
TRAIN = "TrainDataset"
TESTS = tuple(
    f"TestDataset/{name}" for name in ("Kvasir", "CVC-ClinicDB", "CVC-300", "CVC-ColonDB", "ETIS-LaribPolypDB", "BKAI")
)
_IMAGES, _MASKS = ("image", "images"), ("mask", "masks")


@DATASETS.register_module()
class PolypDataset(BaseDataset):
    """Images and masks of equal names.

        data/polyps
        ├── TrainDataset            image/*.png  mask/*.png
        └── TestDataset
            ├── Kvasir              images/*.png  masks/*.png
            ├── CVC-ClinicDB, CVC-300, CVC-ColonDB, ETIS-LaribPolypDB, BKAI

    `image` and `images`, `mask` and `masks` are the same. Suffixes may differ.

    Args:
        data_root: the folder above.
        parts: folders in it, such as 'TrainDataset'; 'test' is all of TestDataset that is there.
        prompt_modes: one entry an image and mode, see `SimulatePrompts`; none: training draws prompts.
        options: of MMEngine's BaseDataset, such as `pipeline`.

    Raises:
        FileNotFoundError: a folder, a mask or an image is missing; all of them are named.
        ValueError: an unknown mode; files that are no images; masks of other sizes than their images. All are named.
    """

    def __init__(
        self, data_root: str = "data/polyps", parts: str | Sequence[str] = TRAIN, prompt_modes: Sequence[str] = (),
        **options: Any,
    ) -> None:  # fmt: skip
        self.parts = (parts,) if isinstance(parts, str) else tuple(parts)
        self.prompt_modes = tuple(prompt_modes)
        if unknown := [mode for mode in self.prompt_modes if mode not in MODES]:
            raise ValueError(f"prompt_modes: found {', '.join(map(str, unknown))}, expected some of {', '.join(MODES)}")
        super().__init__(data_root=str(data_root), **options)

    def load_data_list(self) -> list[dict]:
        """[{path, mask_path, name, dataset[, prompt_mode]}]."""
        entries = []
        for part in self._folders():
            folder = Path(self.data_root, part)
            for image, mask in paired(*image_and_mask_folders(folder)):
                entry = dict(path=str(image), mask_path=str(mask), name=image.stem, dataset=folder.name)
                entries += [{**entry, "prompt_mode": mode} for mode in self.prompt_modes] or [entry]
        return entries

    def _folders(self) -> list[str]:
        found = []
        for part in self.parts:
            if part != "test":
                found.append(part)
                continue
            there = [test for test in TESTS if Path(self.data_root, test).is_dir()]
            if not there:
                raise FileNotFoundError(f"{self.data_root}: expected some of {', '.join(TESTS)}; found none")
            found += there
        return found


def image_and_mask_folders(folder: Path) -> tuple[Path, Path]:
    """The folders of images and masks in `folder`.

    Raises:
        FileNotFoundError: one is missing.
    """
    found = []
    for names in (_IMAGES, _MASKS):
        there = [folder / name for name in names if (folder / name).is_dir()]
        if not there:
            where = "no such folder" if not folder.is_dir() else f"expected a folder {' or '.join(names)} in it"
            raise FileNotFoundError(f"{folder}: {where}")
        found.append(there[0])
    return found[0], found[1]


def paired(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    """(image, mask) of equal stems, sorted.

    Raises:
        FileNotFoundError: no images; images without mask, or masks without image.
        ValueError: two files of one stem, files that are no images, or sizes that differ.
    """
    by_stem = [_by_stem(folder) for folder in (images, masks)]
    if not by_stem[0]:
        raise FileNotFoundError(f"{images}: no images in it ({', '.join(SUFFIXES)})")
    for folder, own, other, what in ((masks, *by_stem, "masks of"), (images, *by_stem[::-1], "images for")):
        if missing := sorted(set(own) - set(other)):
            raise FileNotFoundError(f"{folder}: no {what} {some(own[stem].name for stem in missing)}")
    pairs = [(by_stem[0][stem], by_stem[1][stem]) for stem in sorted(by_stem[0])]
    broken, differing = [], []
    for image, mask in pairs:
        try:
            (height, width), (h, w) = picture_size(image), picture_size(mask)
        except (ValueError, OSError) as error:
            broken.append(str(error))
            continue
        if (height, width) != (h, w):
            differing.append(f"{image.name}: image {width} x {height}, mask {w} x {h}")
    if broken:
        raise ValueError(f"{images}: {some(broken)}")
    if differing:
        raise ValueError(f"{masks}: sizes differ: {some(differing)}")
    return pairs


def some(names: Any, most: int = 5) -> str:
    """The first few of them, and how many more there are."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            if path.stem in found:
                raise ValueError(f"{folder}: found {found[path.stem].name} and {path.name}, expected one of a name")
            found[path.stem] = path
    return found
