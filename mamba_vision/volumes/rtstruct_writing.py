"""A segmentation as an RT structure set: closed contours on the slices of the DICOM series it was made from."""

import itertools
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import contourpy
import numpy as np
from scipy.spatial import cKDTree

from mamba_vision.utils.atomic import atomic_path
from mamba_vision.version import __version__
from mamba_vision.volumes.dicom_seg_writing import check_labels, source_series
from mamba_vision.volumes.volume import Volume

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
Colour = Callable[[int], tuple[float, float, float]]


def write_rtstruct(
    path: str | Path,
    labels: np.ndarray,
    like: Volume,
    names: Mapping[str, int],
    series: str | None = None,
    colour: Colour | None = None,
) -> Path:
    """Write a label map as an RTSTRUCT, a structure a label, atomically.

    Contours run half way between the centres of voxels inside and outside, so that whoever fills them again (a voxel
    belongs to a structure if its centre lies inside) has the same voxels. A hole is joined to the contour around it by
    a channel without width, as DICOM wants it, which every reader understands.

    Args:
        path: file to write.
        labels: (X, Y, Z) integers in the grid of the scan.
        like: the scan, read from a DICOM series.
        names: {name: label}; background (0) may be among them.
        series: which series of its folder it was.
        colour: label to (r, g, b) in 0..1.

    Raises:
        VolumeError: a scan that was no DICOM series, or a series without study or frame of reference.
        ValueError: labels of another shape than the scan's.
    """
    check_labels(labels, like)
    sources = source_series(path, like, series)
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

    first, now = sources[0], datetime.now()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = RTStructureSetStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    whole = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    whole.SOPClassUID, whole.SOPInstanceUID = RTStructureSetStorage, meta.MediaStorageSOPInstanceUID
    whole.Modality, whole.Manufacturer, whole.SoftwareVersions = "RTSTRUCT", "mamba_vision", __version__
    for name in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
                 "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyInstanceUID", "FrameOfReferenceUID",
                 "SpecificCharacterSet", "StudyDescription"):  # fmt: skip
        if name in first:
            setattr(whole, name, first.get(name))
    whole.SeriesInstanceUID, whole.SeriesNumber = generate_uid(), int(first.get("SeriesNumber") or 0) + 1001
    whole.SeriesDescription, whole.StructureSetLabel = "Segmentation", "SEGMENTATION"
    whole.StructureSetDate, whole.StructureSetTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    whole.ApprovalStatus = "UNAPPROVED"

    references = [_item(ReferencedSOPClassUID=one.SOPClassUID, ReferencedSOPInstanceUID=one.SOPInstanceUID)
                  for one in sources]  # fmt: skip
    of_series = _item(SeriesInstanceUID=first.SeriesInstanceUID, ContourImageSequence=references)
    study_class = "1.2.840.10008.3.1.2.3.1"  # detached study management: retired, and still what readers expect here
    of_study = _item(
        ReferencedSOPClassUID=study_class, ReferencedSOPInstanceUID=first.StudyInstanceUID,
        RTReferencedSeriesSequence=[of_series],
    )  # fmt: skip
    whole.ReferencedFrameOfReferenceSequence = [
        _item(FrameOfReferenceUID=first.FrameOfReferenceUID, RTReferencedStudySequence=[of_study])
    ]
    to_lps = _RAS_TO_LPS @ like.affine
    structures: list[Dataset] = []
    contours: list[Dataset] = []
    observations: list[Dataset] = []
    for number, (value, name) in enumerate(sorted((v, n) for n, v in names.items() if v), 1):
        structures.append(
            _item(ROINumber=number, ReferencedFrameOfReferenceUID=first.FrameOfReferenceUID, ROIName=name[:64],
                  ROIGenerationAlgorithm="AUTOMATIC")
        )  # fmt: skip
        found = []
        for place in np.flatnonzero((labels == value).any(axis=(0, 1))):
            reference = references[place] if len(references) == labels.shape[2] else references[0]
            for outline in slice_contours((labels[:, :, place] == value).T):
                points = to_lps @ np.stack([*outline.T, np.full(len(outline), place), np.ones(len(outline))])
                found.append(
                    _item(ContourImageSequence=[reference], ContourGeometricType="CLOSED_PLANAR",
                          NumberOfContourPoints=len(outline),
                          ContourData=[f"{number:.4f}" for number in points[:3].T.ravel()])
                )  # fmt: skip
        rgb = [round(255 * part) for part in (colour(value) if colour else (1.0, 0.0, 0.0))]
        contours.append(_item(ROIDisplayColor=rgb, ReferencedROINumber=number, ContourSequence=found))
        observations.append(
            _item(ObservationNumber=number, ReferencedROINumber=number, RTROIInterpretedType="", ROIInterpreter="")
        )
    whole.StructureSetROISequence, whole.ROIContourSequence = structures, contours
    whole.RTROIObservationsSequence = observations
    with atomic_path(path) as temporary:
        whole.save_as(temporary, enforce_file_format=True)
    return Path(path)


def slice_contours(marked: np.ndarray) -> list[np.ndarray]:
    """Closed outlines of (rows, columns) bool, each (points, 2) as (column, row), holes joined to what is around."""
    padded = np.pad(marked, 1).astype(np.float64)
    made = contourpy.contour_generator(z=padded, fill_type=contourpy.FillType.OuterOffset)
    outlines = []
    for points, offsets in zip(*made.filled(0.5, 2.0)):
        rings = [points[start : stop - 1] - 1 for start, stop in itertools.pairwise(offsets)]  # the last repeats
        outer = rings[0]
        for hole in rings[1:]:
            outer = _with_channel(outer, hole)
        outlines.append(outer)
    return outlines


def _with_channel(outer: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """One ring of both: along the outer one, over to the hole, around it, and back the same way."""
    distances, nearest = cKDTree(outer).query(hole)
    start = int(distances.argmin())
    near = range(-2, 3)
    pairs = [((int(nearest[start]) + i) % len(outer), (start + j) % len(hole)) for i in near for j in near]
    pairs.sort(key=lambda pair: float(np.linalg.norm(outer[pair[0]] - hole[pair[1]])))
    # Whether a centre right on the channel counts as inside would be up to the reader.
    at, start = next((pair for pair in pairs if not _meets_centre(outer[pair[0]], hole[pair[1]])), pairs[0])
    around = np.concatenate([hole[start:], hole[: start + 1]])
    return np.concatenate([outer[: at + 1], around, outer[at:]])


def _meets_centre(one: np.ndarray, two: np.ndarray) -> bool:
    """Whether a voxel's centre (whole numbers) lies on the line between two points."""
    for axis in (0, 1):
        step = two[axis] - one[axis]
        if abs(step) < 1e-9:
            continue
        low, high = sorted((one[axis], two[axis]))
        whole = np.arange(np.ceil(low - 1e-9), np.floor(high + 1e-9) + 1)
        other = one[1 - axis] + (whole - one[axis]) / step * (two[1 - axis] - one[1 - axis])
        if (np.abs(other - np.rint(other)) < 1e-6).any():
            return True
    return False


def _item(**elements: Any) -> Any:
    from pydicom.dataset import Dataset

    item = Dataset()
    for name, value in elements.items():
        setattr(item, name, value)
    return item
