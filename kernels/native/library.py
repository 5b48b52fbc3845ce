"""The compiled scan as functions on tensors: PyTorch's memory, the C++ structure `Scan` of selective_scan.hpp."""

import ctypes
import struct
from collections.abc import Sequence as Items
from functools import cache

import torch

from mamba_vision.kernels.backends import BackendError
from mamba_vision.kernels.native.build import BuildError, build_torch_library

TILE = 32  # steps between the states that are kept for backward
THREAD = 1 << 19  # channels x steps x states that are worth a thread: some tenths of a millisecond


# `Scan` of selective_scan.hpp, all of it numbers of 64 bits: (member, how many of them)
_SCAN = (
    *((name, 4) for name in ("u", "delta", "z")),
    *((name, 6) for name in ("B", "C")),
    *((name, 1) for name in ("A", "constant_B", "constant_C", "D", "delta_bias", "initial", "saved")),
    ("out", 4), ("last", 1), ("grad_out", 4), ("grad_last", 1), ("du", 4), ("ddelta", 4), ("dz", 4),
    ("dB", 6), ("dC", 6), ("dA", 1), ("dconstant_B", 1), ("dconstant_C", 1), ("dD", 1), ("dbias", 1), ("dinitial", 1),
)  # fmt: skip
_SIZES = 8  # numbers before them: batch, channels, length, state, groups, parts, is_double, delta_softplus
_PACKED = struct.Struct(f"{_SIZES + sum(count for _, count in _SCAN)}q")
_NOTHING = {count: (0,) * count for _, count in _SCAN}


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
        ("run", (ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64)),
    ):
        _declare(found, f"scan_{name}", arguments)
    _declare(found, "ordered_scan_size", ())
    _declare(found, "ordered_scan_run", (ctypes.POINTER(OrderedScan), ctypes.c_int64))
    sizes = (found.mamba_vision_scan_size(), found.mamba_vision_scan_tile(), found.mamba_vision_ordered_scan_size())
    if sizes != (_PACKED.size, TILE, ctypes.sizeof(OrderedScan)):
        raise RuntimeError("the compiled scan and library.py lay out their arguments differently")
    return found


def _declare(found: ctypes.CDLL, name: str, arguments: tuple) -> None:
    function = getattr(found, f"mamba_vision_{name}")
    function.restype, function.argtypes = ctypes.c_int64, arguments


def parts_and_threads(shape: Items[int], state: int, groups: int, dtype: torch.dtype) -> tuple[int, int]:
    """For a scan of u's shape (batch, channels, length): tasks that share a group, and the threads to run it on."""
    batch, channels, length = shape
    threads = _threads(batch * channels * length * state)
    if threads == 1:
        return 1, 1
    return library().mamba_vision_scan_parts(batch, groups, channels, threads, dtype == torch.float64), threads


def run(backward: bool, threads: int, sizes: Items[int], tensors: dict[str, torch.Tensor | None]) -> None:
    """Run a scan.

    Args:
        backward: which of the two.
        threads: to run it on.
        sizes: batch, channels, length, state, groups, parts, whether it is float64, delta_softplus.
        tensors: by name of the members of `Scan`; what is not given, or None, is absent. B, C and their gradients are
            (batch, groups, state, length) or (parts, batch, groups, state, length), u and all that is like it (batch,
            channels, length), of any strides; everything else is contiguous.

    Raises:
        MemoryError: there is no room for its states.
    """
    numbers = list(sizes)
    for name, count in _SCAN:
        tensor = tensors.get(name)
        if tensor is None:
            numbers += _NOTHING[count]
        elif count == 1:
            numbers.append(tensor.data_ptr())
        else:
            strides = tensor.stride()
            numbers += (tensor.data_ptr(), *_NOTHING[1][: count - 1 - len(strides)], *strides)
    if library().mamba_vision_scan_run(_PACKED.pack(*numbers), backward, threads):
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
