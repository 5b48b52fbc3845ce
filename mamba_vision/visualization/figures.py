"""Several figures in one picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from mamba_vision.utils.atomic import atomic_path


def figure_pixels(figure: Figure) -> np.ndarray:
    """The figure as (height, width, 3) uint8."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def save_stacked(path: str | Path, pictures: Sequence[np.ndarray]) -> Path:
    """Write pictures (height, width, 3), one below the other, as one file.

    Raises:
        ValueError: no pictures.
    """
    if not pictures:
        raise ValueError("pictures: expected at least one, found none")
    width = max(picture.shape[1] for picture in pictures)
    rows = [np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0))) for picture in pictures]
    with atomic_path(path) as temporary:
        Image.fromarray(np.concatenate(rows)).save(temporary)
    return Path(path)
