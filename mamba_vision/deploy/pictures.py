"""Pictures for a model: read, brought to its size and normalized as in training, in NumPy (files through Pillow).

Layouts: pictures (H, W, C) uint8, RGB or gray; arrays for models (1, C, H, W) float32.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mamba_vision.deploy.model_file import ModelFileError
from mamba_vision.utils.image_files import check_sides, read_image

_CUBIC = {"cv2": -0.75}  # the constant of Keys' cubic; Pillow's own is asked for by name


def read_rgb(path: str | Path, channels: int = 3) -> np.ndarray:
    """A picture file, upright, as (H, W, 3) RGB or (H, W, 1) gray of 8 bits: of 16 the upper ones, as OpenCV has it.

    An array in a file, .npy, has its colours as BGR, as it has for PyTorch's tools.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, or no picture; or one that is 100 times as long as it is wide.
    """
    from PIL import Image, ImageOps

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such picture")
    if path.suffix.lower() == ".npy":
        array = read_image(path, channels)
        if array.dtype != np.uint8:
            raise ValueError(f"{path}: expected 8 bits (uint8), found {array.dtype}")
        array = array[..., ::-1] if channels == 3 else array
    else:
        try:
            with Image.open(path) as image:
                if channels == 1:
                    image.draft("L", None)  # of a JPEG, the luminance that it stores
                upright = ImageOps.exif_transpose(image)
                if upright.mode == "F" or (upright.mode == "I" and image.format != "PNG"):
                    raise ValueError("32 bits a channel, whose range is not defined")
                if upright.mode.startswith("I"):  # 16 bits, in some releases of Pillow as 32
                    upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
                array = np.asarray(upright.convert("L" if channels == 1 else "RGB"))
        except Exception as error:  # Pillow's decoders raise what they like
            raise ValueError(f"{path}: damaged, or no picture ({error})") from error
    array = array[..., None] if array.ndim == 2 else array
    check_sides(array, str(path))
    return array


def prepare(picture: np.ndarray, preprocess: Mapping[str, Any]) -> np.ndarray:
    """(H, W, C) uint8 RGB to (1, C, h, w) float32: the steps of the metadata, then its normalization."""
    for step in preprocess.get("steps", ()):
        picture = _step(picture, step)
    if not preprocess["rgb"] and picture.shape[2] == 3:
        picture = picture[..., ::-1]
    x = picture.astype(np.float32)
    if preprocess["mean"] is None:  # every picture by its own mean and deviation, channel by channel
        mean, std = x.mean((0, 1)), np.maximum(x.std((0, 1)), 1e-8)
    else:
        mean, std = (np.array(preprocess[name], np.float32) for name in ("mean", "std"))
    return np.ascontiguousarray(((x - mean) / std).transpose(2, 0, 1)[None], dtype=np.float32)


def _step(picture: np.ndarray, step: Mapping[str, Any]) -> np.ndarray:
    height, width = picture.shape[:2]
    if "crop" in step:
        rows, columns = step["crop"]
        top, left = (max(0, round((have - want) / 2)) for have, want in ((height, rows), (width, columns)))
        return picture[top : top + rows, left : left + columns]
    if "size" in step:
        size = tuple(step["size"])
    elif "short_side" in step:
        short = step["short_side"]
        size = (int(short * height / width), short) if width < height else (short, int(short * width / height))
    elif "fit" in step:
        long, short = max(step["fit"]), min(step["fit"])
        factor = min(long / max(height, width), short / min(height, width))
        size = (int(height * factor + 0.5), int(width * factor + 0.5))
    else:
        raise ModelFileError(f"metadata: the step {dict(step)!r} is not known")
    if size == (height, width):
        return picture
    if min(size) < 1 or max(size) > 2**15:
        raise ModelFileError(f"metadata: a picture of {height} x {width} would become {size[0]} x {size[1]}")
    if step["backend"] == "pillow":
        return _by_pillow(picture, size, step["interpolation"])
    if step["interpolation"] == "bilinear":
        return _in_fixed_point(picture, size)
    resized = resize(picture.astype(np.float32).transpose(2, 0, 1), size, step["interpolation"])
    return np.clip(np.rint(resized), 0, 255).astype(np.uint8).transpose(1, 2, 0)


def _by_pillow(picture: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    from PIL import Image

    image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
    made = np.asarray(image.resize(size[::-1], getattr(Image.Resampling, interpolation.upper())))
    return made[..., None] if made.ndim == 2 else made


def _in_fixed_point(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear as OpenCV does it for 8 bits: weights in 2048ths, and digits cut off between columns and rows.

    Rounded once instead, an eighth of the values are off by one, and with them masks along weak edges.
    """
    (top, bottom, down), (left, right, across) = (_taps(*pair) for pair in zip(picture.shape[:2], size))
    across, down = across[:, None, :, None], down[:, :, None, None]
    old = picture.astype(np.int32)
    rows = (old[:, left] * across[0] + old[:, right] * across[1]) >> 4
    return ((((rows[top] * down[0]) >> 16) + ((rows[bottom] * down[1]) >> 16) + 2) >> 2).astype(np.uint8)


def _taps(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two old pixels of each new one, and their weights (2, new) in 2048ths."""
    place = ((np.arange(new) + 0.5) * (old / new) - 0.5).astype(np.float32)
    first = np.floor(place)
    share = place - first
    weights = np.rint(np.stack([1 - share, share]) * 2048).astype(np.int32)
    first = first.astype(int)
    return np.clip(first, 0, old - 1), np.clip(first + 1, 0, old - 1), weights


def resize(
    x: np.ndarray, size: Sequence[int], interpolation: str = "bilinear", align_corners: bool = False
) -> np.ndarray:
    """(..., H, W) float32 to (..., *size), as OpenCV and PyTorch do it: without smoothing where it gets smaller.

    Args:
        interpolation: 'nearest', 'bilinear' or 'bicubic' (Keys' with a = -0.75).
        align_corners: the first and last pixels' centres stay where they are.
    """
    rows, columns = (_matrix(old, int(new), interpolation, align_corners) for old, new in zip(x.shape[-2:], size))
    return rows @ x @ columns.T


@lru_cache(maxsize=32)
def _matrix(old: int, new: int, interpolation: str, align_corners: bool) -> np.ndarray:
    """(new, old) float32, the weights of old pixels in new ones."""
    i = np.arange(new)
    if align_corners:
        place = i * ((old - 1) / max(new - 1, 1))
    else:
        place = (i + 0.5) * (old / new) - 0.5
    matrix = np.zeros((new, old))
    if interpolation == "nearest":
        matrix[i, np.clip(np.floor(i * (old / new)).astype(int), 0, old - 1)] = 1
        return matrix.astype(np.float32)
    if interpolation == "bilinear":
        taps = (0, 1)
        weigh = lambda distance: np.maximum(0, 1 - distance)  # noqa: E731
    elif interpolation == "bicubic":
        taps = (-1, 0, 1, 2)
        weigh = _keys
    else:
        raise ModelFileError(f"metadata: interpolation {interpolation!r} is not known")
    first = np.floor(place).astype(int)
    for tap in taps:
        np.add.at(matrix, (i, np.clip(first + tap, 0, old - 1)), weigh(np.abs(place - (first + tap))))
    return matrix.astype(np.float32)


def _keys(distance: np.ndarray) -> np.ndarray:
    a, d = _CUBIC["cv2"], distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))
