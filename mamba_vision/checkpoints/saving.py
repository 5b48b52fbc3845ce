"""Writing weights: whole or not at all, plain enough that every loader takes them without protection off."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mamba_vision.utils.atomic import atomic_path

FORMATS = (".pth", ".pt", ".ckpt", ".safetensors")


def save_checkpoint(path: str | Path, state: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None) -> Path:
    """Write a state dict atomically, on the CPU.

    Args:
        path: `.safetensors` writes tensors, and `meta` as text; `.pth`, `.pt`, `.ckpt` write
            {'state_dict': ..., 'meta': ...}, as MMEngine's projects read it.
        state: Names with tensors.
        meta: Plain values to keep beside the weights.

    Returns:
        The path.

    Raises:
        ValueError: another suffix, or a value of `state` is no tensor.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"path must end in one of {', '.join(FORMATS)}, found {path}")
    if wrong := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"state must hold tensors only; {wrong[0]} is a {type(state[wrong[0]]).__name__}")
    # Clones: a view would drag its whole storage into the file, and safetensors refuses shared memory.
    tensors = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in state.items()}
    with atomic_path(path) as temporary:
        if path.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file(tensors, temporary, metadata={"format": "pt", **{k: str(v) for k, v in (meta or {}).items()}})
        else:
            torch.save({"state_dict": tensors, "meta": dict(meta or {})}, temporary)
    return path
