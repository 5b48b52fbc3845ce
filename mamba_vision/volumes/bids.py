"""Brain Imaging Data Structure: sub-*/[ses-*/]anat/*_T1w.nii.gz and their label maps, here or under derivatives/.

A channel is a suffix (T1w, FLAIR, ...) that most cases have. A case that lacks one gets the path where it should be, so
that the check of the whole data set names it. Labels end in _dseg, _mask, _seg or _label.
"""

import csv
import re
from collections import Counter, defaultdict
from pathlib import Path

from mamba_vision.volumes.scan_files import ScanFiles
from mamba_vision.volumes.volume import IMAGE_ENDINGS, VolumeError, stem

_LABELS = ("dseg", "mask", "seg", "label")
_NO_SCANS = ("func", "dwi", "fmap", "perf", "meg", "eeg", "beh")  # series over time, and no images
_IMAGE = re.compile(r"(sub-[^_]+(?:_ses-[^_]+)?)((?:_[A-Za-z]+-[^_]+)*)_([A-Za-z0-9]+)")


def is_bids(folder: Path) -> bool:
    """Whether the folder has a sub-* folder that holds images named after it."""
    return folder.is_dir() and any(entry.is_dir() and _images(entry) for entry in folder.glob("sub-*"))


def bids_scans(folder: Path) -> list[ScanFiles]:
    """The cases (a subject, or one of its sessions), sorted by name.

    Raises:
        VolumeError: two images of one suffix in a case, or two label maps.
    """
    channels, images, labels = _survey(folder)
    scans = []
    for case in sorted(images):
        found = images[case]
        first = next(iter(found.values()))
        missing = first.with_name(f"{case}_{{}}{first.name[len(stem(first)) :]}").as_posix()
        paths = tuple(found.get(name, Path(missing.format(name))) for name in channels)
        scans.append(ScanFiles(case, paths, labels.get(case)))
    return scans


def bids_channels(folder: Path) -> list[str]:
    """Names of the channels in their order."""
    return _survey(folder)[0]


def bids_labels(folder: Path) -> dict[str, int]:
    """{name: value} of a *dseg.tsv beside the subjects or under derivatives/; empty if there is none."""
    for file in (*sorted(folder.glob("*dseg.tsv")), *sorted(folder.glob("derivatives/**/*dseg.tsv"))):
        with file.open(encoding="utf-8", newline="") as opened:
            rows = list(csv.DictReader(opened, delimiter="\t"))
        if rows and {"index", "name"} <= rows[0].keys():
            named = {row["name"].strip(): int(row["index"]) for row in rows if row["index"].strip().isdigit()}
            return named if 0 in named.values() else {"background": 0, **named}
    return {}


def _survey(folder: Path) -> tuple[list[str], dict[str, dict[str, Path]], dict[str, Path]]:
    images: dict[str, dict[str, Path]] = defaultdict(dict)
    labels: dict[str, Path] = {}
    for subject in sorted(folder.glob("sub-*")):
        for file, case, suffix in _images(subject):
            _add(labels if suffix in _LABELS else images[case], case if suffix in _LABELS else suffix, file)
    for subject in sorted(folder.glob("derivatives/**/sub-*")):
        if subject.is_dir():
            for file, case, suffix in _images(subject):
                if suffix in _LABELS:
                    _add(labels, case, file)
    images = {case: found for case, found in images.items() if found}
    counts = Counter(suffix for found in images.values() for suffix in found)
    return sorted(suffix for suffix, count in counts.items() if 2 * count > len(images)), images, labels


def _images(subject: Path) -> list[tuple[Path, str, str]]:
    """(file, case, suffix) of each image of a subject, sorted by path."""
    found = []
    for file in sorted(subject.rglob("*")):
        inner = file.relative_to(subject).parts[:-1]
        match = _IMAGE.fullmatch(stem(file)) if file.name.lower().endswith(tuple(IMAGE_ENDINGS)) else None
        if match and match[1].split("_")[0] == subject.name and not set(inner) & set(_NO_SCANS) and file.is_file():
            found.append((file, match[1], match[3]))
    return found


def _add(files: dict[str, Path], key: str, file: Path) -> None:
    if key in files:
        kind = "label map" if key.startswith("sub-") else f"{key} image"
        raise VolumeError(
            file, f"a second {kind} beside {files[key].name}", "one a case",
            "List the files to use in a CSV with the columns image, image2, label",
        )  # fmt: skip
    files[key] = file
