"""Scores of sharpened images: other implementations, algebra, filters by their responses, errors."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate, correlate1d
from scipy.signal import convolve2d
from torchmetrics.functional.image import (
    error_relative_global_dimensionless_synthesis,
    peak_signal_noise_ratio,
    spectral_angle_mapper,
)

from mamba_vision.evaluation import fusion_full_resolution as full
from mamba_vision.evaluation import fusion_sharpening_scores as scores
from mamba_vision.evaluation.restoration_scores import ssim
from mamba_vision.registry import METRICS


def pair(bands: int = 4, size: tuple[int, int] = (64, 96)) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    truth = random.integers(100, 1800, (bands, *size)).astype(np.float64)
    return truth + random.integers(-90, 90, truth.shape), truth


def test_against_torchmetrics() -> None:
    fused, truth = pair()
    tensors = [torch.from_numpy(image)[None] for image in (fused, truth)]
    angle = np.degrees(spectral_angle_mapper(*tensors).item())
    assert scores.spectral_angle(fused, truth) == pytest.approx(angle, rel=1e-9)
    ergas = error_relative_global_dimensionless_synthesis(*tensors, ratio=4).item()
    assert scores.relative_error(fused, truth) == pytest.approx(ergas, rel=1e-9)
    psnr = peak_signal_noise_ratio(*tensors, data_range=2047.0).item()
    assert scores.peak_ratio(fused, truth, 2047) == pytest.approx(psnr, rel=1e-6)


def test_quality_index_by_its_definition() -> None:
    fused, truth = pair(2, (33, 34))
    found = []
    for x, y in zip(truth, fused):
        for i in range(2):
            for j in range(3):
                a, b = x[i : i + 32, j : j + 32].ravel(), y[i : i + 32, j : j + 32].ravel()
                (va, cov), (_, vb) = np.cov(a, b)
                found.append(4 * cov * a.mean() * b.mean() / ((va + vb) * (a.mean() ** 2 + b.mean() ** 2)))
    assert scores.quality_index(fused, truth) == pytest.approx(np.mean(found), rel=1e-9)


@pytest.mark.parametrize("bands", [1, 2, 4, 8])
def test_hypercomplex_numbers_keep_their_norm(bands: int) -> None:
    one, two = np.random.default_rng(0).standard_normal((2, 9, bands))
    product = scores.hypercomplex_product(one, two)
    norms = [np.linalg.norm(value, axis=-1) for value in (one, two, product)]
    np.testing.assert_allclose(norms[2], norms[0] * norms[1])
    if bands == 2:
        np.testing.assert_allclose(product @ [1, 1j], (one @ [1, 1j]) * (two @ [1, 1j]))


def test_hypercomplex_quality_of_one_band_is_the_quality_index() -> None:
    """In one block, of the values that the reference's mean and deviation make standard."""
    fused, truth = pair(1, (32, 32))
    a, c = truth.mean(), truth.std(ddof=1)
    want = scores.quality_index((fused - a) / c + 1, (truth - a) / c + 1)
    assert scores.hypercomplex_quality(fused, truth) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("bands", [1, 3, 4, 8, 11])
def test_equal_images_are_perfect(bands: int) -> None:
    _, truth = pair(bands, (40, 33))
    assert scores.hypercomplex_quality(truth, truth) == pytest.approx(1)
    assert scores.quality_index(truth, truth) == pytest.approx(1)
    assert scores.spatial_correlation(truth, truth) == pytest.approx(1)
    assert scores.spectral_angle(truth, truth) < 1e-5 and scores.relative_error(truth, truth) == 0
    assert scores.peak_ratio(truth, truth, 1) == np.inf


def test_worse_images_score_worse() -> None:
    fused, truth = pair()
    worse = truth + 5 * (fused - truth)
    for score in (scores.hypercomplex_quality, scores.quality_index, scores.spatial_correlation):
        assert score(worse.clip(0), truth) < score(fused, truth) < 1


def test_published_border() -> None:
    assert scores.without_border(np.zeros((8, 256, 256))).shape == (8, 215, 215)
    with pytest.raises(ValueError, match="more than 41 a side"):
        scores.without_border(np.zeros((8, 41, 256)))


@pytest.mark.parametrize("gain", [0.22, 0.3, 0.365])
def test_optics_have_their_gain_at_the_nyquist_frequency(gain: float) -> None:
    taps = full.optics(gain)
    # Half a period is one pixel of the image, four of the guide: 1 / 8, or 5 of 40 steps, of which there are 41.
    wave = np.cos(2 * np.pi * (np.arange(41) - 20) * 5 / 41)
    assert taps.sum() == pytest.approx(1, abs=0.01) and (taps * wave).sum() == pytest.approx(gain, abs=0.01)


def test_optics_are_applied_as_sums_over_their_taps() -> None:
    image = np.random.default_rng(0).integers(0, 2048, (4, 50, 45))
    taps = [full.optics(gain) for gain in full.NYQUIST_GAINS["QB"]]
    want = [correlate(band.astype(float), kernel, mode="nearest") for band, kernel in zip(image, taps)]
    np.testing.assert_allclose(full.through_optics(image, "QB"), want, atol=1e-8)


def test_enlarging_keeps_what_is_smooth() -> None:
    image = np.full((2, 8, 12), 3.0)
    np.testing.assert_allclose(full.enlarge(image), 3.0, rtol=1e-6)
    fine = np.cos(2 * np.pi * np.arange(64) / 32)
    # The known pixels are the odd ones of the first doubling, of which the second makes every even one: 2, 6, 10 ...
    np.testing.assert_allclose(full.enlarge(np.tile(fine[2::4], (1, 16, 1)))[0, 0], fine, atol=2e-3)


def test_a_sharpened_image_that_is_consistent_has_quality() -> None:
    random = np.random.default_rng(0)
    guide = full.enlarge(random.uniform(300, 900, (1, 32, 32)), 4)[0]
    fused = np.stack([guide * factor for factor in (0.5, 0.8, 1.0, 1.2)])
    good = full.full_resolution_quality(fused, full.through_optics(fused, "QB"), guide, "QB")
    assert good["D_lambda"] < 1e-3 and 0 <= good["D_s"] < 0.2
    assert good["HQNR"] == pytest.approx((1 - good["D_lambda"]) * (1 - good["D_s"]))
    noisy = fused + random.normal(0, 200, fused.shape)
    assert full.full_resolution_quality(noisy, full.through_optics(fused, "QB"), guide, "QB")["HQNR"] < good["HQNR"]


def test_errors() -> None:
    fused, truth = pair()
    with pytest.raises(ValueError, match=r"fused: found shape \(3, 64, 96\), truth \(4, 64, 96\)"):
        scores.spectral_angle(fused[:3], truth)
    with pytest.raises(ValueError, match="at least 32 pixels a side"):
        scores.quality_index(fused[:, :20], truth[:, :20])
    with pytest.raises(ValueError, match="sensor: found 'WV9'"):
        full.spectral_distortion(fused, truth, "WV9")
    with pytest.raises(ValueError, match="image: found 4 bands, WV3 has 8"):
        full.spectral_distortion(fused, truth, "WV3")
    with pytest.raises(ValueError, match=r"guide: found shape \(64, 64\)"):
        full.spatial_distortion(fused, truth, truth[0, :, :64])
    with pytest.raises(ValueError, match="scale: expected a power of two, found 3"):
        full.enlarge(truth, 3)


def test_metric() -> None:
    fused, truth = (torch.from_numpy(image / 1023) for image in pair(4, (96, 128)))
    metric = METRICS.build(dict(type="mamba_vision.SharpeningMetric", peak=1023, sensor="QB", prefix="GF2"))
    metric.process(None, [dict(pred_image=fused, gt_image=truth), dict(pred_image=truth, gt_image=truth + 1e-3)])
    metric.process(None, [dict(pred_image=fused, ms_image=truth[:, ::4, ::4], pan_image=truth[:1])])
    got = metric.evaluate(3)
    assert list(got) == [f"GF2/{name}" for name in
                         ("PSNR", "SAM", "ERGAS", "SCC", "Q", "Q2n", "D_lambda", "D_s", "HQNR")]  # fmt: skip
    assert all(type(value) is float and np.isfinite(value) for value in got.values())
    counts = [scores.without_border(1023 * image.numpy()) for image in (fused, truth, truth + 1e-3)]
    each = [scores.spectral_angle(counts[0], counts[1]), scores.spectral_angle(counts[1], counts[2])]
    assert got["GF2/SAM"] == pytest.approx(np.mean(each))
    stored = dict(pred_image=fused, ms_image=truth[:, ::4, ::4], pan_image=truth[:1], lms_image=fused)
    metric.process(None, [stored])  # an interpolated image that is stored goes before ours
    assert metric.evaluate(1)["GF2/D_s"] == pytest.approx(
        full.spatial_distortion(*(1023 * image.numpy() for image in (fused, fused, truth[:1])))
    )
    with pytest.raises(ValueError, match=r"scores: found \['RMSE'\]"):
        METRICS.build(dict(type="mamba_vision.SharpeningMetric", scores=["RMSE"]))
    with pytest.raises(ValueError, match="sensor: found 'Landsat'"):
        METRICS.build(dict(type="mamba_vision.SharpeningMetric", sensor="Landsat"))
    with pytest.raises(ValueError, match="peak: expected a positive number"):
        METRICS.build(dict(type="mamba_vision.SharpeningMetric", peak=0))


def test_hyperspectral_scores() -> None:
    """Correlation and similarity by NumPy and by scores of restored images, band by band."""
    fused, truth = (torch.from_numpy(image / 1023) for image in pair(6, (48, 64)))
    metric = METRICS.build(
        dict(type="mamba_vision.SharpeningMetric", cut_border=False, peak=1023, scores=["PSNR", "CC", "SSIM"])
    )
    metric.process(None, [dict(pred_image=fused, gt_image=truth)])
    got = metric.evaluate(1)
    correlations = [np.corrcoef(f.numpy().ravel(), t.numpy().ravel())[0, 1] for f, t in zip(fused, truth)]
    assert got["CC"] == pytest.approx(np.mean(correlations))
    assert got["SSIM"] == pytest.approx(np.mean([ssim(255 * f[None], 255 * t[None]) for f, t in zip(fused, truth)]))
    assert scores.band_correlation(np.ones((2, 4, 4)), np.ones((2, 4, 4))) == 1.0


def test_spatial_correlation_by_its_definition() -> None:
    fused, truth = pair(3)
    sobel = np.array([[1, 2, 1], [0, 0, 0], [-1, -2, -1]])

    def edges(image: np.ndarray) -> np.ndarray:
        inner = [band[1:-1, 1:-1] for band in image]
        return np.stack([np.hypot(*(convolve2d(b, k, mode="same") for k in (sobel, sobel.T))) for b in inner])

    x, y = edges(fused), edges(truth)
    want = (x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())
    assert scores.spatial_correlation(fused, truth) == pytest.approx(want)


def test_q4_by_hamiltons_quaternions() -> None:
    """Alparone et al. (2004), equation 6, one block of 32 x 32 after another, pixel by pixel."""

    def product(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        (a, b, c, d), (e, f, g, h) = p.T, q.T
        return np.stack([a * e - b * f - c * g - d * h, a * f + b * e + c * h - d * g,
                         a * g - b * h + c * e + d * f, a * h + b * g - c * f + d * e], axis=1)  # fmt: skip

    fused, truth = (np.rint(image) for image in pair(4))
    found = []
    for top in (0, 32):
        for left in (0, 32, 64):
            x, y = (im[:, top : top + 32, left : left + 32].reshape(4, -1).T for im in (truth, fused))
            mean, deviation = x.mean(0), x.std(0, ddof=1)
            x, y = (x - mean) / deviation + 1, (y - mean) / deviation + 1
            conjugate = y * [1, -1, -1, -1]
            mx, my = x.mean(0, keepdims=True), conjugate.mean(0, keepdims=True)
            covariance = product(x, conjugate).mean(0) - product(mx, my)[0]
            variances = (x**2).sum(1).mean() - (mx**2).sum() + (y**2).sum(1).mean() - (my**2).sum()
            length = np.linalg.norm(mx) * np.linalg.norm(my)
            squares = np.linalg.norm(mx) ** 2 + np.linalg.norm(my) ** 2
            found.append(np.linalg.norm(covariance) * 2 / variances * 2 * length / squares)
    assert scores.hypercomplex_quality(fused, truth) == pytest.approx(np.mean(found))


def test_spatial_distortion_block_by_block() -> None:
    """|Q(fused, guide) - Q(enlarged, blurred guide)|, Q by Wang and Bovik's formula, over blocks and bands."""
    fused, truth = pair(2, (64, 64))
    guide = fused.mean(0)
    enlarged = full.enlarge(truth[:, ::4, ::4])
    # MATLAB's imresize: Keys' cubic of a = -0.5, four times as wide, over the image mirrored at its borders.
    x = np.abs((np.arange(16) - 7.5) / 4)
    taps = np.where(x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2) / 4
    small = guide
    for axis in (0, 1):
        small = correlate1d(small, taps, axis=axis, mode="reflect", origin=0)
    blurred = full.enlarge(small[2::4, 2::4][None])[0]

    def quality(one: np.ndarray, two: np.ndarray) -> float:
        values = []
        for top in (0, 32):
            for left in (0, 32):
                x, y = one[top : top + 32, left : left + 32], two[top : top + 32, left : left + 32]
                moments = np.cov(x.ravel(), y.ravel())
                values.append(4 * moments[0, 1] * x.mean() * y.mean()
                              / (np.trace(moments) * (x.mean() ** 2 + y.mean() ** 2)))  # fmt: skip
        return float(np.mean(values))

    want = np.mean([abs(quality(f, guide) - quality(e, blurred)) for f, e in zip(fused, enlarged)])
    assert full.spatial_distortion(fused, enlarged, guide) == pytest.approx(want)
