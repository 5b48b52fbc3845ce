"""How images are made worse, so that pairs need not be stored: noise, JPEG, and what cameras do.

Images are (H, W, C) float32 in [0, 1], RGB or gray. How data sets make them smaller is in `mamba_vision.utils.bicubic`.
"""

import cv2
import numpy as np


def to_levels(image: np.ndarray) -> np.ndarray:
    """Clipped and rounded as an 8-bit file would hold it, still float32 in [0, 1]."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.float32) / 255


def gaussian_noise(image: np.ndarray, sigma: float, rng: np.random.RandomState | None = None) -> np.ndarray:
    """White noise of standard deviation sigma / 255 added, neither clipped nor rounded.

    With a generator the noise is drawn for the channels in the order blue, green, red, as published tests draw it.
    """
    noise = (rng or np.random).normal(0, sigma / 255, image.shape).astype(np.float32)
    return image + (noise[..., ::-1] if rng is not None else noise)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Through OpenCV's JPEG coder and back."""
    levels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    _, encoded = cv2.imencode(".jpg", levels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    flag = cv2.IMREAD_COLOR if image.shape[2] == 3 else cv2.IMREAD_GRAYSCALE
    decoded = cv2.imdecode(encoded, flag).astype(np.float32) / 255
    return np.ascontiguousarray(decoded[..., ::-1]) if decoded.ndim == 3 else decoded[..., None]


def gaussian_kernel(size: int, sigmas: tuple[float, float], angle: float) -> np.ndarray:
    """(size, size), sum 1: a Gaussian of two widths in pixels, turned by an angle in radians."""
    places = np.arange(size) - (size - 1) / 2
    x, y = np.meshgrid(places, places)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kernel = np.exp(-0.5 * ((along / sigmas[0]) ** 2 + (across / sigmas[1]) ** 2))
    return (kernel / kernel.sum()).astype(np.float32)


_RESIZES = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)


def camera_pass(
    image: np.ndarray, blur: tuple[float, float], resize: tuple[float, float], noise: tuple[float, float],
    quality: tuple[int, int], rng: np.random.RandomState,
) -> np.ndarray:  # fmt: skip
    """One pass of blur, resizing, noise and JPEG, each drawn from its range (after Real-ESRGAN, arXiv 2107.10833).

    Args:
        blur: widths in pixels of the Gaussian along its two axes.
        resize: factors on the sides.
        noise: standard deviation of Gaussian noise, or strength of photon noise, of 255.
        quality: of the JPEG coder.
    """
    kernel = gaussian_kernel(21, (rng.uniform(*blur), rng.uniform(*blur)), rng.uniform(0, np.pi))
    image = _three_axes(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101))
    factor = np.exp(rng.uniform(*np.log(resize)))
    image = resized(image, [max(round(side * factor), 1) for side in image.shape[:2]], rng)
    strength = rng.uniform(*noise) / 255
    if rng.random_sample() < 0.5:
        shape = (*image.shape[:2], 1 if rng.random_sample() < 0.4 else image.shape[2])
        image = image + rng.normal(0, strength, shape).astype(np.float32)
    else:  # photons: variance proportional to brightness, `strength` at white
        image = image + (rng.normal(0, strength, image.shape) * np.sqrt(np.clip(image, 0, 1))).astype(np.float32)
    return jpeg(image, rng.randint(quality[0], quality[1] + 1))


def resized(image: np.ndarray, size: list[int] | tuple[int, int], rng: np.random.RandomState) -> np.ndarray:
    """(height, width) by area, linear or cubic interpolation, drawn."""
    how = _RESIZES[rng.randint(len(_RESIZES))]
    return _three_axes(cv2.resize(image, (int(size[1]), int(size[0])), interpolation=how))


def _three_axes(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 3 else image[..., None]  # OpenCV drops the axis of one channel
