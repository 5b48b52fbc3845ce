"""Which scans a path holds, and what it says about their channels and labels. No voxel is read here.

Understood are

    nnU-Net's raw layout    dataset.json (may be missing), imagesTr/, labelsTr/, imagesTs/, labelsTs/
    images/ and labels/     a label has the name of its image
    the Decathlon's         dataset.json with the lists training and test; channels may be stacked in one 4-D file
    BIDS                    sub-*/[ses-*/]anat/, labels beside the images or under derivatives/ (see bids)
    a CSV or JSON file      a row a case: image[, image2 ...], label, fold (see scan_tables)
    DICOM                   a folder holding a series, or a folder of such folders, a patient each: series and label
                            (DICOM-SEG, RTSTRUCT or an image file) may lie in folders below; also inside images/
    a folder of images      no labels
    a single file

Images are NIfTI, NRRD or MetaImage files, or, in a folder that holds none of these, pictures (see pictures). Several
channels of one case carry the suffixes _0000, _0001, ...
"""

import json
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from mamba_vision.volumes.bids import bids_channels, bids_labels, bids_scans, is_bids
from mamba_vision.volumes.dicom import has_dicom, is_dicom_file
from mamba_vision.volumes.dicom_kinds import is_dicom_label, labels_below
from mamba_vision.volumes.dicom_patients import patient_label, patient_series
from mamba_vision.volumes.label_scheme import LabelScheme, read_label_scheme
from mamba_vision.volumes.pictures import lossy_cure, picture_ending
from mamba_vision.volumes.reading import is_image_file
from mamba_vision.volumes.scan_files import TEST, ScanFiles
from mamba_vision.volumes.scan_tables import is_table, listed_in, read_table
from mamba_vision.volumes.volume import VolumeError, stem

_CHANNEL = re.compile(r"(.+)_(\d{4})")


@dataclass(frozen=True)
class DatasetInfo:
    """What a data set says of itself.

    Attributes:
        name: of the data set.
        channels: names in order, e.g. ['CT']; empty where nothing says so.
        labels: name -> value in the label files, background first; empty where nothing says so.
        regions, region_order, ignore_label: as in LabelScheme.
        cases: how many it says there are to train on (numTraining), or None.
    """

    name: str
    channels: list[str] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    regions: dict[str, list[int]] = field(default_factory=dict)
    region_order: list[int] = field(default_factory=list)
    ignore_label: int | None = None
    cases: int | None = None

    @property
    def scheme(self) -> LabelScheme:
        """The four last together."""
        return LabelScheme(self.labels, self.regions, self.region_order, self.ignore_label)


def find_scans(path: str | Path, subset: str = "train", series: str | None = None) -> list[ScanFiles]:
    """The scans at `path`, sorted by case name.

    Args:
        path: see the module's list of layouts.
        subset: of an nnU-Net layout or a list, 'train' (imagesTr, labelsTr) or 'test' (imagesTs, labelsTs); where
            nothing tells them apart, all of them.
        series: which series, for DICOM folders that hold several.

    Raises:
        VolumeError: nothing there, an empty folder, or two files of one case and channel.
    """
    if subset not in ("train", "test"):
        raise ValueError(f"subset: expected 'train' or 'test', found {subset!r}")
    path = _without_json(Path(path))
    if not path.exists():
        raise VolumeError(path, "no such file or folder", "scans")
    if listed := _listed(path):
        kept = [scan for scan in listed if (scan.fold == TEST) == (subset == TEST)] or listed
        return kept if series is None else [replace(scan, series=series) for scan in kept]
    images, labels = image_folders(path, subset)
    label_files = find_labels(labels) if labels is not None else {}
    groups = _channels_beside(images) if images.is_file() else _group(images) or _group(images, pictures=True)
    if not groups:
        inside = list(images.iterdir())
        found = f"{len(inside)} entries, none of them an image or DICOM folder" if inside else "an empty folder"
        expected = "scans as NIfTI, NRRD or MetaImage files, or DICOM folders; or PNG, BMP or TIFF pictures"
        raise VolumeError(images, found, expected, lossy_cure(inside))
    scans = []
    for case, files in sorted(groups.items()):
        label = label_files.get(case)
        if files[0].is_dir():
            label = label or patient_label(files[0])
            files = tuple(_series_folder(file, series) for file in files)
        scans.append(ScanFiles(case, files, label, series))
    return scans


def find_test_scans(path: str | Path, series: str | None = None) -> list[ScanFiles]:
    """The scans that are kept apart for testing (imagesTs, or `test` in a list); empty if there are none."""
    path = _without_json(Path(path))
    if listed := _listed(path):
        apart = [scan for scan in listed if scan.fold == TEST]
        return apart if series is None else [replace(scan, series=series) for scan in apart]
    return find_scans(path, TEST, series) if (path / "imagesTs").is_dir() else []


def image_folders(path: Path, subset: str = "train") -> tuple[Path, Path | None]:
    """Where the images and the labels of the data set at `path` lie; the labels' folder is None if there is none."""
    path = _without_json(path)
    end = {"train": "Tr", "test": "Ts"}[subset]
    for images, labels in ((f"images{end}", f"labels{end}"), ("images", "labels")):
        if path.is_dir() and (path / images).is_dir():
            return path / images, path / labels if (path / labels).is_dir() else None
    return path, None


def read_dataset_info(path: str | Path) -> DatasetInfo:
    """What is said of channels and labels in dataset.json (nnU-Net v2's form, or the older one of the Decathlon).

    A JSON list of scans may hold the same keys; a BIDS folder names its channels itself, and its labels in *dseg.tsv.

    Raises:
        VolumeError: no JSON, or labels that make no sense (see read_label_scheme).
    """
    path = _without_json(Path(path))
    file = path if is_table(path) else path / "dataset.json"
    name = path.resolve().stem if path.is_file() else path.resolve().name
    if not file.is_file() or file.suffix.lower() != ".json":
        if _is_bids(path):
            labels = bids_labels(path)
            return DatasetInfo(name, bids_channels(path), checked_labels(labels, path) if labels else {})
        return DatasetInfo(name)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if file == path and (not isinstance(content, dict) or "labels" not in content):
            return DatasetInfo(name)  # a list of scans that says nothing of them
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
        cases if isinstance(cases := content.get("numTraining"), int) else None,
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


def _without_json(path: Path) -> Path:
    """dataset.json stands for the folder it describes."""
    return path.parent if path.name == "dataset.json" and path.is_file() else path


def _listed(path: Path) -> list[ScanFiles]:
    """The cases of a list or a BIDS folder; empty for other layouts."""
    if is_table(path):
        return read_table(path)
    return listed_in(path) or (bids_scans(path) if _is_bids(path) else [])


def _is_bids(path: Path) -> bool:
    return image_folders(path)[0] == path and is_bids(path)


def _series_folder(folder: Path, series: str | None) -> Path:
    try:
        return patient_series(folder, series) or folder
    except VolumeError:
        return folder  # reading it says what is wrong, in one list with all other problems


def _holds_series(folder: Path) -> bool:
    return any(has_dicom(Path(here)) for here, _, _ in os.walk(folder))


def _group(folder: Path, pictures: bool = False) -> dict[str, tuple[Path, ...]]:
    """Case -> channels in order, of a folder of images; `pictures` are looked for where there is nothing else."""
    if not pictures and has_dicom(folder):
        return {folder.resolve().name: (folder,)}
    entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    found = [
        entry
        for entry in entries
        if (entry.is_file() and (picture_ending(entry) if pictures else is_image_file(entry)))
        or (not pictures and entry.is_dir() and _holds_series(entry))
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
    if not (is_image_file(file) or picture_ending(file)):
        name = file.stem if is_dicom_file(file) else file.name
        return {name: (file,)}
    match = _CHANNEL.fullmatch(stem(file))
    if not match or int(match[2]) != 0:
        return {stem(file): (file,)}
    return {match[1]: _group(file.parent, bool(picture_ending(file)))[match[1]]}


def _put(files: dict[int, Path], number: int, entry: Path) -> None:
    if number in files:
        raise VolumeError(entry, f"the same case and channel as {files[number].name}", "one file a case and channel")
    files[number] = entry


def find_labels(path: str | Path) -> dict[str, Path]:
    """Case -> label in a folder (an image file, a DICOM-SEG or RTSTRUCT, or a folder with one), or the one file.

    Raises:
        VolumeError: nothing there, or two labels of one case.
    """
    folder = Path(path)
    if not folder.exists():
        raise VolumeError(folder, "no such file or folder", "label maps")
    if folder.is_file():
        return {stem(folder) if is_image_file(folder) else folder.stem: folder}
    files: dict[str, Path] = {}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if is_image_file(entry) or entry.is_dir():
            case, is_label = stem(entry), entry.is_file() or bool(labels_below(entry))
        else:
            case, is_label = entry.stem, is_dicom_label(entry)
        if is_label:
            if case in files:
                raise VolumeError(entry, f"the same case as {files[case].name}", "one label file a case")
            files[case] = entry
    if not files:
        pictures = [entry for entry in sorted(folder.iterdir()) if picture_ending(entry) and entry.name[0] != "."]
        for entry in pictures:
            if (first := files.setdefault(stem(entry), entry)) is not entry:
                raise VolumeError(entry, f"the same case as {first.name}", "one label file a case")
    return files
