"""The scan along orders in plain PyTorch: rows taken by index, then portable convolution and scan on views of them."""

import torch

from mamba_vision.kernels.causal_conv1d import portable as conv
from mamba_vision.kernels.ordered_scan.orders import place, place_rows, take, take_rows
from mamba_vision.kernels.ordered_scan.reference import channels_first
from mamba_vision.kernels.selective_scan import portable as portable_scan
from mamba_vision.kernels.selective_scan.chunks import cut


def saved_shape(x: torch.Tensor, order: torch.Tensor, A: torch.Tensor) -> tuple[int, ...]:
    """As that of the portable selective scan with K x channels channels."""
    rows = x.shape[0] * A.shape[0] * A.shape[1]
    size = cut(rows, A.shape[2], order.shape[-1])
    return (size.groups, size.chunks, x.shape[0], A.shape[0] * A.shape[1] * A.shape[2])


def forward(
    x, order, dt, dt_weight, A, B, C, D, dt_bias, z, conv_weight, conv_bias,
    merge_sum, token_rows, delta_softplus, keep, scan=portable_scan,
):  # fmt: skip
    """Merged outputs and what `scan`, a backend of selective_scan, keeps; arguments as in kernels/README.md."""
    steps = _Steps(x, order, dt, dt_weight, A, B, C, D, dt_bias, z, conv_weight, conv_bias, token_rows)
    y, _, saved = scan.forward(*steps.scan_inputs, delta_softplus, A.dtype, keep)
    y = _steps_of(y, x.shape[2])
    if merge_sum:
        out = torch.empty_like(x).copy_(place(y, order, x.shape[1]))
    else:
        out = place_rows(y, order, x.shape[1]).transpose(1, 2).to(x.dtype).contiguous()
    return out, saved


def backward(
    grad_out, x, order, dt, dt_weight, A, B, C, D, dt_bias, z, conv_weight, conv_bias, saved,
    merge_sum, token_rows, delta_softplus, scan=portable_scan,
):  # fmt: skip
    """Gradients of all inputs but the order; arguments as in kernels/README.md."""
    tokens, channels = x.shape[1:]
    steps = _Steps(x, order, dt, dt_weight, A, B, C, D, dt_bias, z, conv_weight, conv_bias, token_rows)
    dy = take(grad_out, order) if merge_sum else take_rows(grad_out.transpose(1, 2), order)
    du, ddelta, dA, dB, dC, dD, dz, dbias, _ = scan.backward(
        channels_first(dy), None, *steps.scan_inputs, saved, delta_softplus
    )
    dconv_weight = dconv_bias = None
    if conv_weight is not None:
        du, dconv_weight, dconv_bias, _ = conv.backward(du, None, *steps.conv_inputs, None, None, True)
    dx = torch.empty_like(x).copy_(place(_steps_of(du, channels).to(A.dtype), order, tokens))
    if z is not None:
        dz = torch.empty_like(z).copy_(place(_steps_of(dz, channels).to(A.dtype), order, tokens))

    ddt, dweight = _steps_of(ddelta, channels), None
    if dt_weight is not None:
        dweight = torch.einsum("blkc,blkr->kcr", ddt, steps.dt.to(A.dtype)).to(dt_weight.dtype)
        ddt = torch.einsum("blkc,kcr->blkr", ddt, dt_weight.to(A.dtype))
    gradients = []
    for gradient, given in ((ddt, dt), (dB.permute(0, 3, 1, 2), B), (dC.permute(0, 3, 1, 2), C)):
        placed = place_rows(gradient.to(A.dtype), order, tokens) if token_rows else gradient.transpose(1, 2)
        gradients.append(torch.empty_like(given).copy_(placed))
    like = lambda gradient, given: None if given is None else gradient.reshape(given.shape)  # noqa: E731
    return (
        dx,
        gradients[0],
        dweight,
        dA.reshape(A.shape),
        gradients[1],
        gradients[2],
        like(dD, D),
        like(dbias, dt_bias),
        dz,
        like(dconv_weight, conv_weight),
        like(dconv_bias, conv_bias),
    )


def _steps_of(sequence: torch.Tensor, channels: int) -> torch.Tensor:
    """(batch, K channels, L) as (batch, L, K, channels)."""
    return sequence.transpose(1, 2).unflatten(2, (-1, channels))


class _Steps:
    """The inputs by step: of the scan, with K x channels channels in K groups, and of the convolution before it."""

    def __init__(self, x, order, dt, dt_weight, A, B, C, D, dt_bias, z, conv_weight, conv_bias, token_rows):
        taken = channels_first(take(x, order))
        flat = lambda p: None if p is None else p.flatten()  # noqa: E731
        if conv_weight is not None:
            self.conv_inputs = (taken, conv_weight.flatten(0, 1), flat(conv_bias))
            taken, _ = conv.forward(*self.conv_inputs, None, None, True)
        if token_rows:
            dt, B, C = (take_rows(M, order) for M in (dt, B, C))
        else:
            dt, B, C = (M.transpose(1, 2) for M in (dt, B, C))  # (batch, L, K, size)
        self.dt = dt
        if dt_weight is not None:
            dt = torch.einsum("blkr,kcr->blkc", dt.to(A.dtype), dt_weight.to(A.dtype))
        gate = None if z is None else channels_first(take(z, order))
        B, C = (M.permute(0, 2, 3, 1) for M in (B, C))  # (batch, K, state, L)
        # a token's gate is the same at all its visits, so that gating before the sum is gating after it
        self.scan_inputs = (
            taken, channels_first(dt), A.flatten(0, 1), B, C, flat(D), gate, flat(dt_bias), None
        )  # fmt: skip
