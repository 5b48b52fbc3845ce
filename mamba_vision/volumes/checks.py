"""What is wrong with a data set: every problem of every file, in one list, before any long work begins."""

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from mamba_vision.utils.atomic import write_text
from mamba_vision.utils.wording import count
from mamba_vision.volumes.pictures import lossy_cure, picture_ending
from mamba_vision.volumes.reading import is_image_file
from mamba_vision.volumes.scan_files import ScanFiles, read_scan, read_scan_label
from mamba_vision.volumes.volume import Volume, VolumeError, stem

_BESIDE = (".json", ".txt", ".csv", ".tsv", ".md", ".xlsx", ".pdf", ".bval", ".bvec", ".raw", ".zraw", ".py")
_SHRUNK_HEADER = 400  # voxels along an axis at exactly 1 mm: no patient is that long in that many 1 mm steps by chance


@dataclass(frozen=True)
class Problem:
    """One thing wrong. An 'error' stops the plan, a 'warning' only wants to be known."""

    case: str
    file: str
    found: str
    expected: str
    cure: str = ""
    severity: str = "error"

    @classmethod
    def of(cls, case: str, error: VolumeError) -> "Problem":
        """The problem that a refused file is."""
        return cls(case, error.file, error.found, error.expected, error.cure)


@dataclass(frozen=True)
class CheckedCase:
    """A case after reading: its problems, and its data where there are no errors."""

    scan: ScanFiles
    problems: list[Problem]
    volume: Volume | None = None
    label: Volume | None = None
    digest: str = ""  # of voxels and geometry; equal for copies under another name


def check_case(
    scan: ScanFiles,
    channels: int | None = None,
    label_values: Sequence[int] | None = None,
    need_label: bool = True,
    fix_geometry: str = "error",
    label_names: Mapping[str, int] | None = None,
) -> CheckedCase:
    """Read one case and list what is wrong with it.

    Args:
        scan: the files.
        channels: how many there must be; None: any.
        label_values: those allowed in the label file; None: any whole number of 0 or more.
        need_label: whether a missing label is an error.
        fix_geometry: passed to read_volume and read_label.
        label_names: values of structures by name, for labels in DICOM.
    """
    problems = _check_files(scan, channels, need_label)
    volume = label = None
    try:
        volume = read_scan(scan, fix_geometry)
    except VolumeError as error:
        problems.append(Problem.of(scan.case, error))
    else:
        problems += _check_voxels(scan, volume)
        colours = bool(picture_ending(scan.images[0]))
        if (scan.stacked or colours) and channels not in (None, len(volume.array)):
            found = count(len(volume.array), "channel") + (" in the picture" if colours else " along the fourth axis")
            cure = "Correct the channels (modality) in dataset.json"
            cure += ", or save all pictures as grey or all as RGB" if colours else ""
            problems.append(Problem(scan.case, str(scan.images[0]), found, f"{channels} channels", cure))
    if scan.label is not None:
        try:
            label = read_scan_label(scan, volume, fix_geometry, label_names)
        except VolumeError as error:
            problems.append(Problem.of(scan.case, error))
        else:
            problems += _check_labels(scan, label, label_values)
    if errors(problems) or volume is None:
        return CheckedCase(scan, problems)
    digest = hashlib.sha256(volume.affine.round(6).tobytes() + str(volume.array.shape).encode())
    digest.update(np.ascontiguousarray(volume.array))
    return CheckedCase(scan, problems, volume, label, digest.hexdigest())


def check_set(cases: Iterable[CheckedCase]) -> list[Problem]:
    """What only shows when cases are compared: the same scan under two names, differing numbers of channels."""
    problems: list[Problem] = []
    first: dict[str, ScanFiles] = {}
    for checked in cases:
        scan = checked.scan
        if not checked.digest:
            continue
        original = first.setdefault(checked.digest, scan)
        if original is not scan:
            problems.append(
                Problem(
                    scan.case,
                    str(scan.images[0]),
                    f"the same voxels as case {original.case}",
                    "different scans",
                    "Remove one: a copy in another fold makes the validation meaningless",
                )
            )
    return problems


def check_scans(
    scans: Sequence[ScanFiles],
    channels: int | None = None,
    label_values: Sequence[int] | None = None,
    need_label: bool = True,
    fix_geometry: str = "error",
    label_names: Mapping[str, int] | None = None,
) -> list[Problem]:
    """Every problem of every scan. volumes.survey does the same while it takes the fingerprint.

    Example:
        >>> for problem in check_scans(find_scans("data/demo")):
        ...     print(problem.file, problem.found, problem.cure)
    """
    problems, light = [], []
    for scan in scans:
        checked = check_case(scan, channels, label_values, need_label, fix_geometry, label_names)
        problems += checked.problems
        light.append(CheckedCase(scan, checked.problems, digest=checked.digest))  # without the voxels
    return problems + check_set(light)


def orphan_labels(scans: Sequence[ScanFiles], folder: Path | None) -> list[Problem]:
    """Label files in `folder` that belong to no scan."""
    if folder is None:
        return []
    known = {scan.case for scan in scans}
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]
    labels = [file for file in files if is_image_file(file)] or [file for file in files if picture_ending(file)]
    return [
        Problem(stem(file), str(file), "a label without an image", "an image of the same name", severity="warning")
        for file in labels
        if stem(file) not in known
    ]


def unread_files(scans: Sequence[ScanFiles], folder: Path) -> list[Problem]:
    """What lies among the images in `folder` and was taken for none of them; notes and tables are not meant."""
    if not folder.is_dir():
        return []
    read = {image.name for scan in scans for image in scan.images}
    left = [
        file.name
        for file in sorted(folder.iterdir())
        if file.is_file() and file.name not in read and file.name[0] != "." and file.suffix.lower() not in _BESIDE
    ]
    if not left or folder in {image for scan in scans for image in scan.images}:
        return []  # a DICOM folder's files are no images each
    found = f"{count(len(left), 'file')} that no case has: {', '.join(left[:5])}{', ...' if len(left) > 5 else ''}"
    expected = "NIfTI, NRRD or MetaImage files, DICOM folders, or PNG, BMP or TIFF pictures alone"
    cure = lossy_cure(map(Path, left)) or "Convert them if they are scans"
    return [Problem("", str(folder), found, expected, cure, "warning")]


def miscounted(dataset: Path, said: int | None, found: int) -> list[Problem]:
    """A data set that says it has another number of training cases than were found."""
    if said in (None, found):
        return []
    expected = f"numTraining {found}, the number of cases found"
    return [Problem("", str(dataset), f"numTraining {said} in dataset.json", expected, "Are scans missing?", "warning")]


def errors(problems: Iterable[Problem]) -> list[Problem]:
    """Those that stop a plan."""
    return [problem for problem in problems if problem.severity == "error"]


def write_problems(path: str | Path, problems: Sequence[Problem]) -> Path:
    """The table as CSV, with a header line even when it is empty."""
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(Problem)], lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(problem) for problem in problems)
    return write_text(path, text.getvalue())


def _check_files(scan: ScanFiles, channels: int | None, need_label: bool) -> list[Problem]:
    problems = []
    counted = not (scan.stacked or picture_ending(scan.images[0]))  # others are counted once they are read
    if channels is not None and len(scan.images) != channels and counted:
        names = ", ".join(path.name for path in scan.images)
        problems.append(
            Problem(
                scan.case,
                str(scan.images[0]),
                f"{count(len(scan.images), 'channel')} ({names})",
                count(channels, "channel"),
                "Name the channels of a case _0000, _0001, ... in the order of dataset.json",
            )
        )
    if need_label and scan.label is None:
        problems.append(
            Problem(
                scan.case,
                str(scan.images[0]),
                "no label file",
                f"a label named {scan.case}{picture_ending(scan.images[0]) or '.nii.gz'}",
                "Add it, or move the image out of the training folder",
            )
        )
    return problems


def _check_voxels(scan: ScanFiles, volume: Volume) -> list[Problem]:
    problems = []
    paths = scan.images if len(scan.images) == len(volume.array) else scan.images[:1] * len(volume.array)
    empty = [channel.min() == channel.max() for channel in volume.array]
    for path, channel, constant in zip(paths, volume.array, empty):
        low, coloured = float(channel.min()), len(scan.images) == 1 and bool(picture_ending(path))
        if constant and (all(empty) or not coloured):
            problems.append(Problem(scan.case, str(path), f"every voxel is {low:g}", "an image", "Export it again"))
    if np.allclose(volume.spacing, 1, atol=1e-6) and max(volume.shape) > _SHRUNK_HEADER:
        sides = " x ".join(map(str, volume.shape))
        problems.append(
            Problem(
                scan.case,
                str(scan.images[0]),
                f"{sides} voxels of exactly 1 mm",
                "the scanner's voxel size",
                "Was the header lost in a conversion? Sizes in mm and ml would be wrong",
                "warning",
            )
        )
    return problems


def _check_labels(scan: ScanFiles, label: Volume, allowed: Sequence[int] | None) -> list[Problem]:
    present = present_values(label.array)
    if allowed is not None:
        wrong, expected = [value for value in present if value not in set(allowed)], f"one of {list(allowed)}"
    else:
        wrong, expected = [value for value in present if value < 0], "0 (background) or more"
    if wrong:
        found = f"label value{'s' if len(wrong) > 1 else ''} {', '.join(map(str, wrong[:10]))}"
        cure = "Correct the label file, or add the value to dataset.json (or --labels)"
        return [Problem(scan.case, str(scan.label), found, expected, cure)]
    if len(present) == 1:
        found = f"label {present[0]} in every voxel" if present[0] else "an empty label"
        return [Problem(scan.case, str(scan.label), found, "some foreground on background", severity="warning")]
    return []


def present_values(labels: np.ndarray) -> list[int]:
    """The values in a label array, ascending; much faster than np.unique where they are few and small."""
    low, high = int(labels.min()), int(labels.max())
    if high - low < 65536:
        seen = np.zeros(high - low + 1, dtype=bool)
        for plane in labels.reshape(labels.shape[0] * labels.shape[1], -1):
            seen[plane.astype(np.int64) - low] = True
        return [int(value) + low for value in np.flatnonzero(seen)]
    return [int(value) for value in np.unique(labels)]
