"""Rows by an order, and back: the only place of this package that indexes tokens.

An order is (K, L) or (batch, K, L) of token numbers; -1 is an extra token of zeros. Branch-free and built from tensor
shapes, so that it can be exported.
"""

import torch


def take(tokens: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """(batch, tokens, channels) -> (batch, L, K, channels): the token of each step of each order."""
    return _gather(_with_zero(tokens), _steps_first(order, tokens.shape[1]))


def take_rows(rows: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """(batch, tokens, K, size) -> (batch, L, K, size): step t of order k reads row (token, k)."""
    batch, tokens, K, size = rows.shape
    index = _steps_first(order, tokens) * K + torch.arange(K, device=rows.device)
    return _gather(_with_zero(rows).reshape(batch, (tokens + 1) * K, size), index)


def place(steps: torch.Tensor, order: torch.Tensor, tokens: int) -> torch.Tensor:
    """(batch, L, K, channels) -> (batch, tokens, channels): the sum over all visits of a token; `take` reversed."""
    index = _steps_first(order, tokens)
    return _scatter(steps, index, tokens + 1)[:, :tokens]


def place_rows(steps: torch.Tensor, order: torch.Tensor, tokens: int) -> torch.Tensor:
    """(batch, L, K, size) -> (batch, tokens, K, size): the sum over visits by the same order; `take_rows` reversed."""
    K = steps.shape[2]
    index = _steps_first(order, tokens) * K + torch.arange(K, device=steps.device)
    return _scatter(steps, index, (tokens + 1) * K).unflatten(1, (tokens + 1, K))[:, :tokens]


def _with_zero(tokens: torch.Tensor) -> torch.Tensor:
    """One more token, of zeros."""
    return torch.cat([tokens, torch.zeros_like(tokens[:, :1])], dim=1)


def _steps_first(order: torch.Tensor, tokens: int) -> torch.Tensor:
    """(L, K) or (batch, L, K), int64, with `tokens` for the zero token."""
    order = order.transpose(-1, -2).long()
    return torch.where(order < 0, tokens, order)


def _gather(rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """(batch, rows, size) by (L, K) or (batch, L, K) -> (batch, L, K, size)."""
    if index.dim() == 2:
        return rows.index_select(1, index.flatten()).unflatten(1, index.shape)
    flat = index.flatten(1).unsqueeze(-1).expand(-1, -1, rows.shape[2])
    return rows.gather(1, flat).unflatten(1, index.shape[1:])


def _scatter(steps: torch.Tensor, index: torch.Tensor, rows: int) -> torch.Tensor:
    """(batch, L, K, size) summed by index into (batch, rows, size)."""
    batch, size = steps.shape[0], steps.shape[3]
    flat = index.flatten(-2).unsqueeze(-1).expand(batch, -1, size)
    return steps.new_zeros(batch, rows, size).scatter_add(1, flat, steps.flatten(1, 2))
