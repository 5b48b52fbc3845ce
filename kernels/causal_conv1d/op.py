"""causal_conv1d: argument checks, the torch.library operator and its gradient, choice of backend."""

import torch

from mamba_vision.kernels.backends import choose, load
from mamba_vision.kernels.causal_conv1d.reference import causal_conv1d_reference
from mamba_vision.kernels.checks import cast, check_device, check_float, check_shape, compute_dtype
from mamba_vision.kernels.operators import or_empty, or_none, past_library, plainly, without_autocast

ACTIVATIONS = (None, "silu", "swish")
_TENSORS = "Tensor x, Tensor weight, Tensor? bias, Tensor? initial_states, Tensor? seq_idx"


def causal_conv1d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str | None = None,
    initial_states: torch.Tensor | None = None,
    return_final_states: bool = False,
    seq_idx: torch.Tensor | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Causal depthwise convolution: out_t = bias + sum_k weight[k] x[t - (width - 1) + k], then SiLU if asked for.

    The weight of a `torch.nn.Conv1d(channels, channels, width, groups=channels)` goes in as `conv.weight.squeeze(1)`.
    Any strides are taken as they are; arithmetic is float32 (float64 for float64 inputs).

    Args:
        x: (batch, channels, length), length >= 1.
        weight: (channels, width), width >= 1.
        bias: (channels,).
        activation: None, "silu" or "swish" (the same).
        initial_states: (batch, channels, width - 1), the inputs before time 0; zero by default.
        return_final_states: also return the last width - 1 inputs, to continue from.
        seq_idx: (batch, length) integers, which sequence each step belongs to, where several are packed into one row:
            an input of another sequence counts as zero. Not together with states.

    Returns:
        The output, like x; with return_final_states also the states (batch, channels, width - 1).

    Raises:
        ValueError: for shapes, dtypes or options that do not go together.
        BackendError: if a backend was asked for that cannot run.
    """
    _check(x, weight, bias, activation, initial_states, return_final_states, seq_idx)
    work = compute_dtype(x)
    inputs = (x, cast(weight, work), cast(bias, work), cast(initial_states, x.dtype), seq_idx)
    backend = choose("causal_conv1d", x)
    if backend == "reference":
        with without_autocast(x):
            out, final_states = causal_conv1d_reference(*inputs, activation is not None)
    else:
        out, final_states = (_direct if plainly(x) else torch.ops.mamba_vision.causal_conv1d)(
            *inputs, activation is not None, backend
        )
    return (out, final_states) if return_final_states else out


def _check(x, weight, bias, activation, initial_states, return_final_states, seq_idx) -> None:
    if x.dim() != 3 or x.shape[2] < 1:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, expected (batch, channels, length) with a length of at least 1"
        )
    if weight.dim() != 2 or weight.shape[0] != x.shape[1] or weight.shape[1] < 1:
        raise ValueError(
            f"weight has shape {tuple(weight.shape)}, expected (channels, width) with the {x.shape[1]} channels of x "
            f"{tuple(x.shape)}"
        )
    check_float(x=x, weight=weight, bias=bias, initial_states=initial_states)
    if bias is not None:
        check_shape("bias", bias, (x.shape[1],), "one value for each channel of x")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}, expected one of {', '.join(map(repr, ACTIVATIONS))}")
    if initial_states is not None:
        check_shape(
            "initial_states", initial_states, (*x.shape[:2], weight.shape[1] - 1), "(batch, channels, width - 1)"
        )
    if seq_idx is not None:
        check_shape("seq_idx", seq_idx, (x.shape[0], x.shape[2]), "(batch, length) of x")
        if seq_idx.is_floating_point() or seq_idx.is_complex():
            raise ValueError(f"seq_idx has dtype {seq_idx.dtype}, expected integers")
        if initial_states is not None or return_final_states:
            raise ValueError("seq_idx cannot be combined with initial_states or return_final_states")
    check_device("x", x=x, weight=weight, bias=bias, initial_states=initial_states, seq_idx=seq_idx)


def _run(x, weight, bias, initial_states, seq_idx, silu, backend):
    with without_autocast(x):
        return load("causal_conv1d", backend).forward(x, weight, bias, initial_states, seq_idx, silu)


_forward = torch.library.custom_op(
    "mamba_vision::causal_conv1d",
    _run,
    mutates_args=(),
    schema=f"({_TENSORS}, bool silu, str backend) -> (Tensor, Tensor)",
)


@_forward.register_fake
def _(x, weight, bias, initial_states, seq_idx, silu, backend):
    return torch.empty_like(x), x.new_empty(*x.shape[:2], weight.shape[1] - 1)


def _run_backward(grad_out, grad_final_states, x, weight, bias, initial_states, seq_idx, silu, backend):
    with without_autocast(x):
        module = load("causal_conv1d", backend)
        gradients = module.backward(grad_out, grad_final_states, x, weight, bias, initial_states, seq_idx, silu)
    return or_empty(weight, *gradients)


_backward = torch.library.custom_op(
    "mamba_vision::causal_conv1d_backward",
    _run_backward,
    mutates_args=(),
    schema=f"(Tensor grad_out, Tensor? grad_final_states, {_TENSORS}, bool silu, str backend) -> "
    "(Tensor, Tensor, Tensor, Tensor)",
)


@_backward.register_fake
def _(grad_out, grad_final_states, x, weight, bias, initial_states, seq_idx, silu, backend):
    return or_empty(weight, *(None if t is None else torch.empty_like(t) for t in (x, weight, bias, initial_states)))


def _setup_context(ctx, inputs, output):
    *tensors, ctx.silu, ctx.backend = inputs
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _differentiate(ctx, grad_out, grad_final_states):
    inputs = ctx.saved_tensors
    grad_out = torch.zeros_like(inputs[0]) if grad_out is None else grad_out
    gradients = (_run_backward if plainly(grad_out) else torch.ops.mamba_vision.causal_conv1d_backward)(
        grad_out, grad_final_states, *inputs, ctx.silu, ctx.backend
    )
    return (*or_none(inputs[:4], gradients), None, None, None)


torch.library.register_autograd(_forward, _differentiate, setup_context=_setup_context)
_direct = past_library(_run, _setup_context, _differentiate)
