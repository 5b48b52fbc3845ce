"""Scores of a fused image against its two sources, as papers on infrared-visible and medical fusion report them.

All are of gray images (H, W) of 0 to 255, in float64, by the conventions of the evaluator that this literature shares
(MMIF-CDDFuse); more is better. Where a score is of one source, those of both sources are added up.
"""

import numpy as np
from scipy import ndimage
from scipy.stats import entropy

Array = np.ndarray
VIF_SMALLEST = 41  # pixels a side, for a window at the coarsest of its four scales
SSIM_WINDOW = 7


def information(fused: Array) -> float:
    """EN: entropy in bits of the histogram of the 256 gray values."""
    return float(entropy(np.bincount(np.rint(fused).astype(np.int64).ravel(), minlength=256), base=2))


def deviation(fused: Array) -> float:
    """SD: standard deviation over all pixels."""
    return float(fused.std())


def spatial_frequency(fused: Array) -> float:
    """SF: root of the mean squared differences of neighbours, along rows and along columns (Eskicioglu, 1995)."""
    return float(np.sqrt(np.mean(np.diff(fused, axis=0) ** 2) + np.mean(np.diff(fused, axis=1) ** 2)))


def average_gradient(fused: Array) -> float:
    """AG: mean of sqrt((gx^2 + gy^2) / 2), by central differences, one-sided at the border (Cui et al., 2015)."""
    rows, columns = np.gradient(fused)
    return float(np.mean(np.sqrt((rows**2 + columns**2) / 2)))


def mutual_information(fused: Array, source: Array) -> float:
    """Mutual information in nats of the joint histogram of the exact values (Qu et al., 2002)."""
    codes = [np.unique(image.ravel(), return_inverse=True)[1] for image in (fused, source)]
    # Pairs of values that occur: a table of all pairs would be as large as the image squared for images not rounded.
    both = np.unique(codes[0].astype(np.int64) * (codes[1].max() + 1) + codes[1], return_counts=True)[1]
    return float(entropy(np.bincount(codes[0])) + entropy(np.bincount(codes[1])) - entropy(both))


def correlation_of_differences(fused: Array, first: Array, second: Array) -> float:
    """SCD: how what the fused image has beyond one source resembles the other (Aslantas and Bendes, 2015)."""
    return _correlation(fused - second, first) + _correlation(fused - first, second)


def visual_information_fidelity(fused: Array, source: Array) -> float:
    """VIF, in the pixel domain, of the fused image with `source` as the reference (Sheikh and Bovik, 2006).

    Raises:
        ValueError: the image is too small for four scales.
    """
    if min(fused.shape) < VIF_SMALLEST:
        raise ValueError(f"fused: found {fused.shape} pixels, VIF needs {VIF_SMALLEST} a side")
    tiny, noise = 1e-10, 2.0
    seen = possible = 0.0
    for scale in range(1, 5):
        side = 2 ** (5 - scale) + 1
        if scale > 1:
            source, fused = (_gaussian_mean(image, side)[::2, ::2] for image in (source, fused))
        mean1, mean2 = _gaussian_mean(source, side), _gaussian_mean(fused, side)
        variance1 = np.maximum(_gaussian_mean(source * source, side) - mean1 * mean1, 0)
        variance2 = np.maximum(_gaussian_mean(fused * fused, side) - mean2 * mean2, 0)
        covariance = _gaussian_mean(source * fused, side) - mean1 * mean2
        gain = covariance / (variance1 + tiny)
        rest = variance2 - gain * covariance
        flat = variance1 < tiny
        gain[flat], rest[flat], variance1[flat] = 0, variance2[flat], 0
        flat = variance2 < tiny
        gain[flat], rest[flat] = 0, 0
        negative = gain < 0
        rest[negative], gain[negative] = variance2[negative], 0
        rest = np.maximum(rest, tiny)
        seen += np.sum(np.log10(1 + gain**2 * variance1 / (rest + noise)))
        possible += np.sum(np.log10(1 + variance1 / noise))
    return float(seen / possible) if possible > 0 else 1.0


def edge_transfer(fused: Array, first: Array, second: Array) -> float:
    """Qabf: how much of the sources' edges, in strength and direction, is kept (Xydeas and Petrovic, 2000)."""
    strength, angle = _edges(fused)
    kept = weights = 0.0
    for source in (first, second):
        own, own_angle = _edges(source)
        largest = np.maximum(own, strength)
        ratio = np.divide(np.minimum(own, strength), largest, out=np.zeros_like(own), where=largest > 0)
        ratio = np.where(own == strength, strength, ratio)  # as published, where one would be right
        turn = 1 - np.abs(own_angle - angle) / (np.pi / 2)
        quality = 0.9994 / (1 + np.exp(-15 * (ratio - 0.5))) * 0.9879 / (1 + np.exp(-22 * (turn - 0.8)))
        kept, weights = kept + np.sum(quality * own), weights + np.sum(own)
    return float(kept / weights) if weights > 0 else 0.0


def similarity(fused: Array, source: Array) -> float:
    """SSIM with a uniform window of 7 x 7 and sample covariances, wherever it fits (Wang et al., 2004).

    Raises:
        ValueError: the image is smaller than the window.
    """
    if min(fused.shape) < SSIM_WINDOW:
        raise ValueError(f"fused: found {fused.shape} pixels, SSIM needs {SSIM_WINDOW} a side")
    inner = (slice(SSIM_WINDOW // 2, -(SSIM_WINDOW // 2)),) * 2

    def mean(image: Array) -> Array:
        return ndimage.uniform_filter(image, SSIM_WINDOW)[inner]

    sample = SSIM_WINDOW**2 / (SSIM_WINDOW**2 - 1)
    mean1, mean2 = mean(fused), mean(source)
    variance1, variance2 = (sample * (mean(i * i) - m * m) for i, m in ((fused, mean1), (source, mean2)))
    covariance = sample * (mean(fused * source) - mean1 * mean2)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    quality = (2 * mean1 * mean2 + c1) * (2 * covariance + c2)
    return float(np.mean(quality / ((mean1**2 + mean2**2 + c1) * (variance1 + variance2 + c2))))


def _both(score):
    return lambda fused, first, second: score(fused, first) + score(fused, second)


# Name in the literature -> score(fused, first, second).
SCORES = {
    "EN": lambda fused, *_: information(fused),
    "SD": lambda fused, *_: deviation(fused),
    "SF": lambda fused, *_: spatial_frequency(fused),
    "AG": lambda fused, *_: average_gradient(fused),
    "MI": _both(mutual_information),
    "SCD": correlation_of_differences,
    "VIF": _both(visual_information_fidelity),
    "Qabf": edge_transfer,
    "SSIM": _both(similarity),
}


def score_fusion(
    fused: Array, first: Array, second: Array, scores: tuple[str, ...] = tuple(SCORES)
) -> dict[str, float]:
    """The `scores` of a fused image.

    Args:
        fused, first, second: (H, W) of one shape, 0 to 255, any dtype.
        scores: names of `SCORES`.

    Raises:
        ValueError: an unknown score, images that are not gray or differ in shape, values that are not finite or not
            of 0 to 255, or an image too small for a score.
    """
    if unknown := sorted(set(scores) - set(SCORES)):
        raise ValueError(f"scores: found {unknown}, expected some of {', '.join(SCORES)}")
    images = {"fused": fused, "first": first, "second": second}
    images = {name: np.asarray(image, dtype=np.float64) for name, image in images.items()}
    for name, image in images.items():
        if image.ndim != 2 or image.shape != images["fused"].shape or min(image.shape) < 2:
            raise ValueError(
                f"{name}: found shape {image.shape}, expected (H, W), one for all three, at least 2 a side"
            )
        if not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 255):
            raise ValueError(f"{name}: found values of {image.min():g} to {image.max():g}, expected 0 to 255")
    return {name: SCORES[name](*images.values()) for name in scores}


def _correlation(one: Array, two: Array) -> float:
    """Pearson's, over all pixels; 0 where an image is flat."""
    one, two = one - one.mean(), two - two.mean()
    norm = np.sqrt(np.sum(one * one) * np.sum(two * two))
    return float(np.sum(one * two) / norm) if norm > 0 else 0.0


def _gaussian_mean(image: Array, side: int) -> Array:
    """Means under a Gaussian window of `side` pixels and sigma side / 5, where the window fits."""
    place = np.arange(side) - side // 2
    window = np.exp(-(place**2) / (2 * (side / 5) ** 2))
    window /= window.sum()
    for axis in (0, 1):
        image = ndimage.correlate1d(image, window, axis=axis)
    inner = slice(side // 2, -(side // 2))
    return image[inner, inner]


def _edges(image: Array) -> tuple[Array, Array]:
    """Strength and angle (-pi/2 to pi/2) of the Sobel gradient, with zeros around the image."""
    across = np.array([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    down = np.array([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]])
    horizontal, vertical = (ndimage.convolve(image, kernel, mode="constant") for kernel in (across, down))
    steep = horizontal == 0
    angle = np.arctan(vertical / np.where(steep, 1, horizontal))
    return np.hypot(horizontal, vertical), np.where(steep, np.pi / 2, angle)
