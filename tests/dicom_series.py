"""DICOM series written to disk, with whatever is wrong with them."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid

ORIENTATION = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
ANGLE = np.deg2rad(20)
# Axial, coronal with the slices running backwards, oblique, and with a tilted gantry.
STACKS = {
    "axial": {},
    "coronal": {"orientation": (1.0, 0, 0, 0, 0, -1.0), "step": (0.0, -2.0, 0.0)},
    "oblique": {"orientation": (np.cos(ANGLE), np.sin(ANGLE), 0, 0, 0, -1.0),
                "step": (2 * np.sin(ANGLE), -2 * np.cos(ANGLE), 0.0)},
    "tilted": {"step": (0.0, 0.6, 3.0)},
}  # fmt: skip


def write_series(
    folder: Path,
    voxels_XYZ: np.ndarray,
    *,
    start=(-20.0, -30.0, 40.0),
    step=(0.0, 0.0, 3.0),
    pixel=(0.8, 0.7),  # between rows, between columns
    orientation=ORIENTATION,
    skip=(),
    prefix="slice",
    slope=1.0,
    intercept=-1024.0,
    number=1,
    description="axial",
    uid=None,
) -> str:
    """One file a slice, in an order that has nothing to do with position. Returns the SeriesInstanceUID."""
    folder.mkdir(parents=True, exist_ok=True)
    uid = uid or generate_uid()
    for index in range(voxels_XYZ.shape[2]):
        if index in skip:
            continue
        dataset = _image(CTImageStorage, uid, number, description)
        dataset.ImagePositionPatient = [float(value) for value in np.array(start) + index * np.array(step)]
        dataset.ImageOrientationPatient = list(orientation)
        dataset.PixelSpacing = list(pixel)
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
        _pixels(dataset, voxels_XYZ[:, :, index].T)
        place = (index * 7) % 31
        dataset.save_as(folder / f"{prefix}_{place:03d}_{index}.dcm", enforce_file_format=True)
    return uid


def write_enhanced(path: Path, voxels_XYZ: np.ndarray, step=2.5) -> None:
    """One multi-frame file, frames from the top down."""
    dataset = _image(EnhancedMRImageStorage, generate_uid(), 1, "enhanced")
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [0.8, 0.7]
    orientation.ImageOrientationPatient = list(ORIENTATION)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for index in reversed(range(voxels_XYZ.shape[2])):
        own, position, scale = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [-20.0, -30.0, 40.0 + step * index]
        scale.RescaleSlope, scale.RescaleIntercept = 2.0, 5.0
        own.PlanePositionSequence, own.PixelValueTransformationSequence = [position], [scale]
        frames.append(own)
    dataset.PerFrameFunctionalGroupsSequence = frames
    dataset.NumberOfFrames = len(frames)
    _pixels(dataset, voxels_XYZ[:, :, ::-1].transpose(2, 1, 0))
    dataset.save_as(path, enforce_file_format=True)


def write_report(path: Path) -> None:
    """A DICOM file without an image."""
    dataset = _image("1.2.840.10008.5.1.4.1.1.88.11", generate_uid(), 9, "report")
    dataset.save_as(path, enforce_file_format=True)


def _image(storage: str, series: str, number: int, description: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = storage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = storage, meta.MediaStorageSOPInstanceUID
    dataset.SeriesInstanceUID, dataset.SeriesNumber, dataset.SeriesDescription = series, number, description
    dataset.Modality = "CT"
    return dataset


def _pixels(dataset: Dataset, array: np.ndarray) -> None:
    dataset.Rows, dataset.Columns = array.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.PixelData = np.ascontiguousarray(array, dtype="<i2").tobytes()
