"""A segmentation as a DICOM-SEG object that refers to the series it was made from, by highdicom."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mamba_vision.utils.atomic import atomic_path
from mamba_vision.version import __version__
from mamba_vision.volumes.dicom import series_datasets
from mamba_vision.volumes.volume import Volume, VolumeError

_MAKER = "mamba_vision"


def write_dicom_seg(
    path: str | Path,
    labels: np.ndarray,
    like: Volume,
    names: Mapping[str, int],
    series: str | None = None,
    model: str = "mamba_vision",
) -> Path:
    """Write a label map as one binary DICOM-SEG, a segment a label, atomically.

    The segments are numbered 1, 2, ... in the order of the labels' values and carry their names; where a name is that
    of a structure in SNOMED CT as pydicom knows it (`liver`, `left kidney`), its code too, else the code for tissue.

    Args:
        path: file to write.
        labels: (X, Y, Z) integers in the grid of the scan.
        like: the scan, read from a DICOM series, whose patient, study and frame of reference the object takes over.
        names: {name: label}; background (0) may be among them.
        series: which series of its folder it was.
        model: name of the algorithm, as viewers show it.

    Raises:
        VolumeError: a scan that was no DICOM series, a package missing, or a series without what DICOM demands.
        ValueError: labels of another shape than the scan's.
    """
    check_labels(labels, like)
    sources = source_series(path, like, series)
    try:
        import highdicom as hd
        from pydicom.sr.codedict import codes
    except ImportError as error:
        raise VolumeError(
            path, "no highdicom to write it with", "highdicom", 'pip install "mamba_vision[dicom]"'
        ) from error
    # Said of patients' names of one word, which are as they are.
    warnings.filterwarnings("ignore", message=".*unlikely to represent the intended person name")
    wanted = sorted((value, name) for name, value in names.items() if value)
    algorithm = hd.AlgorithmIdentificationSequence(
        name=model[:64], version=__version__, family=codes.cid7162.ArtificialIntelligence
    )
    descriptions = []
    for number, (_, name) in enumerate(wanted, 1):
        kind = getattr(codes.SCT, _keyword(name), None)
        descriptions.append(
            hd.seg.SegmentDescription(
                segment_number=number,
                segment_label=name[:64],
                segmented_property_category=codes.SCT.Tissue if kind is None else codes.SCT.AnatomicalStructure,
                segmented_property_type=kind or codes.SCT.Tissue,
                algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=algorithm,
            )
        )
    numbers = np.zeros(int(max(labels.max(initial=0), wanted[-1][0])) + 1, np.uint8 if len(wanted) < 256 else np.uint16)
    for number, (value, _) in enumerate(wanted, 1):
        numbers[value] = number
    frames = numbers[labels.transpose(2, 1, 0)]  # (slices, rows, columns)
    geometry = _geometry(hd, like)
    for dataset in sources:  # highdicom asks the sources for it, though it is told
        measures = dataset
        if "SharedFunctionalGroupsSequence" in dataset:
            measures = dataset.SharedFunctionalGroupsSequence[0].get("PixelMeasuresSequence", [None])[0]
        if measures is not None and not measures.get("SliceThickness"):
            measures.SliceThickness = geometry["pixel_measures"][0].SliceThickness
    try:
        segmentation = hd.seg.Segmentation(
            source_images=sources,
            pixel_array=frames,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=descriptions,
            **geometry,
            series_instance_uid=hd.UID(),
            series_number=int(sources[0].get("SeriesNumber") or 0) + 1000,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer=_MAKER,
            manufacturer_model_name=model[:64],
            software_versions=__version__,
            device_serial_number="0",
            series_description=f"Segmentation: {', '.join(name for _, name in wanted)}"[:64],
            omit_empty_frames=bool(frames.any()),
        )
    except (AttributeError, ValueError, TypeError) as error:
        raise VolumeError(
            like.name, f"a series that no DICOM-SEG can refer to ({error})", "a series with all that DICOM demands",
            "Choose another --format",
        ) from error  # fmt: skip
    with atomic_path(path) as temporary:
        segmentation.save_as(temporary)
    return Path(path)


def check_labels(labels: np.ndarray, like: Volume) -> None:
    """Raises ValueError for labels that are no integers in the shape of the scan."""
    if labels.dtype.kind not in "iu" or labels.shape != tuple(like.shape):
        raise ValueError(f"labels: expected integers of shape {tuple(like.shape)}, found {labels.dtype} {labels.shape}")


def source_series(path: str | Path, like: Volume, series: str | None) -> list[Any]:
    """The datasets of the series that `like` was read from, in the order of its slices.

    Raises:
        VolumeError: it was no series, or not all of what identifies patient and place is there.
    """
    folder = like.paths[0] if like.paths else None
    if folder is None or like.header is not None:
        raise VolumeError(
            path,
            f"a scan from {like.name}",
            "a scan from a DICOM series, which it refers to",
            "Choose another --format",
        )
    datasets = series_datasets(folder, series)
    for name in ("StudyInstanceUID", "FrameOfReferenceUID"):
        if name not in datasets[0]:
            raise VolumeError(
                folder, f"a series without {name}", "one that other objects can refer to", "Choose another --format"
            )
    for dataset in datasets:  # DICOM demands them, also empty; anonymizers drop them
        for name in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
                     "StudyDate", "StudyTime", "ReferringPhysicianName"):  # fmt: skip
            if name not in dataset:
                setattr(dataset, name, None if name.endswith(("Date", "Time")) else "")
    return datasets


def _keyword(name: str) -> str:
    """'left kidney' or 'kidney_left' as the keyword LeftKidney, under which pydicom may have a code."""
    words = [word.capitalize() for word in re.split(r"[^A-Za-z]+", name) if word]
    sides = [word for word in words if word in ("Left", "Right")]
    return "".join(sides + [word for word in words if word not in sides])


def _geometry(hd: Any, like: Volume) -> dict[str, Any]:
    """Where the planes lie, from the affine: the series may hold it in several forms, or without the thickness."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ like.affine
    columns, rows, step = affine[:3, :3].T
    spacing = like.spacing
    directions = np.stack([columns / spacing[0], rows / spacing[1]])
    distance = abs(float(step @ np.cross(*directions)))
    places = affine[:3, 3] + np.arange(like.shape[2])[:, None] * step
    return {
        "pixel_measures": hd.PixelMeasuresSequence(
            pixel_spacing=(spacing[1], spacing[0]), slice_thickness=distance, spacing_between_slices=distance
        ),
        "plane_orientation": hd.PlaneOrientationSequence("PATIENT", directions.ravel().tolist()),
        "plane_positions": [hd.PlanePositionSequence("PATIENT", place.tolist()) for place in places],
    }
