"""PSNR and SSIM of restored images, by the protocol that papers on restoration follow.

Images are compared in 256 levels, without a border as wide as the scale, on luminance (super-resolution, JPEG) or on
all channels (denoising). SSIM is that of Wang et al. (2004): Gaussian window of 11 x 11, sigma 1.5, wherever it fits.
"""

import math

from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

_WINDOW = 11


def luma(image: Tensor) -> Tensor:
    """Y of ITU-R BT.601 in studio range, 16 to 235, not rounded.

    Args:
        image: (3, H, W) RGB, 0 to 255.

    Returns:
        (1, H, W).
    """
    red, green, blue = image.double()
    return ((65.481 * red + 128.553 * green + 24.966 * blue) / 255 + 16)[None]


def prepared(image: Tensor, border: int = 0, y_channel: bool = False, quantize: bool = True) -> Tensor:
    """An image as it is compared: (C, H, W) in [0, 1] to float64, 0 to 255, without its border.

    Args:
        border: pixels taken off every side.
        y_channel: on luminance; gray images are taken as they are.
        quantize: rounded to 256 levels.
    """
    image = image.detach().double().cpu().clamp(0, 1) * 255
    image = image.round() if quantize else image
    if border:
        image = image[:, border:-border, border:-border]
    return luma(image) if y_channel and image.shape[0] == 3 else image


def psnr(pred: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images (C, H, W) of 0 to 255; infinite where they are equal."""
    error = float((pred - truth).square().mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def ssim(pred: Tensor, truth: Tensor) -> float:
    """Structural similarity of images (C, H, W) of 0 to 255, the mean over channels.

    Raises:
        ValueError: the images are smaller than the window.
    """
    if min(pred.shape[1:]) < _WINDOW:
        raise ValueError(f"image: found {tuple(pred.shape[1:])} pixels without the border, SSIM needs {_WINDOW}")
    _, quality = structural_similarity_index_measure(
        pred[None], truth[None], gaussian_kernel=True, sigma=1.5, data_range=255.0, k1=0.01, k2=0.03,
        return_full_image=True,
    )  # fmt: skip
    inner = slice(_WINDOW // 2, -(_WINDOW // 2))  # where the window needed no padding
    return float(quality[..., inner, inner].mean())
