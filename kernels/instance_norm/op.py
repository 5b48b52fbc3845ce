"""instance_norm: argument checks, its gradient, choice of backend."""

import torch
from torch.autograd.function import once_differentiable

from mamba_vision.kernels.backends import choose, load
from mamba_vision.kernels.checks import check_device, check_float, check_shape
from mamba_vision.kernels.instance_norm.portable import instance_norm_portable
from mamba_vision.kernels.instance_norm.reference import instance_norm_reference
from mamba_vision.kernels.operators import plainly, without_autocast


def instance_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    eps: float = 1e-5,
    slope: float | None = None,
    overwrite: bool = False,
) -> torch.Tensor:
    """act(norm(x) * weight + bias + residual), the norm over each channel of each item of a batch.

    PyTorch norms channels-first and one channel of an item a block; a volume has few of these, and each is large. The
    kernel here splits them, reads channels-last tensors as they are, and adds and activates on the way.

    Args:
        x: (batch, channels, *spatial).
        weight, bias: (channels,), or None.
        residual: of x's shape and dtype, or None.
        eps: added to the variance.
        slope: None for no activation; 0 for ReLU; else the slope of LeakyReLU below 0.
        overwrite: x is not needed any more: where no gradient is wanted the result may take its place.

    Returns:
        (batch, channels, *spatial) of x's dtype, laid out like x.

    Raises:
        ValueError: for shapes, dtypes or devices that do not go together, or a single value a channel.
        BackendError: if a backend was asked for that cannot run.
    """
    _check(x, weight, bias, residual, slope)
    backend = choose("instance_norm", x)
    inputs = (x, weight, bias, residual, eps, slope)
    if backend == "reference":
        with without_autocast(x):
            return instance_norm_reference(*inputs)
    # whoever traces sees PyTorch's own operations, which compilers fuse and exporters know
    if backend != "triton" or x.dtype == torch.float64 or not plainly(x):
        return instance_norm_portable(*inputs)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs[:4]):
        return _InstanceNorm.apply(*inputs)
    return load("instance_norm", "triton").forward(*inputs, overwrite)[0]


def _check(x, weight, bias, residual, slope) -> None:
    if x.dim() < 3:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (batch, channels, *spatial)")
    if x.numel() and x[0, 0].numel() < 2:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected more than one value a channel")
    if slope is not None and not 0 <= slope <= 1:
        raise ValueError(f"slope is {slope}, expected None or a number of 0 .. 1")
    check_float(x=x, weight=weight, bias=bias, residual=residual)
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None:
            check_shape(name, parameter, (x.shape[1],), "one value for each channel of x")
    if residual is not None:
        check_shape("residual", residual, x.shape, "the shape of x")
        if residual.dtype != x.dtype:
            raise ValueError(f"residual has dtype {residual.dtype}, expected that of x, {x.dtype}")
    check_device("x", x=x, weight=weight, bias=bias, residual=residual)


class _InstanceNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, residual, eps, slope):
        y, statistics = load("instance_norm", "triton").forward(x, weight, bias, residual, eps, slope, False)
        ctx.slope, ctx.adds = slope, residual is not None
        # which side of 0 a value was on is seen from the norm's own input, unless something was added to it
        ctx.save_for_backward(x, weight, bias, statistics, y if ctx.adds and slope is not None else None)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight, bias, statistics, y = ctx.saved_tensors
        dx, dweight, dbias, dresidual = load("instance_norm", "triton").backward(
            grad, x, weight, bias, statistics, y, ctx.slope, ctx.adds
        )
        dweight = None if weight is None else dweight.to(weight.dtype)
        dbias = None if bias is None else dbias.to(bias.dtype)
        return dx, dweight, dbias, dresidual, None, None
