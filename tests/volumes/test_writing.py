"""Labels out: in the grid of their scan, bit by bit."""

import json

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_files import affine, labels, save, voxels

from mamba_vision.volumes import Volume, VolumeError, read_volume, write_image, write_labels

GEOMETRY = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "srow_x", "srow_y", "srow_z", "pixdim", "xyzt_units",
)  # fmt: skip


def same_geometry(first, second):
    for name in GEOMETRY:
        assert first[name].tobytes() == second[name].tobytes(), name


def rotation(angles) -> np.ndarray:
    return nib.eulerangles.euler2mat(*angles)


@settings(max_examples=30, deadline=None)
@given(
    codes=st.sampled_from(["RAS", "LPS", "LAS", "PIR", "SRA", "ASL", "IPL"]),
    angles=st.tuples(*[st.floats(-0.7, 0.7)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 5)] * 3),
    origin=st.tuples(*[st.floats(-300, 300)] * 3),
    forms=st.sampled_from([(1, 1), (2, 0), (0, 1), (1, 4), (0, 0)]),
    units=st.sampled_from(["mm", "micron", "unknown"]),
)
def test_any_grid_comes_back_bit_by_bit(tmp_path_factory, codes, angles, spacing, origin, forms, units):
    folder = tmp_path_factory.mktemp("scan")
    matrix = np.eye(4)
    turn = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(codes), (18, 20, 16))[:3, :3]
    matrix[:3, :3] = rotation(angles) @ turn @ np.diag(spacing)
    matrix[:3, 3] = origin
    image = nib.Nifti1Image(voxels(), matrix)
    image.header.set_xyzt_units(units, "sec")
    image.set_qform(matrix, code=forms[0])
    image.set_sform(matrix, code=forms[1])
    image.header["pixdim"][4:] = 7  # a repetition time, left over
    nib.save(image, folder / "scan.nii.gz")
    volume = read_volume(folder / "scan.nii.gz")
    write_labels(folder / "out.nii.gz", labels(), volume)
    written, original = nib.load(folder / "out.nii.gz"), nib.load(folder / "scan.nii.gz")
    same_geometry(written.header, original.header)
    np.testing.assert_array_equal(written.affine, original.affine)
    np.testing.assert_array_equal(np.asarray(written.dataobj), labels())


def test_disagreeing_forms_are_kept(tmp_path):
    image = nib.Nifti1Image(voxels(), affine())
    image.set_sform(affine((1, 1, 2), (50, 60, 70)), code=2)
    image.set_qform(affine((-1, 1.5, 2), (1, 2, 3)), code=1)
    nib.save(image, tmp_path / "scan.nii")
    volume = read_volume(tmp_path / "scan.nii")
    np.testing.assert_array_equal(volume.affine, image.get_sform())  # the sform counts, as in nibabel
    write_labels(tmp_path / "out.nii", labels(), volume)
    same_geometry(nib.load(tmp_path / "out.nii").header, nib.load(tmp_path / "scan.nii").header)


def test_big_endian_and_scaled_scans(tmp_path):
    header = nib.Nifti1Header(endianness=">")
    image = nib.Nifti1Image(voxels().astype(np.int16), affine(), header)
    image.header.set_slope_inter(2, -1000)
    image.header["descrip"], image.header["cal_max"] = b"Jane Doe", 3000
    image.header.extensions.append(nib.nifti1.Nifti1Extension(2, b"a DICOM header"))
    nib.save(image, tmp_path / "scan.nii")
    write_labels(tmp_path / "out.nii", labels(), read_volume(tmp_path / "scan.nii"))
    written = nib.load(tmp_path / "out.nii")
    np.testing.assert_array_equal(np.asarray(written.dataobj), labels())
    assert written.dataobj.slope == 1 and written.get_data_dtype() == np.uint8
    assert not written.header.extensions and not written.header["descrip"].item() and not written.header["cal_max"]


@pytest.mark.parametrize(("top", "dtype"), [(1, np.uint8), (255, np.uint8), (256, np.uint16), (70000, np.int32)])
def test_the_smallest_type_that_holds_the_labels(tmp_path, top, dtype):
    write_labels(tmp_path / "out.nii.gz", np.where(labels() > 0, top, 0), _volume())
    assert nib.load(tmp_path / "out.nii.gz").get_data_dtype() == dtype


def _volume(matrix=None) -> Volume:
    return Volume(voxels()[None], affine() if matrix is None else matrix)


def test_scans_without_a_header_get_both_forms_and_sheared_ones_the_sform(tmp_path):
    write_labels(tmp_path / "out.nii.gz", labels(), _volume())
    written = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(written.affine, affine())
    assert (int(written.header["qform_code"]), int(written.header["sform_code"])) == (1, 1)
    assert written.header.get_xyzt_units()[0] == "mm"
    tilted = affine()
    tilted[1, 2] = 0.5
    write_labels(tmp_path / "tilted.nii.gz", labels(), _volume(tilted))
    written = nib.load(tmp_path / "tilted.nii.gz")
    np.testing.assert_allclose(written.affine, tilted)
    assert (int(written.header["qform_code"]), int(written.header["sform_code"])) == (0, 1)


def test_names_are_kept_as_a_comment(tmp_path):
    write_labels(tmp_path / "out.nii.gz", labels(), _volume(), {"background": 0, "Leber": 1})
    (extension,) = nib.load(tmp_path / "out.nii.gz").header.extensions
    assert json.loads(extension.get_content()) == {"labels": {"background": 0, "Leber": 1}}


def test_probabilities(tmp_path):
    values = np.random.default_rng(0).random((18, 20, 16, 3), np.float32)
    write_image(tmp_path / "p.nii.gz", values, read_volume(save(tmp_path / "scan.nii.gz", voxels())))
    written = nib.load(tmp_path / "p.nii.gz")
    np.testing.assert_array_equal(written.get_fdata(dtype=np.float32), values)
    np.testing.assert_array_equal(written.affine, affine())


def test_what_cannot_be_written(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"expected the scan's shape \(18, 20, 16\), found \(17, 20, 16\)"):
        write_labels(tmp_path / "out.nii.gz", labels()[:-1], _volume())
    with pytest.raises(ValueError, match="labels: expected integers, found float32"):
        write_labels(tmp_path / "out.nii.gz", voxels(), _volume())
    with pytest.raises(VolumeError, match=r"a name without a known ending; expected \.nii or \.nii\.gz"):
        write_labels(tmp_path / "out.png", labels(), _volume())
    (tmp_path / "out.nii.gz").write_text("old")

    def interrupted(image, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(nib, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_labels(tmp_path / "out.nii.gz", labels(), _volume())
    assert (tmp_path / "out.nii.gz").read_text() == "old" and len(list(tmp_path.iterdir())) == 1
