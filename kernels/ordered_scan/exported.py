"""The scan along orders as exported graphs hold it: gathers of whole rows, matrix products, one selective scan.

What a runtime does slowly is avoided: results are put back by a gather with the inverse order instead of an addition
by index, where every token is known to come exactly once (`told_of_orders`, by whoever exports a model and has seen it
run; a tensor of numbers that are not known yet cannot tell). Where all orders are such, and the scan has the usual
form, it stays one operator (`as_one_operator`).

Legend: B batch, T tokens, K orders, L steps, C channels, R step rank, N states.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mamba_vision.kernels.causal_conv1d import causal_conv1d
from mamba_vision.kernels.ordered_scan.orders import place, place_rows
from mamba_vision.kernels.selective_scan import selective_scan

_told: "OrderWatch | None" = None
_convolved: tuple[tuple, torch.Tensor] | None = None  # arguments of the latest convolution, and its result


@contextmanager
def told_of_orders(orders: "OrderWatch") -> Iterator[None]:
    """What is exported inside the block is told what was seen of its orders."""
    global _told, _convolved
    before, _told = _told, orders
    try:
        yield
    finally:
        _told, _convolved = before, None


class OrderWatch(TorchDispatchMode):
    """Looks at the orders of a model while it runs.

    Attributes:
        once: whether all orders so far came to each token exactly once, zero tokens aside.
        whole: whether there were no zero tokens either.
    """

    once = whole = True

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.mamba_vision.ordered_scan.default:
            x, order = args[:2]
            order = order.flatten(0, -2)
            places = torch.where(order < 0, x.shape[1], order).long()
            visits = order.new_zeros(len(order), x.shape[1] + 1).scatter_add_(1, places, torch.ones_like(order))
            self.once = self.once and bool((visits[:, :-1] == 1).all())
            self.whole = self.whole and self.once and not visits[:, -1].any()
        return func(*args, **(kwargs or {}))


def as_one_operator(
    x, order, dt, dt_weight, A, B, C, D, dt_bias, z, conv_weight, conv_bias, merge_sum, token_rows, delta_softplus
) -> torch.Tensor | None:
    """The scan as one operator of the graph, which stays one node; None where it is not of that node's form.

    Arguments as in kernels/README.md.
    """
    alike = _told is not None and _told.whole and merge_sum and token_rows and delta_softplus
    if not alike or conv_weight is not None or dt_weight is None or x.dtype != A.dtype:
        return None
    D, dt_bias = (A.new_zeros(A.shape[:2]) if p is None else p for p in (D, dt_bias))
    arguments = (x, order.long(), dt, dt_weight, A, B, C, D, dt_bias, None, None, None)
    y, _ = torch.ops.mamba_vision.ordered_scan(*arguments, True, True, True, False, "portable")
    return y if z is None else y * F.silu(z)


def ordered_scan_exported(
    x: torch.Tensor,
    order: torch.Tensor,
    dt: torch.Tensor,
    dt_weight: torch.Tensor | None,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
    dt_bias: torch.Tensor | None,
    z: torch.Tensor | None,
    conv_weight: torch.Tensor | None,
    conv_bias: torch.Tensor | None,
    merge_sum: bool,
    token_rows: bool,
    delta_softplus: bool,
) -> torch.Tensor:
    """Shapes and meaning as in kernels/README.md."""
    one = as_one_operator(
        x, order, dt, dt_weight, A, B, C, D, dt_bias, z, conv_weight, conv_bias, merge_sum, token_rows, delta_softplus
    )
    if one is not None:
        return one
    once = _told is not None and _told.once
    tokens, channels = x.shape[1:]
    K = order.shape[-2]
    if conv_weight is None:
        u = _reordered(x, order)
    else:
        u = convolved(x, order, conv_weight, conv_bias, "silu")
    order = _numbers(x, order)
    steps_LK = order.transpose(-1, -2)
    if token_rows:
        index = steps_LK * K + torch.arange(K, device=x.device)
        dt, B, C = (_rows(_with_zero(M).flatten(1, 2), index).permute(0, 2, 3, 1) for M in (dt, B, C))
    else:
        dt, B, C = (M.transpose(2, 3) for M in (dt, B, C))  # (B, K, size, L)
    if dt_weight is not None:
        dt = torch.matmul(dt.transpose(2, 3).to(A.dtype), dt_weight.transpose(1, 2).to(A.dtype)).transpose(2, 3)
    y = selective_scan(
        u,
        dt.permute(0, 3, 1, 2).flatten(2).transpose(1, 2),  # rows of channels are moved, as the scan's node wants them
        A.flatten(0, 1),
        B,
        C,
        None if D is None else D.flatten(),
        delta_bias=None if dt_bias is None else dt_bias.flatten(),
        delta_softplus=delta_softplus,
        out_dtype=A.dtype,
    )
    y = _back_once(y, order, tokens, channels) if once else _back(y, order, tokens, channels, merge_sum)
    if merge_sum:
        y = y.sum(2) if once else y
    elif once:
        y = y.transpose(1, 2)
    if z is not None:
        gate = F.silu(z.to(A.dtype))
        y = y * (gate if merge_sum else gate.unsqueeze(1))
    return y.to(x.dtype)


def convolved(
    x: torch.Tensor, order: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, activation: str | None
) -> torch.Tensor:
    """The causal convolution along the orders, (B, K C, L).

    A mixer asks for it twice, to project from it and in the scan: a graph has room to keep it.
    """
    global _convolved
    arguments = (x, order, weight, bias, activation)
    if _convolved is not None and all(a is b for a, b in zip(_convolved[0], arguments)):
        return _convolved[1]
    u = causal_conv1d(
        _reordered(x, order), weight.flatten(0, 1), None if bias is None else bias.flatten(), activation=activation
    )
    if _told is not None:
        _convolved = (arguments, u)
    return u


def _numbers(x: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """The order with the zero token, -1, as the last one."""
    order = order.long()
    return torch.where(order < 0, x.shape[1], order)


def _reordered(x: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """(B, K C, L)"""
    return _rows(_with_zero(x), _numbers(x, order).transpose(-1, -2)).flatten(2).transpose(1, 2)


def _back_once(y: torch.Tensor, order: torch.Tensor, tokens: int, channels: int) -> torch.Tensor:
    """(B, K C, L) -> (B, T, K, C): each token's one result."""
    K, length = order.shape[-2:]
    steps = torch.arange(length, device=order.device).expand(order.shape)
    inverse = order.new_zeros(*order.shape[:-1], tokens + 1).scatter(-1, order, steps)
    index = inverse[..., :tokens].transpose(-1, -2) * K + torch.arange(K, device=order.device)
    return _rows(y.transpose(1, 2).unflatten(2, (K, channels)).flatten(1, 2), index)


def _back(y: torch.Tensor, order: torch.Tensor, tokens: int, channels: int, merge_sum: bool) -> torch.Tensor:
    """(B, K C, L) -> (B, T, C) or (B, K, T, C), added up over a token's visits."""
    y = y.transpose(1, 2).unflatten(2, (order.shape[-2], channels))
    return place(y, order, tokens) if merge_sum else place_rows(y, order, tokens).transpose(1, 2)


def _with_zero(rows: torch.Tensor) -> torch.Tensor:
    return torch.cat([rows, torch.zeros_like(rows[:, :1])], dim=1)


def _rows(rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """(B, rows, size) by (L, K) or (B, L, K) -> (B, L, K, size)."""
    if index.dim() == 2:
        return rows.index_select(1, index.flatten()).unflatten(1, index.shape)
    first = torch.arange(rows.shape[0], device=rows.device) * rows.shape[1]
    return rows.flatten(0, 1).index_select(0, (index + first[:, None, None]).flatten()).unflatten(0, index.shape)
