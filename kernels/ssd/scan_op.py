"""The torch.library operator of ssd's scan on a GPU, and its gradient."""

import torch

from mamba_vision.kernels.operators import or_empty, or_none, past_library, plainly, without_autocast

_TENSORS = "Tensor x, Tensor step, Tensor A, Tensor B, Tensor C, Tensor? state, Tensor? segment"


def ssd_scan(x, step, A, B, C, state, segment, chunk_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As `ssd_reference`, with outputs in float32; state and segment may be None."""
    call = _direct if plainly(x) else torch.ops.mamba_vision.ssd_scan
    return call(x, step, A, B, C, state, segment, chunk_size)


def _run(x, step, A, B, C, state, segment, chunk_size):
    from mamba_vision.kernels.ssd.triton_impl import forward

    with without_autocast(x):
        return forward(x, step, A, B, C, state, segment, chunk_size)


_forward = torch.library.custom_op(
    "mamba_vision::ssd_scan", _run, mutates_args=(), schema=f"({_TENSORS}, int chunk_size) -> (Tensor, Tensor)"
)


@_forward.register_fake
def _(x, step, A, B, C, state, segment, chunk_size):
    last = x.new_empty(x.shape[0], *x.shape[2:], B.shape[3], dtype=torch.float32)
    return x.new_empty(x.shape, dtype=torch.float32), last


def _run_backward(grad, grad_last, x, step, A, B, C, state, segment, chunk_size):
    from mamba_vision.kernels.ssd.triton_impl import backward

    with without_autocast(x):
        found = backward(grad, grad_last, x, step, A, B, C, state, segment, chunk_size)
    return or_empty(x, *found[:5], None if state is None else found[5])


_backward = torch.library.custom_op(
    "mamba_vision::ssd_scan_backward",
    _run_backward,
    mutates_args=(),
    schema=f"(Tensor grad, Tensor? grad_last, {_TENSORS}, int chunk_size) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)


@_backward.register_fake
def _(grad, grad_last, x, step, A, B, C, state, segment, chunk_size):
    shaped = (None if t is None else t.new_empty(t.shape) for t in (x, step, A, B, C, state))
    return or_empty(x, *shaped)


def _setup_context(ctx, inputs, output):
    *tensors, ctx.chunk_size = inputs
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _differentiate(ctx, grad, grad_last):
    x, step, A, B, C, state, segment = ctx.saved_tensors
    if grad is None:
        grad = torch.zeros(x.shape, device=x.device, dtype=torch.float32)
    grad_last = None if grad_last is None else grad_last.contiguous()
    call = _run_backward if plainly(grad) else torch.ops.mamba_vision.ssd_scan_backward
    found = call(grad, grad_last, x, step, A, B, C, state, segment, ctx.chunk_size)
    return (*or_none((x, step, A, B, C, state), found), None, None)


torch.library.register_autograd(_forward, _differentiate, setup_context=_setup_context)
_direct = past_library(_run, _setup_context, _differentiate)
