"""Many small pictures as one."""

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from mamba_vision.utils.atomic import atomic_path

LEAST_SIDE = 32  # smaller pictures are enlarged by whole factors, so that a person sees something


def to_pixels(pictures: Tensor) -> Tensor:
    """Values in [-1, 1] as uint8, as latent diffusion's authors round: 127.5 x + 128, clamped and cut off."""
    return (127.5 * pictures.float() + 128).clamp(0, 255).byte()


def picture_grid(pictures: Tensor, columns: int | None = None) -> np.ndarray:
    """A grid, left to right, then down; the frames of a clip are a row of their own.

    Args:
        pictures: (N, C, H, W) or (N, T, C, H, W) in [-1, 1]; 1 channel is grey, of more than 3 the first 3 are shown.
        columns: pictures a row; None: as many as rows. Of clips: clips a row.

    Returns:
        (height, width, 3) uint8.

    Raises:
        ValueError: another number of axes, or no pictures.
    """
    if pictures.ndim not in (4, 5) or not len(pictures):
        found = tuple(pictures.shape)
        raise ValueError(f"pictures: found shape {found}, expected (N, C, H, W) or (N, T, C, H, W)")
    columns = columns or (max(1, round(len(pictures) ** 0.5 + 0.49)) if pictures.ndim == 4 else 1)
    if pictures.ndim == 5:
        columns, pictures = columns * pictures.shape[1], pictures.flatten(0, 1)
    pixels = to_pixels(pictures.cpu())
    pixels = pixels[:, :3] if pixels.shape[1] >= 3 else pixels[:, :1].expand(-1, 3, -1, -1)
    factor = -(-LEAST_SIDE // min(pixels.shape[2:]))
    pixels = pixels.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    return make_grid(pixels, nrow=columns, padding=2, pad_value=255).permute(1, 2, 0).contiguous().numpy()


def save_picture_grid(path: str | Path, pictures: Tensor, columns: int | None = None) -> Path:
    """Write `picture_grid` atomically; the suffix chooses the format.

    Raises:
        ValueError: as `picture_grid`.
    """
    grid = picture_grid(pictures, columns)
    with atomic_path(path) as temporary:
        Image.fromarray(grid).save(temporary)
    return Path(path)
