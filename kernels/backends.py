"""Which implementation of an op runs: Triton kernels, C++, portable PyTorch, or the reference.

The choice is made by the device of the tensors, and may be overridden for the whole process by the environment
variable MAMBA_VISION_BACKEND (read at import) or for a block of code by `use_backend`. Asking for a backend that
cannot run is an error that says why; nothing is replaced in silence. `native`, the C++ on a CPU, runs only when asked
for, as it needs a compiler. An op that has no C++ runs portably then, so that a whole model can ask for it.
"""

import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch

BACKENDS = ("triton", "native", "portable", "reference")
_FILES = {"triton": "triton_impl", "native": "native_impl", "portable": "portable", "reference": "reference"}

# Facts of the installation, as plain globals: torch.compile can read these, but not look for files.
_HAS_TRITON = importlib.util.find_spec("triton") is not None
_TRITON_OPS, _NATIVE_OPS = (
    tuple(path.parent.name for path in Path(__file__).parent.glob(f"*/{_FILES[name]}.py"))
    for name in ("triton", "native")
)
_INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")  # Triton too reads it at import

# A plain global, not a context variable: torch.compile guards on it, so a compiled graph follows `use_backend`.
_requested: str | None = os.environ.get("MAMBA_VISION_BACKEND") or None


class Choice(NamedTuple):
    """The backend that runs and why it was chosen."""

    name: str
    reason: str


class BackendError(RuntimeError):
    """A backend was asked for that cannot run here; the message says why."""


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Run the ops called inside the block on one backend, whatever the tensors' device. Process-wide, not per thread.

    Args:
        name: "triton", "native", "portable" or "reference"; None goes back to the choice by device.

    Raises:
        ValueError: for another name.
    """
    global _requested
    if name is not None:
        _check_name(name, "use_backend")
    before, _requested = _requested, name
    try:
        yield
    finally:
        _requested = before


def requested_backend() -> str | None:
    """What `use_backend` or MAMBA_VISION_BACKEND asks for now; None where the tensors' device decides."""
    return _requested


def backend_for(tensor: torch.Tensor, op: str = "selective_scan") -> Choice:
    """The backend that `op` runs on for tensors on this tensor's device, with the reason.

    Args:
        tensor: any input of the op.
        op: the op's folder, for example "selective_scan".

    Raises:
        BackendError: a backend was asked for (`use_backend`, MAMBA_VISION_BACKEND) that cannot run.
    """
    name = choose(op, tensor)
    if _requested == "native" and name == "portable":
        return Choice(name, f"'native' was asked for, and {op} has no C++")
    if _requested is not None:
        return Choice(name, "asked for by use_backend or MAMBA_VISION_BACKEND")
    if name == "triton":
        return Choice(name, f"the tensor is on {tensor.device}")
    return Choice(name, f"Triton cannot run: {triton_obstacle(op, tensor.device.type)}")


def choose(op: str, tensor: torch.Tensor, only_portable: str | None = None) -> str:
    """The name of the backend to run; what every op calls (kept simple enough for torch.compile to trace).

    Args:
        op: the op's folder.
        tensor: any input.
        only_portable: why Triton's kernels cannot take this call (for example, complex numbers), if so.

    Raises:
        BackendError: the backend that was asked for cannot run this call.
    """
    device = tensor.device.type
    if _requested is None:
        return "portable" if only_portable or triton_obstacle(op, device) else "triton"
    _check_name(_requested, "MAMBA_VISION_BACKEND")
    if _requested == "native":
        if device != "cpu":
            raise BackendError(f"backend 'native' was asked for, but runs on CPUs only: the tensors are on '{device}'")
        return "native" if op in _NATIVE_OPS and not only_portable else "portable"
    obstacle = (only_portable or triton_obstacle(op, device, asked=True)) if _requested == "triton" else None
    if obstacle:
        raise BackendError(f"backend 'triton' was asked for, but cannot run {op}: {obstacle}")
    return _requested


def triton_obstacle(op: str, device: str, asked: bool = False) -> str | None:
    """Why Triton cannot run `op` on that type of device, or None if it can.

    On CPU tensors it runs only through its interpreter (TRITON_INTERPRET=1) and only when asked for, as that is slow.
    """
    if device not in ("cuda", "cpu"):
        return f"its kernels run on CUDA and ROCm devices, not on '{device}'"
    if op not in _TRITON_OPS:
        return f"{op} has no Triton kernels"
    if not _HAS_TRITON:
        return "the package triton is not installed"
    if device == "cpu" and not (asked and _INTERPRETED):
        return "the tensors are on the CPU" + (" and TRITON_INTERPRET=1 is not set" if asked else "")
    return None


@cache
def load(op: str, backend: str) -> ModuleType:
    """The module `mamba_vision.kernels.<op>.<backend's file>`."""
    return importlib.import_module(f"{__package__}.{op}.{_FILES[backend]}")


def _check_name(name: str, source: str) -> None:
    if name not in BACKENDS:
        raise ValueError(f"{source}: unknown backend {name!r}, expected one of {', '.join(BACKENDS)}")
