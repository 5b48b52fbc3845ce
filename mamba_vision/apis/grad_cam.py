"""Which places of an image speak for a class: Grad-CAM (Selvaraju et al., ICCV 2017, arXiv 1610.02391)."""

from pathlib import Path

import numpy as np
import torch
from mmengine.dataset import default_collate
from torch import Tensor, nn

from mamba_vision.apis.classification import ImageClassifierInferencer
from mamba_vision.scan_orders import split_tokens
from mamba_vision.utils.image_files import read_image


def grad_cam(
    model: nn.Module, images: Tensor, classes: Tensor | None = None, layer: str | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """A map of where a layer's channels, weighted by their mean gradients, speak for a class.

    Args:
        model: an ImageClassifier with one of our backbones, in evaluation mode.
        images: (B, channels, height, width), normalized.
        classes: (B,) classes to explain; None: the likeliest.
        layer: module of the backbone whose result is weighed, tokens (B, T, C) or a map (B, H, W, C). None: the last
            map of a hierarchical backbone, the tokens behind the last norm of a plain one that pools its patches, and
            those before the last layer where a class token is read, as behind it patches are read no more.

    Returns:
        maps (B, H, W), not below 0; logits (B, classes); the classes explained (B,).

    Raises:
        ValueError: there is no such layer, or its result is neither tokens nor a map.
    """
    backbone = model.backbone
    name = default_layer(backbone) if layer is None else layer
    modules = dict(backbone.named_modules())
    if name not in modules:
        raise ValueError(f"layer: found {name!r}, expected a module of {type(backbone).__name__}, such as "
                         f"{default_layer(backbone)!r}")  # fmt: skip
    kept = []

    def keep(module: nn.Module, given: tuple, out: Tensor | tuple[Tensor, ...]) -> None:
        kept.append(out[0] if isinstance(out, tuple) else out)

    hook = modules[name].register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits = model(images)
            classes = logits.detach().argmax(1) if classes is None else classes.to(logits.device)
            score = logits.gather(1, classes[:, None]).sum()
            (gradient,) = torch.autograd.grad(score, [kept[-1]])
    finally:
        hook.remove()
    activation, gradient = (_as_map(backbone, tensor, images.shape[-2:], name) for tensor in (kept[-1], gradient))
    weights = gradient.mean((1, 2), keepdim=True)
    return (weights * activation).sum(-1).clamp_min(0).detach(), logits.detach(), classes


def default_layer(backbone: nn.Module) -> str:
    """Name of the layer that Grad-CAM weighs by default, see `grad_cam`."""
    if hasattr(backbone, "dims"):
        return f"outnorm{backbone.out_indices[-1]}"
    if getattr(backbone, "out_type", None) == "cls_token":
        names = dict(backbone.layers[-1].named_modules())
        return f"layers.{len(backbone.layers) - 1}.norm" if "norm" in names else f"layers.{len(backbone.layers) - 2}"
    return "norm_f" if hasattr(backbone, "norm_f") else "ln1"


def prepared(inferencer: ImageClassifierInferencer, image: str | Path | np.ndarray) -> tuple[Tensor, np.ndarray]:
    """A picture as its model takes it, (1, channels, H, W) on its device, and to look at, (H, W, 3) uint8 RGB.

    Raises:
        ValueError, OSError: the picture cannot be read.
    """
    picture = read_image(image, inferencer.channels)
    shape = picture.shape[:2]
    data = inferencer.pipeline(dict(img=picture, img_shape=shape, ori_shape=shape))
    inputs = inferencer.model.data_preprocessor(default_collate([data]), False)["inputs"]
    seen = inputs[0].detach().cpu().float()
    low, high = seen.amin(), seen.amax()
    shown = (255 * (seen - low) / (high - low).clamp_min(1e-6)).round().byte().permute(1, 2, 0).numpy()
    return inputs, np.ascontiguousarray(shown[..., :3] if shown.shape[2] >= 3 else shown[..., :1].repeat(3, axis=2))


def explained_class(inferencer: ImageClassifierInferencer, logits: Tensor, classes: Tensor) -> str:
    """Name (or number) and probability of the first image's explained class."""
    number = int(classes[0])
    name = inferencer.classes[number] if inferencer.classes else str(number)
    return f"{name} {float(logits.softmax(1)[0, number]):.3f}"


def _as_map(backbone: nn.Module, x: Tensor, size: tuple[int, int], name: str) -> Tensor:
    """(B, H, W, C) of what a layer gave."""
    if x.ndim == 4:
        return x
    if x.ndim != 3:
        raise ValueError(f"layer: {name!r} gives {tuple(x.shape)}, expected tokens (B, T, C) or a map (B, H, W, C)")
    grid = backbone.grid_of(*size)
    return split_tokens(x, backbone.class_places(grid))[0].unflatten(1, grid)
