"""PSNR and SSIM against definitions written out anew with NumPy and SciPy, and against closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from mamba_vision.evaluation.restoration import RestorationMetric
from mamba_vision.evaluation.restoration_scores import luma, prepared, psnr, ssim


def ssim_by_definition(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. (2004), equation 13, one channel of 0 to 255."""
    weights = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    weights /= weights.sum()

    def mean(x: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(x, weights, axis=0), weights, axis=1)[5:-5, 5:-5]

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mu_a, mu_b = mean(a), mean(b)
    var_a, var_b, cov = mean(a * a) - mu_a**2, mean(b * b) - mu_b**2, mean(a * b) - mu_a * mu_b
    quality = (2 * mu_a * mu_b + c1) * (2 * cov + c2) / ((mu_a**2 + mu_b**2 + c1) * (var_a + var_b + c2))
    return float(quality.mean())


def test_ssim_is_the_published_one() -> None:
    rng = np.random.RandomState(0)
    a = rng.randint(0, 256, (3, 30, 41)).astype(np.float64)
    b = np.clip(a + rng.normal(0, 20, a.shape), 0, 255).round()
    want = np.mean([ssim_by_definition(x, y) for x, y in zip(a, b)])
    assert ssim(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(want, abs=1e-9)
    flat = torch.full((1, 20, 20), 100.0, dtype=torch.float64)
    c1 = (0.01 * 255) ** 2
    assert ssim(flat, flat + 50) == pytest.approx((2 * 100 * 150 + c1) / (100**2 + 150**2 + c1), abs=1e-9)
    with pytest.raises(ValueError, match="SSIM needs 11"):
        ssim(flat[:, :10], flat[:, :10])


def test_psnr_in_closed_form() -> None:
    a = torch.full((3, 8, 8), 100.0)
    assert psnr(a, a + 5) == pytest.approx(20 * math.log10(255 / 5))
    assert psnr(a, a) == math.inf


def test_luma_and_preparation() -> None:
    white, black = torch.full((3, 2, 2), 255.0), torch.zeros(3, 2, 2)
    assert luma(white).unique().item() == pytest.approx(235) and luma(black).unique().item() == 16
    red = torch.tensor([255.0, 0, 0]).view(3, 1, 1)
    assert luma(red).item() == pytest.approx(16 + 65.481)
    image = torch.tensor([-0.2, 1.7, 100.4 / 255]).view(1, 1, 3)
    assert prepared(image).flatten().tolist() == [0, 255, 100]
    assert prepared(image, quantize=False).flatten()[2].item() == pytest.approx(100.4, abs=1e-4)
    assert prepared(torch.rand(3, 9, 12), border=2, y_channel=True).shape == (1, 5, 8)
    assert prepared(torch.rand(1, 9, 12), y_channel=True).shape == (1, 9, 12), "gray images are taken as they are"


def test_metric() -> None:
    metric = RestorationMetric(border=2, y_channel=True, prefix="Set5")
    truth = torch.full((3, 20, 20), 128 / 255)
    broken = truth.clone()
    broken[:, 0], broken[:, :, -1] = 1.0, 0.0  # on the border, which does not count
    off = truth + 10 / 255
    metric.process(None, [dict(pred_image=off, gt_image=truth), dict(pred_image=off, gt_image=broken)])
    scores = metric.evaluate(2)
    assert set(scores) == {"Set5/psnr", "Set5/ssim"} and all(type(value) is float for value in scores.values())
    # Gray steps of 10 are steps of 10 * 219 / 255 in luminance.
    assert scores["Set5/psnr"] == pytest.approx(20 * math.log10(255 / (10 * 219 / 255)), abs=1e-3)
    with pytest.raises(ValueError, match="scores: found"):
        RestorationMetric(scores=("lpips",))
    with pytest.raises(ValueError, match=r"result of shape \(3, 20, 20\), .*\(3, 10, 20\)"):
        metric.process(None, [dict(pred_image=off, gt_image=truth[:, :10])])


def test_data_sets_are_scored_apart() -> None:
    metric, truth = RestorationMetric(scores=("psnr",)), torch.full((3, 20, 20), 128 / 255)
    for name, step in (("set5", 10), ("set5", 10), ("live1", 1)):
        metric.process(None, [dict(pred_image=truth + step / 255, gt_image=truth, dataset=name)])
    scores = metric.evaluate(3)
    a, b = 20 * math.log10(25.5), 20 * math.log10(255)
    assert scores == pytest.approx({"psnr": (2 * a + b) / 3, "psnr_set5": a, "psnr_live1": b}, abs=1e-3)
