"""What the torch.library operators of this package have in common."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.autograd.function import once_differentiable


def plainly(tensor: torch.Tensor) -> bool:
    """Whether an op may run past torch.library: an ordinary tensor, and nobody who traces or counts operators.

    What torch.library does around an operator takes the host longer than a small scan takes the GPU.
    """
    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._functorch.peek_interpreter_stack() is None
    )


def past_library(
    run: Callable, setup_context: Callable, differentiate: Callable, hidden: int | None = None
) -> Callable:
    """The operator made of these three as an ordinary autograd function, for where `plainly` says so.

    hidden: the output that is only there for backward.
    """

    class Operator(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *inputs):
            outputs = run(*inputs)
            if hidden is not None:
                ctx.mark_non_differentiable(outputs[hidden])
            setup_context(ctx, inputs, outputs)
            return outputs

        @staticmethod
        @once_differentiable
        def backward(ctx, *gradients):
            return differentiate(ctx, *gradients)

    return Operator.apply


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
