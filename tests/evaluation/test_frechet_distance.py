"""The Frechet distance against its formula."""

import pytest
import torch

from mamba_vision.evaluation import FrechetDistance


def test_distance_of_two_normal_distributions():
    """|m1 - m2|^2 + sum (s1 - s2)^2 where covariances are diagonal."""
    metric = FrechetDistance("pixels")
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([1.0, 2.0]).reshape(1, 1, 1, 2)
    real = torch.randn(20000, 1, 1, 2, generator=generator)
    drawn = torch.randn(20000, 1, 1, 2, generator=generator) * spread + 0.5
    for start in range(0, 20000, 5000):
        batch = slice(start, start + 5000)
        metric.process({}, [dict(pred_img=a, gt_img=b) for a, b in zip(drawn[batch], real[batch])])
    found = metric.evaluate(20000)
    assert found == {"frechet_pixels": pytest.approx(2 * 0.5**2 + 1.0, abs=0.05)}
    assert isinstance(found["frechet_pixels"], float)


def test_bad_features():
    with pytest.raises(ValueError, match="features: found 'vgg'"):
        FrechetDistance("vgg")
