"""NRRD and MetaImage: voxels and geometry as SimpleITK places them, exactly; errors that name the file."""

import sys

import nibabel as nib
import numpy as np
import pytest
from scan_files import labels, save, voxels

pytest.importorskip("SimpleITK")
import SimpleITK as sitk  # noqa: N813

from mamba_vision.volumes import VolumeError, find_scans, read_label, read_volume

ROTATION = nib.eulerangles.euler2mat(0.3, -0.2, 0.5)
FLIPPED = np.diag([-1.0, 1.0, -1.0])[[2, 0, 1]]


def write(path, array, direction=None, spacing=(0.7, 1.3, 2.9), origin=(-11.5, 23.25, 7.125)):
    image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection((np.eye(3) if direction is None else direction).ravel().tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), useCompression=path.suffix != ".mhd")
    return image


@pytest.mark.parametrize(
    "direction", [np.eye(3), FLIPPED, ROTATION, ROTATION @ FLIPPED], ids=["plain", "flipped", "oblique", "both"]
)
@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.mhd"])
def test_every_voxel_lies_where_itk_says(tmp_path, name, direction):
    array = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    image = write(tmp_path / name, array, direction)
    volume = read_volume(tmp_path / name)
    np.testing.assert_array_equal(volume.array[0], array)
    assert volume.array.dtype == np.float32
    np.testing.assert_allclose(volume.spacing, (0.7, 1.3, 2.9), rtol=1e-6)
    for voxel in ((0, 0, 0), (3, 4, 5), (1, 3, 2)):
        lps = np.array(image.TransformIndexToPhysicalPoint(voxel))
        np.testing.assert_allclose(volume.affine @ [*voxel, 1], [*lps * [-1, -1, 1], 1], atol=1e-5)


def test_nrrd_in_other_spaces(tmp_path):
    text = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: right-anterior-superior\nsizes: 2 3 4\n"
        "space directions: (0,2,0) (-3,0,0) (0,0,5)\nkinds: domain domain domain\nendian: little\nencoding: raw\n"
        "space origin: (10,20,30)\n\n"
    )
    array = np.arange(24, dtype="<i2").reshape(2, 3, 4)
    (tmp_path / "a.nrrd").write_bytes(text.encode() + array.tobytes(order="F"))
    volume = read_volume(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(volume.array[0], array)
    np.testing.assert_allclose(volume.affine, [[0, -3, 0, 10], [2, 0, 0, 20], [0, 0, 5, 30], [0, 0, 0, 1]], atol=1e-9)


def test_labels_and_their_scan(tmp_path):
    matrix = np.diag([-0.7, -1.3, 2.9, 1.0])
    matrix[:3, 3] = 11.5, -23.25, 7.125
    scan = read_volume(save(tmp_path / "scan.nii.gz", voxels(), matrix))
    write(tmp_path / "label.seg.nrrd", labels())
    label = read_label(tmp_path / "label.seg.nrrd", scan)
    np.testing.assert_array_equal(label.array[0], labels())
    assert label.array.dtype == np.int16
    np.testing.assert_array_equal(label.affine, scan.affine)
    write(tmp_path / "moved.mha", labels(), origin=(0, 0, 0))
    with pytest.raises(VolumeError, match=r"moved\.mha: first voxel .* mm away.*--fix-geometry"):
        read_label(tmp_path / "moved.mha", scan)
    write(tmp_path / "soft.mha", labels() * 0.5)
    with pytest.raises(VolumeError, match=r"label value 0\.5; expected whole numbers"):
        read_label(tmp_path / "soft.mha")


def test_slicers_segmentation_of_a_part_of_the_scan(tmp_path):
    matrix = np.diag([-0.7, -1.3, 2.9, 1.0])
    scan = read_volume(save(tmp_path / "scan.nii.gz", voxels(), matrix))
    part = labels()[4:13, 5:15, 3:11]
    origin = (0.7 * 4, 1.3 * 5, 2.9 * 3)  # LPS
    write(tmp_path / "part.seg.nrrd", part, origin=origin)
    np.testing.assert_array_equal(read_label(tmp_path / "part.seg.nrrd", scan).array[0], labels())
    write(tmp_path / "part.nrrd", part, origin=origin)  # of any other file it is an error that wants a decision
    with pytest.raises(VolumeError, match="shape 9 x 10 x 8 instead of 18 x 20 x 16"):
        read_label(tmp_path / "part.nrrd", scan)
    write(tmp_path / "far.seg.nrrd", part, origin=(700, 1300, 2900))
    with pytest.raises(VolumeError, match="segments that lie outside the scan"):
        read_label(tmp_path / "far.seg.nrrd", scan)


def test_several_values_a_voxel(tmp_path):
    array = np.random.default_rng(0).random((5, 6, 7, 2)).astype(np.float32)  # (Z, Y, X, C)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), str(tmp_path / "vector.nrrd"))
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(array[..., c]) for c in range(2)]), str(tmp_path / "4.mha"))
    nib.save(nib.Nifti1Image(array.transpose(2, 1, 0, 3), np.eye(4)), tmp_path / "4.nii.gz")
    for name in ("vector.nrrd", "4.mha", "4.nii.gz"):
        with pytest.raises(VolumeError, match="expected a 3-D image"):
            read_volume(tmp_path / name)
        stacked = read_volume(tmp_path / name, stacked=True)
        np.testing.assert_array_equal(stacked.array, array.transpose(3, 2, 1, 0))
        assert stacked.affine.shape == (4, 4)
    write(tmp_path / "3.mha", voxels())
    assert read_volume(tmp_path / "3.mha", stacked=True).array.shape == (1, *voxels().shape)
    with pytest.raises(ValueError, match="one file that holds all channels, found 2"):
        read_volume([tmp_path / "4.mha"] * 2, stacked=True)


def test_files_that_are_no_image(tmp_path):
    def refused(name, match):
        with pytest.raises(VolumeError, match=match) as caught:
            read_volume(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)

    for name in ("a.nrrd", "a.mha"):
        refused(name, "no such file")
        (tmp_path / name).write_bytes(b"")
        refused(name, "an empty file")
        (tmp_path / name).write_bytes(b"hello")
        refused(name, "is no image")
        write(tmp_path / name, voxels())
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[:-100])
        refused(name, "truncated or damaged voxel data")
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((5, 6), np.uint8)), str(tmp_path / "flat.mha"))
    flat = read_volume(tmp_path / "flat.mha")
    assert flat.array.shape == (1, 6, 5, 1) and flat.spacing == (1, 1, 999)
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((5, 6, 3), np.uint8), isVector=True), str(tmp_path / "colour.mha"))
    refused("colour.mha", "several values a voxel")


def test_without_simpleitk_the_line_to_install_it(tmp_path, monkeypatch):
    write(tmp_path / "a.mha", voxels())
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(VolumeError, match=r'SimpleITK is missing.*pip install "mamba_vision\[dicom\]"'):
        read_volume(tmp_path / "a.mha")


def test_folders_of_them(tmp_path):
    write(tmp_path / "images" / "a_0000.nrrd", voxels())
    write(tmp_path / "images" / "a_0001.nrrd", voxels())
    write(tmp_path / "images" / "b.mhd", voxels())  # its .raw lies beside it
    write(tmp_path / "labels" / "a.seg.nrrd", labels())
    write(tmp_path / "labels" / "b.mha", labels())
    a, b = find_scans(tmp_path)
    assert ([path.name for path in a.images], a.label.name) == (["a_0000.nrrd", "a_0001.nrrd"], "a.seg.nrrd")
    assert ([path.name for path in b.images], b.label.name) == (["b.mhd"], "b.mha")
