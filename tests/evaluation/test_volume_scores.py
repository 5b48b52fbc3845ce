import math
from dataclasses import asdict

import numpy as np
import pytest
import torch

from mamba_vision.evaluation import VolumeMetric, score_volume

CLASSES = ["background", "box", "other"]


def box(shape, *sides) -> np.ndarray:
    array = np.zeros(shape, dtype=np.uint8)
    array[tuple(slice(first, last) for first, last in sides)] = 1
    return array


def test_two_boxes_a_known_way_apart():
    # 4 x 4 x 4 voxels, moved by one voxel of 3 mm along the first axis.
    truth = box((12, 12, 12), (2, 6), (2, 6), (2, 6))
    moved = box((12, 12, 12), (3, 7), (2, 6), (2, 6))
    score = score_volume(moved, truth, (3.0, 1.0, 1.0), CLASSES[:2], tolerance=1.0)[0]
    assert score.dice == pytest.approx(0.75)  # 3 of 4 layers
    assert score.hd95_mm == pytest.approx(3.0)
    assert score.volume_true_ml == score.volume_predicted_ml == pytest.approx(64 * 3 / 1000)
    assert score.volume_error_ml == 0
    # Surface voxels of a box of 4: 16 in each end layer, 12 in each of the two between: 56. Of the truth's, those of
    # its first end (all 16) are 3 mm away; the last layer and the two between lie in or beside the moved surface, but
    # the middle 2 x 2 of the last layer is inside the moved box, 1 mm from its surface. The same mirrored.
    assert score.surface_dice == pytest.approx(40 / 56)
    assert score_volume(moved, truth, (3, 1, 1), CLASSES[:2], tolerance=3.0)[0].surface_dice == 1
    # Along another axis the same move is 1 mm.
    assert score_volume(moved, truth, (1, 3, 3), CLASSES[:2])[0].hd95_mm == pytest.approx(1.0)


def test_a_mask_that_fills_the_volume_has_its_border_for_a_surface():
    full = np.ones((5, 5, 5), dtype=np.uint8)
    score = score_volume(full, full, (1, 1, 1), CLASSES[:2])[0]
    assert (score.dice, score.surface_dice, score.hd95_mm) == (1, 1, 0)


def test_missing_classes_follow_the_written_convention():
    some, none = box((6, 6, 6), (1, 3), (1, 3), (1, 3)), np.zeros((6, 6, 6), dtype=np.uint8)
    both = score_volume(none, none, (1, 1, 1), CLASSES[:2])[0]
    assert both.missing == "both"
    assert math.isnan(both.dice)
    assert math.isnan(both.surface_dice)
    for prediction, truth, where in ((some, none, "truth"), (none, some, "prediction")):
        score = score_volume(prediction, truth, (1, 1, 1), CLASSES[:2])[0]
        assert (score.dice, score.surface_dice, score.missing) == (0, 0, where)
        assert math.isnan(score.hd95_mm)


def test_ignored_voxels_do_not_count():
    truth = box((6, 6, 6), (1, 3), (1, 3), (1, 3))
    prediction = truth.copy()
    prediction[4:] = 1
    truth[4:] = 9
    assert score_volume(prediction, truth, (1, 1, 1), CLASSES[:2], ignore_index=9)[0].dice == 1


def test_only_asked_scores_are_computed():
    some = box((6, 6, 6), (1, 3), (1, 3), (1, 3))
    score = score_volume(some, some, (1, 1, 1), CLASSES[:2], metrics=["dice"])[0]
    assert score.dice == 1
    assert math.isnan(score.hd95_mm)
    assert math.isnan(score.surface_dice)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction": np.zeros((2, 2, 2))}, "expected the truth's shape"),
        ({"spacing": (1, 1)}, "spacing: expected 3"),
        ({"metrics": ["dise"]}, "found 'dise'"),
        ({"tolerance": [1.0, 2.0, 3.0]}, "each of 1 classes"),
    ],
)
def test_bad_arguments(change, message):
    some = box((6, 6, 6), (1, 3), (1, 3), (1, 3))
    arguments = {"prediction": some, "truth": some, "spacing": (1, 1, 1), "classes": CLASSES[:2], **change}
    with pytest.raises(ValueError, match=message):
        score_volume(**arguments)


def test_metric_means_are_over_cases_then_classes_in_python_floats():
    metric = VolumeMetric(CLASSES, tolerance=[1.0, 2.0])
    first = box((8, 8, 8), (1, 5), (1, 5), (1, 5))
    second = first.copy()
    second[6:] = 2
    shifted = box((8, 8, 8), (2, 6), (1, 5), (1, 5))
    for case, prediction, truth in (("a", first, first), ("b", shifted, second)):
        sample = {"case": case, "spacing": (1.0, 1.0, 1.0), "pred_label": torch.from_numpy(prediction)}
        metric.process(None, [{**sample, "gt_label": torch.from_numpy(truth)}])
    found = metric.evaluate(2)
    assert found["dice_box"] == pytest.approx((1 + 0.75) / 2)
    assert found["dice_other"] == 0  # case a has none: left out; case b has it and nothing was predicted
    assert found["dice"] == pytest.approx(found["dice_box"] / 2)
    assert math.isnan(found["hd95_mm_other"])
    assert found["hd95_mm"] == found["hd95_mm_box"]
    assert all(type(value) is float for value in found.values())


def test_metric_refuses_unknown_scores():
    with pytest.raises(ValueError, match="found 'dise'"):
        VolumeMetric(CLASSES, scores=["dise"])


def test_scores_are_plain_values():
    some = box((6, 6, 6), (1, 3), (1, 3), (1, 3))
    values = asdict(score_volume(some, some, (1, 1, 1), CLASSES)[0])
    assert {type(value) for value in values.values()} == {str, int, float}
