"""selective_scan: argument checks, the torch.library operator and its gradient, choice of backend."""

import torch

from mamba_vision.kernels.backends import choose, load
from mamba_vision.kernels.checks import cast, check_device, check_float, check_shape, compute_dtype
from mamba_vision.kernels.operators import (
    keeps_for_backward,
    or_empty,
    or_none,
    past_library,
    plainly,
    without_autocast,
)
from mamba_vision.kernels.selective_scan.reference import selective_scan_reference

_TENSORS = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, "
    "Tensor? initial_state"
)


def selective_scan(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    delta_bias: torch.Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    initial_state: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Mamba's selective scan (arXiv 2312.00752): y_t = C_t h_t + D u_t with h_t = exp(s_t A) h_{t-1} + s_t B_t u_t.

    States and sums are float32 whatever the inputs (float64 if u is float64). Any strides are taken as they are, so
    that channels-last tokens come as `tokens.transpose(1, 2)` without a copy.

    Args:
        u: (batch, channels, length), length >= 1.
        delta: (batch, channels, length), the step sizes s before bias and softplus.
        A: (channels, state), real (negative, for a stable recurrence) or complex. Complex A stores half of each
            conjugate pair: C_t h_t then means 2 Re(C_t h_t).
        B: (channels, state) constant, (batch, state, length), or (batch, groups, state, length), where channel d
            belongs to group d // (channels / groups). Where A is complex, a constant B is complex, a variable one
            complex too or real with last size 2 x length, real and imaginary parts in turn.
        C: like B; it may be constant where B is variable.
        D: (channels,), skip connection.
        z: (batch, channels, length), gate: the output is y silu(z).
        delta_bias: (channels,), added to delta.
        delta_softplus: the step size is softplus(delta + delta_bias).
        return_last_state: also return the state after the last step; it is differentiable.
        initial_state: (batch, channels, state), the state before the first step; zero by default.
        out_dtype: dtype of the output; u's by default. float32 for half inputs avoids overflow under float16 autocast.

    Returns:
        The output (batch, channels, length), laid out in memory like u; with return_last_state also the state
        (batch, channels, state) in float32 (float64; complex).

    Raises:
        ValueError: for shapes, dtypes or devices that do not go together.
        BackendError: if a backend was asked for that cannot run.
    """
    B, C = _check(u, delta, A, B, C, D, z, delta_bias, initial_state, out_dtype)
    work = real = compute_dtype(u)
    if A.is_complex():
        work = torch.complex128 if work == torch.float64 else torch.complex64
    A, D, delta_bias, initial_state = cast(A, work), cast(D, real), cast(delta_bias, real), cast(initial_state, work)
    out_dtype = out_dtype or u.dtype

    backend = choose("selective_scan", u, only_portable="A is complex" if A.is_complex() else None)
    inputs = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    if backend == "reference" or A.is_complex():
        with without_autocast(u):
            out, last_state = selective_scan_reference(*inputs, delta_softplus, out_dtype)
    else:
        keep = keeps_for_backward(*inputs)
        out, last_state, _ = (_direct if plainly(u) else torch.ops.mamba_vision.selective_scan)(
            *inputs, delta_softplus, out_dtype, keep, backend
        )
    return (out, last_state) if return_last_state else out


def _check(u, delta, A, B, C, D, z, delta_bias, initial_state, out_dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Raise ValueError for arguments that do not go together; B and C in canonical form."""
    if u.dim() != 3:
        raise ValueError(f"u has shape {tuple(u.shape)}, expected (batch, channels, length)")
    batch, channels, length = u.shape
    if length < 1:
        raise ValueError(f"u has shape {tuple(u.shape)}: the length must be at least 1")
    if A.dim() != 2 or A.shape[0] != channels or A.shape[1] < 1:
        raise ValueError(
            f"A has shape {tuple(A.shape)}, expected (channels, state), {channels} channels as in u {tuple(u.shape)}"
        )
    if not (A.is_floating_point() or A.is_complex()):
        raise ValueError(f"A has dtype {A.dtype}, expected a floating-point or complex dtype")
    check_shape("delta", delta, u.shape, "the shape of u")
    check_float(u=u, delta=delta, D=D, z=z, delta_bias=delta_bias)
    if z is not None:
        check_shape("z", z, u.shape, "the shape of u")
    for name, vector in (("D", D), ("delta_bias", delta_bias)):
        if vector is not None:
            check_shape(name, vector, (channels,), "one value for each channel of u")
    if initial_state is not None:
        check_shape(
            "initial_state", initial_state, (batch, channels, A.shape[1]), "(batch, channels, state) of u and A"
        )
    if out_dtype is not None and not out_dtype.is_floating_point:
        raise ValueError(f"out_dtype is {out_dtype}, expected a floating-point dtype")
    B, C = _canonical("B", B, u, A), _canonical("C", C, u, A)
    if B.dim() == C.dim() == 4 and B.shape[1] != C.shape[1]:
        if min(B.shape[1], C.shape[1]) != 1:
            raise ValueError(
                f"B and C have {B.shape[1]} and {C.shape[1]} groups, shapes {tuple(B.shape)} and {tuple(C.shape)}"
            )
        groups = max(B.shape[1], C.shape[1])
        B, C = (M.expand(-1, groups, -1, -1) for M in (B, C))
    check_device("u", u=u, delta=delta, A=A, B=B, C=C, D=D, z=z, delta_bias=delta_bias, initial_state=initial_state)
    return B, C


def _canonical(name: str, M: torch.Tensor, u: torch.Tensor, A: torch.Tensor) -> torch.Tensor:
    """B or C as (channels, state) or (batch, groups, state, length), complex where A is."""
    (batch, channels, length), state = u.shape, A.shape[1]
    if M.dim() > 2 and A.is_complex() and not M.is_complex() and M.shape[-1] == 2 * length:
        pairs = M.to(torch.promote_types(M.dtype, torch.float32)).unflatten(-1, (length, 2))
        M = torch.view_as_complex(pairs.contiguous())
    if A.is_complex() != M.is_complex() or not (M.is_floating_point() or M.is_complex()):
        raise ValueError(
            f"{name} has dtype {M.dtype} and shape {tuple(M.shape)}, which does not go with A of dtype {A.dtype}"
        )
    if M.dim() == 2:
        check_shape(name, M, (channels, state), "the shape of A, as it is constant over time")
        return M
    if M.dim() == 3:
        check_shape(name, M, (batch, state, length), "(batch, state, length) of u and A")
        return M.unsqueeze(1)
    if M.dim() != 4:
        raise ValueError(
            f"{name} has shape {tuple(M.shape)}, expected (channels, state), (batch, state, length) or "
            f"(batch, groups, state, length) with u {tuple(u.shape)} and A {tuple(A.shape)}"
        )
    check_shape(name, M, (batch, M.shape[1], state, length), "(batch, groups, state, length) of u and A")
    if M.shape[1] < 1 or channels % M.shape[1]:
        raise ValueError(
            f"{name} has shape {tuple(M.shape)}: its {M.shape[1]} groups do not divide the {channels} channels "
            f"of u {tuple(u.shape)}"
        )
    return M


def _run(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus, out_dtype, keep, backend):
    with without_autocast(u):
        return load("selective_scan", backend).forward(
            u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus, out_dtype, keep
        )


_forward = torch.library.custom_op(
    "mamba_vision::selective_scan",
    _run,
    mutates_args=(),
    schema=f"({_TENSORS}, bool delta_softplus, ScalarType out_dtype, bool keep, str backend) -> "
    "(Tensor, Tensor, Tensor)",
)


@_forward.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus, out_dtype, keep, backend):
    saved = load("selective_scan", backend).saved_shape(u, A, B, C) if keep else (0,)
    return torch.empty_like(u, dtype=out_dtype), A.new_empty(u.shape[0], *A.shape), A.new_empty(saved)


def _run_backward(
    grad_out, grad_last_state, u, delta, A, B, C, D, z, delta_bias, initial_state, saved, delta_softplus, backend
):
    with without_autocast(u):
        gradients = load("selective_scan", backend).backward(
            grad_out, grad_last_state, u, delta, A, B, C, D, z, delta_bias, initial_state, saved, delta_softplus
        )
    return or_empty(A, *gradients)


_backward = torch.library.custom_op(
    "mamba_vision::selective_scan_backward",
    _run_backward,
    mutates_args=(),
    schema=f"(Tensor grad_out, Tensor? grad_last_state, {_TENSORS}, Tensor saved, bool delta_softplus, str backend) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)


@_backward.register_fake
def _(grad_out, grad_last_state, u, delta, A, B, C, D, z, delta_bias, initial_state, saved, delta_softplus, backend):
    inputs = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    return or_empty(A, *(None if t is None else torch.empty_like(t) for t in inputs))


def _setup_context(ctx, inputs, output):
    *tensors, ctx.delta_softplus, ctx.out_dtype, _, ctx.backend = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.set_materialize_grads(False)


def _differentiate(ctx, grad_out, grad_last_state, _):
    *inputs, saved = ctx.saved_tensors
    u = inputs[0]
    if grad_out is None:
        grad_out = torch.zeros_like(u, dtype=ctx.out_dtype)
    gradients = (_run_backward if plainly(grad_out) else torch.ops.mamba_vision.selective_scan_backward)(
        grad_out, grad_last_state, *inputs, saved, ctx.delta_softplus, ctx.backend
    )
    return (*or_none(inputs, gradients), None, None, None, None)


torch.library.register_autograd(_forward, _differentiate, setup_context=_setup_context)
_direct = past_library(_run, _setup_context, _differentiate, hidden=2)
