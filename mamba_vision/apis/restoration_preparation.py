"""Folders of images as trainings of restoration want them: joined, made worse, cut into pieces."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mamba_vision.datasets.fusion_pairs import pair_by_name
from mamba_vision.datasets.restoration_degradations import jpeg, to_levels
from mamba_vision.utils.bicubic import bicubic_down
from mamba_vision.utils.picture_files import Picture, images_in, luminance, read_picture, write_picture


def join(folders: Sequence[Path], out: Path, report: Callable[[str], None]) -> int:
    """Links to the images of several folders in one; how many.

    Raises:
        FileNotFoundError: a folder is missing or has no images.
        ValueError: two images share a name.
    """
    images = [image for folder in folders for image in images_in(folder)]
    by_name: dict[str, Path] = {}
    for image in images:
        if image.stem in by_name:
            raise ValueError(f"{image}: expected one image of a name, found {by_name[image.stem]}, too")
        by_name[image.stem] = image
    out.mkdir(parents=True, exist_ok=True)
    for image in images:
        link = out / image.name
        if not link.exists():
            link.symlink_to(image.resolve())
        report(str(link))
    return len(images)


def make_bicubic(folder: Path, out: Path, scale: int, report: Callable[[str], None]) -> int:
    """Every image `scale` times smaller by MATLAB's imresize, as DIV2K names them: 0001x2.png; how many.

    Sides that the scale does not divide lose the rest at their far ends.

    Raises:
        ValueError: a scale below 2, or an image that cannot be read.
    """
    if scale < 2:
        raise ValueError(f"scale: expected a whole number from 2, found {scale}")

    def worse(picture: Picture) -> np.ndarray:
        height, width = (side // scale * scale for side in picture.color.shape[:2])
        return to_levels(bicubic_down(np.ascontiguousarray(picture.color[:height, :width]), scale))

    return _each(folder, out, f"x{scale}", worse, report)


def make_jpeg(folder: Path, out: Path, quality: int, report: Callable[[str], None]) -> int:
    """The luminance of every image through JPEG, stored without loss under its own name; how many.

    Raises:
        ValueError: a quality out of range, or an image that cannot be read.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"quality: expected 1 to 100, found {quality}")
    return _each(folder, out, "", lambda picture: jpeg(luminance(picture.color), quality), report)


def cut_crops(
    folders: Sequence[Path], outs: Sequence[Path], size: int, step: int, report: Callable[[str], None]
) -> int:
    """Overlapping squares of every image, the last ones flush with its far ends: NAME_s001.png ...; how many.

    Args:
        folders: one, or two with pairs of one name and size, which are cut alike.
        outs: as many folders for the crops.

    Raises:
        ValueError: other numbers of folders, a size or step out of range, images that are smaller, or of one pair but
            different in size.
    """
    if len(folders) not in (1, 2) or len(outs) != len(folders):
        raise ValueError(f"expected one or two folders and as many for the crops, found {len(folders)}, {len(outs)}")
    if not 1 <= step <= size:
        raise ValueError(f"step: expected 1 to the size {size}, found {step}")
    groups = [(image,) for image in images_in(folders[0])] if len(folders) == 1 else pair_by_name(*folders)
    count = 0
    for group in groups:
        pictures = [read_picture(path) for path in group]
        sizes = {picture.color.shape[:2] for picture in pictures}
        if len(sizes) > 1 or min(sizes.pop()) < size:
            found = " and ".join(f"{p.color.shape[0]} x {p.color.shape[1]}" for p in pictures)
            raise ValueError(f"{group[0]}: found {found} pixels, expected one size of at least {size}")
        corners = [starts(side, size, step) for side in pictures[0].color.shape[:2]]
        places = [(top, left) for top in corners[0] for left in corners[1]]
        for number, (top, left) in enumerate(places, start=1):
            for out, picture in zip(outs, pictures):
                color = picture.color[top : top + size, left : left + size]
                target = out / f"{group[0].stem}_s{number:03}.png"
                write_picture(target, replace(picture, color=color, alpha=None))
        count += len(places)
        report(f"{group[0]}: {len(places)} crops")
    return count


def starts(length: int, size: int, step: int) -> list[int]:
    """Where squares begin along an axis: every `step` pixels, and flush with the far end."""
    return sorted({*range(0, length - size + 1, step), length - size})


def _each(
    folder: Path, out: Path, ending: str, change: Callable[[Picture], np.ndarray], report: Callable[[str], None]
) -> int:
    images = images_in(folder)
    for image in images:
        picture = read_picture(image)
        target = out / f"{image.stem}{ending}.png"
        write_picture(target, Picture(change(picture), None, 8, picture.profile))
        report(str(target))
    return len(images)
