"""The scan along orders with the scan itself in C++ (kernels/native), for tensors on a CPU."""

from functools import partial

import torch

from mamba_vision.kernels.native.library import TILE
from mamba_vision.kernels.ordered_scan import portable
from mamba_vision.kernels.selective_scan import native_impl as scan

forward = partial(portable.forward, scan=scan)
backward = partial(portable.backward, scan=scan)


def saved_shape(x: torch.Tensor, order: torch.Tensor, A: torch.Tensor) -> tuple[int, ...]:
    """As that of the native selective scan with K x channels channels."""
    return (-(-order.shape[-1] // TILE), x.shape[0], A.shape[2], A.shape[0] * A.shape[1])
