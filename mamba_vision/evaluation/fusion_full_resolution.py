"""Scores of sharpened images where there is no truth (full resolution), by DLPan-Toolbox's conventions.

HQNR (Aiazzi et al., 2014; Arienzo et al., IEEE GRSM 2022) asks whether the sharpened image, seen through the sensor's
optics, is the image before sharpening (D_lambda, Khan et al., 2009), and whether it relates to the guide as that one
does (D_s, Alparone et al., 2008). Images are (bands, H, W) of raw counts, computed in float64.
"""

import numpy as np
from scipy import ndimage
from scipy.signal import oaconvolve

from mamba_vision.evaluation.fusion_sharpening_scores import BLOCK, hypercomplex_quality, universal_quality
from mamba_vision.utils.bicubic import bicubic_down

Array = np.ndarray
# Gain of each sensor's bands at the Nyquist frequency of its multispectral pixels; one number: all bands.
NYQUIST_GAINS = {
    "WV3": (0.325, 0.355, 0.360, 0.350, 0.365, 0.360, 0.335, 0.315),
    "WV2": (0.35,) * 7 + (0.27,),
    "QB": (0.34, 0.32, 0.30, 0.22),
    "IKONOS": (0.26, 0.28, 0.29, 0.28),
    "GeoEye1": 0.23,
    "WV4": 0.23,
    "GF2": 0.3,
    "other": 0.3,
}
_TAPS = 41
_HALF_BAND = (0.305334091185, -0.072698593239, 0.021809577942, -0.005192756653, 0.000807762146, -0.000060081482)


def spectral_distortion(fused: Array, enlarged: Array, sensor: str = "other", scale: int = 4) -> float:
    """D_lambda, 0 to 1, less is better.

    Args:
        fused: sharpened image.
        enlarged: image before sharpening, interpolated to the guide's pixels (`enlarge`).
        sensor: a name of `NYQUIST_GAINS`.
        scale: of the guide over the image.

    Raises:
        ValueError: an unknown sensor, another number of bands than it has, or images of different shapes.
    """
    return 1 - hypercomplex_quality(through_optics(fused, sensor, scale), enlarged)


def spatial_distortion(fused: Array, enlarged: Array, guide: Array, scale: int = 4) -> float:
    """D_s, 0 to 1, less is better. Blocks of 32 x 32 that fit count.

    Args:
        fused, enlarged, scale: as for `spectral_distortion`.
        guide: (H, W), or (1, H, W).

    Raises:
        ValueError: shapes that do not go together, a scale that is no power of two or does not divide the sides.
    """
    guide = np.asarray(guide, dtype=np.float64)
    guide = guide[0] if guide.ndim == 3 and len(guide) == 1 else guide
    if fused.shape != enlarged.shape or guide.shape != fused.shape[1:] or min(guide.shape) < BLOCK:
        raise ValueError(
            f"guide: found shape {guide.shape}, fused {fused.shape}, enlarged {enlarged.shape}, expected (H, W) and "
            f"twice (bands, H, W), of at least {BLOCK} pixels a side"
        )
    if any(side % scale for side in guide.shape):
        raise ValueError(f"guide: found {guide.shape} pixels, expected multiples of the scale {scale}")
    blurred = enlarge(bicubic_down(guide[..., None], scale).transpose(2, 0, 1), scale)[0]
    change = [abs(_block_quality(f, guide) - _block_quality(e, blurred)) for f, e in zip(fused, enlarged)]
    return float(np.mean(change))


def full_resolution_quality(
    fused: Array, enlarged: Array, guide: Array, sensor: str = "other", scale: int = 4
) -> dict[str, float]:
    """'D_lambda', 'D_s' and 'HQNR' = (1 - D_lambda)(1 - D_s); arguments and errors as of the two distortions."""
    spectral = spectral_distortion(fused, enlarged, sensor, scale)
    spatial = spatial_distortion(fused, enlarged, guide, scale)
    return {"D_lambda": spectral, "D_s": spatial, "HQNR": (1 - spectral) * (1 - spatial)}


def enlarge(image: Array, scale: int = 4) -> Array:
    """(bands, h, w) times `scale`, a power of two, by the polynomial kernel of 23 taps (Aiazzi et al., 2002).

    Borders are circular. Raises ValueError for another scale.
    """
    if scale < 1 or scale & (scale - 1):
        raise ValueError(f"scale: expected a power of two, found {scale}")
    half = np.zeros(11)
    half[::2] = _HALF_BAND
    kernel = 2 * np.concatenate([half[::-1], [0.5], half])
    image = np.asarray(image, dtype=np.float64)
    for step in range(scale.bit_length() - 1):
        bands, rows, columns = image.shape
        first = 1 if step == 0 else 0  # which pixel of two is the known one
        wide = np.zeros((bands, 2 * rows, 2 * columns))
        wide[:, first::2, first::2] = image
        for axis in (1, 2):
            wide = ndimage.correlate1d(wide, kernel, axis=axis, mode="wrap")
        image = wide
    return image


def through_optics(image: Array, sensor: str = "other", scale: int = 4) -> Array:
    """Each band (bands, H, W) blurred as the sensor's multispectral optics would; edges are repeated.

    Raises:
        ValueError: an unknown sensor, or another number of bands than it has.
    """
    if sensor not in NYQUIST_GAINS:
        raise ValueError(f"sensor: found {sensor!r}, expected one of {', '.join(NYQUIST_GAINS)}")
    gains = NYQUIST_GAINS[sensor]
    gains = (gains,) * len(image) if isinstance(gains, float) else gains
    if len(gains) != len(image):
        raise ValueError(f"image: found {len(image)} bands, {sensor} has {len(gains)}")
    reach = _TAPS // 2
    image = np.pad(np.asarray(image, dtype=np.float64), ((0, 0), (reach, reach), (reach, reach)), mode="edge")
    # by Fourier transforms of pieces: ten times as fast as sums over 41 x 41 taps
    return np.stack([oaconvolve(band, optics(gain, scale), mode="valid") for band, gain in zip(image, gains)])


def optics(gain: float, scale: int = 4) -> Array:
    """Low-pass filter of 41 x 41 taps with a Gaussian response that is `gain` at the Nyquist frequency of the image.

    By the window method: the response's inverse Fourier transform times Kaiser's window, turned about its centre. As
    published, the response's 41 samples count as steps of 1/40, so that the gain is reached a fortieth too early.
    """
    place = np.arange(_TAPS) - _TAPS // 2
    radius = np.hypot(*np.meshgrid(place, place))
    variance = ((_TAPS - 1) / scale / 2) ** 2 / (-2 * np.log(gain))
    response = np.exp(-(radius**2) / (2 * variance))
    taps = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(response)).real)
    return taps * np.interp(radius, place, np.kaiser(_TAPS, 0.5), right=0.0)


def _block_quality(one: Array, two: Array) -> float:
    """The universal quality index in blocks side by side, averaged."""
    rows, columns = (side // BLOCK for side in one.shape)
    x, y = (
        np.asarray(image, dtype=np.float64)[: rows * BLOCK, : columns * BLOCK]
        .reshape(rows, BLOCK, columns, BLOCK)
        .swapaxes(1, 2)
        .reshape(rows * columns, -1)
        for image in (one, two)
    )
    mx, my = x.mean(1), y.mean(1)
    covariance = np.mean((x - mx[:, None]) * (y - my[:, None]), axis=1)
    return float(universal_quality(mx, my, x.var(1), y.var(1), covariance).mean())
