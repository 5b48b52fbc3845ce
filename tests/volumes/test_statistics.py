"""Numbers of a label map, against what geometry says and against NumPy on the whole array."""

import numpy as np
import pytest
from scipy import ndimage

from mamba_vision.volumes import statistics
from mamba_vision.volumes.statistics import flat_record, label_statistics


def test_a_box_in_a_turned_grid():
    labels = np.zeros((10, 12, 8), np.uint8)
    labels[2:5, 3:7, 1:3] = 2
    affine = np.array([[0, -2, 0, 50], [1.5, 0, 0, -20], [0, 0, 3, 7], [0, 0, 0, 1]], float)
    image = np.arange(labels.size, dtype=np.float32).reshape(1, *labels.shape)
    absent, record = label_statistics(labels, affine, {"background": 0, "tumour": 2, "liver": 1}, image)
    assert (absent["name"], absent["voxels"], absent["ml"], absent["centroid_mm"]) == ("liver", 0, 0.0, None)
    assert (record["name"], record["label"], record["voxels"], record["components"]) == ("tumour", 2, 24, 1)
    assert record["ml"] == pytest.approx(24 * 9 / 1000)
    assert not record["touches_border"]
    # x = 50 - 2 j, y = -20 + 1.5 i, z = 7 + 3 k; i 2..4, j 3..6, k 1..2
    assert record["centroid_mm"] == pytest.approx([50 - 9, -20 + 4.5, 7 + 4.5])
    assert record["box_mm"][0] == pytest.approx([50 - 13, -20 + 2.25, 8.5])
    assert record["box_mm"][1] == pytest.approx([50 - 5, -20 + 6.75, 14.5])
    values = image[0][labels == 2].astype(float)
    expected = {"mean": values.mean(), "sd": values.std(), "min": values.min(), "max": values.max()}
    assert record["intensity"]["channel 0"] == pytest.approx(expected)
    row = flat_record(record)
    assert row["mean"] == pytest.approx(values.mean()) and row["box_max_z_mm"] == pytest.approx(14.5)
    assert flat_record(absent)["centroid_x_mm"] is None


def test_slabs_change_nothing(monkeypatch):
    rng = np.random.default_rng(3)
    labels = (ndimage.gaussian_filter(rng.normal(size=(30, 20, 25)), 1) > 0.12).astype(np.int16)
    labels[:, 10:] *= 2
    image = rng.normal(100, 20, size=(2, *labels.shape)).astype(np.float32)
    names = {"one": 1, "two": 2}
    whole = label_statistics(labels, np.eye(4), names, image, ["T1", "T2"])
    monkeypatch.setattr(statistics, "_SLAB", 1)
    for one, other, label in zip(whole, label_statistics(labels, np.eye(4), names, image, ["T1", "T2"]), (1, 2)):
        assert one["components"] == other["components"] == ndimage.label(labels == label, np.ones((3, 3, 3)))[1] > 2
        for channel in ("T1", "T2"):
            assert one["intensity"][channel] == pytest.approx(other["intensity"][channel])
        for key in ("voxels", "centroid_mm", "box_mm", "touches_border"):
            np.testing.assert_allclose(one[key], other[key])
    assert {"mean T1", "sd T2"} <= flat_record(whole[0]).keys()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("end", [0, -1])
def test_border(axis, end):
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[2:4, 2:4, 2:4] = 1
    assert not label_statistics(labels, np.eye(4), {"a": 1})[0]["touches_border"]
    labels[tuple(end if i == axis else slice(2, 4) for i in range(3))] = 1
    assert label_statistics(labels, np.eye(4), {"a": 1})[0]["touches_border"]


def test_a_corner_joins_two_voxels():
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = labels[3, 3, 3] = 1
    assert label_statistics(labels, np.eye(4), {"a": 1})[0]["components"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels_XYZ": np.zeros((3, 3, 3))}, "labels_XYZ: expected 3-D integers, found float64"),
        ({"image_CXYZ": np.zeros((1, 3, 3, 4))}, "image_CXYZ: expected"),
        ({"image_CXYZ": np.zeros((2, 3, 3, 3)), "channels": ["CT"]}, "channels: expected 2 names"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    defaults = {"labels_XYZ": np.ones((3, 3, 3), np.uint8), "affine": np.eye(4), "names": {"a": 1}}
    with pytest.raises(ValueError, match=message):
        label_statistics(**(defaults | arguments))
