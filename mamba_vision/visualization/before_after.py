"""An image before and after, side by side, as a whole and enlarged at its busiest spot. Takes arrays."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mamba_vision.utils.atomic import atomic_path

_GAP, _BAR = 8, 22


def before_after_picture(before: np.ndarray, after: np.ndarray, zoom_side: int = 128, width: int = 1600) -> Image.Image:
    """The whole image before (enlarged to the size of the result) and after, and below them a part of both.

    Args:
        before, after: (h, w, C) and (H, W, C) in [0, 1], C 1 or 3.
        zoom_side: side, in pixels of the result, of the part that is enlarged: where the result has most detail.
        width: of the picture, at most.
    """
    height, length = after.shape[:2]
    panel = min(length, (width - _GAP) // 2)
    top, left, side = busiest(after, min(zoom_side, height, length))
    old = Image.fromarray(_levels(before)).resize((length, height), Image.Resampling.BICUBIC)
    new = Image.fromarray(_levels(after))
    rows = []
    for image in (old, new):
        whole = image.resize((panel, max(round(panel * height / length), 1)), Image.Resampling.LANCZOS)
        ImageDraw.Draw(whole).rectangle(
            [panel * left // length, panel * top // length, panel * (left + side) // length,
             panel * (top + side) // length], outline=(255, 220, 0),
        )  # fmt: skip
        part = image.crop((left, top, left + side, top + side)).resize((panel, panel), Image.Resampling.NEAREST)
        rows.append((whole, part))
    whole_height = rows[0][0].height
    canvas = Image.new("RGB", (2 * panel + _GAP, _BAR + whole_height + _GAP + panel), (24, 24, 24))
    for column, (name, (whole, part)) in enumerate(zip(("before", "after"), rows)):
        x = column * (panel + _GAP)
        ImageDraw.Draw(canvas).text((x + 4, 5), name, fill=(235, 235, 235))
        canvas.paste(whole, (x, _BAR))
        canvas.paste(part, (x, _BAR + whole_height + _GAP))
    return canvas


def save_before_after(path: str | Path, before: np.ndarray, after: np.ndarray) -> Path:
    """Write `before_after_picture` as one file."""
    with atomic_path(path) as temporary:
        before_after_picture(before, after).save(temporary)
    return Path(path)


def busiest(image: np.ndarray, side: int) -> tuple[int, int, int]:
    """(top, left, side) of the square, on a grid of half its side, whose gray levels vary most."""
    gray, step = image.mean(2), max(side // 2, 1)
    tops, lefts = (range(0, length - side + 1, step) for length in gray.shape)
    spots = [(float(gray[t : t + side, x : x + side].std()), t, x) for t in tops for x in lefts]
    _, top, left = max(spots)
    return top, left, side


def _levels(image: np.ndarray) -> np.ndarray:
    levels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return np.repeat(levels, 3, axis=2) if levels.shape[2] == 1 else levels
