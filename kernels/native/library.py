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


class OrderedScan(ctypes.Structure):
    """`OrderedScan` of selective_scan.hpp."""

    _fields_ = (
        *(
            (name, ctypes.c_int64)
            for name in ("batch", "tokens", "channels", "orders", "state", "rank", "own_orders", "parts")
        ),
        *((name, ctypes.c_void_p) for name in ("x", "order", "dt", "dt_weight", "A", "B", "C", "D", "dt_bias", "out")),
    )


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
        _declare(found, f"scan_{name}", arguments)
    _declare(found, "ordered_scan_size", ())
    _declare(found, "ordered_scan_run", (ctypes.POINTER(OrderedScan), ctypes.c_int64))
    sizes = (found.mamba_vision_scan_size(), found.mamba_vision_scan_tile(), found.mamba_vision_ordered_scan_size())
    if sizes != (ctypes.sizeof(Scan), TILE, ctypes.sizeof(OrderedScan)):
        raise RuntimeError("the compiled scan and library.py lay out their arguments differently")
    return found


def _declare(found: ctypes.CDLL, name: str, arguments: tuple) -> None:
    function = getattr(found, f"mamba_vision_{name}")
    function.restype, function.argtypes = ctypes.c_int64, arguments


def new_scan(shape: Items[int], state: int, groups: int, dtype: torch.dtype, delta_softplus: bool) -> tuple[Scan, int]:
    """A scan of u's shape (batch, channels, length) without tensors yet, and the threads to run it on."""
    batch, channels, length = shape
    threads = _threads(batch * channels * length * state)
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


def run_ordered(**tensors: torch.Tensor) -> None:
    """Selective scans of x along several orders, added into `out`; shapes as `OrderedScan` of selective_scan.hpp.

    All contiguous, float32, but order int64 with numbers of tokens only.

    Raises:
        MemoryError: there is no room for its states.
    """
    (batch, tokens, channels), (own, orders, _) = tensors["x"].shape, tensors["order"].shape
    state, rank = tensors["A"].shape[2], tensors["dt"].shape[3]
    threads = _threads(batch * channels * tokens * orders * state)
    parts = library().mamba_vision_scan_parts(batch, 1, channels, threads, False)
    scan = OrderedScan(batch, tokens, channels, orders, state, rank, own > 1, parts)
    for name, tensor in tensors.items():
        setattr(scan, name, tensor.data_ptr())
    if library().mamba_vision_ordered_scan_run(scan, threads):
        raise MemoryError("no memory for the states of the native scan")


def _threads(work: int) -> int:
    return max(1, min(torch.get_num_threads(), work // THREAD))
