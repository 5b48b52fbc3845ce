"""Launches of Triton kernels that have been launched like this before, without looking everything up again.

Triton finds a kernel's compiled form from the types, divisibility and values of all its arguments, in every call: with
the ninety arguments of a scan that takes the host longer than the kernel takes the GPU. Here one look into a table
does; what is found goes to the launcher directly, pointers as plain addresses.
"""

from collections.abc import Callable

import torch

from mamba_vision.kernels.triton_common import INTERPRETED, overlapping

_MOST = 4096  # kernels remembered; lengths that never repeat must not fill the memory
_ready: dict[tuple, tuple[Callable, tuple]] = {}
_pointers: dict[int, int] = {}


def launch(kernel, programs: int, *arguments, **constants) -> None:
    """`kernel[(programs,)](*arguments, **constants)`; the arguments are tensors first, then integers.

    A kernel with a parameter OVERLAP begins with `after_previous(OVERLAP)` and is told what that is to do.
    """
    if INTERPRETED:
        _first_launch(kernel, programs, arguments, constants)
        return
    name = id(kernel)
    count = _pointers.get(name)
    if count is None:
        count = _pointers[name] = sum(isinstance(a, torch.Tensor) for a in arguments)
    tensors, numbers = arguments[:count], arguments[count:]
    addresses = [t.data_ptr() for t in tensors]
    aligned = tuple([a % 16 == 0 for a in addresses])  # what Triton looks at in a pointer
    dtypes = tuple([t.dtype for t in tensors])
    key = (name, programs, tensors[0].device, dtypes, aligned, numbers, tuple(constants.values()))
    known = _ready.get(key)
    if known is not None:
        run, tail = known
        run(*addresses, *tail)
        return
    compiled, constants = _first_launch(kernel, programs, arguments, constants)
    if len(_ready) >= _MOST:
        _ready.clear()
    tail = (*numbers, *(constants[p] for p in kernel.arg_names[len(arguments) :]))
    _ready[key] = (compiled[(programs, 1, 1)], tail)


def _first_launch(kernel, programs: int, arguments: tuple, constants: dict) -> tuple:
    if "OVERLAP" in kernel.arg_names:
        constants = constants | overlapping(arguments[0].device)
    return kernel[(programs,)](*arguments, **constants), constants
