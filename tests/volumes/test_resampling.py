"""Axis by axis against SciPy's own, at once."""

import numpy as np
import pytest
from scipy import ndimage

from mamba_vision.volumes import resampling
from mamba_vision.volumes.resampling import axis_matrix, coarse_axis, resample_image, resample_labels, resample_slab

SIZES = [((20, 30, 17), (25, 13, 40)), ((12, 12, 12), (24, 6, 12)), ((7, 9, 50), (5, 19, 33)), ((2, 5, 5), (1, 9, 4))]


def zoom(array, shape, order):
    factors = [new / old for old, new in zip(array.shape, shape)]
    return ndimage.zoom(array.astype(np.float64), factors, order=order, mode="nearest", grid_mode=True)


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_images_are_cubic_splines_within_their_range(old, new):
    image = np.random.default_rng(0).normal(size=old).astype(np.float32)
    expected = np.clip(zoom(image, new, 3), image.min(), image.max())
    np.testing.assert_allclose(resample_image(image, new), expected, atol=2e-6)


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_labels_take_the_highest_class_that_reaches_one_half(old, new):
    labels = np.random.default_rng(0).integers(0, 4, old).astype(np.int16)
    expected = np.zeros(new, np.int16)
    for value in range(1, 4):
        expected[np.round(zoom(labels == value, new, 1), 5) >= 0.5] = value
    found = resample_labels(labels, new)
    assert found.dtype == np.int16
    assert (found != expected).mean() < 1e-3  # ties, up to rounding


def test_a_coarse_axis_is_taken_slice_by_slice():
    image = np.random.default_rng(0).normal(size=(6, 20, 20)).astype(np.float32)
    found = resample_image(image, (9, 14, 25), coarse=0)
    for index in range(9):
        plane = image[int((index + 0.5) * 6 / 9)]
        expected = np.clip(zoom(plane, (14, 25), 3), plane.min(), plane.max())
        np.testing.assert_allclose(found[index], expected, atol=2e-6)
    labels = np.zeros((6, 20, 20), np.int16)
    labels[2, 5:15, 5:15] = 1
    found = resample_labels(labels, (12, 20, 20), coarse=0)
    assert np.flatnonzero(found.any(axis=(1, 2))).tolist() == [4, 5]


@pytest.mark.parametrize(
    ("spacing", "target", "axis"),
    [
        ((1, 1, 1), (2, 2, 2), None),
        ((3.1, 1, 1), (1, 1, 1), 0),
        ((3, 1, 1), (1, 1, 1), None),  # three times is not more than three times
        ((1, 1, 1), (1, 1, 5), 2),
        ((1, 5, 5), (5, 1, 1), None),  # two coarse axes
        ((1, 5, 1), (5, 1, 1), 1),  # the present spacing goes before the target's
    ],
)
def test_which_axis_is_coarse(spacing, target, axis):
    assert coarse_axis(spacing, target) == axis


def test_one_class_after_the_other_needs_only_its_surroundings(monkeypatch):
    """A small label in a large volume: products of the size of its box, not of the volume."""
    largest = []
    original = resampling.apply_axis
    monkeypatch.setattr(
        resampling, "apply_axis", lambda array, *rest: largest.append(array.size) or original(array, *rest)
    )
    labels = np.zeros((64, 64, 64), np.int16)
    labels[30:34, 30:34, 30:34] = 5
    found = resample_labels(labels, (100, 100, 100))
    assert set(np.unique(found)) == {0, 5} and max(largest) < 2000


def test_a_slab_is_a_part_of_the_whole():
    image = np.random.default_rng(0).normal(size=(13, 11, 9)).astype(np.float32)
    matrices = [axis_matrix(*sides, 1) for sides in zip(image.shape, (20, 7, 15))]
    read = []
    slab = resample_slab(lambda part: read.append(part) or image[part], matrices, slice(5, 9))
    np.testing.assert_allclose(slab, zoom(image, (20, 7, 15), 1)[5:9], atol=1e-6)
    assert read == [slice(3, 7)]  # only the planes that these rows need


def test_equal_sizes_change_nothing():
    image = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    np.testing.assert_array_equal(resample_image(image, (5, 6, 7)), image)
    labels = (image > 0).astype(np.int16)
    np.testing.assert_array_equal(resample_labels(labels, (5, 6, 7)), labels)
