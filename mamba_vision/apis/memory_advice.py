"""What to do when a training does not fit into memory: which patch and batch would."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import Config

from mamba_vision.utils.memory import format_size

_ENOUGH = 0.7  # of the voxels that did not fit


class OutOfMemoryError(RuntimeError):
    """The training does not fit. `batch_size` is what was tried."""

    def __init__(self, message: str, batch_size: int) -> None:
        super().__init__(message)
        self.batch_size = batch_size


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU or the main memory had no more room."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in text or "not enough memory" in text)
    )


def out_of_memory(cfg: Config, error: BaseException) -> OutOfMemoryError:
    """The error to show in place of torch's."""
    batch = int((cfg.get("train_dataloader") or {}).get("batch_size") or 1)
    patch = cfg.get("patch_size") if isinstance(cfg.get("patch_size"), (list, tuple)) else None
    sides = f" with patches of {_by(patch)}" if patch else ""
    lines = [f"out of memory: batches of {batch}{sides} do not fit{_on_gpu()} ({str(error).splitlines()[0]})"]
    variable = "batch_size" if "batch_size" in cfg else "train_dataloader.batch_size"
    if batch > 1:
        lines.append(
            f"  a smaller batch: --cfg-options {variable}={batch // 2}, or --auto-batch, which tries by itself"
        )
    smaller = smaller_patch(patch, cfg.model.get("network") or {}) if patch else None
    if smaller:
        lines.append(
            f"  a smaller patch: plan with --vram, or --cfg-options patch_size={_tuple(smaller)} in a new folder"
        )
    if "Amp" not in str(cfg.optim_wrapper.get("type")):
        lines.append("  half the memory: --amp")
    return OutOfMemoryError("\n".join(lines), batch)


def smaller_patch(patch: tuple[int, ...], network: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The longest sides cut by what the network divides until enough voxels are gone; None if that can't be."""
    steps = network.get("strides") or [[16] * len(patch)]
    divisor = [math.prod(step[axis] for step in steps) for axis in range(len(patch))]
    sides, wanted = list(patch), _ENOUGH * math.prod(patch)
    while math.prod(sides) > wanted:
        axis = max(range(len(sides)), key=lambda one: sides[one] / patch[one] * sides[one])
        if sides[axis] <= 2 * divisor[axis]:
            return None
        sides[axis] -= divisor[axis]
    return tuple(sides)


def _on_gpu() -> str:
    if not torch.cuda.is_available():
        return ""
    return f" into {torch.cuda.get_device_name()} with {format_size(torch.cuda.mem_get_info()[1])}"


def _by(patch: Any) -> str:
    return " x ".join(map(str, patch))


def _tuple(sides: tuple[int, ...]) -> str:
    return ",".join(map(str, sides))
