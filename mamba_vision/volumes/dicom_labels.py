"""Label maps from DICOM: segmentations (DICOM-SEG) and contours (RTSTRUCT)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mamba_vision.volumes.contours import fill_contours
from mamba_vision.volumes.dicom_kinds import STRUCTURES, is_dicom_label, labels_below, sop_class
from mamba_vision.volumes.volume import Volume, VolumeError

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_INSTALL = 'pip install "mamba_vision[dicom]"'
_NAME_THEM = "Say which structure has which value: --labels 1=NAME 2=NAME (names= in Python)"
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "CLOSED_PLANAR_XOR")


def label_file(path: Path) -> Path:
    """The one label in a folder: a DICOM-SEG, an RTSTRUCT or a label map; a file as it is.

    Raises:
        VolumeError: a folder with none or several.
    """
    if not path.is_dir():
        return path
    found = labels_below(path)
    if not found:
        raise VolumeError(path, "a folder without a label", "a label map, a DICOM-SEG or an RTSTRUCT")
    if len(found) > 1:
        names = ", ".join(str(file.relative_to(path)) for file in found[:5])
        raise VolumeError(path, f"{len(found)} labels ({names})", "one", "Move the others away")
    return found[0]


def read_dicom_label(
    path: Path, like: Volume | None = None, names: Mapping[str, int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (X, Y, Z) int32 and their affine to RAS mm.

    Args:
        path: a DICOM-SEG or RTSTRUCT file.
        like: the scan; contours need it, and are filled in its grid. Segments come in the grid they are stored in,
            which may be a part of the scan's.
        names: structure -> value; letter case does not matter and the others are left out. Where structures overlap,
            the one of the higher value lies on top. By default a segment has its number, and a single contoured
            structure is 1.

    Raises:
        VolumeError: a package missing, an unreadable file, none of the names, several contoured structures without
            names, contours outside the scan's slices or without a scan.
    """
    if not is_dicom_label(path):
        raise VolumeError(path, "DICOM, but no segments or contours", "a label map, a DICOM-SEG or an RTSTRUCT")
    if sop_class(path) == STRUCTURES:
        return _read_contours(path, like, names)
    return _read_segments(path, names)


def structure_names(path: Path) -> list[str]:
    """Names of the segments, or of the structures that have contours, in the order of their numbers.

    Raises:
        VolumeError: pydicom missing, or an unreadable file.
    """
    dataset = _open(path)
    if sop_class(path) == STRUCTURES:
        return list(_contoured(path, dataset)[0].values())
    return list(_segments(path, dataset).values())


def referenced_series(path: Path) -> str | None:
    """UID of the series that segments or contours were drawn on, if the file names exactly one."""
    dataset = _open(path)
    if sop_class(path) == STRUCTURES:
        found = {
            str(series.SeriesInstanceUID)
            for frame in dataset.get("ReferencedFrameOfReferenceSequence") or ()
            for study in frame.get("RTReferencedStudySequence") or ()
            for series in study.get("RTReferencedSeriesSequence") or ()
        }
    else:
        found = {str(series.SeriesInstanceUID) for series in dataset.get("ReferencedSeriesSequence") or ()}
    return found.pop() if len(found) == 1 else None


def _read_segments(path: Path, names: Mapping[str, int] | None) -> tuple[np.ndarray, np.ndarray]:
    """Frame by frame, so that a whole body's hundred segments take no more memory than its labels."""
    dataset = _open(path)
    found = _segments(path, dataset)
    try:
        frames = [_Frame.of(dataset, own) for own in dataset.PerFrameFunctionalGroupsSequence]
        shape = int(dataset.Rows), int(dataset.Columns)
    except Exception as e:
        raise VolumeError(path, f"an unreadable DICOM-SEG ({e})", "a complete file", "Export it again") from e
    values = _values(path, found, names, {number: number for number in found})
    places, affine = _stack(path, frames)
    from pydicom.pixels import iter_pixels

    labels = np.zeros((shape[1], shape[0], max(places) + 1), dtype=np.int32)
    half = int(dataset.get("MaximumFractionalValue", 1)) / 2
    table = np.zeros(max([*found, *values]) + 1, dtype=np.int32)
    table[list(values)] = list(values.values())
    drawn_frames = 0
    try:
        for frame, place, pixels in zip(frames, places, iter_pixels(path)):
            plane = pixels.T
            # Pixels of a label map are numbers of segments; of the others they say how much of the frame's is there.
            drawn = table[plane] if frame.segment is None else (plane >= half) * table[frame.segment]
            np.maximum(labels[:, :, place], drawn, out=labels[:, :, place])
            drawn_frames += 1
    except Exception as e:
        raise VolumeError(path, f"segments that cannot be decoded ({e})", "a complete file", "Export it again") from e
    if drawn_frames < len(frames):
        raise VolumeError(path, f"pixels of {drawn_frames} frames", f"those of all {len(frames)}", "Export it again")
    return labels, affine


@dataclass(frozen=True)
class _Frame:
    """Where one plane of a DICOM-SEG lies, LPS mm, and which segment it shows (None: all, by their numbers)."""

    position: np.ndarray
    directions: np.ndarray  # (2, 3) to the next column, to the next row; mm
    thickness: float
    segment: int | None

    @classmethod
    def of(cls, dataset: Any, own: Any) -> "_Frame":
        shared = (dataset.get("SharedFunctionalGroupsSequence") or [{}])[0]

        def group(name: str) -> Any:
            return (own if name in own else shared)[name][0]

        turn = np.array(group("PlaneOrientationSequence").ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
        measures = group("PixelMeasuresSequence")
        rows, columns = (float(value) for value in measures.PixelSpacing)
        thickness = measures.get("SpacingBetweenSlices") or measures.get("SliceThickness") or 1.0
        position = np.array(group("PlanePositionSequence").ImagePositionPatient, dtype=np.float64)
        single = dataset.SegmentationType != "LABELMAP"
        segment = int(group("SegmentIdentificationSequence").ReferencedSegmentNumber) if single else None
        return cls(position, turn * [[columns], [rows]], float(thickness), segment)


def _stack(path: Path, frames: Sequence[_Frame]) -> tuple[list[int], np.ndarray]:
    """The slice of each frame, counted from the lowest, and the affine of their stack; slices may be missing."""
    first = frames[0]
    if any(not np.allclose(one.directions, first.directions, atol=1e-3) for one in frames):
        raise VolumeError(path, "frames in several orientations", "a stack of parallel slices")
    normal = np.cross(*first.directions)
    heights = np.array([one.position @ normal for one in frames]) / np.linalg.norm(normal)
    levels = np.unique(heights.round(3))
    step = float(np.diff(levels).min()) if len(levels) > 1 else first.thickness
    places = (heights - heights.min()) / step
    step *= float(places.max() / max(np.rint(places.max()), 1)) or 1.0
    places = np.rint((heights - heights.min()) / step).astype(int)
    if np.abs(heights - heights.min() - places * step).max() > 0.1 * step:
        raise VolumeError(path, f"segments in uneven slices ({step:.3g} mm apart, but not all)", "a regular stack")
    lowest, highest = frames[int(places.argmin())], frames[int(places.argmax())]
    along = normal / np.linalg.norm(normal) * step
    if places.max():  # the line through the first pixels, which a tilted gantry inclines
        along = (highest.position - lowest.position) / places.max()
    affine = np.eye(4)
    affine[:3] = np.stack([*first.directions, along, lowest.position], axis=1)
    return places.tolist(), _LPS_TO_RAS @ affine


def _read_contours(path: Path, like: Volume | None, names: Mapping[str, int] | None) -> tuple[np.ndarray, np.ndarray]:
    if like is None:
        raise VolumeError(path, "contours without their scan", "the scan, in whose grid they are filled")
    found, drawn = _contoured(path, _open(path))
    values = _values(path, found, names, {next(iter(found)): 1} if len(found) == 1 else None)
    to_voxels = np.linalg.inv(like.affine) @ _LPS_TO_RAS
    labels = np.zeros(like.shape, dtype=np.int32)
    for number, value in values.items():
        contours = [points @ to_voxels[:3, :3].T + to_voxels[:3, 3] for points in drawn[number]]
        try:
            mask = fill_contours(contours, tuple(like.shape))
        except ValueError as e:
            raise VolumeError(
                path, f"{found[number]}: {e}", f"contours drawn in the slices of {like.name}",
                "Is it the scan they were drawn on?",
            ) from e  # fmt: skip
        if not mask.any():
            raise VolumeError(
                path, f"{found[number]}: contours that enclose no voxel of {like.name}", "contours of this scan"
            )
        labels[mask] = value
    return labels, like.affine


def _open(path: Path) -> Any:
    try:
        import pydicom
    except ImportError as e:
        raise VolumeError(path, "a DICOM file, but the package pydicom is missing", "pydicom", _INSTALL) from e
    try:
        return pydicom.dcmread(path, defer_size="1 MB")
    except Exception as e:
        raise VolumeError(path, f"unreadable DICOM ({e})", "a complete file", "Export it again") from e


def _segments(path: Path, dataset: Any) -> dict[int, str]:
    """Number -> name of each segment; the background of a label map is none."""
    try:
        named = {int(item.SegmentNumber): str(item.get("SegmentLabel", "")) for item in dataset.SegmentSequence}
    except (AttributeError, ValueError, TypeError) as e:
        raise VolumeError(path, f"an unreadable DICOM-SEG ({e})", "a complete file", "Export it again") from e
    return {number: name or f"segment {number}" for number, name in sorted(named.items()) if number}


def _contoured(path: Path, dataset: Any) -> tuple[dict[int, str], dict[int, list[np.ndarray]]]:
    """Number -> name, and number -> closed contours (points, 3) in LPS mm, of each structure that has some."""
    try:
        titles = {int(item.ROINumber): str(item.ROIName) for item in dataset.StructureSetROISequence}
        drawn = {}
        for item in dataset.ROIContourSequence:
            drawn[int(item.ReferencedROINumber)] = [
                np.array(contour.ContourData, dtype=np.float64).reshape(-1, 3)
                for contour in item.get("ContourSequence", [])
                if contour.ContourGeometricType in _CLOSED
            ]
    except (AttributeError, ValueError, TypeError) as e:
        raise VolumeError(path, f"an unreadable RTSTRUCT ({e})", "a complete file", "Export it again") from e
    found = {number: titles.get(number, f"structure {number}") for number in sorted(drawn) if drawn[number]}
    if not found:
        raise VolumeError(path, "no closed contours", "contoured structures")
    return found, drawn


def _values(
    path: Path, found: Mapping[int, str], names: Mapping[str, int] | None, default: Mapping[int, int] | None
) -> dict[int, int]:
    """Number of a structure -> value in the label map, in ascending order of the values."""
    listing = ", ".join(found.values())
    if names is None:
        if default is None:
            raise VolumeError(path, f"{len(found)} structures ({listing})", "to know their values", _NAME_THEM)
        return dict(sorted(default.items(), key=lambda item: item[1]))
    wanted = {name.strip().lower(): value for name, value in names.items() if value}
    chosen = {
        number: wanted[title.strip().lower()] for number, title in found.items() if title.strip().lower() in wanted
    }
    if not chosen:
        raise VolumeError(path, f"the structures {listing}", f"some of {', '.join(wanted)}", _NAME_THEM)
    return dict(sorted(chosen.items(), key=lambda item: item[1]))
