"""Images before and after, side by side, as a whole and enlarged at the busiest spot. Takes arrays."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mamba_vision.utils.atomic import atomic_path

_GAP, _BAR = 8, 22
_LEAST = 240  # pixels that even a small image is shown in


def comparison_picture(images: Mapping[str, np.ndarray], zoom_side: int = 128, width: int = 1600) -> Image.Image:
    """Images side by side under their names: each as a whole, enlarged to the last one's size, and below a part of it.

    Args:
        images: (h, w, C) in [0, 1] by name, C 1 or 3; the last is the result.
        zoom_side: side, in pixels of the result, of the part that is enlarged: where the result has most detail.
        width: of the picture, at most.
    """
    after = list(images.values())[-1]
    height, length = after.shape[:2]
    panel = min(max(length, _LEAST), (width - _GAP * (len(images) - 1)) // len(images))
    top, left, side = busiest(after, min(zoom_side, height, length))
    whole_height = max(round(panel * height / length), 1)
    size = (len(images) * (panel + _GAP) - _GAP, _BAR + whole_height + _GAP + panel)
    canvas = Image.new("RGB", size, (24, 24, 24))
    frame = [panel * left // length, panel * top // length, panel * (left + side) // length,
             panel * (top + side) // length]  # fmt: skip
    for column, (name, array) in enumerate(images.items()):
        image, x = Image.fromarray(_levels(array)), column * (panel + _GAP)
        if image.size != (length, height):
            image = image.resize((length, height), Image.Resampling.BICUBIC)
        whole = image.resize((panel, whole_height), Image.Resampling.LANCZOS)
        ImageDraw.Draw(whole).rectangle(frame, outline=(255, 220, 0))
        part = image.crop((left, top, left + side, top + side)).resize((panel, panel), Image.Resampling.NEAREST)
        ImageDraw.Draw(canvas).text((x + 4, 5), name, fill=(235, 235, 235))
        canvas.paste(whole, (x, _BAR))
        canvas.paste(part, (x, _BAR + whole_height + _GAP))
    return canvas


def save_comparison(path: str | Path, images: Mapping[str, np.ndarray], zoom_side: int = 128) -> Path:
    """Write `comparison_picture` as one file."""
    with atomic_path(path) as temporary:
        comparison_picture(images, zoom_side).save(temporary)
    return Path(path)


def save_before_after(path: str | Path, before: np.ndarray, after: np.ndarray) -> Path:
    """Write the comparison of two images as one file."""
    return save_comparison(path, {"before": before, "after": after})


def as_color(image: np.ndarray) -> np.ndarray:
    """(H, W, C) of any bands to gray or RGB that a person can look at, in [0, 1].

    One or three channels stay what they are. Of four (blue, green, red, infrared) and eight (WorldView-3) the visible
    ones are taken, of others three spread over the spectrum; their values from the 1st to the 99th percentile become 0
    to 1.
    """
    channels = image.shape[2]
    if channels in (1, 3):
        return image
    visible = {2: (1, 0, 0), 4: (2, 1, 0), 8: (4, 2, 1)}
    chosen = image[..., visible.get(channels, (3 * channels // 5, 2 * channels // 5, channels // 5))]
    low, high = np.percentile(chosen, (1, 99))
    return np.clip((chosen - low) / max(high - low, 1e-6), 0, 1)


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
