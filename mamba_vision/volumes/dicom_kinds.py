"""What a DICOM file is, from its first bytes: a scan's slice, a segmentation, contours, or none of these."""

import os
from pathlib import Path

from mamba_vision.volumes.volume import IMAGE_ENDINGS

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # DICOM-SEG, as bits or label map
STRUCTURES = "1.2.840.10008.5.1.4.1.1.481.3"  # RTSTRUCT
# What lies beside scans and is none: RT images, doses and plans, segmentations, reports, presentation states, DICOMDIR.
_OTHERS = (
    "1.2.840.10008.5.1.4.1.1.481.", "1.2.840.10008.5.1.4.1.1.66",
    "1.2.840.10008.5.1.4.1.1.88.", "1.2.840.10008.5.1.4.1.1.11.", "1.2.840.10008.1.3.10",
)  # fmt: skip
_HEAD = 4096  # bytes, of which the file's meta information takes some hundred
_CLASS = b"\x02\x00\x02\x00UI"  # (0002,0002) MediaStorageSOPClassUID, explicit little endian as the standard demands


def sop_class(path: Path) -> str:
    """The SOP class UID that the file's meta information names; '' if it is no DICOM file or names none."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return ""
    at = head.find(_CLASS, 132)
    if head[128:132] != b"DICM" or at < 0:
        return ""
    start = at + len(_CLASS) + 2
    length = int.from_bytes(head[start - 2 : start], "little")
    return head[start : start + length].decode("ascii", "replace").rstrip("\0 ")


def is_dicom_label(path: Path) -> bool:
    """Whether the file is a DICOM-SEG or an RTSTRUCT."""
    return sop_class(path) in (*SEGMENTATIONS, STRUCTURES)


def is_dicom_scan(path: Path) -> bool:
    """Whether a DICOM file may belong to a scan: it is no segmentation, contour set, dose, report or the like."""
    return not sop_class(path).startswith(_OTHERS)


def labels_below(folder: Path) -> list[Path]:
    """Every file in the folder and below that may be a label: DICOM-SEG, RTSTRUCT, or an image of another format."""
    found = []
    for here, inner, names in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for file in (Path(here) / name for name in sorted(names) if not name.startswith(".")):
            if file.name.lower().endswith(tuple(IMAGE_ENDINGS)) or is_dicom_label(file):
                found.append(file)
    return found
