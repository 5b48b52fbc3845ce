"""What an ONNX file of each kind of model holds: the module behind it, its inputs and outputs, and its metadata.

A task model (classifier, segmentor, restorer ...) is reduced to what maps tensors to tensors; everything around it,
from resizing pictures to names of classes, goes into the metadata, which mamba_vision.deploy reads.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor, nn

from mamba_vision.apis.example_inputs import first_convolution, usual_size
from mamba_vision.deploy.torch_graph import ExportError

SPATIAL = {2: ("height", "width"), 3: ("depth", "height", "width")}
BOXES, POINTS = 4, 8  # of prompts for one image
_RESIZES = ("Resize", "ResizeEdge", "CenterCrop")
_NO_CHANGE = ("LoadImageFromFile", "LoadAnnotations", "PackInputs", "PackSegInputs", "LoadScene")


@dataclass(frozen=True)
class Input:
    """One input of the graph.

    Attributes:
        name: of the tensor.
        shape: its shape without the batch, from the spatial size.
        free: axes (the batch is 0) that may stay free, with their names.
        values: an example, from its shape and a random generator, in the range of real inputs.
    """

    name: str
    shape: Callable[[tuple[int, ...]], tuple[int, ...]]
    free: Mapping[int, str]
    values: Callable[[tuple[int, ...], np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Exportable:
    """A model as it is exported.

    Attributes:
        module: maps the inputs' tensors to the output's.
        inputs: of the graph.
        output: name of its output.
        size: spatial size that it is made for.
        free: whether that size may be left free.
        metadata: for mamba_vision.deploy; has `task`.
        why_fixed: why the size is fixed, where it is.
        lowres: the network that goes first in a cascade, of which this is the second; it gets a file of its own.
    """

    module: nn.Module
    inputs: tuple[Input, ...]
    output: str
    size: tuple[int, ...]
    metadata: dict[str, Any]
    free: bool = True
    why_fixed: str = ""
    lowres: "Exportable | None" = None


class Tensors(nn.Module):
    """Calls a model with tensors alone, and gives one tensor."""

    def __init__(self, model: nn.Module, call: Callable[..., Tensor] | None = None) -> None:
        super().__init__()
        self.model, self.call = model, call

    def forward(self, *inputs: Tensor) -> Tensor:
        out = self.model(*inputs) if self.call is None else self.call(self.model, *inputs)
        return out[0] if isinstance(out, (list, tuple)) else out


def config_seal(cfg: Config) -> dict[str, str | None]:
    """Name and SHA-256 of a configuration, as merged from all its files."""
    content = json.dumps(cfg.to_dict(), sort_keys=True, default=str)
    name = Path(cfg.filename).name if cfg.filename else None
    return {"file": name, "sha256": hashlib.sha256(content.encode()).hexdigest()}


# ---- pictures --------------------------------------------------------------------------------------------------------
def classifier(model: nn.Module, cfg: Mapping[str, Any], classes: Sequence[str] | None) -> Exportable:
    """An MMPretrain ImageClassifier; the output is logits, softmax is left to the runtime."""
    size = usual_size(model)
    steps = _steps(cfg, "mmpretrain")
    for step in steps:
        if "crop" in step:
            size = tuple(step["crop"])
        elif step.get("size"):
            size = tuple(step["size"])
    preprocess = {**_normalization(cfg.get("data_preprocessor") or {}, "to_rgb"), "steps": steps}
    metadata = {"task": "classification", "labels": _names(classes), "preprocess": preprocess}
    return Exportable(Tensors(model), (_image(model, preprocess),), "logits", size, metadata)


def segmentor(model: nn.Module, cfg: Mapping[str, Any], meta: Mapping[str, Any]) -> Exportable:
    """An MMSegmentation EncoderDecoder; the output is logits of the input's size."""
    given = cfg["model"].get("data_preprocessor") or cfg.get("data_preprocessor") or {}
    preprocess = {**_normalization(given, "bgr_to_rgb"), "steps": _steps(cfg, "mmseg")}
    test = dict(cfg["model"].get("test_cfg") or {"mode": "whole"})
    size = tuple(test["crop_size"]) if test.get("mode") == "slide" else tuple(given.get("size") or (512, 512))
    metadata = {
        "task": "segmentation", "labels": _names(meta.get("classes")), "palette": meta.get("palette"),
        "preprocess": preprocess,
        "window": {"size": list(test["crop_size"]), "stride": list(test["stride"])} if "crop_size" in test else None,
    }  # fmt: skip
    _make_pools_exportable(model)
    return Exportable(Tensors(model, _segment), (_image(model, preprocess),), "logits", size, metadata)


def picture_network(network: nn.Module) -> Exportable:
    """A 2-D segmentation network alone; pictures get the z-score of their own, channel by channel, as in nnU-Net."""
    metadata = {"task": "segmentation", "labels": None, "preprocess": {"mean": None, "rgb": True, "steps": []}}
    size = tuple(getattr(network, "patch_size", None) or usual_size(network))
    image = _image(network, metadata["preprocess"])
    return maybe_fixed(network, Exportable(Tensors(finest(network)), (image,), "logits", size, metadata))


def _segment(model: nn.Module, image: Tensor) -> Tensor:
    logits = model.decode_head(model.extract_feat(image))
    return F.interpolate(logits, image.shape[2:], mode="bilinear", align_corners=model.align_corners)


def _image(model: nn.Module, preprocess: Mapping[str, Any]) -> Input:
    channels = first_convolution(model).in_channels
    if preprocess["mean"] is None:
        return Input("image", lambda size: (channels, *size), {0: "batch", 2: "height", 3: "width"}, z_scores)
    mean, std = (np.array(preprocess[key], np.float32).reshape(-1, 1, 1) for key in ("mean", "std"))

    def values(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return ((255 * unit_picture(shape, rng) - mean) / std).astype(np.float32)

    return Input("image", lambda size: (channels, *size), {0: "batch", 2: "height", 3: "width"}, values)


def _normalization(settings: Mapping[str, Any], rgb: str) -> dict[str, Any]:
    mean, std = settings.get("mean"), settings.get("std")
    if mean is None or std is None:
        return {"mean": [0.0], "std": [1.0], "rgb": bool(settings.get(rgb, False))}
    return {"mean": [float(v) for v in mean], "std": [float(v) for v in std], "rgb": bool(settings.get(rgb, False))}


def _steps(cfg: Mapping[str, Any], library: str) -> list[dict[str, Any]]:
    """The test pipeline's resizing and cropping, in a form that needs no library."""
    loader = cfg.get("test_dataloader") or cfg.get("val_dataloader") or {}
    pipeline = (loader.get("dataset") or {}).get("pipeline") or cfg.get("test_pipeline") or []
    if "test_pipeline" in cfg and not any(_kind(step) in _RESIZES for step in pipeline):
        pipeline = cfg["test_pipeline"]
    found = []
    for step in pipeline:
        kind = _kind(step)
        how = {"interpolation": step.get("interpolation", "bilinear"), "backend": step.get("backend", "cv2")}
        if kind == "ResizeEdge" and step.get("edge", "short") == "short":
            found.append({"short_side": int(step["scale"]), **how})
        elif kind == "Resize":
            scale = step["scale"]
            scale = (scale, scale) if isinstance(scale, int) else tuple(scale)
            name = "fit" if step.get("keep_ratio", False) else "size"
            order = scale if name == "fit" else scale[::-1]  # a size is (height, width) here
            found.append({name: [int(side) for side in order], **how})
        elif kind == "CenterCrop":
            side = step["crop_size"]
            found.append({"crop": [side, side] if isinstance(side, int) else [int(one) for one in side]})
        elif kind not in _NO_CHANGE:
            raise ExportError(
                f"test pipeline: {kind} has no counterpart in mamba_vision.deploy, which knows {', '.join(_RESIZES)}"
            )
    return found


def _kind(step: Mapping[str, Any]) -> str:
    return str(step.get("type", "")).split(".")[-1]


class FreePool(nn.Module):
    """AdaptiveAvgPool2d as matrix products, so that the size of its input may stay free in an exported graph."""

    def __init__(self, bins: tuple[int, int]) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (self._means(length, bins, x) for length, bins in zip(x.shape[2:], self.bins))
        return rows @ x @ columns.transpose(0, 1)

    @staticmethod
    def _means(length: int, bins: int, like: Tensor) -> Tensor:
        """(bins, length): a bin is the mean from floor(i * length / bins) to ceil((i + 1) * length / bins)."""
        i = torch.arange(bins, device=like.device)[:, None]
        cell = torch.arange(length, device=like.device)
        inside = ((cell >= i * length // bins) & (cell < ((i + 1) * length + bins - 1) // bins)).to(like.dtype)
        return inside / inside.sum(1, keepdim=True)


def _make_pools_exportable(model: nn.Module) -> None:
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d):
                bins = child.output_size
                setattr(module, name, FreePool((bins, bins) if isinstance(bins, int) else tuple(bins)))


def finest(network: nn.Module) -> nn.Module:
    """Without the outputs that only training has a use for."""
    if getattr(network, "deep_supervision", False):
        network.deep_supervision = False
    return network


def maybe_fixed(network: nn.Module, exportable: Exportable) -> Exportable:
    """With its size fixed, where the network's weights are for one size."""
    if not getattr(network, "fixed_size", False):
        return exportable
    why = "the network's deepest stages have channels as tokens, so that its weights fit this patch only"
    return replace(exportable, free=False, why_fixed=why)


# ---- restoration and fusion ------------------------------------------------------------------------------------------
def restorer(network: nn.Module, tiling: Any) -> Exportable:
    """A network that restores pictures in [0, 1]."""
    channels = network.in_channels
    for module in network.modules():
        if hasattr(module, "stable_sort"):  # ONNX knows no other sort: PyTorch, too, is to keep the order of equals
            module.stable_sort = True
    metadata = {"task": "restoration", "scale": network.upscale, "channels": channels, "tiling": _tiling(tiling)}
    free = {0: "batch", 2: "height", 3: "width"}
    image = Input("image", lambda size: (channels, *size), free, unit_picture)
    size = usual_size(network)
    return Exportable(Tensors(network), (image,), "restored", tuple(min(side, 128) for side in size), metadata)


def fuser(network: nn.Module, tiling: Any) -> Exportable:
    """A network that makes one picture of two of the same size."""
    metadata = {"task": "fusion", "channels": network.in_channels, "tiling": _tiling(tiling)}
    free = {0: "batch", 2: "height", 3: "width"}
    inputs = tuple(
        Input(name, lambda size, number=number: network.input_shapes(size)[number], free, unit_picture)
        for number, name in enumerate(("first", "second"))
    )
    return Exportable(Tensors(network), inputs, "fused", usual_size(network), metadata)


def sharpener(network: nn.Module, tiling: Any, peak: float) -> Exportable:
    """A network that sharpens an image of many bands by a guide that is a whole number of times larger."""
    metadata = {
        "task": "sharpening", "scale": network.scale, "bands": network.bands, "guide_channels": network.guide_channels,
        "peak": peak, "tiling": _tiling(tiling),
    }  # fmt: skip
    names = ({0: "batch", 2: "height", 3: "width"}, {0: "batch", 2: "guide_height", 3: "guide_width"})
    inputs = tuple(
        Input(name, lambda size, number=number: network.input_shapes(size)[number], names[number], unit_picture)
        for number, name in enumerate(("image", "guide"))
    )
    return Exportable(Tensors(network), inputs, "sharpened", usual_size(network), metadata)


def _tiling(tiling: Any) -> dict[str, Any] | None:
    return None if tiling is None else {"tile": tiling.tile, "overlap": tiling.overlap, "blend": tiling.blend}


# ---- prompts ---------------------------------------------------------------------------------------------------------
def prompted(network: nn.Module, preprocess: Mapping[str, Any], threshold: float = 0.5) -> Exportable:
    """A network that segments what boxes and points say; rows of prompts that are not meant are masked out.

    The numbers of rows are fixed, as the order of the scans over image and prompts depends on them.
    """
    metadata = {"task": "promptable", "preprocess": dict(preprocess), "threshold": threshold, "labels": None}
    height, width = network.img_size

    def boxes(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        corners = np.sort(rng.uniform(0, min(height, width) / 4, (*shape[:-1], 2, 2)), axis=-2)
        return (corners + np.array([[0, 0], [8, 8]])).reshape(shape).astype(np.float32)

    def points(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(0, min(height, width) / 4, shape).astype(np.float32)

    def signs(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return rng.integers(0, 2, shape)

    def real(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return rng.integers(0, 2, shape) > 0

    inputs = (
        _image(network, preprocess),
        Input("boxes", lambda size: (BOXES, 4), {0: "batch"}, boxes),
        Input("points", lambda size: (POINTS, 2), {0: "batch"}, points),
        Input("point_labels", lambda size: (POINTS,), {0: "batch"}, signs),
        Input("box_mask", lambda size: (BOXES,), {0: "batch"}, real),
        Input("point_mask", lambda size: (POINTS,), {0: "batch"}, real),
    )
    return Exportable(Tensors(network), inputs, "logits", (height, width), metadata)


# ---- examples --------------------------------------------------------------------------------------------------------
def unit_picture(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Something like pictures in [0, 1]: smooth shapes with noise on them."""
    *lead, height, width = shape
    coarse = rng.uniform(size=(*lead, ceil(height / 8) + 1, ceil(width / 8) + 1))
    smooth = coarse.repeat(8, -2).repeat(8, -1)[..., :height, :width]
    return np.clip(0.8 * smooth + 0.2 * rng.uniform(size=shape), 0, 1).astype(np.float32)


def z_scores(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Something like normalized intensities: a random walk with noise on it."""
    smooth = rng.standard_normal(shape).cumsum(-1) / np.sqrt(shape[-1])
    return (smooth + 0.5 * rng.standard_normal(shape)).astype(np.float32)


def _names(classes: Sequence[str] | None) -> list[str] | None:
    return None if not classes else [str(name) for name in classes]
