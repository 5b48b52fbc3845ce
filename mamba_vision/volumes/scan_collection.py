"""Which scans a segmentation run is about: files and folders as the user names them, each case under its own name."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mamba_vision.volumes.dicom import has_dicom
from mamba_vision.volumes.pictures import picture_ending
from mamba_vision.volumes.scans import ScanFiles, find_scans
from mamba_vision.volumes.volume import VolumeError


def collect_scans(
    paths: Sequence[str | Path],
    *,
    channels: Sequence[str | Path] = (),
    series: str | None = None,
    recursive: bool = False,
    out: str | Path | None = None,
) -> list[ScanFiles]:
    """The scans at `paths`, in their order; nothing is read but folders.

    Args:
        paths: NIfTI files, pictures, DICOM folders, or folders of these (nnU-Net's imagesTs is found inside a data
            set's folder).
        channels: the files or DICOM folders of one more case, one a channel.
        series: which series of a DICOM folder that holds several.
        recursive: also look into folders inside folders.
        out: where results will go; it is passed over in the search.

    Raises:
        VolumeError: nothing there, no scan in a folder, or a result would take the place of a scan.
    """
    found: list[ScanFiles] = []
    for path in map(Path, paths):
        found += _below(path, series, out) if recursive and path.is_dir() else find_scans(path, "test", series)
    if channels:
        files = tuple(Path(channel) for channel in channels)
        for file in files:
            if not file.exists():
                raise VolumeError(file, "no such file or folder", "a channel of the scan")
        case = find_scans(files[0], "test", series)[0].case
        found.append(ScanFiles(case, files, None, series))
    if not found:
        raise VolumeError("scans", "none", "at least one scan")
    found = _with_own_names(found)
    if out is not None:
        _refuse_overwriting(found, Path(out))
    return found


def _below(folder: Path, series: str | None, out: str | Path | None) -> list[ScanFiles]:
    """The scans of every folder in `folder` that holds some; results, labels and hidden folders are left out."""
    skipped = Path(out).resolve() if out is not None else None
    found: list[ScanFiles] = []
    for name, inner, _ in os.walk(folder):
        here = Path(name)
        inner[:] = sorted(
            entry for entry in inner if not entry.startswith((".", "labels")) and (here / entry).resolve() != skipped
        )
        if here.resolve() == skipped:
            continue
        inside = _directly_in(here, series)
        found += [scan for scan in inside if all(scan.images != other.images for other in found)]
        if any(image.parent != here for scan in inside for image in scan.images):
            inner.clear()  # a list, BIDS or patients' folders: what lies below is known, labels among it
    # A patient's folder, which waits for one of its series to be chosen: each has been found by itself below.
    above = {parent for scan in found for image in scan.images for parent in image.parents}
    found = [scan for scan in found if scan.images[0] not in above or has_dicom(scan.images[0])]
    found = [scan for scan in found if not picture_ending(scan.images[0])] or found  # previews among scans are none
    if not found:
        raise VolumeError(folder, "no scan in it or below", "NIfTI files (.nii, .nii.gz), pictures or DICOM folders")
    return found


def _directly_in(folder: Path, series: str | None) -> list[ScanFiles]:
    if (folder / "imagesTs").is_dir() or (folder / "images").is_dir():
        return []  # the walk comes to it
    try:
        return find_scans(folder, "test", series)
    except VolumeError as error:
        if error.file == str(folder):
            return []  # a folder of folders
        raise


def _with_own_names(scans: list[ScanFiles]) -> list[ScanFiles]:
    """Cases of one name get the names of the folders they lie in before it, as many as it takes."""
    for depth in range(1, 20):
        counts = Counter(scan.case for scan in scans)
        if max(counts.values()) == 1:
            return scans
        scans = [
            replace(scan, case=f"{folders[-depth]}_{scan.case}")
            if counts[scan.case] > 1 and len(folders := scan.images[0].resolve().parent.parts) > depth
            else scan
            for scan in scans
        ]
    double = next(case for case, count in Counter(scan.case for scan in scans).items() if count > 1)
    raise VolumeError(double, "the same scan twice", "each scan once")


def _refuse_overwriting(scans: list[ScanFiles], out: Path) -> None:
    for scan in scans:
        for image in scan.images:
            if image.resolve().parent == out.resolve() or image.resolve() == out.resolve():
                raise VolumeError(
                    out, f"the folder of the scan {image.name}", "a folder of its own for the results",
                    "Choose another --out",
                )  # fmt: skip
