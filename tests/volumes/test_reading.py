"""NIfTI in: what is read, and what is refused with which words."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from scan_files import affine, labels, save, voxels

from mamba_vision.volumes import Volume, VolumeError, read_label, read_volume


@pytest.fixture
def scan(tmp_path):
    return save(tmp_path / "scan.nii.gz", voxels())


def test_a_scan_keeps_voxels_affine_and_paths(scan):
    volume = read_volume(scan)
    assert volume.array.dtype == np.float32 and volume.shape == (18, 20, 16)
    np.testing.assert_array_equal(volume.array[0], voxels())
    np.testing.assert_array_equal(volume.affine, affine())
    assert volume.spacing == (1.0, 1.0, 2.0) and volume.paths == (scan,)


def test_scaled_integers_and_trailing_axes_are_read(tmp_path):
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5, 1), affine())
    image.header.set_slope_inter(0.5, -100)
    nib.save(image, tmp_path / "ct.nii")
    volume = read_volume(tmp_path / "ct.nii")
    assert volume.shape == (3, 4, 5)
    np.testing.assert_allclose(volume.array[0], nib.load(tmp_path / "ct.nii").get_fdata()[..., 0])


def test_channels_are_stacked_in_the_given_order(tmp_path, scan):
    second = save(tmp_path / "second.nii.gz", voxels(seed=1))
    volume = read_volume([second, scan])
    np.testing.assert_array_equal(volume.array, np.stack([voxels(seed=1), voxels()]))


def _refused(path, match, reader=read_volume):
    with pytest.raises(VolumeError, match=match) as caught:
        reader(path)
    assert str(path) in str(caught.value)


def test_files_that_are_no_image(tmp_path):
    _refused(tmp_path / "absent.nii.gz", "no such file")
    for name, content in {"a.nii.gz": b"hello" * 99, "b.nii": b"hello" * 99, "c.txt": b"hello"}.items():
        (tmp_path / name).write_bytes(content)
        _refused(tmp_path / name, "is no image")
    (tmp_path / "d.nii.gz").write_bytes(b"")
    _refused(tmp_path / "d.nii.gz", "an empty file")
    (tmp_path / "e.nii.gz").mkdir()
    _refused(tmp_path / "e.nii.gz", "an empty folder; expected a DICOM series")
    _refused(tmp_path / "e.nii.gz", "a folder without a label", read_label)


@pytest.mark.parametrize("reader", [read_volume, read_label])
def test_truncated_files(tmp_path, scan, reader):
    whole = scan.read_bytes()
    for cut in (60, 500, len(whole) // 2, len(whole) - 100):
        (tmp_path / "cut.nii.gz").write_bytes(whole[:cut])
        _refused(tmp_path / "cut.nii.gz", "truncated|is no image", reader)
    (tmp_path / "cut.nii").write_bytes(gzip.decompress(whole)[:3000])
    _refused(tmp_path / "cut.nii", "truncated", reader)


@pytest.mark.parametrize(
    ("shape", "match"),
    [((8,), "a line"), ((8, 1, 1), "a line"), ((8, 9, 5, 3), "a 4-D image"), ((8, 9, 5, 1, 2), "a 5-D")],
)
def test_two_and_four_dimensions(tmp_path, shape, match):
    path = save(tmp_path / "scan.nii.gz", np.ones(shape, np.float32))
    _refused(path, f"{match}.*expected a 3-D image")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite(tmp_path, bad):
    image = voxels()
    image[3, 4, 5] = bad
    _refused(save(tmp_path / "scan.nii.gz", image), "1 NaN or Inf voxels of 5760")


def test_colours_and_singular_affines(tmp_path):
    colour = np.zeros((3, 4, 5), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    _refused(save(tmp_path / "rgb.nii", colour), "R, G, B in each voxel; expected one real number")
    image = nib.Nifti1Image(voxels(), None)
    image.header.set_sform(np.diag([1.0, 0, 1, 1]), code=1)
    nib.save(image, tmp_path / "flat.nii")
    _refused(tmp_path / "flat.nii", "affine is not invertible")


def test_labels_are_whole_numbers(tmp_path):
    path = save(tmp_path / "label.nii.gz", labels().astype(np.float32))
    label = read_label(path)
    assert label.array.dtype == np.int16
    np.testing.assert_array_equal(label.array[0], labels())
    _refused(save(tmp_path / "soft.nii.gz", labels() * np.float32(0.4)), "label value 0.4; expected whole", read_label)
    big = read_label(save(tmp_path / "big.nii.gz", labels().astype(np.int32) * 40000))
    assert big.array.dtype == np.int32 and big.array.max() == 80000


def _moved(origin=(0.0, 0, 0), spacing=(1.0, 1.0, 2.0)):
    matrix = affine(spacing)
    matrix[:3, 3] += origin
    return matrix


def test_grids_agree_within_the_tolerance(tmp_path, scan):
    volume = read_volume(scan)
    for matrix in (_moved((0.05, 0.05, 0)), _moved(spacing=(1.0005, 1, 2))):
        label = read_label(save(tmp_path / "label.nii.gz", labels(), matrix), volume)
        np.testing.assert_array_equal(label.affine, volume.affine)


@pytest.mark.parametrize(
    ("array", "matrix", "match"),
    [
        (labels()[:-1], affine(), "shape 17 x 20 x 16 instead of 18 x 20 x 16"),
        (labels(), _moved((0, 0, 0.3)), r"first voxel 0.3 mm away \(origin -10 x 5 x 30.3\)"),
        (labels(), _moved(spacing=(1, 1.01, 2)), "spacing 1 x 1.01 x 2 instead of 1 x 1 x 2 mm"),
        (labels(), affine((-1, 1, 2)), "orientation LAS instead of RAS"),
    ],
)
def test_grids_that_differ(tmp_path, scan, array, matrix, match):
    path = save(tmp_path / "label.nii.gz", array, matrix)
    with pytest.raises(VolumeError, match=f"{match}; expected the grid of its scan .*--fix-geometry resample"):
        read_label(path, read_volume(scan))
    image = save(tmp_path / "other.nii.gz", array.astype(np.float32), matrix)
    with pytest.raises(VolumeError, match=match):
        read_volume([scan, image])


def test_geometry_is_fixed_on_request(tmp_path, scan):
    volume = read_volume(scan)
    flipped = save(tmp_path / "flipped.nii.gz", labels()[::-1].copy(), affine((-1, 1, 2), (7.0, 5.0, 30.0)))
    resampled = read_label(flipped, volume, "resample")
    np.testing.assert_array_equal(resampled.array[0], labels())  # the same places in the patient
    np.testing.assert_array_equal(read_label(flipped, volume, "copy").array[0], labels()[::-1])
    short = save(tmp_path / "short.nii.gz", labels()[:-1])
    with pytest.raises(VolumeError, match="shape 17"):
        read_label(short, volume, "copy")
    np.testing.assert_array_equal(read_label(short, volume, "resample").array[0, :-1], labels()[:-1])
    with pytest.raises(ValueError, match="fix_geometry: expected one of error, resample, copy, found 'guess'"):
        read_label(short, volume, "guess")


def test_a_volume_is_checked_when_made():
    with pytest.raises(ValueError, match="array: expected 4 axes"):
        Volume(voxels(), affine())
    with pytest.raises(ValueError, match="affine: expected an invertible"):
        Volume(voxels()[None], np.zeros((4, 4)))
    with pytest.raises(ValueError, match="at least one file"):
        read_volume([])


def test_labels_that_scaling_has_rounded(tmp_path):
    stored = nib.Nifti1Image(labels().astype(np.int16) * 3, affine())
    stored.header.set_slope_inter(1 / 3 + 1e-5, 0)
    nib.save(stored, tmp_path / "label.nii.gz")
    np.testing.assert_array_equal(read_label(tmp_path / "label.nii.gz").array[0], labels())


def test_a_file_that_may_not_be_read(tmp_path, scan, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(scan), "open", refuse)  # who runs the tests may be allowed everything
    _refused(scan, r"can't be opened \(Permission denied\)")
