"""From the scan to the network: axes, crop, intensities, spacing."""

import json

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_files import AXIS_CODES, affine, labels, make_plan, voxels

from mamba_vision.volumes import Geometry, Volume, VolumeError, preprocess
from mamba_vision.volumes.orientation import stored_axes, to_network, to_stored
from mamba_vision.volumes.preprocess import normalize


def test_axes_and_crop_alone():
    case = preprocess(Volume(voxels()[None], affine()), make_plan(), labels())
    np.testing.assert_array_equal(case.image[0], voxels()[2:16, 1:18, 2:15].T)
    np.testing.assert_array_equal(case.label, labels()[2:16, 1:18, 2:15].T)
    assert case.image.dtype == np.float32 and case.label.dtype == np.int16
    geometry = case.geometry
    assert geometry.box == ((2, 15), (1, 18), (2, 16)) and geometry.spacing == (2, 1, 1)
    assert geometry.cropped_shape == geometry.resampled_shape == (13, 17, 14)


@settings(max_examples=40, deadline=None)
@given(
    codes=AXIS_CODES,
    angles=st.tuples(*[st.floats(-0.4, 0.4)] * 3),
    axes=st.permutations([0, 1, 2]),
)
def test_however_a_scan_is_stored_the_network_sees_the_same(codes, angles, axes):
    turn = np.eye(4)
    turn[:3, :3] = nib.eulerangles.euler2mat(*angles)  # oblique: the patient lies at an angle
    reference = nib.Nifti1Image(voxels(), turn @ affine())
    if nib.aff2axcodes(reference.affine) != ("R", "A", "S"):
        return
    target = nib.orientations.ornt_transform(nib.io_orientation(reference.affine), nib.orientations.axcodes2ornt(codes))
    stored = reference.as_reoriented(target)
    mask = nib.Nifti1Image(labels(), reference.affine).as_reoriented(target)
    plan = make_plan(axes=tuple(axes), spacing=tuple((1.3, 0.9, 1.7)[axis] for axis in axes))
    expected = preprocess(Volume(voxels()[None], reference.affine), plan, labels())
    found = preprocess(Volume(stored.get_fdata(dtype=np.float32)[None], stored.affine), plan, np.asarray(mask.dataobj))
    np.testing.assert_allclose(found.image, expected.image, atol=2e-4)
    np.testing.assert_array_equal(found.label, expected.label)
    order, flipped = stored_axes(stored.affine, axes)
    array = np.asarray(mask.dataobj)
    np.testing.assert_array_equal(to_stored(to_network(array, order, flipped), order, flipped), array)
    assert np.shares_memory(to_network(array, order, flipped), array)


def test_geometry_survives_json():
    geometry = preprocess(Volume(voxels()[None], affine((-1, 1.2, 2))), make_plan()).geometry
    assert Geometry.from_dict(json.loads(json.dumps(geometry.to_dict()))) == geometry
    assert geometry.flipped == (False, False, True)


def test_resampling_reaches_the_plans_spacing():
    case = preprocess(Volume(voxels()[None], affine((1, 1, 2))), make_plan(spacing=(1.0, 2.0, 0.7)), labels())
    assert case.image.shape == (1, 26, 8, 20)  # 13*2/1, 17*1/2 = 8.5 to even, 14*1/0.7
    assert case.label.shape == case.image.shape[1:]
    volume = (case.label > 0).sum() * 1 * 2 * 0.7
    assert volume == pytest.approx((labels() > 0).sum() * 2, rel=0.15)


def test_normalization_by_its_formulas():
    image = voxels()
    mask = image != 0
    ct = normalize(image, make_plan(normalization=["ct"]), 0)
    np.testing.assert_allclose(ct, (np.clip(image, 80, 150) - 110) / 20, atol=1e-5)
    z = normalize(image, make_plan(normalization=["zscore"]), 0)
    np.testing.assert_allclose(z, (image - image.mean(dtype=float)) / image.std(dtype=float), atol=1e-4)
    masked = normalize(image, make_plan(normalization=["zscore"], use_mask=[True]), 0, mask)
    inside = image[mask].astype(float)
    np.testing.assert_allclose(masked[mask], (inside - inside.mean()) / inside.std(), atol=1e-4)
    assert (masked[~mask] == 0).all()
    unit = normalize(image, make_plan(normalization=["rescale"]), 0)
    assert (unit.min(), unit.max()) == (0, 1)
    np.testing.assert_allclose(normalize(image, make_plan(normalization=["rgb"]), 0), image / 255, rtol=1e-6)
    constant = normalize(np.full((3, 3, 3), 7.0), make_plan(normalization=["zscore"]), 0)
    assert (constant == 0).all()
    np.testing.assert_array_equal(image, voxels())  # the input is left alone


def test_holes_count_as_inside_the_mask():
    image = voxels()
    image[8, 9, 6] = 0
    plan = make_plan(normalization=["zscore"], use_mask=[True])
    case = preprocess(Volume(image[None], affine()), plan)
    assert case.label is None
    assert case.image[0, 6 - 2, 9 - 1, 8 - 2] != 0
    with pytest.raises(ValueError, match="mask: expected the non-zero mask"):
        normalize(image, plan, 0)


def test_label_values_become_class_numbers():
    plan = make_plan(labels={"background": 0, "organ": 7, "lesion": 255})
    stored = np.array([0, 7, 255])[labels()]
    case = preprocess(Volume(voxels()[None], affine()), plan, stored)
    np.testing.assert_array_equal(case.label, labels()[2:16, 1:18, 2:15].T)


def test_what_does_not_fit_the_plan():
    volume = Volume(np.stack([voxels()] * 2), affine(), paths=("scan.nii.gz",))
    with pytest.raises(VolumeError, match=r"scan.nii.gz: 2 channels; expected 1 \(MR\)"):
        preprocess(volume, make_plan())
    volume = Volume(voxels()[None], affine())
    for wrong in (labels() * 3, labels().astype(np.int16) - 1):
        with pytest.raises(VolumeError, match=r"label values \[(3, 6|-1)\]; expected one of \[0, 1, 2\]"):
            preprocess(volume, make_plan(), wrong)
    with pytest.raises(ValueError, match="label: expected the scan's shape"):
        preprocess(volume, make_plan(), labels()[1:])


def test_a_scan_of_zeros_is_not_cropped():
    case = preprocess(Volume(np.zeros((1, 6, 7, 8), np.float32), np.eye(4)), make_plan(spacing=(1.0, 1.0, 1.0)))
    assert case.image.shape == (1, 8, 7, 6) and not case.image.any()
