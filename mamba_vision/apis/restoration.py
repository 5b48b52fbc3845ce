"""Restoring pictures from Python: build a model with its weights, restore one picture of any kind.

model = init_restorer(checkpoint="mambair_x2.pth")
restore_picture(model, read_picture("photo.jpg"))
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from mamba_vision.apis.pixel_model import Published, half_precision, init_pixel_model
from mamba_vision.models.networks import mambair, mambair_unet, mambairv2
from mamba_vision.models.tasks.restoration import ImageRestorer
from mamba_vision.models.tasks.restoration_tiles import Tiling
from mamba_vision.utils.picture_files import Picture, luminance


def _restorer(network: str) -> Callable[[str], ImageRestorer]:
    return lambda variant: ImageRestorer(dict(type=f"mamba_vision.{network}", arch=variant))


PUBLISHED = (
    Published("MambaIRUNet", mambair_unet, "encoder_level1.0.", _restorer("MambaIRUNet")),
    Published("MambaIRv2", mambairv2, ".assm.", _restorer("MambaIRv2")),
    Published("MambaIR", mambair, ".self_attention.", _restorer("MambaIR")),
)


def init_restorer(
    config: str | Path | None = None, checkpoint: str | Path | None = None, arch: str | None = None,
    device: str | torch.device | None = None, ema: bool = False,
) -> ImageRestorer:  # fmt: skip
    """A restoration model with weights, in evaluation mode; arguments, result and errors as of `init_pixel_model`."""
    return init_pixel_model(PUBLISHED, (ImageRestorer,), config, checkpoint, arch, device, ema)


def restore_picture(
    model: ImageRestorer,
    picture: Picture,
    tiling: Tiling | None = None,
    amp: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Picture:
    """Restore a picture of any size and kind.

    Gray pictures go through a network for color as three equal channels. A network for gray restores the luminance of a
    color picture, whose colors are enlarged by bicubic interpolation. So is transparency.

    Args:
        tiling: how large pictures are split; by default as the model says, else as published with blended seams.
        amp: compute in bfloat16 (float16 on GPUs without it).
        progress: called with tiles done and all tiles.

    Returns:
        The picture, scale times as large, of the same kind and depth.

    Raises:
        ValueError: the network takes neither one channel nor three.
    """
    tiling = tiling or model.tiling or Tiling()
    color = picture.color
    wanted = model.network.in_channels
    if wanted == 3:
        given = np.repeat(color, 3, axis=2) if picture.is_gray else color
        restored = _run(model, given, tiling, amp, progress)
        restored = luminance(restored) if picture.is_gray else restored
    elif wanted == 1:
        y = luminance(color)
        restored = _run(model, y, tiling, amp, progress)
        if not picture.is_gray:  # luminance is linear: what is added to it is added to every channel
            restored = np.clip(enlarge(color - y, model.scale) + restored, 0, 1)
    else:
        raise ValueError(f"network: it takes {wanted} channels, expected 1 or 3 for pictures")
    alpha = None if picture.alpha is None else np.clip(enlarge(picture.alpha[..., None], model.scale)[..., 0], 0, 1)
    return picture.with_color(restored, alpha)


def enlarge(image: np.ndarray, scale: int) -> np.ndarray:
    """(H, W, C) to (s * H, s * W, C) by bicubic interpolation."""
    if scale == 1:
        return image
    x = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    return F.interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False)[0].permute(1, 2, 0).numpy()


def _run(
    model: ImageRestorer, image: np.ndarray, tiling: Tiling, amp: bool, progress: Callable[[int, int], None] | None
) -> np.ndarray:
    x = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    with half_precision(model, amp):
        return model.restore(x, tiling, progress)[0].permute(1, 2, 0).numpy()
