"""Starting a model of another head, other channels or only the features from a classifier's file of weights."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from mamba_vision.checkpoints import CheckpointError, find_state_dict, load_file, load_published
from mamba_vision.checkpoints.renaming import matches
from mamba_vision.checkpoints.wrapped import naming

_HEAD = re.compile(r"(classifier\.)?head\.(fc\.)?weight")
# What a classifier's file may lack: norms of the maps of a dense model, Vim's scales.
_DENSE_ONLY = ("outnorm", "pyramid.")
# What a file of RMSNorms lacks for a plain backbone's LayerNorms, which it may start, as LocalVim's dense models do.
_NORM_BIAS = re.compile(r"(backbone\.)?(layers\.\d+\.norm|norm_f)\.bias")
CHANNELS = 3
BACKBONE = "backbone."


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file, weights-only; ZigMa's moving average ('ema'), which is what its authors sample with.

    Raises:
        FileNotFoundError, CheckpointError: there is no such file, or it is not one of weights.
    """
    content = load_file(path)
    return dict(find_state_dict(content, ema=isinstance(content.get("ema"), dict), source=f"checkpoint {path}"))


def classes_in(weights: dict[str, Tensor] | None) -> int | None:
    """Rows of the head's matrix in a classifier's weights, if there is one."""
    for name, value in (weights or {}).items():
        if _HEAD.fullmatch(name) and value.ndim == 2:
            return value.shape[0]
    return None


def load_weights(model: nn.Module, weights: dict[str, Tensor], with_channels: Callable[[int], nn.Module]) -> None:
    """Load a file's weights strictly, but for what that file cannot have.

    A head for another number of classes starts anew, with a warning; so do norms of feature maps from a classifier's
    file. Where the model has other channels than the file's three, the first convolution is adapted: summed for one
    channel, else repeated and scaled so that sums keep their size.

    Args:
        model: a classifier, a backbone or a network.
        weights: as `read_weights` gives them.
        with_channels: builds the same model for another number of channels.

    Raises:
        CheckpointError: they do not fit in any other way.
    """
    new = _new_names(model, weights)
    head = model.state_dict().get("head.fc.weight")
    if head is not None and "head.fc.*" in new:
        found = classes_in(weights)
        warnings.warn(
            f"the head starts anew, for {head.shape[0]} classes: the file has {found or 'none'}", stacklevel=3
        )
    try:
        _load(model, weights, new)
    except CheckpointError as error:
        if not _load_other_channels(model, weights, with_channels, new):
            raise error


def _load(model: nn.Module, weights: dict[str, Tensor], new: list[str]) -> None:
    load_published(model, weights, prefix=_prefix(model, weights), skip=new)


def _prefix(model: nn.Module, weights: dict[str, Tensor]) -> str:
    """'backbone.' where the file's model has one and this is the backbone alone."""
    whole = any(name.startswith(BACKBONE) for name in model.state_dict())
    return "" if whole or not any(name.startswith(BACKBONE) for name in weights) else BACKBONE


def _new_names(model: nn.Module, weights: dict[str, Tensor]) -> list[str]:
    """Patterns of the names that are not loaded."""
    own, prefix = model.state_dict(), _prefix(model, weights)
    names = [name.removeprefix(prefix) for name in weights if name.startswith(prefix)]
    rename, _ = naming(model, names)
    there = {rename(name) for name in names}
    new = [name for name in own if name.startswith(_DENSE_ONLY) and name not in there]
    biases = [name for name in own if _NORM_BIAS.fullmatch(name)]
    new += biases if not there.intersection(biases) else []
    if "head.fc.weight" not in own:  # pooled features: the file's head is not wanted
        new.append("head.**")
    elif classes_in(weights) != own["head.fc.weight"].shape[0]:
        new.append("head.fc.*")
    return new


def _load_other_channels(
    model: nn.Module, weights: dict[str, Tensor], with_channels: Callable[[int], nn.Module], new: list[str]
) -> bool:
    """Load through a model of three channels; False where that does not fit either."""
    try:
        source = with_channels(CHANNELS)
        _load(source, weights, new)
    except (CheckpointError, ValueError):
        return False
    own, adapted = model.state_dict(), {}
    for name, value in source.state_dict().items():
        if matches(name, new):
            value = own[name]
        if value.shape != own[name].shape:
            value = _other_channels(value, own[name].shape[1])
        adapted[name] = value
    model.load_state_dict(adapted)
    return True


def _other_channels(weight: Tensor, channels: int) -> Tensor:
    """A first convolution (out, 3, ...) for other channels: (out, channels, ...)."""
    if channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = weight.repeat(1, -(-channels // weight.shape[1]), *[1] * (weight.ndim - 2))[:, :channels]
    return repeated * (weight.shape[1] / channels)
