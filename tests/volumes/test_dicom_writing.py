"""DICOM-SEG and RTSTRUCT: what is read back from them lies where the mask lay, voxel by voxel."""

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_series import STACKS, write_enhanced, write_series
from matplotlib.path import Path as Polygon

from mamba_vision.volumes.dicom_seg_writing import write_dicom_seg
from mamba_vision.volumes.reading import read_volume
from mamba_vision.volumes.rtstruct_writing import slice_contours, write_rtstruct
from mamba_vision.volumes.volume import Volume, VolumeError

NAMES = {"background": 0, "Liver": 1, "odd thing": 4}


def _mask(shape):
    """Two labels, one with a hole that holds the other and a diagonal, in no symmetrical place."""
    mask = np.zeros(shape, np.uint8)
    mask[3:12, 2:9, 1:5] = 1
    mask[5:9, 4:7, 2:4] = 0
    mask[6, 5, 2:4] = 4
    mask[range(1, 8), range(9, 2, -1), 6] = 4
    mask[0, 0, 0] = 4
    return mask


def _identified(folder):
    """As scanners write it: of a patient, a study and a frame of reference."""
    uids = [pydicom.uid.generate_uid() for _ in range(2)]
    for file in folder.glob("*.dcm"):
        dataset = pydicom.dcmread(file)
        dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = uids
        dataset.PatientID, dataset.PatientName = "p7", "Nobody"
        dataset.save_as(file)


@pytest.fixture(params=STACKS)
def scan(request, tmp_path):
    voxels = np.random.default_rng(0).integers(0, 900, (14, 11, 8))
    write_series(tmp_path / "series", voxels, **STACKS[request.param])
    _identified(tmp_path / "series")
    return read_volume(tmp_path / "series")


def _indices(points_LPS, volume):
    ras = points_LPS * [-1, -1, 1]
    return (ras - volume.affine[:3, 3]) @ np.linalg.inv(volume.affine[:3, :3]).T


def test_dicom_seg_comes_back(scan, tmp_path):
    mask = _mask(scan.shape)
    write_dicom_seg(tmp_path / "seg.dcm", mask, scan, NAMES, model="a model")
    found = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert [found.get_segment_description(n).segment_label for n in (1, 2)] == ["Liver", "odd thing"]
    assert found.get_segment_description(1).segmented_property_type.meaning == "Liver"
    assert found.get_segment_description(2).segmented_property_type.meaning == "Tissue"
    assert found.PatientID == "p7" and found.segmented_property_categories
    placed = np.zeros(scan.shape, np.uint8)
    shared = found.SharedFunctionalGroupsSequence[0]
    for frame, own in zip(found.pixel_array, found.PerFrameFunctionalGroupsSequence):  # placed by what the object says
        number = own.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        spacing = [float(x) for x in shared.PixelMeasuresSequence[0].PixelSpacing]
        directions = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
        corner = np.array(own.PlanePositionSequence[0].ImagePositionPatient, float)
        rows, columns = np.nonzero(frame)
        points = corner + np.outer(columns * spacing[1], directions[0]) + np.outer(rows * spacing[0], directions[1])
        at = _indices(points, scan)
        np.testing.assert_allclose(at, np.rint(at), atol=1e-3)
        placed[tuple(np.rint(at).astype(int).T)] = [0, 1, 4][number]
    np.testing.assert_array_equal(placed, mask)


def test_rtstruct_comes_back(scan, tmp_path):
    mask = _mask(scan.shape)
    write_rtstruct(tmp_path / "rt.dcm", mask, scan, NAMES, colour=lambda label: (label / 4, 0, 1))
    found = pydicom.dcmread(tmp_path / "rt.dcm")
    assert [roi.ROIName for roi in found.StructureSetROISequence] == ["Liver", "odd thing"]
    assert found.Modality == "RTSTRUCT" and list(found.ROIContourSequence[1].ROIDisplayColor) == [255, 0, 255]
    uids = {pydicom.dcmread(file).SOPInstanceUID for file in scan.paths[0].glob("*.dcm")}
    placed = np.zeros(scan.shape, np.uint8)
    centres = np.stack(np.meshgrid(*map(np.arange, scan.shape[:2]), indexing="ij"), -1).reshape(-1, 2)
    for value, contours in zip((1, 4), found.ROIContourSequence):
        for contour in contours.ContourSequence:
            at = _indices(np.array(contour.ContourData, float).reshape(-1, 3), scan)
            place = round(float(at[0, 2]))
            np.testing.assert_allclose(at[:, 2], place, atol=1e-3)
            assert contour.ContourImageSequence[0].ReferencedSOPInstanceUID in uids
            inside = Polygon(at[:, :2]).contains_points(centres).reshape(scan.shape[:2])
            placed[..., place][inside] = value
    np.testing.assert_array_equal(placed, mask)


def test_contours_of_anything_fill_to_the_same():
    rng = np.random.default_rng(1)
    columns, rows = np.meshgrid(np.arange(15), np.arange(12))
    centres = np.stack([columns.ravel(), rows.ravel()], -1)
    for share in (0.2, 0.5, 0.8):
        marked = rng.random((12, 15)) < share
        filled = np.zeros(marked.size, int)
        for outline in slice_contours(marked):
            filled += Polygon(outline).contains_points(centres)
        np.testing.assert_array_equal(filled.reshape(marked.shape) % 2 == 1, marked)


def test_a_multi_frame_object(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 900, (14, 11, 8))
    write_enhanced(tmp_path / "enhanced.dcm", voxels)
    dataset = pydicom.dcmread(tmp_path / "enhanced.dcm")
    dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = (pydicom.uid.generate_uid() for _ in range(2))
    dataset.save_as(tmp_path / "enhanced.dcm")
    scan = read_volume(tmp_path / "enhanced.dcm")
    mask = _mask(scan.shape)
    write_dicom_seg(tmp_path / "seg.dcm", mask, scan, NAMES)
    found = highdicom.seg.segread(tmp_path / "seg.dcm")
    for frame, own in zip(found.pixel_array, found.PerFrameFunctionalGroupsSequence):
        height = float(own.PlanePositionSequence[0].ImagePositionPatient[2])
        value = [0, 1, 4][own.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
        place = round((height - 40) / 2.5)
        np.testing.assert_array_equal(frame.T.astype(bool), mask[..., place] == value)


@pytest.mark.parametrize("write", [write_dicom_seg, write_rtstruct])
def test_what_cannot_be_referred_to_is_refused(write, tmp_path):
    write_series(tmp_path / "series", np.zeros((5, 4, 3), int))
    scan = read_volume(tmp_path / "series")
    with pytest.raises(VolumeError, match="series without StudyInstanceUID"):
        write(tmp_path / "a.dcm", np.zeros(scan.shape, np.uint8), scan, NAMES)
    with pytest.raises(VolumeError, match="expected a scan from a DICOM series"):
        write(tmp_path / "a.dcm", np.zeros((3, 3, 3), np.uint8), Volume(np.zeros((1, 3, 3, 3)), np.eye(4)), NAMES)
    with pytest.raises(ValueError, match=r"labels: expected integers of shape \(5, 4, 3\)"):
        write(tmp_path / "a.dcm", np.zeros((5, 4, 4), np.uint8), scan, NAMES)
    assert not list(tmp_path.glob("*.dcm"))
