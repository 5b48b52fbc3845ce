"""Fusing images from Python: build a model with its weights, fuse two pictures, or whatever two files hold.

model = init_fuser(checkpoint="10000_E.pth")
fuse_files(model, "infrared.png", "visible.png", "fused.png")     # of mamba_vision.apis.fusion_run
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mamba_vision.apis.pixel_model import Published, half_precision, init_pixel_model
from mamba_vision.datasets.fusion_sharpening import LAYOUTS
from mamba_vision.models.networks import fusionmamba, mambadfuse
from mamba_vision.models.tasks.fusion import ImageFuser
from mamba_vision.models.tasks.fusion_sharpening import ImageSharpener
from mamba_vision.models.tasks.restoration_tiles import Tiling
from mamba_vision.models.tasks.sharpening_tiles import TILING
from mamba_vision.utils.picture_files import Picture, luminance

Fusing = ImageFuser | ImageSharpener
Progress = Callable[[int, int], None]


def _sharpener(variant: str) -> ImageSharpener:
    peak = LAYOUTS[variant].peak if variant in LAYOUTS else 1.0
    return ImageSharpener(dict(type="mamba_vision.FusionMamba", arch=variant), peak=peak)


def _fuser(variant: str) -> ImageFuser:
    return ImageFuser(dict(type="mamba_vision.MambaDFuse", arch=variant))


PUBLISHED = (
    # networks of four bands are alike, but GF2's are trained on 10 bits and QB's on 11
    Published("FusionMamba", fusionmamba, "spa_cross_mamba.", _sharpener, distinct=True),
    Published("MambaDFuse", mambadfuse, "M3_block", _fuser),
)


def init_fuser(
    config: str | Path | None = None, checkpoint: str | Path | None = None, arch: str | None = None,
    device: str | torch.device | None = None, ema: bool = False,
) -> Fusing:  # fmt: skip
    """An ImageFuser or an ImageSharpener with weights, in evaluation mode.

    Arguments, result and errors are those of `init_pixel_model`; of published weights of FusionMamba for four bands,
    `arch` must say which they are, 'FusionMamba:gf2' or 'FusionMamba:qb'.
    """
    return init_pixel_model(PUBLISHED, (ImageFuser, ImageSharpener), config, checkpoint, arch, device, ema)


def tiling_for(model: Fusing) -> Tiling:
    """How images are split where the caller does not say: as the model does, else in blended tiles as published."""
    return model.tiling or (TILING if isinstance(model, ImageSharpener) else Tiling())


def fuse_pictures(
    model: Fusing, first: Picture, second: Picture, tiling: Tiling | None = None, amp: bool = False,
    progress: Progress | None = None,
) -> Picture:  # fmt: skip
    """Two pictures to one.

    Of an ImageFuser, `first` is infrared or MRI, `second` visible, CT, PET or SPECT, of one size. A network for gray
    images fuses the luminance; the result has the color (Cb and Cr) of the second picture, or of the first if only
    that one has some. Of an ImageSharpener, `first` is the image to sharpen and `second` its guide, s times larger; a
    guide of one channel is the luminance.

    Args:
        tiling: how large pictures are split; by default as the model says, else with blended seams.
        amp: compute in half precision.
        progress: called with tiles done and all tiles.

    Raises:
        ValueError: sizes or channels that do not go together.
    """
    if isinstance(model, ImageSharpener):
        return _sharpen(model, first, second, tiling, amp, progress)
    if first.color.shape[:2] != second.color.shape[:2]:
        raise ValueError(f"found pictures of {_size(first)} and {_size(second)} pixels, expected one size, registered")
    bits = max(first.bits, second.bits)
    alpha = first.alpha if second.alpha is None else second.alpha
    for name, picture in (("first", first), ("second", second)):
        if picture.is_gray and model.network.in_channels == 3:
            raise ValueError(f"{name} picture: found one channel (gray), this network needs three (RGB)")
    given = (to_batch(as_given(model, picture.color)) for picture in (first, second))
    fused = run_fuser(model, *given, tiling, amp, progress)
    fused = from_batch(fused)
    colored = next((picture for picture in (second, first) if not picture.is_gray), None)
    if colored is not None:
        fused = recolored(fused, colored.color)
    return replace(second if colored is None else colored, color=fused, alpha=alpha, bits=bits)


def run_fuser(
    model: ImageFuser, first: Tensor, second: Tensor, tiling: Tiling | None, amp: bool, progress: Progress | None = None
) -> Tensor:
    """Two images (B, c, H, W) in [0, 1] to one, in tiles."""
    with half_precision(model, amp):
        return model.fuse(first, second, tiling or tiling_for(model), progress)


def as_given(model: ImageFuser, color: np.ndarray) -> np.ndarray:
    """What a fuser sees of (H, W, C): the luminance, where it is for gray images."""
    return luminance(color) if model.network.in_channels == 1 else color


def recolored(fused: np.ndarray, color: np.ndarray) -> np.ndarray:
    """Fused luminance (H, W, 1) with the Cb and Cr of (H, W, 3); a fused color image as it is."""
    if fused.shape[2] == 3:
        return fused
    # Cb and Cr stay where what is added to the luminance is added to every channel.
    return np.clip(color + (fused - luminance(color)), 0, 1)


def check_channels(model: ImageSharpener, bands: int, guide_channels: int, names: tuple[str, str]) -> None:
    """Raise ValueError where an image and its guide have other channels than the network takes."""
    for name, found, wanted, what in (
        (names[0], bands, model.network.bands, "bands"),
        (names[1], guide_channels, model.network.guide_channels, "channels of a guide"),
    ):
        if found != wanted:
            raise ValueError(f"{name}: found {found} {what}, this network takes {wanted}")


def _sharpen(
    model: ImageSharpener, first: Picture, second: Picture, tiling: Tiling | None, amp: bool, progress: Progress | None
) -> Picture:
    guide = luminance(second.color) if model.network.guide_channels == 1 else second.color
    check_channels(model, first.color.shape[2], guide.shape[2], ("first picture", "second picture"))
    want = tuple(model.scale * side for side in first.color.shape[:2])
    if guide.shape[:2] != want:
        raise ValueError(
            f"found pictures of {_size(first)} and {_size(second)} pixels, expected the second one {model.scale} times "
            f"larger, {want[1]} x {want[0]}"
        )
    with half_precision(model, amp):
        sharpened = model.sharpen(to_batch(first.color), to_batch(guide), tiling or tiling_for(model), progress)
    return replace(first, color=from_batch(sharpened), alpha=second.alpha, bits=max(first.bits, second.bits))


def to_batch(image: np.ndarray) -> Tensor:
    """(H, W, C) to (1, C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)).permute(2, 0, 1)[None]


def from_batch(image: Tensor) -> np.ndarray:
    """(1, C, H, W) to (H, W, C)."""
    return image[0].permute(1, 2, 0).numpy()


def _size(picture: Picture) -> str:
    return f"{picture.color.shape[1]} x {picture.color.shape[0]}"
