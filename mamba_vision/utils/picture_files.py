"""Photographs in and out: 8 and 16 bits, gray, color, transparency, orientation and color profile kept.

Pillow reads and writes 8 bits a channel, OpenCV 16: where it is not installed, pictures of 16 bits are refused.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image, UnidentifiedImageError

from mamba_vision.utils.atomic import atomic_path
from mamba_vision.utils.deep_pictures import as_stored, profile_for, tiff_head, with_profile

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".gif")
DEEP_SUFFIXES = (".png", ".tif", ".tiff")  # 16 bits a channel
CLEAR_SUFFIXES = (".png", ".tif", ".tiff", ".webp")  # transparency
WRITTEN = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Picture:
    """An image and what is needed to write it as it came.

    Attributes:
        color: (H, W, 3) RGB or (H, W, 1) gray, float32 in [0, 1].
        alpha: (H, W) float32 in [0, 1], or None.
        bits: 8 or 16, of the file.
        profile: ICC color profile, or None.
    """

    color: np.ndarray
    alpha: np.ndarray | None = None
    bits: int = 8
    profile: bytes | None = None

    @property
    def is_gray(self) -> bool:
        """Whether there is one channel only."""
        return self.color.shape[2] == 1

    def with_color(self, color: np.ndarray, alpha: np.ndarray | None) -> "Picture":
        """The same kind of file with other pixels."""
        return replace(self, color=color, alpha=alpha)


def read_picture(path: str | Path) -> Picture:
    """Read an image, turned upright.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no image, damaged, or its values have no defined range.
    """
    path = Path(path)
    content = path.read_bytes()
    known = _decode(path, content)  # first: of a damaged file, OpenCV complains on its own
    array = _as_opencv_has_it(path, content, known) if content else None
    if known is None and array is None:
        raise ValueError(f"{path}: expected an image ({', '.join(SUFFIXES)}), found a file that is none or is damaged")
    pixels, orientation, profile, _ = known or (None, 1, None, True)
    if pixels is None or (array is not None and array.dtype != np.uint8):  # Pillow has no colors of 16 bits
        orientation, profile = tiff_head(content) or (orientation, profile)
        pixels = array if array.ndim == 2 or array.shape[2] == 1 else array[..., (2, 1, 0, 3)[: array.shape[2]]]
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"{path}: expected 8 or 16 bits a channel, found {pixels.dtype}, whose range is not defined")
    bits = 8 * pixels.dtype.itemsize
    pixels = _TURNS.get(orientation, lambda a: a)(pixels).astype(np.float32) / (2**bits - 1)
    clear = pixels.shape[2] in (2, 4)
    color = np.ascontiguousarray(pixels[..., :-1] if clear else pixels)
    return Picture(color, np.ascontiguousarray(pixels[..., -1]) if clear else None, bits, profile)


def picture_size(path: str | Path) -> tuple[int, int]:
    """(height, width) upright, from the file's head alone where possible.

    Raises:
        FileNotFoundError, ValueError: as `read_picture`.
    """
    try:
        with Image.open(path) as image:
            # Of a TIFF file, some releases of Pillow say the size after turning.
            width, height = (image.tag_v2[tag] for tag in (256, 257)) if image.format == "TIFF" else image.size
            turned = image.getexif().get(_ORIENTATION, 1) >= 5
    except UnidentifiedImageError:
        return read_picture(path).color.shape[:2]
    return (width, height) if turned else (height, width)


def write_picture(path: str | Path, picture: Picture, quality: int = 95) -> None:
    """Write an image atomically, in the format that the suffix names; values outside [0, 1] are clipped.

    Args:
        quality: of JPEG and WebP, up to 100.

    Raises:
        ValueError: a format that has no room for what the picture has.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in WRITTEN:
        raise ValueError(f"{path}: expected one of the formats {', '.join(WRITTEN)}")
    if picture.bits > 8 and suffix not in DEEP_SUFFIXES:
        raise ValueError(f"{path}: 16 bits a channel need {' or '.join(DEEP_SUFFIXES)}")
    if picture.alpha is not None and suffix not in CLEAR_SUFFIXES:
        raise ValueError(f"{path}: transparency needs {' or '.join(CLEAR_SUFFIXES)}")
    array = picture.color
    if picture.alpha is not None:
        array = np.concatenate([np.repeat(array, 3 // array.shape[2], axis=2), picture.alpha[..., None]], axis=2)
    levels = np.rint(np.clip(array, 0, 1) * (2**picture.bits - 1))
    profile = profile_for(picture.profile, min(levels.shape[2], 3))
    with atomic_path(path) as temporary:
        if picture.bits > 8:
            cv2 = _opencv(path)
            order = (0,) if array.shape[2] == 1 else (2, 1, 0, 3)[: array.shape[2]]
            done, encoded = cv2.imencode(suffix, levels.astype(np.uint16)[..., order])
            if not done:
                raise ValueError(f"{path}: the image could not be encoded")
            content = encoded.tobytes()
            temporary.write_bytes(content if profile is None else with_profile(content, profile, suffix))
        else:
            options = {} if profile is None else {"icc_profile": profile}
            if suffix in (".jpg", ".jpeg", ".webp"):
                options["quality"] = quality
            levels = levels.astype(np.uint8)
            Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels).save(temporary, **options)


def as_format_has_it(picture: Picture, suffix: str) -> Picture:
    """Without the depth that the format has no room for. (Transparency is not given up: writing says what is wrong.)"""
    return replace(picture, bits=8) if picture.bits > 8 and suffix not in DEEP_SUFFIXES else picture


def images_in(folder: str | Path) -> list[Path]:
    """Images of a folder, sorted, without hidden files.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    found = sorted(path for path in folder.iterdir() if is_image(path))
    if not found:
        raise FileNotFoundError(f"{folder}: no images in it ({', '.join(SUFFIXES)})")
    return found


def is_image(path: Path) -> bool:
    """Whether a path is a file with an image's ending, and not hidden, as those that other systems leave beside."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def luminance(color: np.ndarray) -> np.ndarray:
    """(H, W, 3) RGB to (H, W, 1): OpenCV's and MATLAB's gray, 0.299 R + 0.587 G + 0.114 B; gray as it is."""
    return color if color.shape[2] == 1 else (color @ np.float32([0.299, 0.587, 0.114]))[..., None]


_Decoded = tuple[np.ndarray, int, bytes | None, bool]


def _decode(path: Path, content: bytes) -> _Decoded | None:
    """Pixels of 8 bits (H, W[, 2 to 4]), orientation, color profile, and whether the file has more than 8 bits.

    None where Pillow does not know the format.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            stored = str(image.tile[0][3]) if image.tile else ""
            deep = image.mode[0] in "IF" or ";16" in stored or "65535" in stored
            image.load()  # some releases turn TIFF files here, and then no longer say that they should be turned
            orientation, profile = image.getexif().get(_ORIENTATION, 1), image.info.get("icc_profile")
            clear = "A" in image.getbands() or "transparency" in image.info
            gray = image.mode in ("1", "L", "LA", "La")
            mode = {(True, True): "LA", (True, False): "L", (False, True): "RGBA", (False, False): "RGB"}[gray, clear]
            return np.asarray(image.convert(mode)), orientation, profile, deep
    except UnidentifiedImageError:
        return None
    except Exception as error:  # Pillow's decoders raise what they like
        raise ValueError(f"{path}: the image is damaged ({error})") from error


def _as_opencv_has_it(path: Path, content: bytes, known: _Decoded | None) -> np.ndarray | None:
    """Pixels as they are stored, colors as BGR; None where OpenCV does not know the format, or is not there.

    Raises:
        ValueError: it is not there, and Pillow, which gave `known`, is not enough.
    """
    try:
        cv2 = _opencv(path)
    except ValueError:
        if known is None or known[3]:
            raise
        return None
    return cv2.imdecode(np.frombuffer(as_stored(content), np.uint8), cv2.IMREAD_UNCHANGED)


def _opencv(path: Path) -> ModuleType:
    """OpenCV. Raises ValueError where it is not installed, as Pillow is not enough for `path`."""
    try:
        import cv2
    except ImportError as error:
        found = "no picture that Pillow knows, or one of 16 bits a channel"
        raise ValueError(f"{path}: found {found}, which need OpenCV: pip install opencv-python-headless") from error
    return cv2


_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}
