"""One case on disk: its files, and reading them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mamba_vision.volumes.dicom_kinds import STRUCTURES, is_dicom_label, sop_class
from mamba_vision.volumes.dicom_labels import label_file, referenced_series, structure_names
from mamba_vision.volumes.pictures import picture_ending, picture_shape
from mamba_vision.volumes.reading import read_label, read_volume
from mamba_vision.volumes.volume import SeveralSeriesError, Volume, VolumeError

TEST = "test"


@dataclass(frozen=True)
class ScanFiles:
    """One case: its name, a file or DICOM folder a channel, and its label file if there is one.

    Attributes:
        series: which one of a DICOM folder that holds several.
        stacked: the one image file holds all channels along its fourth axis.
        fold: of the cross-validation, as a table says: '0', '1', ..., or 'test' for a case kept apart; '' if it says
            nothing.
    """

    case: str
    images: tuple[Path, ...]
    label: Path | None = None
    series: str | None = None
    stacked: bool = False
    fold: str = ""


def channel_count(scan: ScanFiles) -> int:
    """How many channels the files of a case hold, one each or a picture's colours."""
    try:
        return sum(picture_shape(path)[0] if picture_ending(path) else 1 for path in scan.images)
    except VolumeError:
        return len(scan.images)  # reading it says what is wrong


def read_scan(scan: ScanFiles, fix_geometry: str = "error") -> Volume:
    """The image of a case; see read_volume.

    Of several DICOM series, where none is chosen, the one that the label was drawn on, if the label says so.
    """
    try:
        return read_volume(scan.images, scan.series, fix_geometry, scan.stacked)
    except SeveralSeriesError:
        file = label_file(scan.label) if scan.label is not None else None
        series = referenced_series(file) if file is not None and is_dicom_label(file) else None
        if series is None:
            raise
        return read_volume(scan.images, series, fix_geometry, scan.stacked)


def read_scan_label(
    scan: ScanFiles, like: Volume | None, fix_geometry: str = "error", names: Mapping[str, int] | None = None
) -> Volume | None:
    """The label of a case, or None if it has none; see read_label."""
    return read_label(scan.label, like, fix_geometry, names) if scan.label is not None else None


def structure_labels(scans: Sequence[ScanFiles]) -> dict[str, int]:
    """{name: value} for scans whose labels are all in DICOM: the names of all their segments, numbered as they come.

    Empty if a label is something else, or holds several contoured structures: which of a clinic's thirty are meant, and
    in which order they lie on one another, only the user knows.
    """
    names: dict[str, str] = {}
    for scan in scans:
        if scan.label is None:
            continue
        try:
            file = label_file(scan.label)
            found = structure_names(file) if is_dicom_label(file) else []
        except VolumeError:
            continue  # reading it says what is wrong
        if not found or (sop_class(file) == STRUCTURES and len(found) > 1):
            return {}
        for name in found:
            names.setdefault(name.strip().lower(), name.strip())
    return {"background": 0, **{name: value for value, name in enumerate(names.values(), 1)}} if names else {}
