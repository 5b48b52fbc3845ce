"""Inputs that a model can be tried on: of the channels that it takes, and the size that it was published for."""

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mamba_vision.apis.model_names import Variant


def first_convolution(model: nn.Module) -> nn.Module:
    """The model's first convolution.

    Raises:
        ValueError: it has none.
    """
    for module in model.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            return module
    raise ValueError(f"{type(model).__name__} has no convolution to tell the channels of its input from")


def usual_size(model: nn.Module) -> tuple[int, ...]:
    """Height and width, or depth, height and width, that published costs of such a model are for.

    The training patch, where a network has one; 1280 x 720 pixels behind super-resolution; 128 voxels a side, 512
    pixels a side for U-nets, 224 for backbones.
    """
    for name in ("patch_size", "img_size"):
        size = getattr(model, name, None)
        if isinstance(size, (tuple, list)):
            return tuple(size)
    scale = getattr(model, "upscale", None)
    if scale is not None:
        return (720 // scale, 1280 // scale) if scale > 1 else (128, 128)
    if isinstance(first_convolution(model), nn.Conv3d):
        return (128, 128, 128)
    return (512, 512) if getattr(model, "spatial_dims", None) == 2 else (224, 224)


def published_size(variant: Variant, model: nn.Module) -> tuple[int, ...]:
    """The patch that the variant was planned for, where it names one, else `usual_size`."""
    size = variant.settings.get("patch_size")
    return tuple(size) if isinstance(size, (tuple, list)) else usual_size(model)


def example_inputs(
    model: nn.Module, size: Sequence[int] | None = None, channels: int | None = None, device: str = "meta"
) -> tuple[Tensor, ...]:
    """A batch of one for `model(*inputs)`: an image or volume, and times and a condition where the network wants them.

    A network that takes several images has a method `input_shapes(size)`, which gives their shapes without the batch.

    Args:
        model: a network, backbone or classifier.
        size: spatial size; default: `usual_size`.
        channels: of the image; default: those of the first convolution.
        device: where the tensors are made; uninitialized.

    Raises:
        ValueError: the model takes another number of axes or channels.
    """
    if hasattr(model, "input_shapes"):  # networks of several inputs say what these are
        shapes = model.input_shapes(tuple(size or usual_size(model)))
        if channels not in (None, shapes[0][0]):
            raise ValueError(f"channels: found {channels}, expected {shapes[0][0]} for {type(model).__name__}")
        return tuple(torch.empty(1, *shape, device=device) for shape in shapes)
    convolution = first_convolution(model)
    size = tuple(size or usual_size(model))
    axes = len(convolution.kernel_size)
    if len(size) != axes:
        raise ValueError(f"shape: found {size}, expected {axes} numbers for {type(model).__name__}")
    frames = (model.frames,) if getattr(model, "frames", 0) else ()
    inputs = [torch.empty(1, *frames, channels or convolution.in_channels, *size, device=device)]
    if "times" in inspect.signature(model.forward).parameters:
        inputs.append(torch.empty(1, device=device))
        if getattr(model, "text_channels", 0):
            inputs.append(torch.empty(1, 77, model.text_channels, device=device))
        elif getattr(model, "num_classes", 0):
            inputs.append(torch.zeros(1, dtype=torch.int64, device=device))
    return tuple(inputs)
