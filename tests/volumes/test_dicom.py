"""DICOM in: the right volume, or an error; never a wrong volume."""

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("pydicom")
import pydicom
from dicom_series import write_enhanced, write_report, write_series

from mamba_vision.volumes import VolumeError, find_scans, read_volume
from mamba_vision.volumes.dicom import has_dicom, is_dicom_file


@pytest.fixture
def stored():
    return np.random.default_rng(0).integers(0, 2000, (7, 5, 6))


def _refused(path, match, **options):
    with pytest.raises(VolumeError, match=match) as caught:
        read_volume(path, **options)
    assert str(path) in str(caught.value)


def test_a_series_is_sorted_by_position_and_scaled(tmp_path, stored):
    write_series(tmp_path, stored, slope=2.0)
    (tmp_path / "notes.txt").write_text("not an image")
    write_report(tmp_path / "report.dcm")
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array[0], stored * 2.0 - 1024)
    expected = np.diag([-0.7, -0.8, 3.0, 1.0])
    expected[:3, 3] = 20, 30, 40
    np.testing.assert_allclose(volume.affine, expected)
    np.testing.assert_allclose(volume.spacing, (0.7, 0.8, 3.0))


def test_the_world_coordinates_are_dicoms(tmp_path, stored):
    orientation = (0.0, 0.8, -0.6, 0.0, 0.6, 0.8)  # oblique sagittal
    normal = np.cross(orientation[:3], orientation[3:])
    write_series(tmp_path, stored, orientation=orientation, step=tuple(-2.0 * normal))
    volume = read_volume(tmp_path)
    column, row, index = 3, 4, 2
    lps = np.array([-20, -30, 40]) + column * 0.7 * np.array(orientation[:3]) + row * 0.8 * np.array(orientation[3:])
    lps = lps + index * -2.0 * normal
    voxel = np.linalg.inv(volume.affine) @ [-lps[0], -lps[1], lps[2], 1]
    np.testing.assert_allclose(voxel, np.rint(voxel), atol=1e-9)
    assert volume.array[0][tuple(np.rint(voxel[:3]).astype(int))] == stored[column, row, index] - 1024


def test_a_tilted_gantry_is_a_sheared_affine(tmp_path, stored):
    write_series(tmp_path, stored, step=(0.0, 0.9, 3.0))
    volume = read_volume(tmp_path)
    np.testing.assert_allclose(volume.affine[:3, 2], (0, -0.9, 3))


def test_enhanced_files_are_read_frame_by_frame(tmp_path, stored):
    write_enhanced(tmp_path / "one.dcm", stored)
    for path in (tmp_path, tmp_path / "one.dcm"):
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.array[0], stored * 2.0 + 5)
        np.testing.assert_allclose(volume.spacing, (0.7, 0.8, 2.5))


def test_several_series_are_never_merged(tmp_path, stored):
    first = write_series(tmp_path, stored, number=3, description="arterial")
    second = write_series(tmp_path, stored + 7, number=4, description="venous", prefix="other")
    _refused(tmp_path, f"2 series in one folder: .*{first}.*number 3, arterial, 6 files.*Choose one")
    for chosen in (second, "4", "venous"):
        np.testing.assert_array_equal(read_volume(tmp_path, series=chosen).array[0], stored + 7.0 - 1024)
    _refused(tmp_path, "0 series called 'portal' among", series="portal")
    victim = next(file for file in sorted(tmp_path.iterdir()) if file.name.startswith("slice"))
    dataset = pydicom.dcmread(victim)
    del dataset.ImagePositionPatient
    dataset.save_as(victim)
    np.testing.assert_array_equal(read_volume(tmp_path, series="venous").array[0], stored + 7.0 - 1024)


def test_missing_doubled_and_uneven_slices(tmp_path, stored):
    write_series(tmp_path / "gap", stored, skip=(2, 3))
    _refused(tmp_path / "gap", "2 missing slices, the first between slice_007_1.dcm and slice_028_4.dcm; .*every 3 mm")
    uid = write_series(tmp_path / "twice", stored)
    write_series(tmp_path / "twice", stored, uid=uid, prefix="again")
    _refused(tmp_path / "twice", "6 slices at the place of another")
    uid = write_series(tmp_path / "uneven", stored)
    write_series(tmp_path / "uneven", stored[:, :, :1], uid=uid, prefix="late", start=(-20, -30, 40 + 5 * 3 + 4.2))
    _refused(tmp_path / "uneven", "uneven slices: 3 to 4.2 mm apart")
    uid = write_series(tmp_path / "astray", stored)
    write_series(tmp_path / "astray", stored[:, :, :1], uid=uid, prefix="late", start=(-14, -30, 40 + 6 * 3))
    _refused(tmp_path / "astray", "leave a straight line")


def test_slices_that_do_not_belong_together(tmp_path, stored):
    uid = write_series(tmp_path, stored)
    write_series(tmp_path, stored[:, :, :1], uid=uid, prefix="localizer", pixel=(2.0, 2.0))
    with pytest.raises(VolumeError, match=r"a slice of 5 x 7 pixels of .* among slices of .*localizer"):
        read_volume(tmp_path)
    uid = write_series(tmp_path / "turned", stored)
    across = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
    write_series(tmp_path / "turned", stored[:, :, :1], uid=uid, prefix="localizer", orientation=across)
    with pytest.raises(VolumeError, match=r"mm that look along \(.*\) among slices of .* that look along \("):
        read_volume(tmp_path / "turned")


def test_folders_without_a_volume(tmp_path, stored):
    _refused(tmp_path, "an empty folder; expected a DICOM series")
    (tmp_path / "a.txt").write_text("hello")
    _refused(tmp_path, "1 files, none of them DICOM")
    write_report(tmp_path / "report.dcm")
    _refused(tmp_path, "segmentations, contours or reports, but no scan")
    write_series(tmp_path / "single", stored[:, :, :1])
    _refused(tmp_path / "single", "a single slice")
    uid = write_series(tmp_path / "cut", stored)
    victim = sorted((tmp_path / "cut").iterdir())[2]
    victim.write_bytes(victim.read_bytes()[:-20])
    with pytest.raises(VolumeError, match=f"{victim.name}: pixels that cannot be decoded") as caught:
        read_volume(tmp_path / "cut", series=uid)
    assert "pylibjpeg" in str(caught.value)


def test_images_without_a_place_in_space(tmp_path, stored):
    write_series(tmp_path, stored)
    victim = sorted(tmp_path.iterdir())[0]
    dataset = pydicom.dcmread(victim)
    del dataset.ImagePositionPatient
    dataset.save_as(victim)
    with pytest.raises(VolumeError, match="an image without a place in space"):
        read_volume(tmp_path)


def test_folders_of_series_are_found(tmp_path, stored):
    for name in ("patient_1", "patient_2"):
        write_series(tmp_path / name, stored)
    scans = find_scans(tmp_path, series="1")
    assert [(scan.case, scan.images, scan.series) for scan in scans] == [
        (name, (tmp_path / name,), "1") for name in ("patient_1", "patient_2")
    ]
    (alone,) = find_scans(tmp_path / "patient_1")
    assert alone.case == "patient_1" and has_dicom(tmp_path / "patient_1") and not has_dicom(tmp_path)
    file = next((tmp_path / "patient_1").iterdir())
    assert is_dicom_file(file) and not is_dicom_file(tmp_path)


def test_without_pydicom_the_error_names_the_package(tmp_path, stored, monkeypatch):
    write_series(tmp_path, stored)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    _refused(tmp_path, r'pydicom is missing.*pip install "mamba_vision\[dicom\]"')


def test_reading_makes_no_noise(tmp_path, stored):
    write_series(tmp_path, stored)
    code = f"from mamba_vision.volumes import read_volume; read_volume({str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_scaling_that_is_there_but_empty(tmp_path, stored):
    write_series(tmp_path, stored)
    for file in tmp_path.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.RescaleSlope = dataset.RescaleIntercept = None
        dataset.save_as(file)
    np.testing.assert_array_equal(read_volume(tmp_path).array[0], stored)
