"""One case on disk: its files, and reading them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mamba_vision.volumes.reading import read_label, read_volume
from mamba_vision.volumes.volume import Volume

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


def read_scan(scan: ScanFiles, fix_geometry: str = "error") -> Volume:
    """The image of a case; see read_volume."""
    return read_volume(scan.images, scan.series, fix_geometry, scan.stacked)


def read_scan_label(
    scan: ScanFiles, like: Volume | None, fix_geometry: str = "error", names: Mapping[str, int] | None = None
) -> Volume | None:
    """The label of a case, or None if it has none; see read_label."""
    return read_label(scan.label, like, fix_geometry, names) if scan.label is not None else None
