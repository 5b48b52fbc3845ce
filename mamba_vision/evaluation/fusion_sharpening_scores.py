"""Scores of sharpened images of many bands against the truth (reduced resolution), by DLPan-Toolbox's conventions.

Vivone et al., "A new benchmark based on recent advances in multispectral pansharpening", IEEE GRSM 2021. Images are
(bands, H, W) of raw counts, computed in float64.
"""

import numpy as np
from scipy import ndimage

Array = np.ndarray
BLOCK = 32


def without_border(image: Array) -> Array:
    """The part of an image that the published tables are about: 20 pixels less at the near ends, 21 at the far ones.

    Raises:
        ValueError: nothing would be left.
    """
    if min(image.shape[-2:]) <= 41:
        raise ValueError(f"image: found {image.shape[-2:]} pixels, expected more than 41 a side to take the border off")
    return image[..., 20:-21, 20:-21]


def spectral_angle(fused: Array, truth: Array) -> float:
    """SAM: mean angle between spectra in degrees, over pixels where neither is zero (Yuhas et al., 1992)."""
    fused, truth = _pair(fused, truth)
    norms = np.linalg.norm(fused, axis=0) * np.linalg.norm(truth, axis=0)
    seen = norms > 0
    if not seen.any():
        return 0.0
    cosine = np.sum(fused * truth, axis=0)[seen] / norms[seen]
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean())


def relative_error(fused: Array, truth: Array, scale: float = 4) -> float:
    """ERGAS: relative dimensionless global error in synthesis (Wald, 2000); `scale` of the guide over the image."""
    fused, truth = _pair(fused, truth)
    errors = np.mean((fused - truth) ** 2, axis=(1, 2)) / np.mean(truth, axis=(1, 2)) ** 2
    return float(100 / scale * np.sqrt(errors.mean()))


def spatial_correlation(fused: Array, truth: Array) -> float:
    """SCC: correlation, without removal of means, of the Sobel magnitudes of all bands together (Zhou et al., 1998)."""
    edges = [
        np.stack([np.hypot(*(ndimage.sobel(b[1:-1, 1:-1], axis, mode="constant") for axis in (0, 1))) for b in image])
        for image in _pair(fused, truth)
    ]
    norm = np.linalg.norm(edges[0]) * np.linalg.norm(edges[1])
    return float(np.sum(edges[0] * edges[1]) / norm) if norm > 0 else 1.0


def band_correlation(fused: Array, truth: Array) -> float:
    """CC: Pearson's correlation of every band, the mean over bands that vary; 1 where none does."""
    fused, truth = (image - image.mean(axis=(1, 2), keepdims=True) for image in _pair(fused, truth))
    norms = np.sqrt(np.sum(fused**2, axis=(1, 2)) * np.sum(truth**2, axis=(1, 2)))
    varies = norms > 0
    return float(np.mean(np.sum(fused * truth, axis=(1, 2))[varies] / norms[varies])) if varies.any() else 1.0


def peak_ratio(fused: Array, truth: Array, peak: float) -> float:
    """PSNR in dB over all bands; infinite where the images are equal."""
    fused, truth = _pair(fused, truth)
    error = np.mean((fused - truth) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(peak**2 / error))


def quality_index(fused: Array, truth: Array) -> float:
    """Q: the universal image quality index in all windows of 32 x 32, the mean over bands (Wang and Bovik, 2002).

    Raises:
        ValueError: the image is smaller than the window.
    """
    fused, truth = _pair(fused, truth, BLOCK)
    inner = (slice(BLOCK // 2, fused.shape[1] - BLOCK // 2 + 1), slice(BLOCK // 2, fused.shape[2] - BLOCK // 2 + 1))

    def mean(image: Array) -> Array:
        return ndimage.uniform_filter(image, BLOCK)[inner]

    found = []
    for x, y in zip(truth, fused):
        mx, my = mean(x), mean(y)
        covariances = [mean(a * b) - ma * mb for a, b, ma, mb in ((x, x, mx, mx), (y, y, my, my), (x, y, mx, my))]
        found.append(universal_quality(mx, my, *covariances).mean())
    return float(np.mean(found))


def universal_quality(mx: Array, my: Array, vx: Array, vy: Array, covariance: Array) -> Array:
    """4 cov mx my / ((vx + vy)(mx^2 + my^2)); its factor of means where nothing varies, 1 where all is zero."""
    means, varies = mx * mx + my * my, vx + vy
    level = np.divide(2 * mx * my, means, out=np.ones_like(means), where=means > 0)
    likeness = np.divide(2 * covariance, varies, out=np.ones_like(varies), where=varies > 1e-12 * means)
    return level * likeness


def hypercomplex_quality(fused: Array, truth: Array) -> float:
    """Q2n (Q4 of four bands, Q8 of eight): the quality index of images of hypercomplex numbers, in blocks of 32 x 32.

    Alparone et al. (2004), Garzelli and Nencini (2009). Values are rounded to whole counts, halves up, as published;
    sizes are filled up to whole blocks by mirroring, bands to a power of two by zeros.
    """
    fused, truth = (np.clip(np.floor(image + 0.5), 0, 65535) for image in _pair(fused, truth))
    bands = 1 << (len(truth) - 1).bit_length()
    x, y = (_blocks(image, bands) for image in (truth, fused))  # (blocks, pixels, bands)
    mean, spread = x.mean(1, keepdims=True), x.std(1, ddof=1, keepdims=True)
    flat, eps = spread == 0, np.finfo(float).eps
    x, y = (
        (x - mean) / np.where(flat, eps, spread) + 1,
        np.where(flat, y - mean, (y - mean) / np.where(flat, 1, spread)) + 1,
    )
    y[..., 1:] *= -1

    count = x.shape[1]
    unbiased = count / (count - 1)
    mx, my = x.mean(1), y.mean(1)
    square_x, square_y = np.sum(mx * mx, -1), np.sum(my * my, -1)
    level = 2 * np.sqrt(square_x * square_y) / (square_x + square_y)
    varies = unbiased * (np.sum(x * x, -1).mean(1) + np.sum(y * y, -1).mean(1) - square_x - square_y)
    together = unbiased * (hypercomplex_product(x, y).mean(1) - hypercomplex_product(mx, my))
    still = np.abs(varies) <= 1e-12
    quality = np.linalg.norm(together, axis=-1) * level * 2 / np.where(still, 1, varies)
    return float(np.where(still, level, quality).mean())


def hypercomplex_product(one: Array, two: Array) -> Array:
    """Product of hypercomplex numbers (..., n), n a power of two, by the published recursion over halves."""
    half = one.shape[-1] // 2
    if half == 0:
        return one * two
    a, b, c, d = one[..., :half], one[..., half:], two[..., :half], two[..., half:]
    b, d, product = _conjugate(b), _conjugate(d), hypercomplex_product
    left = product(a, c) - product(d, _conjugate(b))
    return np.concatenate([left, product(_conjugate(a), d) + product(c, b)], axis=-1)


def _conjugate(value: Array) -> Array:
    return np.concatenate([value[..., :1], -value[..., 1:]], axis=-1)


def _blocks(image: Array, bands: int) -> Array:
    """(bands, H, W) as (blocks, pixels, `bands`)."""
    grow = [(0, -side % BLOCK) for side in image.shape[1:]]
    image = np.pad(np.pad(image, ((0, 0), *grow), mode="symmetric"), ((0, bands - len(image)), (0, 0), (0, 0)))
    rows, columns = (side // BLOCK for side in image.shape[1:])
    tiles = image.reshape(bands, rows, BLOCK, columns, BLOCK).transpose(1, 3, 2, 4, 0)
    return tiles.reshape(rows * columns, BLOCK * BLOCK, bands)


def _pair(fused: Array, truth: Array, least: int = 3) -> tuple[Array, Array]:
    """Both in float64.

    Raises:
        ValueError: they are no images of bands, of one shape, with `least` pixels a side.
    """
    fused, truth = (np.asarray(image, dtype=np.float64) for image in (fused, truth))
    if fused.ndim != 3 or fused.shape != truth.shape or min(fused.shape[1:]) < least:
        raise ValueError(
            f"fused: found shape {fused.shape}, truth {truth.shape}, expected one shape (bands, H, W) of at least "
            f"{least} pixels a side"
        )
    return fused, truth
