"""The compiled scan as functions on tensors: PyTorch's memory, the C++ structure `Scan` of selective_scan.hpp."""

import ctypes
from collections.abc import Sequence as Items
from functools import cache

import torch

from mamba_vision.kernels.backends import BackendError
from mamba_vision.kernels.native.build import BuildError, build_torch_library

TILE = 32  # steps between the states that are kept for backward
THREAD = 1 << 19  # channels x steps x states that are worth a thread: some tenths of a millisecond


class _Sequence(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("batch", "channel", "step")))


_SIZES = ("batch", "channels", "length", "state", "groups", "parts", "is_double", "delta_softplus")
_FIELDS = (
    *((name, ctypes.c_int64) for name in _SIZES),
    *((name, _Sequence) for name in ("u", "delta", "z", "B", "C")),
    *((name, ctypes.c_void_p) for name in ("A", "constant_B", "constant_C", "D", "delta_bias", "initial", "saved")),
    ("out", _Sequence),
    ("last", ctypes.c_void_p),
    ("grad_out", _Sequence),
    ("grad_last", ctypes.c_void_p),
    *((name, _Sequence) for name in ("du", "ddelta", "dz")),
    *((name, ctypes.c_void_p) for name in ("dA", "dB", "dC", "dD", "dbias", "dinitial")),
)
_SEQUENCES = {name for name, kind in _FIELDS if kind is _Sequence}


class Scan(ctypes.Structure):
    """`Scan` of selective_scan.hpp; tensors are put in by `fill`."""

    _fields_ = _FIELDS

    def fill(self, **tensors: torch.Tensor | None) -> None:
        """Sequences are (batch, channels, length), B and C (batch, groups x state, length), of any strides.

        Everything else must be contiguous. The tensors are kept as long as this object.
        """
        self.tensors = tensors
        for name, tensor in tensors.items():
            if tensor is not None:
                value = _Sequence(tensor.data_ptr(), *tensor.stride()) if name in _SEQUENCES else tensor.data_ptr()
                setattr(self, name, value)


@cache
def library() -> ctypes.CDLL:
    """The library, compiled if need be.

    Raises:
        BackendError: it can't be compiled; the message says why.
    """
    try:
        found = ctypes.CDLL(str(build_torch_library()))
    except (BuildError, OSError) as error:
        raise BackendError(f"backend 'native' was asked for, but its C++ source can't be used: {error}") from error
    for name, arguments in (
        ("size", ()),
        ("tile", ()),
        ("parts", (ctypes.c_int64,) * 5),
        ("run", (ctypes.POINTER(Scan), ctypes.c_int64, ctypes.c_int64)),
    ):
        function = getattr(found, f"mamba_vision_scan_{name}")
        function.restype, function.argtypes = ctypes.c_int64, arguments
    if (found.mamba_vision_scan_size(), found.mamba_vision_scan_tile()) != (ctypes.sizeof(Scan), TILE):
        raise RuntimeError("the compiled scan and library.py lay out their arguments differently")
    return found


def new_scan(shape: Items[int], state: int, groups: int, dtype: torch.dtype, delta_softplus: bool) -> tuple[Scan, int]:
    """A scan of u's shape (batch, channels, length) without tensors yet, and the threads to run it on."""
    batch, channels, length = shape
    threads = max(1, min(torch.get_num_threads(), batch * channels * length * state // THREAD))
    double = dtype == torch.float64
    parts = library().mamba_vision_scan_parts(batch, groups, channels, threads, double)
    return Scan(batch, channels, length, state, groups, parts, double, delta_softplus), threads


def run(scan: Scan, backward: bool, threads: int) -> None:
    """Run a filled scan.

    Raises:
        MemoryError: there is no room for its states.
    """
    if library().mamba_vision_scan_run(scan, backward, threads):
        raise MemoryError("no memory for the states of the native scan")
