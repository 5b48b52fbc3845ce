"""The polyp data sets in the layouts of their own downloads, brought into the layout that the field shares.

Kvasir-SEG (Jha et al. 2020), CVC-ClinicDB (Bernal et al. 2015), CVC-300 (from EndoScene, Vázquez et al. 2017),
CVC-ColonDB (Bernal et al. 2012), ETIS-LaribPolypDB (Silva et al. 2014), BKAI-IGH NeoPolyp (Lan et al. 2021).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mamba_vision.datasets.polyps import TESTS, TRAIN, image_and_mask_folders, paired, some
from mamba_vision.datasets.prompt_images import read_mask, read_rgb
from mamba_vision.utils.atomic import atomic_path
from mamba_vision.utils.picture_files import SUFFIXES

Pairs = dict[str, tuple[Path, Path]]  # by name without suffix


@dataclass(frozen=True)
class Source:
    """How a data set comes.

    Attributes:
        folders: (images, masks) below the download, in the forms that are about; '' is the download itself.
        test: name of its folder in TestDataset.
        test_count: images of the test part, where there is one for training too.
        prefix: what masks' names have in front of the images'.
    """

    folders: tuple[tuple[str, str], ...]
    test: str
    test_count: int | None = None
    prefix: str = ""


_USUAL = (("images", "masks"), ("image", "mask"))
SOURCES = {
    "kvasir-seg": Source((*_USUAL, ("Kvasir-SEG/images", "Kvasir-SEG/masks")), "Kvasir", 100),
    "cvc-clinicdb": Source(
        (*((f"{form}Original", f"{form}Ground Truth") for form in ("PNG/", "", "TIF/")), *_USUAL),
        "CVC-ClinicDB", 62,
    ),
    "cvc-300": Source((("CVC-300/bbdd", "CVC-300/gtpolyp"), ("bbdd", "gtpolyp"), *_USUAL), "CVC-300"),
    "cvc-colondb": Source(
        (("CVC-ColonDB/images", "CVC-ColonDB/masks"), ("CVC-ColonDB", "GT"), *_USUAL), "CVC-ColonDB"
    ),
    "etis": Source(
        (("ETIS-LaribPolypDB", "GroundTruth"), ("ETIS-LaribPolypDB", "Ground Truth"), *_USUAL), "ETIS-LaribPolypDB",
        prefix="p",
    ),
    "bkai": Source((("train/train", "train_gt/train_gt"), ("train", "train_gt"), *_USUAL), "BKAI"),
}  # fmt: skip


def convert(
    name: str, source: str | Path, out: str | Path, test: str | Path | None = None, seed: int = 0
) -> dict[str, int]:
    """Write a data set into the shared layout; what is there already stays.

    Args:
        name: of `SOURCES`, or 'pranet' for the split that PraNet's authors made, which is checked and copied.
        source: folder of the unpacked download.
        out: folder of all polyp data.
        test: for the sources that are also trained on, a file with the names of the images to test on; None draws them.
        seed: of that drawing.

    Returns:
        Pairs by folder below `out`.

    Raises:
        ValueError: an unknown name, files that are no images, masks of other sizes, or names that are not there.
        FileNotFoundError: folders or masks are missing.
    """
    source, out = Path(source), Path(out)
    if name == "pranet":
        return _copy_split(source, out)
    if name not in SOURCES:
        raise ValueError(f"name: found {name!r}, expected one of {', '.join(SOURCES)}, pranet")
    known = SOURCES[name]
    pairs = find_pairs(known, source)
    chosen = set(pairs) if known.test_count is None else _test_names(known, pairs, test, seed)
    parts = {f"TestDataset/{known.test}": {key: pairs[key] for key in pairs if key in chosen}}
    if known.test_count is not None:
        # The two sources share a folder, and both number their images.
        parts[TRAIN] = {f"{known.test}_{key}": pairs[key] for key in pairs if key not in chosen}
    return {part: _write(own, out / part, part == TRAIN) for part, own in parts.items() if own}


def find_pairs(known: Source, source: Path) -> Pairs:
    """Image and mask by name, of the first layout that is there.

    Raises:
        FileNotFoundError: no such folders, or images without masks.
        ValueError: sizes differ, or files are no images.
    """
    for images, masks in known.folders:
        if (source / images).is_dir() and (source / masks).is_dir():
            break
    else:
        forms = " or ".join(f"{images}/ with {masks}/" for images, masks in known.folders)
        raise FileNotFoundError(f"{source}: expected folders {forms}; found {some(_folders(source)) or 'none'}")
    images, masks = source / images, source / masks
    if known.prefix:
        return _prefixed(images, masks, known.prefix)
    return {image.stem: (image, mask) for image, mask in paired(images, masks)}


def _prefixed(images: Path, masks: Path, prefix: str) -> Pairs:
    """Pairs of 12.tif and p12.tif (or 12.tif): told apart by their numbers."""
    by_number = []
    for folder in (images, masks):
        files = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in SUFFIXES]
        found = {re.sub(rf"^{prefix}(?=\d)", "", file.stem): file for file in files}
        if len(found) < len(files):
            raise ValueError(f"{folder}: several images of one number")
        by_number.append(found)
    if missing := sorted(set(by_number[0]) - set(by_number[1])):
        raise FileNotFoundError(f"{masks}: no masks of {some(by_number[0][key].name for key in missing)}")
    if not by_number[0]:
        raise FileNotFoundError(f"{images}: no images in it")
    return {key: (by_number[0][key], by_number[1][key]) for key in sorted(by_number[0])}


def _test_names(known: Source, pairs: Pairs, file: str | Path | None, seed: int) -> set[str]:
    if file is None:
        count = min(known.test_count, len(pairs) // 2)
        return set(np.random.default_rng(seed).permutation(sorted(pairs))[:count].tolist())
    names = {Path(line.strip()).stem for line in Path(file).read_text(encoding="utf-8").splitlines() if line.strip()}
    if missing := sorted(names - set(pairs)):
        raise ValueError(f"{file}: found {some(missing)}, of which there are no images")
    return names


def _copy_split(source: Path, out: Path) -> dict[str, int]:
    """PraNet's split, wherever its two folders lie in the download."""
    written = {}
    for part in (TRAIN, *TESTS):
        places = [source / part, source / Path(part).name]
        folder = next((place for place in places if place.is_dir()), None)
        if folder is not None:
            pairs = {image.stem: (image, mask) for image, mask in paired(*image_and_mask_folders(folder))}
            written[part] = _write(pairs, out / part, part == TRAIN)
    if not written:
        raise FileNotFoundError(
            f"{source}: expected {TRAIN}/ or TestDataset/; found {some(_folders(source)) or 'none'}"
        )
    return written


def _write(pairs: Mapping[str, tuple[Path, Path]], folder: Path, training: bool) -> int:
    """PNG of images and masks; the mask comes last, so that one that is there was finished."""
    images, masks = (folder / name for name in (("image", "mask") if training else ("images", "masks")))
    for name, (image, mask) in pairs.items():
        if (masks / f"{name}.png").is_file() and (images / f"{name}.png").is_file():
            continue
        picture, truth = read_rgb(image), read_mask(mask)
        if picture.shape[:2] != truth.shape:
            (rows, columns), (r, c) = picture.shape[:2], truth.shape
            raise ValueError(f"{mask}: found {c} x {r} pixels, its image {image.name} has {columns} x {rows}")
        for path, array in ((images, picture), (masks, np.where(truth, 255, 0).astype(np.uint8))):
            with atomic_path(path / f"{name}.png") as temporary:
                Image.fromarray(array).save(temporary)
    return len(pairs)


def _folders(source: Path) -> list[str]:
    return sorted(f"{path.name}/" for path in source.iterdir() if path.is_dir()) if source.is_dir() else []
