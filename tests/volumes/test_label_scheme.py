"""Regions, and voxels that nobody annotated, from dataset.json to the mask."""

import numpy as np
import pytest
from scan_files import affine, labels, make_plan, voxels

from mamba_vision.volumes import Plan, Volume, VolumeError, preprocess, restore_labels, restore_probabilities
from mamba_vision.volumes.cache import region_locations
from mamba_vision.volumes.label_scheme import LabelScheme, read_label_scheme
from mamba_vision.volumes.restore import labels_from_probabilities

BRATS = {"background": 0, "whole tumour": [1, 2, 3], "tumour core": [1, 3], "enhancing": 3}
REGIONS = {
    "labels": {"background": 0, "core only": 1, "whole only": 2, "enhancing": 3},
    "regions": {"whole": [1, 2, 3], "core": [1, 3], "enhancing": [3]}, "region_order": [2, 1, 3],
}  # fmt: skip


def test_regions_name_the_values_that_they_paint():
    scheme = read_label_scheme(BRATS, "dataset.json", [2, 1, 3])
    assert scheme.labels == {"background": 0, "tumour core only": 1, "whole tumour only": 2, "enhancing": 3}
    assert scheme.regions == {"whole tumour": [1, 2, 3], "tumour core": [1, 3], "enhancing": [3]}
    assert (scheme.region_order, scheme.values) == ([2, 1, 3], [0, 1, 2, 3])
    merged = read_label_scheme({"background": 0, "all": [1, 2], "ignore": 3}, "x", [1])
    assert merged.labels == {"background": 0, "all only": 1, "label_2": 2}
    assert (merged.ignore_label, merged.values) == (3, [0, 1, 2, 3])


def test_exclusive_labels_with_ignore():
    scheme = read_label_scheme({"ignore": 9, "b": 4, "background": 0}, "x")
    assert scheme == LabelScheme({"background": 0, "b": 4}, ignore_label=9)
    assert read_label_scheme({"0": "nothing", "1": "a"}, "x").labels == {"nothing": 0, "a": 1}


@pytest.mark.parametrize(
    ("given", "order", "match"),
    [
        (BRATS, None, "regions_class_order"),
        (BRATS, [1, 2], "expected a value for each of whole tumour"),
        (BRATS, [1, 1, 3], "regions_class_order"),
        (BRATS, [1, 2, 7], "regions_class_order"),
        ({"background": 0, "a": [1, "x"]}, [1], "a whole number"),
        ({"background": 0, "a": 1, "ignore": 1}, None, "the highest value"),
        ({"background": 0, "a": 1, "ignore": 2, "Ignore": 3}, None, "one label 'ignore'"),
    ],
)
def test_what_makes_no_sense_is_refused(given, order, match):
    with pytest.raises(VolumeError, match=match):
        read_label_scheme(given, "dataset.json", order)


def test_a_plan_keeps_regions_and_counts_outputs(tmp_path):
    plan = make_plan(**REGIONS, ignore_label=5)
    assert (plan.num_classes, plan.num_outputs, plan.ignore_class) == (4, 3, 4)
    assert plan.region_classes == {"whole": [1, 2, 3], "core": [1, 3], "enhancing": [3]}
    assert Plan.load(plan.save(tmp_path / "plan.json")) == plan
    with pytest.raises(ValueError, match="region_order"):
        make_plan(**{**REGIONS, "region_order": [1, 2]})


def test_ignored_voxels_become_the_class_behind_the_last():
    plan = make_plan(ignore_label=7)
    stored = labels()
    stored[0:3] = 7
    case = preprocess(Volume(voxels()[None], affine()), plan, stored)
    assert set(np.unique(case.label)) == {0, 1, 2, 3} and (case.label == 3).sum() > 0
    places = region_locations(case.label, plan)
    assert set(places) == {"annotated"}
    assert (case.label[tuple(places["annotated"].T)] != 3).all()
    with pytest.raises(VolumeError, match=r"label values \[7\]"):
        preprocess(Volume(voxels()[None], affine()), make_plan(), stored)


def test_region_voxels_are_those_of_all_its_classes():
    label = np.zeros((4, 5, 6), np.int16)
    label[1, 1, :4] = [1, 2, 3, 3]
    places = region_locations(label, make_plan(**REGIONS))
    assert {name: len(found) for name, found in places.items()} == {"region_1": 4, "region_2": 3, "region_3": 2}


def test_regions_are_painted_in_their_order():
    """Voxels: nothing, whole, whole and core, all three, core alone (painted although whole says no)."""
    plan = make_plan(**REGIONS, spacing=(1.0, 1.0, 1.0))
    volume = Volume(np.ones((1, 5, 3, 4), np.float32), affine((1.0, 1.0, 1.0)))
    geometry = preprocess(volume, plan).geometry
    signs = np.array([[-1, -1, -1], [1, -1, -1], [1, 1, -1], [1, 1, 1], [-1, 1, -1]], np.float32) * 4
    logits = np.broadcast_to(signs.T[:, None, None, :], (3, 4, 3, 5))  # network axes z, y, x
    mask = restore_labels(logits, geometry, plan)
    assert mask[:, 0, 0].tolist() == [0, 2, 1, 3, 1]
    chances = restore_probabilities(logits, geometry, plan)
    assert chances.shape == (3, 5, 3, 4) and chances[:, 3, 0, 0] == pytest.approx([1 / (1 + np.exp(-4))] * 3)
    assert np.array_equal(labels_from_probabilities(2 * chances, plan, models=2), mask)


def test_outside_the_mask_the_label_is_minus_one():
    plan = make_plan(normalization=["zscore"], use_mask=[True])
    image = voxels()
    image[6:8, 6:8, 5:7] = 0  # a hole inside, which the mask fills
    image[3:5, 1, 2] = 0  # a notch at the border of the crop: outside
    case = preprocess(Volume(image[None], affine()), plan, labels())
    assert case.label.min() == -1 and (case.image[0][case.label == -1] == 0).all()
    assert (case.label == -1).sum() == 2
    assert preprocess(Volume(image[None], affine()), make_plan(), labels()).label.min() == 0
