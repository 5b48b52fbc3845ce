"""The scan along orders as exported graphs hold it: gathers of whole rows, matrix products, one selective scan.

What a runtime does slowly is avoided: results are put back by a gather with the inverse order instead of an addition
by index, where every token is known to come exactly once (`each_token_once`, which whoever exports a model has to find
out, see `OrderWatch`; a tensor of numbers that are not known yet cannot tell).

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

_once = False


@contextmanager
def each_token_once() -> Iterator[None]:
    """What is exported inside the block is told that every order comes to each token exactly once (zeros aside)."""
    global _once
    before, _once = _once, True
    try:
        yield
    finally:
        _once = before


class OrderWatch(TorchDispatchMode):
    """Looks at the orders of a model while it runs.

    Attributes:
        once: whether all orders so far came to each token exactly once.
    """

    once = True

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.mamba_vision.ordered_scan.default:
            x, order = args[:2]
            order = order.flatten(0, -2)
            places = torch.where(order < 0, x.shape[1], order).long()
            visits = order.new_zeros(len(order), x.shape[1] + 1).scatter_add_(1, places, torch.ones_like(order))
            self.once = self.once and bool((visits[:, :-1] == 1).all())
        return func(*args, **(kwargs or {}))


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
    tokens, channels = x.shape[1:]
    K = order.shape[-2]
    order = order.long()
    order = torch.where(order < 0, tokens, order)  # the zero token is the last one
    steps_LK = order.transpose(-1, -2)
    u = _rows(_with_zero(x), steps_LK).flatten(2).transpose(1, 2)  # (B, K C, L)
    if conv_weight is not None:
        u = causal_conv1d(
            u, conv_weight.flatten(0, 1), None if conv_bias is None else conv_bias.flatten(), activation="silu"
        )
    if token_rows:
        index = steps_LK * K + torch.arange(K, device=x.device)
        dt, B, C = (_rows(_with_zero(M).flatten(1, 2), index).permute(0, 2, 3, 1) for M in (dt, B, C))
    else:
        dt, B, C = (M.transpose(2, 3) for M in (dt, B, C))  # (B, K, size, L)
    if dt_weight is not None:
        dt = torch.matmul(dt_weight.to(A.dtype), dt.to(A.dtype))
    y = selective_scan(
        u,
        dt.flatten(1, 2),
        A.flatten(0, 1),
        B,
        C,
        None if D is None else D.flatten(),
        delta_bias=None if dt_bias is None else dt_bias.flatten(),
        delta_softplus=delta_softplus,
        out_dtype=A.dtype,
    )
    y = _back_once(y, order, tokens, channels) if _once else _back(y, order, tokens, channels, merge_sum)
    if merge_sum:
        y = y.sum(2) if _once else y
    elif _once:
        y = y.transpose(1, 2)
    if z is not None:
        gate = F.silu(z.to(A.dtype))
        y = y * (gate if merge_sum else gate.unsqueeze(1))
    return y.to(x.dtype)


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
