"""add_norm: argument checks, the torch.library operator and its gradient, choice of backend."""

import torch

from mamba_vision.kernels.add_norm.reference import add_norm_reference
from mamba_vision.kernels.backends import choose, load
from mamba_vision.kernels.checks import check_device, check_float, check_shape
from mamba_vision.kernels.operators import or_empty, past_library, plainly, without_autocast

NORMS = ("rms", "layer")
_OPTIONS = "float eps, bool centred"


def add_norm(
    hidden: torch.Tensor,
    residual: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
    norm: str = "rms",
    residual_dtype: torch.dtype | None = None,
    out_dtype: torch.dtype | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """norm(residual + hidden) and residual + hidden, in one pass over memory where a kernel can.

    The sum is rounded to `residual_dtype` and normed as rounded; arithmetic is float32 (float64 for float64).

    Args:
        hidden: (..., channels).
        residual: the same shape, or None: hidden alone.
        weight, bias: (channels,), or None.
        eps: added to the mean square (to the variance).
        norm: "rms", x / rms(x), or "layer", the same of x minus its mean.
        residual_dtype: dtype of the sum; by default what the two promote to.
        out_dtype: dtype of the normed sum; by default that of the weight, without one of the sum.

    Returns:
        The normed sum and the sum.

    Raises:
        ValueError: for shapes, dtypes or options that do not go together.
        BackendError: if a backend was asked for that cannot run.
    """
    _check(hidden, residual, weight, bias, norm)
    if residual_dtype is None:
        residual_dtype = hidden.dtype if residual is None else torch.promote_types(hidden.dtype, residual.dtype)
    if out_dtype is None:
        out_dtype = residual_dtype if weight is None else weight.dtype
    return _dispatch(hidden, residual, weight, bias, eps, norm == "layer", residual_dtype, out_dtype)


def norm_tokens(
    x: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
    norm: str = "layer",
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """The norm of x (..., channels) over its last axis alone; arguments as for `add_norm`."""
    _check(x, None, weight, bias, norm)
    if out_dtype is None:
        out_dtype = x.dtype if weight is None else weight.dtype
    return _dispatch(x, None, weight, bias, eps, norm == "layer", x.dtype, out_dtype)[0]


def _dispatch(hidden, residual, weight, bias, eps, centred, residual_dtype, out_dtype):
    backend = choose("add_norm", hidden)
    inputs = (hidden, residual, weight, bias, eps, centred, residual_dtype, out_dtype)
    if backend == "reference" or torch.compiler.is_exporting():
        with without_autocast(hidden):
            return add_norm_reference(*inputs)
    call = _direct if plainly(hidden) else torch.ops.mamba_vision.add_norm
    normed, total = call(*inputs, backend)
    # without anything to add or to round, the sum is the input, which no kernel writes once more
    return normed, hidden if residual is None and residual_dtype == hidden.dtype else total


def _check(hidden, residual, weight, bias, norm) -> None:
    if norm not in NORMS:
        raise ValueError(f"norm is {norm!r}, expected one of {', '.join(map(repr, NORMS))}")
    if hidden.dim() < 1 or hidden.shape[-1] < 1:
        raise ValueError(f"hidden has shape {tuple(hidden.shape)}, expected (..., channels)")
    check_float(hidden=hidden, residual=residual, weight=weight, bias=bias)
    if residual is not None:
        check_shape("residual", residual, hidden.shape, "the shape of hidden")
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None:
            check_shape(name, parameter, hidden.shape[-1:], "one value for each channel")
    check_device("hidden", hidden=hidden, residual=residual, weight=weight, bias=bias)


def _run(hidden, residual, weight, bias, eps, centred, residual_dtype, out_dtype, backend):
    with without_autocast(hidden):
        normed, total = load("add_norm", backend).forward(
            hidden, residual, weight, bias, eps, centred, residual_dtype, out_dtype
        )
    if residual is None and residual_dtype == hidden.dtype:
        total = hidden.new_empty(0)
    return normed, total


_forward = torch.library.custom_op(
    "mamba_vision::add_norm",
    _run,
    mutates_args=(),
    schema=f"(Tensor hidden, Tensor? residual, Tensor? weight, Tensor? bias, {_OPTIONS}, ScalarType residual_dtype, "
    "ScalarType out_dtype, str backend) -> (Tensor, Tensor)",
)


@_forward.register_fake
def _(hidden, residual, weight, bias, eps, centred, residual_dtype, out_dtype, backend):
    same = residual is None and residual_dtype == hidden.dtype
    total = hidden.new_empty(0) if same else hidden.new_empty(hidden.shape, dtype=residual_dtype)
    return hidden.new_empty(hidden.shape, dtype=out_dtype), total


def _run_backward(grad_normed, grad_total, total, weight, eps, centred, hidden_dtype, residual_dtype, backend):
    with without_autocast(total):
        found = load("add_norm", backend).backward(
            grad_normed, grad_total, total, weight, eps, centred, hidden_dtype, residual_dtype
        )
    return or_empty(total, *found)


_backward = torch.library.custom_op(
    "mamba_vision::add_norm_backward",
    _run_backward,
    mutates_args=(),
    schema=f"(Tensor grad_normed, Tensor? grad_total, Tensor total, Tensor? weight, {_OPTIONS}, "
    "ScalarType hidden_dtype, ScalarType? residual_dtype, str backend) -> (Tensor, Tensor, Tensor, Tensor)",
)


@_backward.register_fake
def _(grad_normed, grad_total, total, weight, eps, centred, hidden_dtype, residual_dtype, backend):
    wide = torch.promote_types(total.dtype, torch.float32)
    sums = (total.new_empty(total.shape[-1:], dtype=wide) for _ in range(2))
    dresidual = None if residual_dtype is None else total.new_empty(total.shape, dtype=residual_dtype)
    return or_empty(total, total.new_empty(total.shape, dtype=hidden_dtype), dresidual, *sums)


def _setup_context(ctx, inputs, output):
    hidden, residual, weight, bias, ctx.eps, ctx.centred, _, _, ctx.backend = inputs
    normed, total = output
    ctx.kept = total.numel() == 0 < hidden.numel()
    ctx.dtypes = tuple(None if t is None else t.dtype for t in (hidden, residual, weight, bias))
    ctx.out_dtype = normed.dtype
    ctx.save_for_backward(hidden if ctx.kept else total, weight)
    ctx.set_materialize_grads(False)


def _differentiate(ctx, grad_normed, grad_total):
    total, weight = ctx.saved_tensors
    hidden_dtype, residual_dtype, weight_dtype, bias_dtype = ctx.dtypes
    if grad_normed is None:
        grad_normed = torch.zeros_like(total, dtype=ctx.out_dtype)
    if ctx.kept:
        grad_total = None
    call = _run_backward if plainly(grad_normed) else torch.ops.mamba_vision.add_norm_backward
    dhidden, dresidual, dweight, dbias = call(
        grad_normed, grad_total, total, weight, ctx.eps, ctx.centred, hidden_dtype, residual_dtype,
        ctx.backend,
    )  # fmt: skip
    dresidual = None if residual_dtype is None else dresidual
    dweight = None if weight_dtype is None else dweight.to(weight_dtype)
    dbias = None if bias_dtype is None else dbias.to(bias_dtype)
    return (dhidden, dresidual, dweight, dbias, *[None] * 5)


torch.library.register_autograd(_forward, _differentiate, setup_context=_setup_context)
_direct = past_library(_run, _setup_context, _differentiate)
