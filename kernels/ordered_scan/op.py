"""ordered_scan: argument checks, the torch.library operator and its gradient, choice of backend."""

import torch

from mamba_vision.kernels.backends import choose, load
from mamba_vision.kernels.causal_conv1d import causal_conv1d
from mamba_vision.kernels.causal_conv1d.op import ACTIVATIONS
from mamba_vision.kernels.checks import cast, check_device, check_float, check_shape, compute_dtype
from mamba_vision.kernels.operators import (
    keeps_for_backward,
    or_empty,
    or_none,
    past_library,
    plainly,
    without_autocast,
)
from mamba_vision.kernels.ordered_scan.exported import convolved, ordered_scan_exported
from mamba_vision.kernels.ordered_scan.orders import take
from mamba_vision.kernels.ordered_scan.reference import channels_first, ordered_scan_reference
from mamba_vision.kernels.selective_scan import selective_scan

_TENSORS = (
    "Tensor x, Tensor order, Tensor dt, Tensor? dt_weight, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? dt_bias, "
    "Tensor? z, Tensor? conv_weight, Tensor? conv_bias"
)
_OPTIONS = "bool merge_sum, bool token_rows, bool delta_softplus"


def ordered_scan(
    x: torch.Tensor,
    order: torch.Tensor,
    dt: torch.Tensor,
    dt_weight: torch.Tensor | None,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    conv: tuple[torch.Tensor, torch.Tensor | None] | None = None,
    merge: str = "sum",
    rows: str = "steps",
    delta_softplus: bool = True,
) -> torch.Tensor:
    """Selective scans of the same tokens along K orders, without reordered copies of the tokens where a kernel can.

    Along order k the input of step t is u_t = x[order[k, t]], or silu(causal convolution of those) with `conv`; the
    step size is softplus(dt dt_weight^T + dt_bias); the recurrence is that of `selective_scan`; and the output of the
    step goes back to the token that it came from.

    Args:
        x: (batch, tokens, channels), channels-last.
        order: (K, L) or (batch, K, L), int32 or int64: token numbers. A token may come several times or not at all;
            -1 is an extra token of zeros, which takes part in convolution and state like any other while its output
            is dropped. Other numbers must be smaller than the number of tokens.
        dt: (batch, K, L, rank), or (batch, K, L, channels) where dt_weight is None; see `rows`.
        dt_weight: (K, channels, rank), or None if dt is full rank.
        A: (K, channels, state), real, negative for a stable recurrence.
        B, C: (batch, K, L, state); see `rows`.
        D: (K, channels), skip connection from the scan's input u.
        dt_bias: (K, channels).
        z: (batch, tokens, channels), gate: the merged output times silu(z).
        conv: (weight (K, channels, width), bias (K, channels) or None) of a causal convolution along each order.
        merge: "sum" adds up what the orders say about a token; "none" keeps the orders apart.
        rows: "steps": dt, B and C have one row a step, as above. "tokens": they have one row a token and order,
            (batch, tokens, K, rank | channels | state), which the scan reads through the order (zeros for -1), for
            systems that project before reordering.
        delta_softplus: whether the step size passes through softplus.

    Returns:
        (batch, tokens, channels) for "sum", (batch, K, tokens, channels) for "none", of x's dtype; zero for tokens that
        no order visits, the sum over its visits for a token that an order repeats.

    Raises:
        ValueError: for shapes, dtypes, devices or options that do not go together.
        BackendError: if a backend was asked for that cannot run.
    """
    conv_weight, conv_bias = (None, None) if conv is None else conv
    _check(x, order, dt, dt_weight, A, B, C, D, dt_bias, z, conv_weight, conv_bias, merge, rows)
    work = compute_dtype(x)
    A, D, dt_bias, conv_weight, conv_bias = (cast(p, work) for p in (A, D, dt_bias, conv_weight, conv_bias))
    inputs = (x, order, dt, cast(dt_weight, dt.dtype), A, B, C, D, dt_bias, z, conv_weight, conv_bias)
    options = (merge == "sum", rows == "tokens", delta_softplus)
    backend = choose("ordered_scan", x)
    if torch.compiler.is_exporting():  # a graph of indexing and the simpler operators, which other runtimes know
        return ordered_scan_exported(*inputs, *options)
    if backend == "reference":
        with without_autocast(x):
            return ordered_scan_reference(*inputs, *options, scan=selective_scan, conv=causal_conv1d)
    # Triton's backward of a gated scan runs the forward anew, as it needs the ungated output too
    keep = keeps_for_backward(*inputs) and not (backend == "triton" and z is not None)
    return (_direct if plainly(x) else torch.ops.mamba_vision.ordered_scan)(*inputs, *options, keep, backend)[0]


def ordered_conv1d(
    x: torch.Tensor,
    order: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str | None = "silu",
) -> torch.Tensor:
    """The public function of this name (see convolution.py) as a convolution of reordered copies."""
    check_convolution(x, order, weight, bias, activation)
    K, channels = order.shape[-2], x.shape[2]
    if torch.compiler.is_exporting():
        out = convolved(x, order, weight, bias, activation)
    else:
        bias = None if bias is None else bias.flatten()
        out = causal_conv1d(channels_first(take(x, order)), weight.flatten(0, 1), bias, activation)
    return out.transpose(1, 2).unflatten(2, (K, channels)).transpose(1, 2)


def check_convolution(x, order, weight, bias, activation) -> None:
    """Raise ValueError unless the arguments of `ordered_conv1d` go together."""
    _check_order(x, order)
    K, channels = order.shape[-2], x.shape[2]
    if weight.dim() != 3 or tuple(weight.shape[:2]) != (K, channels):
        raise ValueError(f"weight has shape {tuple(weight.shape)}, expected ({K}, {channels}, width) for x and order")
    if bias is not None:
        check_shape("bias", bias, (K, channels), "(K, channels) of order and x")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}, expected one of {', '.join(map(repr, ACTIVATIONS))}")


def _check_order(x, order) -> None:
    if x.dim() != 3:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (batch, tokens, channels)")
    if order.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"order has dtype {order.dtype}, expected int32 or int64")
    if order.dim() not in (2, 3) or min(order.shape[-2:]) < 1:
        raise ValueError(f"order has shape {tuple(order.shape)}, expected (K, L) or (batch, K, L), not empty")
    if order.dim() == 3 and order.shape[0] != x.shape[0]:
        raise ValueError(f"order has shape {tuple(order.shape)}, a batch of {order.shape[0]}, but x {tuple(x.shape)}")


def _check(x, order, dt, dt_weight, A, B, C, D, dt_bias, z, conv_weight, conv_bias, merge, rows) -> None:
    _check_order(x, order)
    (batch, tokens, channels), (K, L) = x.shape, order.shape[-2:]
    if merge not in ("sum", "none"):
        raise ValueError(f"merge is {merge!r}, expected 'sum' or 'none'")
    if rows not in ("steps", "tokens"):
        raise ValueError(f"rows is {rows!r}, expected 'steps' or 'tokens'")
    if A.dim() != 3 or tuple(A.shape[:2]) != (K, channels) or A.shape[2] < 1:
        raise ValueError(f"A has shape {tuple(A.shape)}, expected ({K}, {channels}, state) for x and order")
    check_float(x=x, dt=dt, dt_weight=dt_weight, A=A, B=B, C=C, D=D, dt_bias=dt_bias, z=z)
    check_float(conv_weight=conv_weight, conv_bias=conv_bias)
    where = (batch, K, L) if rows == "steps" else (batch, tokens, K)
    because = "one row a step of the order" if rows == "steps" else "one row a token of x and order"
    check_shape("B", B, (*where, A.shape[2]), because)
    check_shape("C", C, (*where, A.shape[2]), because)
    if dt_weight is None:
        check_shape("dt", dt, (*where, channels), "full rank, as dt_weight is None")
    else:
        check_shape("dt", dt, (*where, dt_weight.shape[-1]), "the rank of dt_weight")
        check_shape("dt_weight", dt_weight, (K, channels, dt.shape[-1]), "(K, channels, rank)")
    for name, parameter in (("D", D), ("dt_bias", dt_bias), ("conv's bias", conv_bias)):
        if parameter is not None:
            check_shape(name, parameter, (K, channels), "(K, channels) of order and x")
    if z is not None:
        check_shape("z", z, x.shape, "the shape of x")
    if conv_weight is not None and (conv_weight.dim() != 3 or tuple(conv_weight.shape[:2]) != (K, channels)):
        raise ValueError(f"conv's weight has shape {tuple(conv_weight.shape)}, expected ({K}, {channels}, width)")
    check_device("x", x=x, order=order, dt=dt, dt_weight=dt_weight, A=A, B=B, C=C, D=D, dt_bias=dt_bias, z=z)


def _run(x, *arguments):
    *arguments, backend = arguments
    with without_autocast(x):
        return load("ordered_scan", backend).forward(x, *arguments)


_forward = torch.library.custom_op(
    "mamba_vision::ordered_scan",
    _run,
    mutates_args=(),
    schema=f"({_TENSORS}, {_OPTIONS}, bool keep, str backend) -> (Tensor, Tensor)",
)


@_forward.register_fake
def _(x, order, dt, dt_weight, A, *arguments):
    *_, merge_sum, _, _, keep, backend = arguments
    out = torch.empty_like(x) if merge_sum else x.new_empty(x.shape[0], order.shape[-2], *x.shape[1:])
    return out, A.new_empty(load("ordered_scan", backend).saved_shape(x, order, A) if keep else (0,))


def _run_backward(grad_out, *arguments):
    *arguments, backend = arguments
    with without_autocast(grad_out):
        gradients = load("ordered_scan", backend).backward(grad_out, *arguments)
    return or_empty(grad_out, *gradients)


_backward = torch.library.custom_op(
    "mamba_vision::ordered_scan_backward",
    _run_backward,
    mutates_args=(),
    schema=f"(Tensor grad_out, {_TENSORS}, Tensor saved, {_OPTIONS}, str backend) -> ({', '.join(['Tensor'] * 11)})",
)


@_backward.register_fake
def _(grad_out, x, order, *arguments):
    inputs = (x, *arguments[:10])
    return or_empty(grad_out, *(None if t is None else torch.empty_like(t) for t in inputs))


def _setup_context(ctx, inputs, output):
    *tensors, ctx.merge_sum, ctx.token_rows, ctx.delta_softplus, _, ctx.backend = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx, grad_out, _):
    *inputs, saved = ctx.saved_tensors
    if grad_out is None:
        return (None,) * 17
    gradients = (_run_backward if plainly(grad_out) else torch.ops.mamba_vision.ordered_scan_backward)(
        grad_out, *inputs, saved, ctx.merge_sum, ctx.token_rows, ctx.delta_softplus, ctx.backend
    )
    x, _, *rest = inputs
    dx, *gradients = or_none((x, *rest), gradients)
    return (dx, None, *gradients, None, None, None, None, None)


torch.library.register_autograd(_forward, _differentiate, setup_context=_setup_context)
_direct = past_library(_run, _setup_context, _differentiate, hidden=1)
