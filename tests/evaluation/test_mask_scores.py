"""Scores of masks against closed forms, MONAI, and a plain second counting of lesions."""

import math
import warnings

import numpy as np
import pytest
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_iou,
    compute_surface_dice,
)
from scipy import ndimage

from mamba_vision.evaluation import ScoreOptions, VolumeMetric, score_structures
from mamba_vision.evaluation.mask_scores import lesion_scores, overlap_box

SHAPE = (24, 22, 20)


def cube(*sides: slice, shape=SHAPE) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[sides] = True
    return mask


def blob(seed: int) -> np.ndarray:
    """A bumpy ball of a few hundred voxels."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 2)
    ball = sum((axis - middle) ** 2 for axis, middle in zip(np.indices(SHAPE), (12, 11, 10)))
    return ball + 600 * noise < 36


def score(prediction, truth, spacing=(1, 1, 1), **options):
    options = ScoreOptions(**{"lesion_min_mm3": 0.0, **options})
    return score_structures(prediction.astype(np.uint8), truth.astype(np.uint8), spacing, {"it": 1}, options)[0]


@pytest.mark.parametrize("seed", range(3))
def test_monai_computes_the_same(seed):
    prediction, truth, spacing = blob(seed), blob(seed + 10), (2.5, 0.8, 1.1)
    found = score(prediction, truth, spacing, tolerance=1.5)
    pair = [torch.from_numpy(mask)[None, None] for mask in (prediction, truth)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found.dice == pytest.approx(float(compute_dice(*pair)))
        assert found.iou == pytest.approx(float(compute_iou(*pair)))
        options = dict(include_background=True, spacing=spacing)
        assert found.surface_dice == pytest.approx(float(compute_surface_dice(*pair, [1.5], **options)), abs=1e-6)
        assert found.hd95_mm == pytest.approx(
            float(compute_hausdorff_distance(*pair, percentile=95, **options)), abs=1e-5
        )
        both = compute_average_surface_distance(*pair, symmetric=True, **options)
        assert found.assd_mm == pytest.approx(float(both), abs=1e-5)


def test_two_planes_a_known_way_apart():
    # Slabs of one voxel: every voxel is surface, every distance is the gap of 4 steps of 3 mm.
    found = score(cube(slice(4, 5)), cube(slice(8, 9)), (3.0, 1.0, 1.0), tolerance=11.9)
    assert (found.hd95_mm, found.assd_mm, found.surface_dice, found.dice, found.iou) == (12, 12, 0, 0, 0)
    assert score(cube(slice(4, 5)), cube(slice(8, 9)), (3, 1, 1), tolerance=12.0).surface_dice == 1


def test_shares_of_boxes():
    truth, prediction = cube(slice(0, 8), slice(0, 4), slice(0, 4)), cube(slice(2, 12), slice(0, 4), slice(0, 4))
    found = score(prediction, truth, (2.0, 1.0, 0.5))
    assert found.sensitivity == 6 / 8
    assert found.precision == 6 / 10
    assert found.iou == 6 / 12
    assert found.dice == 12 / 18
    assert found.volume_error_ml == pytest.approx(2 * 16 / 1000)
    assert found.volume_error_percent == pytest.approx(25)
    assert not found.empty_truth


def test_a_region_is_the_union_of_its_labels():
    truth = np.zeros(SHAPE, np.uint8)
    truth[2:6], truth[6:8], truth[8:10] = 2, 1, 3
    prediction = np.where(truth == 1, 3, truth).astype(np.uint8)
    whole, core, tip = score_structures(prediction, truth, (1, 1, 1), {"whole": (1, 2, 3), "core": (1, 3), "tip": 3})
    assert (whole.dice, core.dice, tip.dice) == (1, 1, pytest.approx(2 / 3))
    assert (whole.label, core.label, tip.label) == ("1+2+3", "1+3", 3)


def test_where_a_structure_is_missing():
    some, none = cube(slice(2, 6), slice(2, 6), slice(2, 6)), cube(slice(0))
    extra, lost, neither = score(some, none), score(none, some), score(none, none)
    assert (extra.dice, extra.iou, extra.precision, extra.lesion_f1, extra.empty_truth) == (0, 0, 0, 0, True)
    assert (lost.dice, lost.iou, lost.sensitivity, lost.lesion_f1, lost.empty_truth) == (0, 0, 0, 0, False)
    undefined = [extra.sensitivity, lost.precision, extra.hd95_mm, lost.assd_mm, extra.volume_error_percent]
    undefined += [neither.dice, neither.iou, neither.hd95_mm, neither.lesion_dice, neither.sensitivity]
    assert all(math.isnan(value) for value in undefined)
    assert (extra.lesions_false, lost.lesions_missed, neither.lesions_found) == (1, 1, 0)
    assert score(some, none, missing_distance_mm=374.0).hd95_mm == 374
    counted = score(none, none, both_empty="perfect")
    assert (counted.dice, counted.surface_dice, counted.hd95_mm, counted.lesion_f1) == (1, 1, 0, 1)


def test_lesions_found_missed_and_false():
    truth = cube(slice(1, 4), slice(1, 4), slice(1, 4)) | cube(slice(16, 20), slice(16, 20), slice(14, 18))
    prediction = cube(slice(2, 4), slice(1, 4), slice(1, 4)) | cube(slice(1, 3), slice(18, 20), slice(16, 18))
    found = lesion_scores(prediction, truth, (1, 1, 1), min_mm3=0, missing_mm=374)
    assert (found.found, found.missed, found.false) == (1, 1, 1)
    assert found.f1 == 2 / 4
    assert found.dice == pytest.approx(2 * 18 / (27 + 18) / 3)
    assert found.hd95_mm == pytest.approx((1 + 374 + 374) / 3)
    assert lesion_scores(prediction, truth, (1, 1, 1), min_mm3=0).hd95_mm == 1  # of those found
    # 27 voxels count as too small with BraTS's 50 mm^3, and what touches them is not false.
    small = lesion_scores(prediction, truth, (1, 1, 1))
    assert (small.found, small.missed, small.false) == (0, 1, 1)
    assert lesion_scores(prediction, truth, (2, 1, 1)).found == 1


def test_near_pieces_are_one_lesion():
    pieces = cube(slice(2, 5), slice(4, 8), slice(4, 8)) | cube(slice(9, 12), slice(4, 8), slice(4, 8))
    first = cube(slice(2, 5), slice(4, 8), slice(4, 8))
    joined = lesion_scores(first, pieces, (1, 1, 1), min_mm3=0)  # 4 voxels between, which 3 from either side fill
    assert (joined.found, joined.missed) == (1, 0)
    assert joined.dice == pytest.approx(2 / 3)
    apart = lesion_scores(first, pieces, (1, 1, 1), min_mm3=0, dilation=0)
    assert (apart.found, apart.missed, apart.dice) == (1, 1, 0.5)


def plain_lesions(prediction, truth, voxel, dilation, min_mm3):
    """The same definition on whole volumes, one lesion after the other, nothing cropped."""
    full, near = np.ones((3, 3, 3)), ndimage.generate_binary_structure(3, 2)
    pieces, number = ndimage.label(prediction, full)
    grown, lesions = ndimage.label(ndimage.binary_dilation(truth, near, iterations=dilation), full)
    touched, dices, missed = set(), [], 0
    for one in range(1, lesions + 1):
        lesion = truth & (grown == one)
        mine = set(pieces[ndimage.binary_dilation(lesion, near, iterations=dilation)].tolist()) - {0}
        touched |= mine
        if lesion.sum() * voxel > min_mm3:
            body = np.isin(pieces, list(mine))
            missed += not mine
            dices += [2 * (body & lesion).sum() / (body.sum() + lesion.sum())] if mine else []
    false = number - len(touched)
    return len(dices), missed, false, sum(dices) / max(len(dices) + missed + false, 1)


@pytest.mark.parametrize("seed", range(6))
def test_a_second_counting_of_lesions_agrees(seed):
    random = np.random.default_rng(seed)
    truth, prediction = (ndimage.gaussian_filter(random.normal(size=(40, 36, 30)), 1.5) > 0.14 for _ in range(2))
    dilation, min_mm3 = 1 + seed % 2, 8.0
    found = lesion_scores(prediction, truth, (1, 1, 2), dilation=dilation, min_mm3=min_mm3)
    expected = plain_lesions(prediction, truth, 2.0, dilation, min_mm3)
    assert (found.found, found.missed, found.false) == expected[:3]
    assert found.dice == pytest.approx(expected[3])


def test_boxes_and_options():
    assert overlap_box(cube(slice(2, 4), slice(3, 9), slice(0, 1)), margin=1) == (
        slice(1, 5),
        slice(2, 10),
        slice(0, 2),
    )
    with pytest.raises(ValueError, match="both_empty: expected 'undefined' or 'perfect', found 'one'"):
        ScoreOptions(both_empty="one")
    with pytest.raises(ValueError, match="lesion_dilation: expected 0 or more"):
        ScoreOptions(lesion_dilation=-1)


def test_the_metric_of_training_takes_any_score():
    metric = VolumeMetric(["background", "it"], scores=["iou", "assd", "lesions"])
    label = torch.from_numpy(cube(slice(2, 8), slice(2, 8), slice(2, 8)).astype(np.uint8))
    metric.process(None, [{"spacing": (1, 1, 1), "pred_label": label, "gt_label": label}])
    found = metric.evaluate(1)
    assert found["iou"] == found["lesion_f1"] == found["lesion_dice_it"] == 1
    assert found["assd_mm"] == 0
    assert "dice" not in found
