"""Norm and gate of Mamba-2's layer (arXiv 2405.21060, section 7.1), in either order."""

import torch
import torch.nn.functional as F

from mamba_vision.kernels.checks import check_float, check_shape, compute_dtype
from mamba_vision.kernels.operators import without_autocast


def gated_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    eps: float = 1e-5,
    group_size: int | None = None,
    norm_before_gate: bool = False,
    norm: str = "rms",
) -> torch.Tensor:
    """norm(x silu(z)) or, with `norm_before_gate`, norm(x) silu(z); in float32 (float64 for a float64 x).

    Args:
        x: (..., channels).
        weight, bias: (channels,).
        z: the gate, like x; None for none.
        eps: added to the mean square (to the variance).
        group_size: channels that share their statistics; None: all.
        norm: "rms", x / rms(x), or "layer", the same of x minus its mean.

    Returns:
        Like x, in x's dtype.

    Raises:
        ValueError: for shapes, dtypes or options that do not go together.
    """
    check_float(x=x, weight=weight, bias=bias, z=z)
    channels = x.shape[-1]
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None:
            check_shape(name, parameter, (channels,), "one value for each channel of x")
    if z is not None:
        check_shape("z", z, x.shape, "the shape of x")
    if norm not in ("rms", "layer"):
        raise ValueError(f"norm is {norm!r}, expected 'rms' or 'layer'")
    size = channels if group_size is None else group_size
    if size < 1 or channels % size:
        raise ValueError(f"group_size is {group_size}, expected a divisor of the {channels} channels of x")

    work = compute_dtype(x)
    with without_autocast(x):
        y = x.to(work)
        gate = None if z is None else F.silu(z.to(work))
        if gate is not None and not norm_before_gate:
            y = y * gate
        grouped = y.unflatten(-1, (-1, size))
        normed = (F.rms_norm if norm == "rms" else F.layer_norm)(grouped, (size,), eps=eps)
        y = normed.flatten(-2) * weight.to(work)
        if bias is not None:
            y = y + bias.to(work)
        if gate is not None and norm_before_gate:
            y = y * gate
    return y.to(x.dtype)
