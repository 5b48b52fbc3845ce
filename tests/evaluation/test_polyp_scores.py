"""The polyp field's scores: against their maintained library's values, loops over pixels, and cases known in advance.

The library, PySODMetrics 1.6.2, wants older versions of NumPy and OpenCV than the toolkit's, so that its results are
written down here; where it is installed, it is also run.
"""

import numpy as np
import pytest
import torch

from mamba_vision.evaluation import PolypMetric
from mamba_vision.evaluation import polyp_scores as scores
from mamba_vision.evaluation.polyp_metric import score_map


def case(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A map and a mask, without chance: blobs that fit each other more or less."""
    rows, columns = np.mgrid[0:40, 0:56] / 8.0
    field = np.sin(rows + number) * np.cos(columns - 0.5 * number) + 0.3 * np.sin(3 * columns + rows)
    mask = field + 0.4 * np.cos(2 * rows - number) > (0.3, 0.8, -0.2, 1.2)[number]
    return 1 / (1 + np.exp(-3 * (field - 0.2))), mask


NAMES = ("sm", "em_max", "em_mean", "wfm", "mae", "mdice", "miou")
RECORDED = [
    (0.7433559586, 0.8526358528, 0.6119108768, 0.6414131611, 0.2660591737, 0.6419406011, 0.4887377947),
    (0.6303915408, 0.9644788405, 0.5882158799, 0.4107661791, 0.2794380252, 0.5805306714, 0.4403680948),
    (0.6183596975, 0.9020991915, 0.4862248179, 0.6862370832, 0.3812675070, 0.5903595924, 0.4763713086),
    (0.4263041846, 0.9893552093, 0.4215410738, 0.1404397635, 0.3565931373, 0.3281070315, 0.2230911759),
]


@pytest.mark.parametrize("number", range(4))
def test_recorded_values_of_the_library(number):
    found = score_map(*case(number))
    curve = found.pop("em")
    found |= {"em_max": curve.max(), "em_mean": curve.mean()}
    for name, value in zip(NAMES, RECORDED[number]):
        assert found[name] == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize("number", range(4))
def test_the_library_where_it_is_installed(number):
    library = pytest.importorskip("py_sod_metrics")
    probability, mask = case(number)
    levels = scores.eight_bits(probability)
    measures = library.Smeasure(), library.Emeasure(), library.WeightedFmeasure(), library.MAE()
    for measure in measures:
        measure.step(pred=levels, gt=(255 * mask).astype(np.uint8))
    s, e, f, m = (measure.get_results() for measure in measures)
    assert scores.s_measure(levels, mask) == pytest.approx(s["sm"])
    np.testing.assert_allclose(scores.e_measure_curve(levels, mask), e["em"]["curve"][::-1])
    assert scores.weighted_f_measure(levels, mask) == pytest.approx(f["wfm"])
    assert scores.mean_absolute_error(levels, mask) == pytest.approx(m["mae"])


def test_curves_are_the_scores_at_each_threshold():
    probability, mask = case(0)
    levels = scores.eight_bits(probability)
    dice, iou = scores.dice_and_iou_curves(levels, mask)
    for threshold in (0, 1, 77, 200, 255):
        expected = scores.dice_and_iou(levels >= threshold, mask)
        assert (dice[threshold], iou[threshold]) == pytest.approx(expected)
    aligned = scores.e_measure_curve(levels, mask)
    for threshold in (1, 100, 250):
        a, b = (x - x.mean() for x in ((levels >= threshold).astype(float), mask.astype(float)))
        enhanced = (2 * a * b / (a * a + b * b) + 1) ** 2 / 4
        assert aligned[threshold] == pytest.approx(enhanced.sum() / (mask.size - 1))


def test_dice_and_iou_by_counting():
    a, b = np.zeros((2, 4, 4), bool)
    a[0, :3], b[0, 1:] = True, True
    assert scores.dice_and_iou(a, b) == (pytest.approx(4 / 6), pytest.approx(2 / 4))
    empty = np.zeros((4, 4), bool)
    assert scores.dice_and_iou(empty, empty) == (1.0, 1.0)
    assert scores.dice_and_iou(a, empty) == (0.0, 0.0)


def test_a_perfect_map_has_perfect_scores():
    _, mask = case(0)
    found = score_map(mask.astype(float), mask)
    assert found.pop("em").max() == pytest.approx(1, abs=1e-3)
    assert found.pop("mae") == 0
    # At threshold 0 everything is foreground, which is one of the 256.
    share = mask.mean()
    assert found.pop("mdice") == pytest.approx((255 + 2 * share / (1 + share)) / 256)
    assert found.pop("miou") == pytest.approx((255 + share) / 256)
    assert all(value == pytest.approx(1) for value in found.values())


@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_flat_maps_and_masks(value, level):
    mask = np.full((9, 12), value)
    found = score_map(np.full((9, 12), level), mask)
    assert all(np.isfinite(one).all() for one in found.values())
    assert found["mae"] == pytest.approx(abs(level - value), abs=0.002)
    assert found["dice"] == float(value == (level >= 0.5))
    assert found["sm"] == pytest.approx(1 - abs(level - value), abs=0.002)


def test_small_masks_at_the_border():
    for place in ((0, 0), (0, 11), (8, 11)):
        mask = np.zeros((9, 12), bool)
        mask[place] = True
        assert all(np.isfinite(one).all() for one in score_map(np.random.rand(9, 12), mask).values())


def sample(number: int, mode: str | None, dataset: str) -> dict:
    probability, mask = case(number)
    meta = {} if mode is None else {"prompt_mode": mode}
    return {"pred_prob": torch.from_numpy(probability), "gt_mask": torch.from_numpy(mask), "dataset": dataset, **meta}


def test_metric_by_mode_and_data_set():
    metric = PolypMetric()
    metric.process(
        None, [sample(0, "none", "A"), sample(1, "none", "A"), sample(2, "none", "B"), sample(3, "gt_box", "A")]
    )
    found = metric.evaluate(4)
    alone = [score_map(*case(number)) for number in range(4)]
    a, b = (alone[0]["dice"] + alone[1]["dice"]) / 2, alone[2]["dice"]
    assert found["none/A/dice"] == pytest.approx(a) and found["none/dice"] == pytest.approx((a + b) / 2)
    assert found["none/A/em"] == pytest.approx(((alone[0]["em"] + alone[1]["em"]) / 2).max())
    assert found["gt_box/wfm"] == pytest.approx(alone[3]["wfm"]) and "gt_box/A/wfm" not in found
    assert all(type(value) is float for value in found.values())


def test_metric_without_modes_and_its_errors():
    metric = PolypMetric(prefix="polyps")
    metric.process(None, [sample(0, None, "A")])
    assert "polyps/dice" in metric.evaluate(1)
    with pytest.raises(ValueError, match="found a map"):
        metric.process(None, [{"pred_prob": torch.zeros(3, 3), "gt_mask": torch.zeros(3, 4)}])
    with pytest.raises(ValueError, match="threshold: expected"):
        PolypMetric(threshold=1.5)
