"""Finding the weights in what a trainer saved: every project wraps its state dict differently."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mamba_vision.checkpoints.errors import CheckpointError

# nnU-Net; MMEngine, Lightning, LocalMamba; Vim, VMamba, ZigMa; BasicSR; accelerate and DataParallel
WEIGHTS = ("network_weights", "state_dict", "model_state_dict", "model", "net", "params", "weights", "module")
# The moving average, where it is stored beside the weights.
AVERAGES = ("model_ema", "ema_model", "ema", "state_dict_ema", "params_ema", "ema_weights")
# What wrappers put before every name: distributed training, torch.compile.
WRAPPERS = ("module.", "_orig_mod.")


def find_state_dict(checkpoint: Mapping[str, Any], ema: bool = False, source: str = "checkpoint") -> dict[str, Tensor]:
    """The weights in a checkpoint's dictionary, without the prefixes `module.` and `_orig_mod.`.

    Args:
        checkpoint: What `load_file` returned, or a state dict.
        ema: Take the moving average that is stored beside the weights.
        source: Name of the file, for messages.

    Raises:
        CheckpointError: there are no weights, or no average where `ema` asks for one.
    """
    inner: Mapping[str, Any] = checkpoint
    if ema and "ema_state_dict" not in checkpoint:  # MMEngine swaps the two: there the state dict is the average
        key = next((name for name in AVERAGES if isinstance(checkpoint.get(name), Mapping)), None)
        if key is None:
            raise CheckpointError(
                f"{source} has no moving average: found {_keys(checkpoint)}, expected one of {', '.join(AVERAGES)}"
            )
        inner = checkpoint[key]
    while not _is_state_dict(inner):
        # a file that holds the average alone means that
        key = next((name for name in (*WEIGHTS, *AVERAGES) if isinstance(inner.get(name), Mapping)), None)
        if key is None:
            raise CheckpointError(f"{source} holds no state dict: found {_keys(inner)}, expected names with tensors")
        inner = inner[key]
    return strip_wrappers({name: value for name, value in inner.items() if isinstance(value, Tensor)})


def strip_wrappers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` without wrappers' prefixes, where every name carries them."""
    state = dict(state)
    while prefix := next((p for p in WRAPPERS if state and all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _is_state_dict(values: Mapping[str, Any]) -> bool:
    """A flat dictionary of tensors; a counter or version number among them does no harm, a dictionary does."""
    return any(isinstance(value, Tensor) for value in values.values()) and not any(
        isinstance(value, Mapping) for value in values.values()
    )


def _keys(values: Mapping[str, Any]) -> str:
    """The first few keys of a dictionary, for a message."""
    names = [str(key) for key in values]
    return "nothing" if not names else ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
