"""What the torch.library operators of this package have in common."""

from contextlib import AbstractContextManager, nullcontext

import torch


def without_autocast(tensor: torch.Tensor) -> AbstractContextManager:
    """A context in which autocast is off for the tensor's device: it would otherwise reach inside an operator.

    Nothing at all where it is off already: an exported graph would hold what is inside as a graph of its own.
    """
    device = tensor.device.type
    if device == "meta":  # has no autocast to ask for
        return nullcontext()
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def keeps_for_backward(*inputs: torch.Tensor | None) -> bool:
    """Whether forward should keep something for backward.

    Not during export: what is kept may have a shape that depends on the length in ways a dynamic graph can't express,
    and backward can do without.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_exporting():
        return False
    return any(t is not None and t.requires_grad for t in inputs)


def or_empty(like: torch.Tensor, *results: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
    """Empty tensors in place of None: an operator can't return None."""
    return tuple(like.new_empty(0) if result is None else result for result in results)


def or_none(
    inputs: tuple[torch.Tensor | None, ...], results: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor | None, ...]:
    """The gradients in `results` of those inputs that were given, None for the others."""
    return tuple(None if given is None else result for given, result in zip(inputs, results))
