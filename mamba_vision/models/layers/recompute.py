"""Results that are cheap to compute and large to keep: computed again in backward, on GPUs, where memory is short."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mamba_vision.kernels.backends import requested_backend, use_backend


def recomputed(function: Callable[..., Tensor], *tensors: Tensor | None) -> Tensor:
    """function(*tensors), keeping its inputs for backward but nothing that it computes on the way.

    The function must not draw random numbers. What follows its last kept result is not computed twice. The second time
    runs on the backend of the first, also where `backward` is called outside of `use_backend`.
    """
    if not torch.is_grad_enabled() or not _short_of_memory(tensors[0]) or torch.compiler.is_compiling():
        return function(*tensors)  # a compiler decides by itself
    backend = requested_backend()

    def again(*tensors: Tensor | None) -> Tensor:
        with use_backend(backend):
            return function(*tensors)

    return checkpoint(again, *tensors, use_reentrant=False, preserve_rng_state=False)


def _short_of_memory(tensor: Tensor) -> bool:
    return tensor.is_cuda
