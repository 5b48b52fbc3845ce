"""ordered_scan on a GPU, in Triton; the contract is in kernels/README.md.

The scan kernels read tokens through the order and write each order's result by step; `merge` gathers these back, which
serves every order (repeated, left-out and zero tokens too) without atomics. Low-rank step sizes are projected by one
matrix product an order before the scan: inside the kernel that pays in memory only (docs/performance.md), and memory
is bounded by taking the batch in slices.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F

from mamba_vision.kernels.causal_conv1d import triton_impl as conv
from mamba_vision.kernels.ordered_scan.triton_merge import Visits, gated_gradient, merge, visits_of
from mamba_vision.kernels.selective_scan.triton_launch import Operands, scan_backward, scan_forward
from mamba_vision.kernels.selective_scan.triton_launch import saved_shape as shape_of_states
from mamba_vision.kernels.triton_common import cdiv

MIB = 2**20
_lean = os.environ.get("MAMBA_VISION_MEMORY", "") == "lean"


@contextmanager
def lean_memory(lean: bool = True) -> Iterator[None]:
    """Spend time to save memory inside the block: small slices of the batch, states rebuilt in backward.

    The environment variable MAMBA_VISION_MEMORY=lean does so for the whole process.
    """
    global _lean
    before, _lean = _lean, lean
    try:
        yield
    finally:
        _lean = before


def saved_shape(x: torch.Tensor, order: torch.Tensor, A: torch.Tensor) -> tuple[int, ...]:
    """Shape of what forward keeps: states (batch x K, L / 8, states, channels); nothing in lean mode."""
    if _lean:
        return (0,)
    if x.dtype == torch.float64:
        from mamba_vision.kernels.ordered_scan import portable

        return portable.saved_shape(x, order, A)
    return shape_of_states(x.shape[0], order.shape[-2], order.shape[-1], x.shape[2], A.shape[2])


def forward(
    x, order, dt, dt_weight, A, B, C, D, dt_bias, z, conv_weight, conv_bias, merge_sum, token_rows, delta_softplus, keep
):
    """Merged (or stacked) outputs, and the states at every eighth step if `keep`."""
    inputs = (x, order, dt, dt_weight, A, B, C, D, dt_bias, z, conv_weight, conv_bias)
    if x.dtype == torch.float64:
        from mamba_vision.kernels.ordered_scan import portable

        out, saved = portable.forward(*inputs, merge_sum, token_rows, delta_softplus, keep and not _lean)
        return out, saved
    batch, tokens, channels = x.shape
    K = order.shape[-2]
    out = torch.empty_like(x) if merge_sum else x.new_empty(batch, K, tokens, channels)
    keep = keep and not _lean
    saved = A.new_empty(saved_shape(x, order, A) if keep else (0,))
    if out.numel() == 0:
        return out, saved
    with torch.cuda.device_of(x):
        visits = visits_of(order, tokens)
        A, D, dt_bias, conv_weight, conv_bias = _flat(A, D, dt_bias, conv_weight, conv_bias)
        for part in _slices(batch, K * order.shape[-1] * channels * x.element_size()):
            here = visits if visits.order.shape[0] == 1 else _narrow(visits, part)
            op = _operands(x[part], here, dt[part], dt_weight, A, B[part], C[part], D, dt_bias,
                           conv_weight, conv_bias, token_rows, delta_softplus)[0]  # fmt: skip
            states = saved.view(batch, K, *saved.shape[1:])[part].flatten(0, 1) if keep else None
            if not merge_sum and here.once is True and z is None:
                scan_forward(op, out[part], None, keep, y_tokens=True, saved=states)
                continue
            y = x.new_empty(op.batch, K, op.length, channels)
            scan_forward(op, y, None, keep, saved=states)
            merge(y, here, out[part], None if z is None else _gate(z[part], merge_sum, K))
    return out, saved


def backward(
    grad_out, x, order, dt, dt_weight, A, B, C, D, dt_bias, z, conv_weight, conv_bias, saved, merge_sum, token_rows,
    delta_softplus,
):  # fmt: skip
    """Gradients of x, dt, dt_weight, A, B, C, D, dt_bias, z, conv_weight and conv_bias."""
    inputs = (x, dt, dt_weight, A, B, C, D, dt_bias, z, conv_weight, conv_bias)
    if x.dtype == torch.float64:
        from mamba_vision.kernels.ordered_scan import portable

        return portable.backward(grad_out, x, order, *inputs[1:], saved, merge_sum, token_rows, delta_softplus)
    if grad_out.numel() == 0:
        return tuple(None if t is None else torch.zeros_like(t) for t in inputs)
    batch, tokens, channels = x.shape
    K, length = order.shape[-2:]
    grads = [None if t is None else torch.empty_like(t) for t in inputs]
    dx, ddt, _, _, dB, dC, _, _, dz, _, _ = grads
    totals: list[torch.Tensor | None] = [None] * 6  # dt_weight, A, D, dt_bias, conv_weight, conv_bias
    with torch.cuda.device_of(x):
        visits = visits_of(order, tokens)
        flat = _flat(A, D, dt_bias, conv_weight, conv_bias)
        for part in _slices(batch, 2 * K * length * channels * x.element_size()):
            here = visits if visits.order.shape[0] == 1 else _narrow(visits, part)
            states = saved.view(batch, K, *saved.shape[1:])[part].flatten(0, 1) if saved.numel() else saved
            found = _backward_slice(
                grad_out[part], x[part], here, dt[part], dt_weight, *flat[:1], B[part], C[part], *flat[1:3],
                None if z is None else z[part], *flat[3:], states, merge_sum, token_rows, delta_softplus,
                dx[part], ddt[part], dB[part], dC[part], None if dz is None else dz[part],
            )  # fmt: skip
            totals = [new if old is None else old + new for old, new in zip(totals, found)]
    for place, total in zip((2, 3, 6, 7, 9, 10), totals):
        if grads[place] is not None:
            grads[place].copy_(total.view(grads[place].shape))
    return tuple(grads)


def _backward_slice(
    grad_out, x, visits, dt, dt_weight, A, B, C, D, dt_bias, z, conv_weight, conv_bias, saved, merge_sum, token_rows,
    delta_softplus, dx, ddt, dB, dC, dz,
):  # fmt: skip
    """Fill a slice of the gradients by batch; return those of dt_weight, A, D, dt_bias, conv_weight, conv_bias."""
    batch, tokens, channels = x.shape
    op, low = _operands(x, visits, dt, dt_weight, A, B, C, D, dt_bias, conv_weight, conv_bias, token_rows,
                        delta_softplus)  # fmt: skip
    K, length = op.K, op.length
    grad = grad_out[:, None].expand(-1, K, -1, -1) if merge_sum else grad_out
    if z is not None:
        y = x.new_empty(batch, K, length, channels)
        saved = scan_forward(op, y, None, keep=True)
        if merge_sum:
            merge(y, visits, dz, z, grad_out)
        else:
            total, one = (x.new_zeros(x.shape, dtype=torch.float32) for _ in range(2))
            for k in range(K):
                merge(y[:, k : k + 1], visits.of_order(k), one, z, grad_out[:, k])
                total += one
            dz.copy_(total)
        if merge_sum:
            grad = gated_gradient(grad_out, z)[:, None].expand(-1, K, -1, -1)
        else:
            grad = grad_out.float() * F.silu(z.float())[:, None]
        del y
    direct = not token_rows or visits.once is True
    du = x.new_empty(batch, K, length, channels)
    ddelta = _by_order(ddt, token_rows) if dt_weight is None and direct else torch.empty_like(_steps_like(op, direct))
    dB_k, dC_k = (_by_order(t, token_rows) if direct else torch.empty_like(_steps_of(t, length)) for t in (dB, dC))
    dA, dD, dbias, _ = scan_backward(op, grad, None, saved, du, ddelta, None, dB_k, dC_k, token_rows and direct)
    dweight = None
    if not direct:
        merge(dB_k, visits, _by_order(dB, True))
        merge(dC_k, visits, _by_order(dC, True))
    if dt_weight is not None:
        if not direct:
            full = ddelta.new_empty(batch, K, tokens, channels)
            merge(ddelta, visits, full)
            ddelta = full
        rows = ddelta.transpose(0, 1).flatten(1, 2)  # (K, batch rows, channels)
        rank = dt_weight.shape[2]
        product = torch.bmm(rows, _whole_vectors(dt_weight))[..., :rank]
        _by_order(ddt, token_rows).copy_(product.unflatten(1, (batch, -1)).transpose(0, 1))
        # products of parts of the rows, then their sum: a single long one would keep few multiprocessors busy
        parts = batch
        while parts < 64 and rows.shape[1] % (2 * parts) == 0 and rows.shape[1] // parts >= 8192:
            parts *= 2
        each = torch.bmm(rows.unflatten(1, (parts, -1)).flatten(0, 1).transpose(1, 2),
                         low.unflatten(1, (parts, -1)).flatten(0, 1))  # fmt: skip
        dweight = each.unflatten(0, (-1, parts)).sum(1, dtype=torch.float32)[..., :rank]
    elif not direct:
        merge(ddelta, visits, _by_order(ddt, True))
    dconv = dconv_bias = None
    if conv_weight is not None:
        source = _copies(x, K)
        taps = torch.empty_like(du)
        dconv, dconv_bias = conv.launch_backward(
            du, source, conv_weight, conv_bias, None, None, taps, None, True, visits.order
        )  # fmt: skip
        du = taps
    merge(du, visits, dx)
    return [dweight, dA, dD, dbias, dconv, dconv_bias]


def convolve(x, order, weight, bias, silu: bool) -> torch.Tensor:
    """ordered_conv1d forward: (K, batch, L, channels) from x (batch, tokens, channels)."""
    out = x.new_empty(order.shape[-2], x.shape[0], order.shape[-1], x.shape[2])
    if out.numel():
        with torch.cuda.device_of(x):
            weight, bias = _flat(weight, bias)
            conv.launch_forward(
                _copies(x, out.shape[0]), weight, bias, None, None, out.transpose(0, 1), silu,
                visits_of(order, x.shape[1]).order,
            )  # fmt: skip
    return out


def convolve_backward(grad_out, x, order, weight, bias, silu: bool):
    """Gradients of x, weight and bias."""
    if not grad_out.numel():
        return tuple(None if t is None else torch.zeros_like(t) for t in (x, weight, bias))
    dx = torch.empty_like(x)
    with torch.cuda.device_of(x):
        visits = visits_of(order, x.shape[1])
        taps = torch.empty_like(grad_out, dtype=x.dtype).transpose(0, 1)
        dweight, dbias = conv.launch_backward(
            grad_out.transpose(0, 1), _copies(x, grad_out.shape[0]), *_flat(weight, bias), None, None, taps, None, silu,
            visits.order,
        )  # fmt: skip
        merge(taps, visits, dx)
    return dx, dweight.view(weight.shape), None if bias is None else dbias.view(bias.shape)


def _copies(x: torch.Tensor, K: int) -> torch.Tensor:
    """(batch, tokens, channels) as the input of each of K orders, (batch, K, tokens, channels); a view."""
    return x[:, None].expand(-1, K, -1, -1)


def _operands(
    x, visits: Visits, dt, dt_weight, A, B, C, D, dt_bias, conv_weight, conv_bias, token_rows, delta_softplus
) -> tuple[Operands, torch.Tensor | None]:
    """The scan's operands, and the low-rank step sizes as (K, batch rows, rank, padded)."""
    K, length = visits.order.shape[1:]
    u = _copies(x, K)
    if conv_weight is not None:
        filtered = x.new_empty(x.shape[0], K, length, x.shape[2])
        conv.launch_forward(u, conv_weight, conv_bias, None, None, filtered, True, visits.order)
        u = filtered
    delta = _by_order(dt, token_rows)
    low = None
    if dt_weight is not None:
        low = _whole_vectors(delta.transpose(0, 1).flatten(1, 2))
        delta = torch.bmm(low, _whole_vectors(dt_weight).transpose(1, 2)).unflatten(1, (x.shape[0], -1)).transpose(0, 1)
    op = Operands(
        u, delta, A, _by_order(B, token_rows), _by_order(C, token_rows), D, None, dt_bias, None, delta_softplus,
        length, visits.order, token_rows, conv_weight is not None, visits.once is True,
    )  # fmt: skip
    return op, low


def _whole_vectors(t: torch.Tensor) -> torch.Tensor:
    """The rank padded to a multiple of 8, below which the matrix libraries fall back to slow kernels."""
    return F.pad(t, (0, -t.shape[-1] % 8))


def _by_order(t: torch.Tensor, token_rows: bool) -> torch.Tensor:
    """(batch, K, L, ...) as it is; (batch, tokens, K, ...) seen as (batch, K, tokens, ...)."""
    return t.transpose(1, 2) if token_rows else t


def _steps_like(op: Operands, direct: bool) -> torch.Tensor:
    """A tensor whose shape and layout a buffer for the gradient of delta takes."""
    return op.delta if direct else op.delta[:, :, :1].expand(-1, -1, op.length, -1)


def _steps_of(t: torch.Tensor, length: int) -> torch.Tensor:
    """From (batch, tokens, K, n), the shape of a buffer with a row for every step."""
    return t.transpose(1, 2)[:, :, :1].expand(-1, -1, length, -1)


def _gate(z: torch.Tensor, merge_sum: bool, K: int) -> torch.Tensor:
    return z if merge_sum else z[:, None].expand(-1, K, -1, -1)


def _flat(*parameters: torch.Tensor | None) -> list[torch.Tensor | None]:
    """(K, channels, ...) to (K channels, ...)."""
    return [None if p is None else p.flatten(0, 1).contiguous() for p in parameters]


def _slices(batch: int, bytes_each: int) -> list[slice]:
    """Slices of the batch whose buffers of one row a step and order stay within bounds."""
    bound = 32 * MIB if _lean else 320 * MIB
    size = max(1, min(batch, bound // max(1, bytes_each)))
    parts = cdiv(batch, size)
    size = cdiv(batch, parts)
    return [slice(i, min(i + size, batch)) for i in range(0, batch, size)]


def _narrow(visits: Visits, part: slice) -> Visits:
    return Visits(visits.order[part], visits.steps[part], visits.starts[part], visits.once)
