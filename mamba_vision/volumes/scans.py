"""Which scans a path holds, and what its dataset.json says about them. No voxel is read here.

Understood are

    nnU-Net's raw layout    dataset.json (may be missing), imagesTr/, labelsTr/, imagesTs/, labelsTs/
    images/ and labels/     a label has the name of its image
    a folder of NIfTIs      no labels
    DICOM                   a folder holding a series, or a folder of such folders; also inside images/ or imagesTr/
    a single file

Several channels of one case carry the suffixes _0000, _0001, ...
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mamba_vision.volumes.dicom import has_dicom, is_dicom_file
from mamba_vision.volumes.label_scheme import LabelScheme, read_label_scheme
from mamba_vision.volumes.reading import is_nifti
from mamba_vision.volumes.volume import VolumeError, stem

_CHANNEL = re.compile(r"(.+)_(\d{4})")


@dataclass(frozen=True)
class ScanFiles:
    """One case: its name, a file or DICOM folder a channel, and its label file if there is one."""

    case: str
    images: tuple[Path, ...]
    label: Path | None = None
    series: str | None = None  # of a DICOM folder


@dataclass(frozen=True)
class DatasetInfo:
    """What a data set says of itself.

    Attributes:
        name: of the data set.
        channels: names in order, e.g. ['CT']; empty where nothing says so.
        labels: name -> value in the label files, background first; empty where nothing says so.
        regions, region_order, ignore_label: as in LabelScheme.
    """

    name: str
    channels: list[str] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    regions: dict[str, list[int]] = field(default_factory=dict)
    region_order: list[int] = field(default_factory=list)
    ignore_label: int | None = None

    @property
    def scheme(self) -> LabelScheme:
        """The four last together."""
        return LabelScheme(self.labels, self.regions, self.region_order, self.ignore_label)


def find_scans(path: str | Path, subset: str = "train", series: str | None = None) -> list[ScanFiles]:
    """The scans at `path`, sorted by case name.

    Args:
        path: see the module's list of layouts.
        subset: of an nnU-Net layout, 'train' (imagesTr, labelsTr) or 'test' (imagesTs, labelsTs).
        series: which series, for DICOM folders that hold several.

    Raises:
        VolumeError: nothing there, an empty folder, or two files of one case and channel.
    """
    if subset not in ("train", "test"):
        raise ValueError(f"subset: expected 'train' or 'test', found {subset!r}")
    path = Path(path)
    if not path.exists():
        raise VolumeError(path, "no such file or folder", "scans")
    images, labels = image_folders(path, subset)
    if images.is_file():
        groups = _channels_beside(images)
    else:
        groups = _group(images)
    if not groups:
        inside = sum(1 for _ in images.iterdir())
        found = f"{inside} entries, none of them a NIfTI file or DICOM folder" if inside else "an empty folder"
        raise VolumeError(images, found, "scans as NIfTI files (.nii, .nii.gz) or DICOM folders")
    label_files = _label_files(labels) if labels is not None else {}
    return [ScanFiles(case, files, label_files.get(case), series) for case, files in sorted(groups.items())]


def image_folders(path: Path, subset: str = "train") -> tuple[Path, Path | None]:
    """Where the images and the labels of the data set at `path` lie; the labels' folder is None if there is none."""
    end = {"train": "Tr", "test": "Ts"}[subset]
    for images, labels in ((f"images{end}", f"labels{end}"), ("images", "labels")):
        if path.is_dir() and (path / images).is_dir():
            return path / images, path / labels if (path / labels).is_dir() else None
    return path, None


def read_dataset_info(path: str | Path) -> DatasetInfo:
    """What dataset.json in `path` says of channels and labels (nnU-Net v2's form, or the older one of the Decathlon).

    Raises:
        VolumeError: no JSON, or labels that make no sense (see read_label_scheme).
    """
    path = Path(path)
    file = path / "dataset.json"
    name = path.resolve().name
    if not file.is_file():
        return DatasetInfo(name)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        channels = content.get("channel_names", content.get("modality", {}))
        labels = content["labels"]
        channels = [str(channels[key]) for key in sorted(channels, key=int)]
    except (ValueError, KeyError, AttributeError, TypeError) as e:
        found = f"no usable description ({type(e).__name__}: {e})"
        raise VolumeError(file, found, "nnU-Net's dataset.json with channel_names and labels") from e
    scheme = read_label_scheme(labels, file, content.get("regions_class_order"))
    return DatasetInfo(
        str(content.get("name", name)),
        channels,
        scheme.labels,
        scheme.regions,
        scheme.region_order,
        scheme.ignore_label,
    )


def checked_labels(labels: Mapping, source: str | Path) -> dict[str, int]:
    """{name: value}, background (0) first, values ascending, of labels that exclude one another; see read_label_scheme.

    Raises:
        VolumeError: as read_label_scheme, and for regions and 'ignore', which a plain list of labels can't hold.
    """
    scheme = read_label_scheme(labels, source)
    if scheme.ignore_label is not None:
        raise VolumeError(source, "a label 'ignore'", "labels that are all annotated")
    return scheme.labels


def _group(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Case -> channels in order, of a folder of images."""
    if has_dicom(folder):
        return {folder.resolve().name: (folder,)}
    entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    found = [
        entry for entry in entries if (entry.is_dir() and has_dicom(entry)) or (entry.is_file() and is_nifti(entry))
    ]
    numbered: dict[str, dict[int, Path]] = defaultdict(dict)
    for entry in found:
        if match := _CHANNEL.fullmatch(stem(entry)):
            _put(numbered[match[1]], int(match[2]), entry)
    groups: dict[str, tuple[Path, ...]] = {}
    for entry in found:
        name, match = stem(entry), _CHANNEL.fullmatch(stem(entry))
        if match and 0 in numbered[match[1]]:  # "visit_2021" without a "visit_0000" is just a name
            name, files = match[1], numbered[match[1]]
            groups[name] = tuple(files[number] for number in sorted(files))
        elif name in groups:
            raise VolumeError(entry, f"a second image of the case {name}", "one file a case and channel")
        else:
            groups[name] = (entry,)
    return groups


def _channels_beside(file: Path) -> dict[str, tuple[Path, ...]]:
    """The case of a single file. Given the first channel (_0000), its siblings come along."""
    if not is_nifti(file):
        name = file.stem if is_dicom_file(file) else file.name
        return {name: (file,)}
    match = _CHANNEL.fullmatch(stem(file))
    if not match or int(match[2]) != 0:
        return {stem(file): (file,)}
    return {match[1]: _group(file.parent)[match[1]]}


def _put(files: dict[int, Path], number: int, entry: Path) -> None:
    if number in files:
        raise VolumeError(entry, f"the same case and channel as {files[number].name}", "one file a case and channel")
    files[number] = entry


def _label_files(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for entry in sorted(folder.iterdir()):
        if entry.is_file() and is_nifti(entry) and not entry.name.startswith("."):
            if stem(entry) in files:
                raise VolumeError(entry, f"the same case as {files[stem(entry)].name}", "one label file a case")
            files[stem(entry)] = entry
    return files
