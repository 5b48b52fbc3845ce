"""Whatever way a scan is stored, its mask has the scan's own geometry, bit by bit, and voxels land where they were."""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scan_files import AXIS_CODES
from segmentation_case import expected_mask, make_scan, make_work_dir

from mamba_vision.apis import inference_volume, init_volume_model

GEOMETRY = ("dim", "pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x",
            "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units")  # fmt: skip
PLAIN = np.diag([1.0, 1.0, 2.0, 1.0])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return init_volume_model(make_work_dir(tmp_path_factory.mktemp("model") / "work"), device="cpu")


def _rotation(angles):
    """Turns by three angles in degrees, one about each axis."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(angles)):
        one, two = [other for other in range(3) if other != axis]
        step = np.eye(3)
        step[[one, one, two, two], [one, two, one, two]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        turn = step @ turn
    return turn


def _stored(codes):
    """The scan of the tests with its axes in another order and direction, and the affine that goes with it."""
    image = nib.Nifti1Image(np.asarray(make_scan().dataobj), PLAIN)
    turned = image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(PLAIN), nib.orientations.axcodes2ornt(codes))
    )
    return np.asarray(turned.dataobj), turned.affine


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    codes=AXIS_CODES,
    angles=st.tuples(*[st.floats(-12, 12)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    forms=st.tuples(st.sampled_from([0, 1, 2, 4]), st.sampled_from([0, 1, 2, 3])),
    disagree=st.booleans(),
    shear=st.floats(-0.1, 0.1),
    ending=st.sampled_from([".nii", ".nii.gz"]),
)
def test_any_grid(codes, angles, origin, forms, disagree, shear, ending, model, tmp_path_factory):
    qform, sform = forms
    array, affine = _stored(codes)
    oblique = np.eye(4)
    oblique[:3, :3] = _rotation(angles) @ affine[:3, :3]
    oblique[:3, 3] = origin
    image = nib.Nifti1Image(array, None)
    image.header.set_zooms(np.abs(PLAIN).max(0)[:3][[abs(affine[:3, axis]).argmax() for axis in range(3)]])
    image.header.set_qform(oblique, code=qform)
    moved = oblique.copy()
    if disagree:  # sform says something else than qform: shifted and sheared, as registrations leave it
        moved[:3, 3] += (3, -4, 5)
        moved[:3, 0] += shear * moved[:3, 1]
    image.header.set_sform(moved, code=sform)
    image.header.set_xyzt_units("mm", "sec")
    folder = tmp_path_factory.mktemp("grid")
    path = folder / f"scan{ending}"
    nib.save(image, path)
    stored = nib.load(path)
    if sform == 0 and qform == 0:
        return  # no place in space: nibabel makes one up, from the voxel sizes alone (tested below)
    result = inference_volume(model, path, tta="none")
    written = nib.load(result.save(folder / f"mask{ending}"))
    for field in GEOMETRY:
        expected = stored.header[field]
        np.testing.assert_array_equal(written.header[field].tobytes(), expected.tobytes(), err_msg=field)
    np.testing.assert_array_equal(written.affine, stored.affine)
    mask = np.asarray(written.dataobj)
    truth = expected_mask(stored)
    if not (disagree and sform):  # else the spacing is another one, and labels are resampled
        np.testing.assert_array_equal(mask, truth)
    for label in (1, 4):
        found, wanted = mask == label, truth == label
        assert 2 * (found & wanted).sum() / (found.sum() + wanted.sum()) > 0.97


def test_no_form_at_all(model, tmp_path):
    image = nib.Nifti1Image(_stored("RAS")[0], None)
    image.header.set_zooms((1, 1, 2))
    nib.save(image, tmp_path / "scan.nii")
    stored = nib.load(tmp_path / "scan.nii")
    assert int(stored.header["qform_code"]) == int(stored.header["sform_code"]) == 0
    written = nib.load(inference_volume(model, tmp_path / "scan.nii", tta="none").save(tmp_path / "mask.nii"))
    for field in GEOMETRY:
        assert written.header[field].tobytes() == stored.header[field].tobytes(), field
    np.testing.assert_array_equal(np.asarray(written.dataobj), expected_mask(stored))
