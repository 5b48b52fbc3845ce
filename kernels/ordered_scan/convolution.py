"""ordered_conv1d: the causal convolution along scan orders, as an operator of its own where Triton runs."""

import torch

from mamba_vision.kernels.backends import choose
from mamba_vision.kernels.checks import cast, check_float, compute_dtype
from mamba_vision.kernels.operators import or_empty, or_none, past_library, plainly, without_autocast
from mamba_vision.kernels.ordered_scan import op as along

_TENSORS = "Tensor x, Tensor order, Tensor weight, Tensor? bias"


def ordered_conv1d(
    x: torch.Tensor,
    order: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str | None = "silu",
) -> torch.Tensor:
    """The causal convolution along K orders that `ordered_scan(conv=...)` applies, for what is projected from it.

    Args:
        x: (batch, tokens, channels).
        order: (K, L) or (batch, K, L) as in `ordered_scan`.
        weight: (K, channels, width).
        bias: (K, channels).
        activation: None, "silu" or "swish".

    Returns:
        (batch, K, L, channels), one row a step; a view: Triton's lies in memory as (K, batch, L, channels), for one
        matrix product a direction, the portable one as (batch, L, K, channels).

    Raises:
        ValueError: for shapes, dtypes or options that do not go together.
    """
    if (
        torch.compiler.is_exporting()
        or x.dim() != 3
        or x.dtype == torch.float64
        or choose("ordered_scan", x) != "triton"
    ):
        return along.ordered_conv1d(x, order, weight, bias, activation)
    along.check_convolution(x, order, weight, bias, activation)
    check_float(x=x, weight=weight, bias=bias)
    work = compute_dtype(x)
    out = (_direct if plainly(x) else torch.ops.mamba_vision.ordered_conv1d)(
        x, order, cast(weight, work), cast(bias, work), activation is not None
    )
    return out.transpose(0, 1)


def _run(x, order, weight, bias, silu):
    from mamba_vision.kernels.ordered_scan.triton_impl import convolve

    with without_autocast(x):
        return convolve(x, order, weight, bias, silu)


_forward = torch.library.custom_op(
    "mamba_vision::ordered_conv1d", _run, mutates_args=(), schema=f"({_TENSORS}, bool silu) -> Tensor"
)


@_forward.register_fake
def _(x, order, weight, bias, silu):
    return x.new_empty(order.shape[-2], x.shape[0], order.shape[-1], x.shape[2])


def _run_backward(grad_out, x, order, weight, bias, silu):
    from mamba_vision.kernels.ordered_scan.triton_impl import convolve_backward

    with without_autocast(x):
        return or_empty(x, *convolve_backward(grad_out, x, order, weight, bias, silu))


_backward = torch.library.custom_op(
    "mamba_vision::ordered_conv1d_backward",
    _run_backward,
    mutates_args=(),
    schema=f"(Tensor grad_out, {_TENSORS}, bool silu) -> (Tensor, Tensor, Tensor)",
)


@_backward.register_fake
def _(grad_out, x, order, weight, bias, silu):
    return or_empty(x, *(None if t is None else torch.empty_like(t) for t in (x, weight, bias)))


def _setup_context(ctx, inputs, output):
    *tensors, ctx.silu = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx, grad_out):
    x, order, weight, bias = ctx.saved_tensors
    found = (_run_backward if plainly(grad_out) else torch.ops.mamba_vision.ordered_conv1d_backward)(
        grad_out, x, order, weight, bias, ctx.silu
    )
    dx, dweight, dbias = or_none((x, weight, bias), found)
    return dx, None, dweight, dbias, None


torch.library.register_autograd(_forward, _differentiate, setup_context=_setup_context)
_direct = past_library(_run, _setup_context, _differentiate)
