"""Labels from DICOM-SEG and RTSTRUCT, and contours as voxels."""

import sys
from pathlib import Path

import numpy as np
import pytest
from dicom_series import STACKS, write_series
from matplotlib.path import Path as Outline

pytest.importorskip("highdicom")
import highdicom
import pydicom
from pydicom.data import get_testdata_file
from pydicom.sr.codedict import codes

from mamba_vision.volumes import Volume, VolumeError, read_label, read_volume
from mamba_vision.volumes.contours import fill_contours, fill_polygons
from mamba_vision.volumes.dicom import series_datasets
from mamba_vision.volumes.dicom_kinds import is_dicom_label, sop_class
from mamba_vision.volumes.dicom_labels import structure_names
from mamba_vision.volumes.dicom_seg_writing import write_dicom_seg
from mamba_vision.volumes.grids import place_in_grid
from mamba_vision.volumes.rtstruct_writing import write_rtstruct

NAMES = {"background": 0, "Lung": 1, "Tumour": 2}
SHAPE = (14, 11, 8)
ANGLE = np.deg2rad(20)


def mask() -> np.ndarray:
    """A lung with a hole that holds a tumour, a second piece, and voxels at the border."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:12, 2:9, 1:5] = 1
    labels[5:9, 4:7, 2:4] = 0
    labels[6:8, 5, 2:4] = 2
    labels[range(1, 8), range(9, 2, -1), 6] = 1
    labels[0, 0, 1] = 2
    return labels


def series(folder, **stack) -> Volume:
    write_series(folder, np.random.default_rng(0).integers(0, 900, SHAPE), **stack)
    for file in folder.glob("*.dcm"):
        dataset = pydicom.dcmread(file)
        dataset.StudyInstanceUID, dataset.FrameOfReferenceUID, dataset.SliceThickness = "1.2.3", "1.2.4", 3.0
        dataset.PatientID, dataset.PatientName = "p7", "Nobody^"
        dataset.save_as(file)
    return read_volume(folder)


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
@pytest.mark.parametrize("write", [write_dicom_seg, write_rtstruct])
def test_what_was_written_comes_back(tmp_path, stack, write):
    scan = series(tmp_path / "ct", **stack)
    write(tmp_path / "label.dcm", mask(), scan, NAMES)
    assert is_dicom_label(tmp_path / "label.dcm")
    for path in (tmp_path / "label.dcm", tmp_path):
        label = read_label(path, scan, names={"tumour": 2, "LUNG": 1})
        np.testing.assert_array_equal(label.array[0], mask())
        np.testing.assert_array_equal(label.affine, scan.affine)
    swapped = read_label(tmp_path / "label.dcm", scan, names={"Tumour": 7})  # the lung is left out
    np.testing.assert_array_equal(swapped.array[0], np.where(mask() == 2, 7, 0))


@pytest.mark.parametrize("kind", ["FRACTIONAL", "LABELMAP", "BINARY"])
def test_other_kinds_of_segmentation(tmp_path, kind):
    scan = series(tmp_path / "ct")
    frames = mask().transpose(2, 1, 0)
    if kind == "FRACTIONAL":
        frames = np.stack([(frames == value) * 0.9 + (frames != value) * 0.4 for value in (1, 2)], axis=-1)
    elif kind == "BINARY":  # the lung goes on behind the tumour
        frames = np.stack([frames > 0, frames == 2], axis=-1).astype(np.uint8)
    algorithm = highdicom.AlgorithmIdentificationSequence("m", codes.cid7162.ArtificialIntelligence, "1")
    described = [
        highdicom.seg.SegmentDescription(
            number,
            name,
            codes.SCT.Tissue,
            codes.SCT.Tissue,
            highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm,
        )
        for name, number in NAMES.items()
        if number
    ]
    sources = series_datasets(tmp_path / "ct")
    for dataset in sources:
        for name in ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime"):
            setattr(dataset, name, "")
        dataset.ReferringPhysicianName = ""
    uids = [highdicom.UID() for _ in range(2)]
    made = highdicom.seg.Segmentation(
        sources, frames, kind, described, uids[0], 1, uids[1], 1, "maker", "model", "1", "0", omit_empty_frames=False
    )
    made.save_as(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(read_label(tmp_path / "seg.dcm", scan, names=NAMES).array[0], mask())
    if kind == "BINARY":
        lung_on_top = read_label(tmp_path / "seg.dcm", scan, names={"tumour": 1, "lung": 2}).array[0]
        np.testing.assert_array_equal(lung_on_top, np.where(mask() > 0, 2, 0))


def test_segments_have_their_numbers_without_names(tmp_path):
    scan = series(tmp_path / "ct")
    write_dicom_seg(tmp_path / "seg.dcm", mask(), scan, NAMES)
    np.testing.assert_array_equal(read_label(tmp_path / "seg.dcm", scan).array[0], mask())
    alone = read_label(tmp_path / "seg.dcm")  # the slices that hold a segment: 1 to 6
    assert sorted(alone.shape) == sorted((14, 11, 6))
    assert (alone.array > 0).sum() == (mask() > 0).sum()


def test_a_part_of_the_scan_in_another_voxel_order(tmp_path):
    scan = series(tmp_path / "ct")
    write_dicom_seg(tmp_path / "seg.dcm", mask(), scan, NAMES)
    turned = np.eye(4)[[2, 0, 1, 3]].T
    turned[:3, 3] = 0
    flip = np.diag([1, -1, 1, 1.0])
    flip[1, 3] = SHAPE[0] - 1
    affine = scan.affine @ turned @ flip
    order = np.abs(np.linalg.inv(affine) @ scan.affine)[:3, :3].round().argmax(1)
    shape = tuple(SHAPE[axis] for axis in order)
    other = Volume(np.zeros((1, *shape), np.float32), affine)
    label = read_label(tmp_path / "seg.dcm", other)
    for voxel in np.argwhere(mask()):
        there = np.linalg.inv(affine) @ scan.affine @ [*voxel, 1]
        assert label.array[0][tuple(there[:3].round().astype(int))] == mask()[tuple(voxel)]
    assert (label.array > 0).sum() == (mask() > 0).sum()


def test_labels_that_do_not_fit(tmp_path):
    scan = series(tmp_path / "ct")
    write_dicom_seg(tmp_path / "seg.dcm", mask(), scan, NAMES)
    write_rtstruct(tmp_path / "contours.dcm", mask(), scan, NAMES)

    def refused(match, path, *arguments, **options):
        with pytest.raises(VolumeError, match=match):
            read_label(path, *arguments, **options)

    refused(
        "the structures Lung, Tumour; expected some of heart.*--labels 1=NAME",
        tmp_path / "seg.dcm",
        scan,
        names={"heart": 1},
    )
    refused("2 structures .Lung, Tumour.; expected to know their values", tmp_path / "contours.dcm", scan)
    refused("contours without their scan", tmp_path / "contours.dcm", names=NAMES)
    refused(r"2 labels \(contours.dcm, seg.dcm\)", tmp_path, scan)
    refused("a folder without a label", tmp_path / "ct", scan)
    far = Volume(scan.array, scan.affine + np.pad([[840.0]] * 3, ((0, 1), (3, 0))))
    refused("segments that lie outside the scan", tmp_path / "seg.dcm", far)
    refused("Lung: contours that enclose no voxel", tmp_path / "contours.dcm", far, names=NAMES)
    half = scan.affine.copy()
    half[:3, 3] += scan.affine[:3, 0] / 2
    refused("expected the grid of its scan", tmp_path / "seg.dcm", Volume(scan.array, half))
    oblique = scan.affine.copy()
    oblique[:3, :3] = (
        np.array([[1, 0, 0], [0, np.cos(ANGLE), -np.sin(ANGLE)], [0, np.sin(ANGLE), np.cos(ANGLE)]]) @ oblique[:3, :3]
    )
    refused("contours that leave their slice", tmp_path / "contours.dcm", Volume(scan.array, oblique), names=NAMES)
    (tmp_path / "cut.dcm").write_bytes((tmp_path / "seg.dcm").read_bytes()[:900])
    refused("unreadable DICOM", tmp_path / "cut.dcm", scan)


def test_a_segmentation_that_another_program_wrote():
    """pydicom's own example, whose pixels were cut down to one of three frames."""
    file = Path(get_testdata_file("liver_1frame.dcm", download=False))
    assert structure_names(file) == ["Liver"]
    with pytest.raises(VolumeError, match="pixels of 1 frames; expected those of all 3"):
        read_label(file)


def test_one_structure_needs_no_name(tmp_path):
    scan = series(tmp_path / "ct")
    lung = (mask() == 1).astype(np.uint8)
    write_rtstruct(tmp_path / "contours.dcm", lung, scan, {"Lung": 1})
    np.testing.assert_array_equal(read_label(tmp_path / "contours.dcm", scan).array[0], lung)


def test_a_scan_is_read_beside_its_labels(tmp_path):
    scan = series(tmp_path / "all")
    write_dicom_seg(tmp_path / "all" / "seg.dcm", mask(), scan, NAMES)
    write_rtstruct(tmp_path / "all" / "contours.dcm", mask(), scan, NAMES)
    np.testing.assert_array_equal(read_volume(tmp_path / "all").array, scan.array)
    with pytest.raises(VolumeError, match="segmentations, contours or reports, but no scan"):
        read_volume(tmp_path / "all" / "seg.dcm")


def test_without_pydicom_the_line_to_install_it(tmp_path, monkeypatch):
    scan = series(tmp_path / "ct")
    write_dicom_seg(tmp_path / "seg.dcm", mask(), scan, NAMES)
    write_rtstruct(tmp_path / "contours.dcm", mask(), scan, NAMES)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    for name in ("seg.dcm", "contours.dcm"):
        with pytest.raises(VolumeError, match=r'pydicom is missing.*pip install "mamba_vision\[dicom\]"'):
            read_label(tmp_path / name, scan, names=NAMES)


def test_the_kind_of_a_file_without_pydicom(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"junk")
    (tmp_path / "b.dcm").write_bytes(b"short")
    assert [sop_class(tmp_path / name) for name in ("a.dcm", "b.dcm", "absent")] == ["", "", ""]


@pytest.mark.parametrize("seed", range(4))
def test_polygons_are_filled_as_matplotlib_fills_them(seed):
    random = np.random.default_rng(seed)
    angle = np.sort(random.uniform(0, 2 * np.pi, 25))
    star = np.stack([12 + random.uniform(3, 14, 25) * np.cos(angle), 9 + random.uniform(3, 10, 25) * np.sin(angle)], 1)
    grid = np.stack(np.meshgrid(np.arange(24), np.arange(19), indexing="ij"), -1).reshape(-1, 2)
    expected = Outline(star).contains_points(grid).reshape(24, 19)
    np.testing.assert_array_equal(fill_polygons([star], (24, 19)), expected)
    ring = [star, 12 + (star - 12) * 0.3]
    hole = Outline(ring[1]).contains_points(grid).reshape(24, 19)
    np.testing.assert_array_equal(fill_polygons(ring, (24, 19)), expected ^ hole)


def test_points_on_an_outline_belong_to_one_side():
    one = np.array([[2, 2], [2, 5], [5, 5], [5, 2]], float)
    beside = one + np.array([3, 0])
    both = fill_polygons([one], (10, 8)).astype(int) + fill_polygons([beside], (10, 8))
    assert both.max() == 1
    assert both.sum() == 3 * 3 * 2


def square(height: float, low=2.5, high=6.5) -> np.ndarray:
    return np.array([[low, low, height], [low, high, height], [high, high, height], [high, low, height]])


def test_slices_between_contours_are_filled_and_gaps_kept():
    filled = fill_contours([square(z) for z in (1, 3, 5, 14, 16)], (9, 9, 20))
    assert np.flatnonzero(filled.any(axis=(0, 1))).tolist() == [0, 1, 2, 3, 4, 5, 6, 13, 14, 15, 16, 17]
    assert filled[:, :, 3].sum() == 16
    fine = fill_contours([square(z, high=6.5 if z < 2 else 4.5) for z in np.arange(0, 4, 0.25)], (9, 9, 20))
    assert fine[:, :, [1, 2]].sum(axis=(0, 1)).tolist() == [16, 4]
    sagittal = fill_contours([square(z)[:, [2, 0, 1]] for z in (3, 4)], (9, 9, 20))
    assert np.flatnonzero(sagittal.any(axis=(1, 2))).tolist() == [3, 4]
    assert not fill_contours([], (3, 3, 3)).any()


def test_placing_voxels_in_another_grid():
    array = np.arange(24).reshape(2, 3, 4) + 1
    turned = np.diag([-1.0, 1.0, 1.0, 1.0])
    turned[:3, 3] = 3, 1, -2
    placed = place_in_grid(array, turned, (6, 6, 6), np.eye(4))
    np.testing.assert_array_equal(placed[2:4, 1:4, 0:2], array[::-1, :, 2:])  # cut off where z is below 0
    assert (placed > 0).sum() == 12
    assert place_in_grid(array, np.diag([2.0, 1, 1, 1]), (6, 6, 6), np.eye(4)) is None
    turned[0, 3] += 0.5
    assert place_in_grid(array, turned, (6, 6, 6), np.eye(4)) is None
    assert not place_in_grid(array, turned + np.pad([[99.5]], ((0, 3), (3, 0))), (6, 6, 6), np.eye(4)).any()


@pytest.mark.parametrize("stack", [STACKS[name] for name in ("axial", "coronal", "oblique")])
def test_simpleitk_places_the_series_alike(tmp_path, stack):
    sitk = pytest.importorskip("SimpleITK")
    scan = series(tmp_path / "ct", **stack)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "ct")))
    image = reader.Execute()
    array = sitk.GetArrayFromImage(image)
    for voxel in ((0, 0, 0), (13, 10, 7), (3, 7, 2)):
        lps = np.array(image.TransformIndexToPhysicalPoint(voxel))
        here = np.linalg.inv(scan.affine) @ [*lps * [-1, -1, 1], 1]
        np.testing.assert_allclose(here, np.rint(here), atol=1e-4)
        assert scan.array[0][tuple(np.rint(here[:3]).astype(int))] == array[voxel[::-1]]
