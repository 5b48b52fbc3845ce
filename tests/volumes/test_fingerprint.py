"""Numbers of a data set against what they should be."""

import nibabel as nib
import numpy as np
import pytest
from scan_files import affine, labels, voxels

from mamba_vision.volumes import Fingerprint, Volume, VolumeError
from mamba_vision.volumes.fingerprint import case_fingerprint, nonzero_box, pool_intensities


def test_a_case_along_canonical_axes():
    canonical = Volume(voxels()[None], affine((1, 1.5, 2)))
    turned = nib.Nifti1Image(voxels(), affine((1, 1.5, 2))).as_reoriented(nib.orientations.axcodes2ornt("SLP"))
    mask = nib.Nifti1Image(labels(), affine()).as_reoriented(nib.orientations.axcodes2ornt("SLP"))
    for volume, label in (
        (canonical, labels()),
        (Volume(turned.get_fdata(dtype=np.float32)[None], turned.affine), np.asarray(mask.dataobj)),
    ):
        case, drawn = case_fingerprint("a", volume, Volume(label[None], volume.affine), 1000)
        assert case.shape == (18, 20, 16) and case.cropped_shape == (14, 17, 13) and case.spacing == (1, 1.5, 2)
        assert case.relative_size == pytest.approx(14 * 17 * 13 / (18 * 20 * 16))
        volumes = {value: (labels() == value).sum() * 3 / 1000 for value in (1, 2)}
        assert case.label_ml == pytest.approx(volumes)
        assert drawn.shape == (1, 1000) and set(drawn[0]) <= set(voxels()[labels() > 0])


def test_channels_share_the_places_and_the_crop():
    second = np.zeros_like(voxels())
    second[0, 0, 0] = 1
    array = np.stack([voxels(), second])
    assert nonzero_box(array) == (slice(0, 16), slice(0, 18), slice(0, 15))
    assert nonzero_box(array * 0) == (slice(0, 18), slice(0, 20), slice(0, 16))
    volume = Volume(np.stack([voxels(), voxels() * 2]), affine())
    _, drawn = case_fingerprint("a", volume, Volume(labels()[None], affine()), 100)
    np.testing.assert_array_equal(drawn[0] * 2, drawn[1])


def test_pooled_numbers():
    (numbers,) = pool_intensities(
        [np.arange(0, 600, dtype=np.float32)[None], np.arange(600, 1001, dtype=np.float32)[None]]
    )
    assert (numbers.mean, numbers.median, numbers.min, numbers.max) == (500, 500, 0, 1000)
    assert (numbers.percentile_00_5, numbers.percentile_99_5) == (5, 995)
    assert numbers.std == pytest.approx(np.arange(1001).std())
    with pytest.raises(ValueError, match="every label is empty"):
        pool_intensities([np.empty((1, 0), np.float32)])


def test_json(tmp_path):
    volume = Volume(voxels()[None], affine())
    case, drawn = case_fingerprint("a", volume, Volume(labels()[None], affine()), 10)
    fingerprint = Fingerprint([case], pool_intensities([drawn]))
    assert Fingerprint.load(fingerprint.save(tmp_path / "f.json")) == fingerprint
    assert fingerprint.label_values == [1, 2]
    (tmp_path / "f.json").write_text("{}")
    with pytest.raises(VolumeError, match="no usable fingerprint"):
        Fingerprint.load(tmp_path / "f.json")
