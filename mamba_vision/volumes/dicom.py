"""A DICOM series as one volume, with the checks that keep a wrong one from passing for right.

Slices are grouped by SeriesInstanceUID and sorted by their position in the patient, never by file name. Several series
in a folder, missing, doubled or unevenly spaced slices are errors. A tilted gantry stays a sheared affine.
Enhanced (multi-frame) objects are read frame by frame.
"""

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mamba_vision.utils.wording import count
from mamba_vision.volumes.dicom_kinds import is_dicom_scan
from mamba_vision.volumes.volume import SeveralSeriesError, VolumeError

# MONAI registers its own decoder with pydicom and reports at every import whether it could.
logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message=".*nvimgcodec.*|.*nvImageCodec.*")

_UNEVEN = 0.05  # of the slice distance: how far a slice may lie from its place
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class _Slice:
    """One plane: where it lies (LPS mm) and how to get its pixels."""

    file: Path
    dataset: Any
    frame: int | None
    position: np.ndarray  # (3,) centre of the first pixel
    directions: np.ndarray  # (2, 3) along a row (to the next column), down a column (to the next row)
    spacing: tuple[float, float]  # between rows, between columns
    shape: tuple[int, int]  # rows, columns
    slope: float
    intercept: float

    @property
    def height(self) -> float:
        """Position along the normal of the plane."""
        return float(self.position @ np.cross(*self.directions))


def is_dicom_file(path: Path) -> bool:
    """Whether the file carries DICOM's mark, 'DICM' after 128 bytes. Needs no pydicom."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def has_dicom(folder: Path) -> bool:
    """Whether the folder itself holds a DICOM file that may belong to a scan."""
    return any(entry.is_file() and is_dicom_file(entry) and is_dicom_scan(entry) for entry in sorted(folder.iterdir()))


def read_dicom(path: Path, series: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The series at `path`: a folder with one file a slice (or a patient's folder above it), or one multi-frame file.

    Args:
        path: folder (files that are no DICOM images are passed over) or file.
        series: SeriesInstanceUID, SeriesNumber or SeriesDescription, needed where a folder holds several series.

    Returns:
        Voxels (X, Y, Z) float32 (columns, rows, slices; rescale slope and intercept applied), affine (4, 4) to RAS mm.

    Raises:
        VolumeError: pydicom missing; no images; several series; slices that miss, double or do not line up.
    """
    return _assemble(path, [piece for file, dataset in _series(path, series) for piece in _slices(file, dataset)])


def series_datasets(path: Path, series: str | None = None) -> list[Any]:
    """The pydicom datasets of the series that read_dicom reads, in the order of its slices; pixels are not yet read.

    A multi-frame object is a list of one. Raises as read_dicom, but for what concerns the slices' places.
    """
    chosen = _series(path, series)
    if len(chosen) > 1:
        chosen = sorted(chosen, key=lambda entry: _slices(*entry)[0].height)
    return [dataset for _, dataset in chosen]


def series_listing(folder: Path) -> list[tuple[str, str, str]]:
    """(UID, number, description) of each series in the folder."""
    files = [
        file for file in sorted(folder.iterdir()) if file.is_file() and is_dicom_file(file) and is_dicom_scan(file)
    ]
    by_series = _group(folder, files)
    return [_names(entries[0][1], uid) for uid, entries in by_series.items()]


def _series(path: Path, series: str | None) -> list[tuple[Path, Any]]:
    """Files and datasets of the chosen series."""
    if path.is_dir() and not has_dicom(path):
        from mamba_vision.volumes.dicom_patients import patient_series  # which looks into folders with our help

        path = patient_series(path, series) or path
    files = sorted(entry for entry in path.iterdir() if entry.is_file()) if path.is_dir() else [path]
    if not files:
        raise VolumeError(path, "an empty folder", "a DICOM series")
    candidates = [file for file in files if is_dicom_file(file)]
    if not candidates:
        raise VolumeError(path, f"{len(files)} files, none of them DICOM", "a DICOM series or NIfTI files")
    candidates = [file for file in candidates if is_dicom_scan(file)]
    if not candidates:
        raise VolumeError(path, "segmentations, contours or reports, but no scan", "a DICOM series of slices")
    by_series = _group(path, candidates)
    return by_series[_choose(path, by_series, series)]


def _pydicom(path: Path):
    try:
        import pydicom
    except ImportError as e:
        raise VolumeError(
            path, "DICOM files, but the package pydicom is missing", "pydicom", 'pip install "mamba_vision[dicom]"'
        ) from e
    return pydicom


def _group(path: Path, files: list[Path]) -> dict[str, list[tuple[Path, Any]]]:
    """SeriesInstanceUID -> files and their datasets, pixels not yet read."""
    pydicom = _pydicom(path)
    by_series: dict[str, list[tuple[Path, Any]]] = {}
    for file in files:
        try:
            dataset = pydicom.dcmread(file, defer_size="1 KB")
        except Exception as e:
            raise VolumeError(file, f"unreadable DICOM ({e})", "a complete file", "Export the series again") from e
        if "Rows" in dataset:  # else a directory, report or presentation state
            by_series.setdefault(str(dataset.get("SeriesInstanceUID", "unknown")), []).append((file, dataset))
    if not by_series:
        raise VolumeError(path, "DICOM files without an image", "a DICOM series of slices")
    return by_series


def _slices(file: Path, dataset: Any) -> list[_Slice]:
    """The planes of one file: one, or the frames of an enhanced object."""
    if int(dataset.get("SamplesPerPixel", 1)) != 1:
        raise VolumeError(file, "a colour image", "one intensity a pixel (CT, MRI, PET)")
    try:
        if "PerFrameFunctionalGroupsSequence" in dataset:
            shared = (dataset.get("SharedFunctionalGroupsSequence") or [{}])[0]
            frames = enumerate(dataset.PerFrameFunctionalGroupsSequence)
            return [_frame(file, dataset, own, shared, index) for index, own in frames]
        if int(dataset.get("NumberOfFrames", 1) or 1) != 1:
            raise VolumeError(file, "several frames without positions", "slices with positions in the patient")
        return [_slice(file, dataset, None, dataset, dataset, dataset, dataset)]
    except (AttributeError, KeyError, IndexError, TypeError) as e:
        raise VolumeError(
            file, f"an image without a place in space ({e})", "ImagePositionPatient, orientation and PixelSpacing"
        ) from e


def _frame(file: Path, dataset: Any, own: Any, shared: Any, index: int) -> _Slice:
    """A frame's place stands in groups of its own or in those that all frames share."""

    def group(name: str) -> Any:
        return (own if name in own else shared)[name][0]

    transformed = "PixelValueTransformationSequence"
    scale = group(transformed) if transformed in own or transformed in shared else dataset
    position, orientation = group("PlanePositionSequence"), group("PlaneOrientationSequence")
    return _slice(file, dataset, index, position, orientation, group("PixelMeasuresSequence"), scale)


def _slice(file: Path, dataset: Any, frame: int | None, position, orientation, measures, scale) -> _Slice:
    return _Slice(
        file,
        dataset,
        frame,
        _numbers(position.ImagePositionPatient),
        _numbers(orientation.ImageOrientationPatient).reshape(2, 3),
        tuple(_numbers(measures.PixelSpacing)),
        (int(dataset.Rows), int(dataset.Columns)),
        _given(scale, "RescaleSlope", 1.0),
        _given(scale, "RescaleIntercept", 0.0),
    )


def _given(dataset: Any, name: str, default: float) -> float:
    """A number of the header; anonymizers leave some in place but empty."""
    value = dataset.get(name)
    return default if value in (None, "") else float(value)


def _numbers(values) -> np.ndarray:
    return np.array([float(value) for value in values])


def _names(dataset: Any, uid: str) -> tuple[str, str, str]:
    return uid, str(dataset.get("SeriesNumber") or ""), str(dataset.get("SeriesDescription") or "")


def _choose(path: Path, by_series: dict[str, list[tuple[Path, Any]]], wanted: str | None) -> str:
    def names(uid: str) -> tuple[str, str, str]:
        return _names(by_series[uid][0][1], uid)

    listing = "; ".join(
        f"{uid} (number {names(uid)[1] or '?'}, {names(uid)[2] or 'no description'}, {len(pieces)} file"
        f"{'s' * (len(pieces) != 1)})"
        for uid, pieces in by_series.items()
    )
    matches = [uid for uid in by_series if wanted is None or str(wanted) in names(uid)]
    if len(matches) == 1:
        return matches[0]
    if wanted is None:
        raise SeveralSeriesError(
            path, f"{len(by_series)} series in one folder: {listing}", "one series",
            "Choose one by its UID, number or description (--series; series= in Python), or move the others away",
        )  # fmt: skip
    raise VolumeError(path, f"{len(matches)} series called {wanted!r} among: {listing}", "exactly one")


def _assemble(path: Path, slices: list[_Slice]) -> tuple[np.ndarray, np.ndarray]:
    first = slices[0]
    for other in slices[1:]:
        if (
            other.shape != first.shape
            or not np.allclose(other.spacing, first.spacing, rtol=1e-3)
            or not np.allclose(other.directions, first.directions, atol=1e-3)
        ):
            raise VolumeError(
                other.file,
                f"a slice of {_describe(other, first)} among slices of {_describe(first, other)}",
                "slices of one size, pixel spacing and orientation",
                "Is there a localizer in the series? Remove it",
            )
    slices = sorted(slices, key=lambda piece: piece.height)
    if len(slices) < 2:
        raise VolumeError(path, "a single slice (2-D)", "a series of slices")
    step = _check_positions(path, slices)
    rows, columns = first.shape
    voxels = np.empty((columns, rows, len(slices)), dtype=np.float32)
    for index, piece in enumerate(slices):
        voxels[:, :, index] = _pixels(piece).T
    affine = np.eye(4)
    affine[:3, 0] = first.directions[0] * first.spacing[1]
    affine[:3, 1] = first.directions[1] * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = slices[0].position
    return voxels, _LPS_TO_RAS @ affine


def _check_positions(path: Path, slices: list[_Slice]) -> np.ndarray:
    """The step (LPS mm) from slice to slice, once every slice is known to lie where it belongs."""
    heights = np.array([piece.height for piece in slices])
    gaps = np.diff(heights)
    typical = float(np.median(gaps))
    doubled = np.flatnonzero(gaps < max(_UNEVEN * typical, 1e-3))
    if doubled.size:
        first, second = (slices[doubled[0] + step].file.name for step in (0, 1))
        raise VolumeError(
            path,
            f"{count(int(doubled.size), 'slice')} at the place of another ({first} and {second})",
            "one slice at each place",
            "Several time points, echoes or copies in one series? Keep one of them",
        )
    wrong = np.flatnonzero(np.abs(gaps - typical) > _UNEVEN * typical + 0.01)
    if wrong.size:
        at = int(wrong[0])
        missing = round(float(gaps[at]) / typical) - 1
        exact = abs(gaps[at] - (missing + 1) * typical) <= _UNEVEN * typical + 0.01
        if missing > 0 and exact:
            total = sum(round(float(gap) / typical) - 1 for gap in gaps[wrong])
            beside = f"{slices[at].file.name} and {slices[at + 1].file.name}"
            found = f"{count(total, 'missing slice')}, the first between {beside}"
        else:
            found = f"uneven slices: {gaps.min():.3g} to {gaps.max():.3g} mm apart"
        raise VolumeError(path, found, f"slices every {typical:.3g} mm", "Export the whole series again")
    step = (slices[-1].position - slices[0].position) / (len(slices) - 1)
    places = np.array([piece.position for piece in slices])
    ideal = slices[0].position + np.arange(len(slices))[:, None] * step
    worst = float(np.linalg.norm(places - ideal, axis=1).max())
    if worst > _UNEVEN * typical + 0.1:
        raise VolumeError(path, f"slices that leave a straight line by {worst:.3g} mm", "a straight stack of slices")
    return step


def _pixels(piece: _Slice) -> np.ndarray:
    try:
        array = piece.dataset.pixel_array
    except Exception as e:
        raise VolumeError(
            piece.file, f"pixels that cannot be decoded ({e})", "readable pixel data",
            'Compressed DICOM may need: pip install "pylibjpeg[all]"',
        ) from e  # fmt: skip
    if piece.frame is not None and array.ndim == 3:
        array = array[piece.frame]
    return array.astype(np.float32) * np.float32(piece.slope) + np.float32(piece.intercept)


def _describe(piece: _Slice, beside: _Slice) -> str:
    """Size and pixels, and where these are alike, what tells the slice from the one beside it: which way it looks."""
    text = f"{piece.shape[0]} x {piece.shape[1]} pixels of {piece.spacing[0]:.3g} x {piece.spacing[1]:.3g} mm"
    if (piece.shape, piece.spacing) != (beside.shape, beside.spacing):
        return text
    normal = ", ".join(f"{part:.3g}" for part in np.cross(*piece.directions))
    return f"{text} that look along ({normal})"
