"""Restoring pictures from Python: build a model with its weights, restore one picture of any kind.

model = init_restorer(checkpoint="mambair_x2.pth")
restore_picture(model, read_picture("photo.jpg"))
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor

from mamba_vision.apis.volume_model import choose_device, find_checkpoint
from mamba_vision.checkpoints import CheckpointError, find_state_dict, load_file, load_published
from mamba_vision.datasets.restoration_images import Picture, luminance
from mamba_vision.models.networks import mambair, mambair_unet, mambairv2
from mamba_vision.models.tasks.restoration import ImageRestorer
from mamba_vision.models.tasks.restoration_tiles import Tiling
from mamba_vision.registry import MODELS

# What tells the published networks apart: a part of the names of weights that no other has.
_MARKS = {
    "encoder_level1.0.": ("MambaIRUNet", mambair_unet),
    ".assm.": ("MambaIRv2", mambairv2),
    ".self_attention.": ("MambaIR", mambair),
}


def init_restorer(
    config: str | Path | None = None, checkpoint: str | Path | None = None, arch: str | None = None,
    device: str | torch.device | None = None, ema: bool = False,
) -> ImageRestorer:  # fmt: skip
    """A restoration model with weights, in evaluation mode.

    Args:
        config: a configuration with an ImageRestorer, or the folder that it was trained in; None: the published network
            that the weights belong to, found out from their names and number.
        checkpoint: weights, published or our own; of a folder by default the best, else the last. Read weights-only.
        arch: the published network as 'MambaIR:sr_x2', instead of `config`.
        device: 'cpu', 'cuda', 'cuda:1' ...; a GPU by default if there is one.
        ema: take the moving average stored beside the weights (`params_ema`).

    Returns:
        The model, with the attributes `checkpoint` and `variant` (what it is, for people).

    Raises:
        FileNotFoundError: no configuration or checkpoint.
        ValueError: neither config nor checkpoint, a device that is not there, a model for something else.
        CheckpointError: the checkpoint is damaged, refused, or belongs to another network.
    """
    device = choose_device(device)
    folder = None
    if config is not None:
        if arch is not None:
            raise ValueError("config and arch: give one of them")
        folder, cfg = _configuration(Path(config))
    if checkpoint is None and folder is None:
        raise ValueError("checkpoint: expected a file of weights; without config there is none to go by")
    weights = Path(checkpoint) if checkpoint is not None else find_checkpoint(folder)
    content = load_file(weights)
    state = find_state_dict(content, ema=ema, source=f"checkpoint {weights}")
    if config is not None:
        model, variant = _built(cfg.model, config), str(config)
    else:
        network, name = recognize(state) if arch is None else _named(arch)
        model, variant = ImageRestorer(dict(type=f"mamba_vision.{network}", arch=name)), f"{network} {name}"
    alone = not any(key.startswith("network.") for key in state)
    try:
        load_published(model.network if alone else model, state)
    except CheckpointError as error:
        raise CheckpointError(f"{weights}: {error}") from error
    model.checkpoint, model.variant = weights, variant
    return model.to(device).eval()


def recognize(state: dict[str, Tensor]) -> tuple[str, str]:
    """(network, variant) of published weights.

    Raises:
        CheckpointError: they belong to no published variant.
    """
    names = [name.removeprefix("network.") for name in state]
    for mark, (network, module) in _MARKS.items():
        if not any(mark in name for name in names):
            continue
        count = sum(value.numel() for value in state.values() if value.is_floating_point())
        for variant, parameters in module.PARAMETERS.items():
            if parameters == count:
                return network, variant
        known = ", ".join(f"{name} {number}" for name, number in module.PARAMETERS.items())
        raise CheckpointError(
            f"weights of a {network} with {count} parameters, which is none of the published variants ({known}); "
            "give the configuration that they were trained with"
        )
    raise CheckpointError(f"weights of an unknown network: the first name is {names[0] if names else 'missing'!r}")


def _named(arch: str) -> tuple[str, str]:
    """(network, variant) of NETWORK:VARIANT."""
    network, _, variant = arch.partition(":")
    archs = {known: module.ARCHS for known, module in _MARKS.values()}
    if variant not in archs.get(network, ()):
        every = "; ".join(f"{known}: {', '.join(variants)}" for known, variants in archs.items())
        raise ValueError(f"arch: expected NETWORK:VARIANT of {every}; found {arch!r}")
    return network, variant


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
    device = next(model.parameters()).device.type
    half = torch.float16 if device == "cuda" and not torch.cuda.is_bf16_supported() else torch.bfloat16
    with torch.autocast(device, dtype=half, enabled=amp):
        return model.restore(x, tiling, progress)[0].permute(1, 2, 0).numpy()


def _configuration(path: Path) -> tuple[Path, Config]:
    """The folder that belongs to it, and the configuration read."""
    if path.is_dir():
        found = sorted(path.glob("*.py"), key=lambda file: file.stat().st_mtime)
        if not found:
            raise FileNotFoundError(f"{path}: expected the configuration (.py) that training leaves there; found none")
        path = found[-1]
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such configuration or folder")
    return path.parent, Config.fromfile(path)


def _built(settings: dict, source: str | Path) -> ImageRestorer:
    try:
        with DefaultScope.overwrite_default_scope("mamba_vision"):
            model = MODELS.build(dict(settings))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{source}: the model cannot be built: {error}") from error
    if not isinstance(model, ImageRestorer):
        raise ValueError(f"{source}: expected an ImageRestorer, found {type(model).__name__}")
    return model
