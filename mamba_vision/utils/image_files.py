"""Images that a user names: files and folders of them, read one by one, so that a broken one stops nobody else."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".npy")


def find_images(paths: Iterable[str | Path], recursive: bool = False, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """Image files: those named, and those in folders that are named with these suffixes, sorted.

    Raises:
        FileNotFoundError: a path does not exist, or a folder has no image.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            files = path.rglob("*") if recursive else path.iterdir()
            images = sorted(file for file in files if file.suffix.lower() in suffixes and not file.name.startswith("."))
            if not images:
                deeper = "" if recursive else " (folders inside it are searched with --recursive)"
                raise FileNotFoundError(f"{path}: no image in this folder, expected {', '.join(suffixes)}{deeper}")
            found += images
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"{path}: no such image or folder")
    return list(dict.fromkeys(found))


LONGEST = 100  # times the short side


def check_sides(picture: np.ndarray, name: str) -> None:
    """Refuse pictures that are all edge: pipelines that enlarge the short side would fill the memory with the long one.

    Raises:
        ValueError: one side is more than 100 times the other.
    """
    height, width = picture.shape[:2]
    if max(height, width) > LONGEST * min(height, width):
        raise ValueError(
            f"{name}: {width} x {height} pixels, expected sides of at most {LONGEST}:1; cut it into pieces"
        )


def read_image(image: str | Path | np.ndarray, channels: int = 3) -> np.ndarray:
    """An image as OpenMMLab's pipelines want it: (H, W, channels), colour as BGR.

    Args:
        image: a file, or an array (H, W) or (H, W, C), colour as BGR; .npy files hold such an array.
        channels: what the model takes: 1 reads grey, 3 colour; others must be what is there.

    Raises:
        ValueError: the file is damaged or no image, or has other channels; the message names it.
    """
    if isinstance(image, np.ndarray):
        return _with_channels(image, channels, "array")
    path = Path(image)
    if path.suffix.lower() == ".npy":
        try:
            return _with_channels(np.load(path, allow_pickle=False), channels, str(path))
        except (ValueError, EOFError, OSError) as error:
            raise ValueError(f"{path}: {error}") from error
    from mmcv import imread

    try:
        flag = {1: "grayscale", 3: "color"}.get(channels, "unchanged")
        _check_whole(path)
        array = imread(path, flag=flag)
    except Exception as error:  # every decoder has errors of its own
        raise ValueError(f"{path}: damaged, or no image ({_first_line(error)})") from error
    if array is None:
        raise ValueError(f"{path}: damaged, or no image")
    return _with_channels(array, channels, str(path))


def _check_whole(path: Path) -> None:
    """Raise where the end of the file is missing: OpenCV would hand out a picture with a grey rest."""
    from PIL import Image

    with Image.open(path) as image:
        image.load()


def _with_channels(array: np.ndarray, channels: int, name: str) -> np.ndarray:
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or min(array.shape) < 1:
        raise ValueError(f"{name}: shape {array.shape}, expected (height, width) or (height, width, channels)")
    if array.shape[2] == 1 and channels == 3:
        array = array.repeat(3, axis=2)
    if array.shape[2] != channels:
        raise ValueError(f"{name}: {array.shape[2]} channels, expected {channels}")
    return np.ascontiguousarray(array)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def picture_names(images: Iterable[Path], suffix: str) -> dict[str, str]:
    """A file name for the picture of each image, by str(image): its own stem; of several of one stem, numbered."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for image in images:
        name, number = f"{image.stem}{suffix}", 2
        while name.lower() in taken:
            name, number = f"{image.stem}_{number}{suffix}", number + 1
        taken.add(name.lower())
        names[str(image)] = name
    return names
