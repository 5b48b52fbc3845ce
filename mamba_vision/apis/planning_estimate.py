"""How long a planned training takes on this machine, and whether its GPU holds it: found by training a few steps."""

import gc
import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.registry import DefaultScope
from torch import nn

from mamba_vision.apis.config_template import PRESETS
from mamba_vision.registry import MODELS
from mamba_vision.utils.quiet import quiet_imports
from mamba_vision.utils.wording import count
from mamba_vision.volumes.checks import Problem
from mamba_vision.volumes.plan import Plan

_CPU_VOXELS = 32**3  # of the patch that is timed on a CPU; the time of the whole one follows from its voxels
_STEPS = 3  # on a GPU; one on a CPU, which needs no more to get to speed


@dataclass(frozen=True)
class Estimate:
    """What a training needs.

    Attributes:
        seconds: an iteration; None where it did not fit.
        hours: the whole schedule, without validation and without waiting for data.
        gigabytes: most GPU memory used; None on a CPU.
        device: its name.
    """

    seconds: float | None
    hours: float | None
    gigabytes: float | None
    device: str

    def describe(self) -> str:
        """In few words."""
        if self.hours is None:
            return f"does not fit into {self.device}"
        used = "" if self.gigabytes is None else f", {self.gigabytes:.1f} GB of its memory"
        return f"{_hours(self.hours)} on {self.device}{used}"


def estimate_training(plan: Plan, preset: str = "default", device: str | None = None) -> Estimate:
    """Train a few steps on noise: on a GPU the planned batch, on a CPU a part of one patch.

    Args:
        plan: of the training.
        preset: of the schedule, a key of config_template.PRESETS.
        device: 'cpu', 'cuda' ...; a GPU by default if there is one.
    """
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    on_gpu = where.type == "cuda"
    patch = plan.patch_size[1:] if plan.slicewise else plan.patch_size
    timed = patch if on_gpu else _part(patch, plan)
    batch = plan.batch_size if on_gpu else 1
    network = dict(plan.network)
    if "patch_size" in network:
        network["patch_size"] = list(timed)
    name = torch.cuda.get_device_name(where) if on_gpu else count(torch.get_num_threads(), "CPU thread")
    with quiet_imports(), DefaultScope.overwrite_default_scope("mamba_vision"):
        model = MODELS.build(network).to(where).train()
    try:
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(where)
        seconds = _time(model, (batch, plan.in_channels, *timed), where)
        gigabytes = torch.cuda.max_memory_allocated(where) / 2**30 if on_gpu else None
    except torch.OutOfMemoryError:
        return Estimate(None, None, None, name)
    finally:
        del model
        gc.collect()
        if on_gpu:
            torch.cuda.empty_cache()
    seconds *= plan.batch_size * math.prod(patch) / (batch * math.prod(timed))
    schedule = PRESETS[preset]
    return Estimate(seconds, schedule.epochs * schedule.iterations * seconds / 3600, gigabytes, name)


def memory_problem(plan: Plan, estimate: Estimate) -> Problem | None:
    """The warning that a GPU can't hold the plan; None if it can, or if there is none."""
    if estimate.seconds is not None:
        return None
    total, patch = torch.cuda.get_device_properties(0).total_memory / 2**30, " x ".join(map(str, plan.patch_size))
    return Problem(
        "", estimate.device, f"{total:.0f} GB, too little for batches of {plan.batch_size} patches of {patch}",
        "a GPU that holds the plan", f"Plan with --vram {max(1, int(total * 0.6))}, or train with --amp", "warning",
    )  # fmt: skip


def _part(patch: tuple[int, ...], plan: Plan) -> tuple[int, ...]:
    """A patch of at most _CPU_VOXELS, of sides that the network divides."""
    strides = plan.network.get("strides")
    divisor = (
        [math.prod(step[axis] for step in strides) for axis in range(len(patch))] if strides else [16] * len(patch)
    )
    sides = list(patch)
    while math.prod(sides) > _CPU_VOXELS:
        axis = max(range(len(sides)), key=lambda one: sides[one] // divisor[one])
        if sides[axis] <= divisor[axis]:
            break
        sides[axis] = max(divisor[axis], sides[axis] // 2 // divisor[axis] * divisor[axis])
    return tuple(sides)


def _time(model: nn.Module, shape: tuple[int, ...], device: torch.device) -> float:
    """Seconds of a step forward and back, the fastest of some after one to warm up."""
    inputs, times = torch.randn(shape, device=device), []
    for _ in range(1 + (_STEPS if device.type == "cuda" else 1)):
        start = time.perf_counter()
        outputs: Any = model(inputs)
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        sum(one.float().square().mean() for one in outputs).backward()
        model.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def _hours(hours: float) -> str:
    if hours < 1:
        return f"about {max(1, round(60 * hours))} minutes"
    return f"about {hours:.2g} hours" if hours < 100 else f"about {round(hours / 24):,} days"
