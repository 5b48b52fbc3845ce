"""Orders made of orders: side by side, and with prompt tokens around them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mamba_vision.registry import SCAN_ORDERS
from mamba_vision.scan_orders.base import ZERO, ScanOrder, is_traced, register, side_by_side


@register
@dataclass(frozen=True)
class Combined(ScanOrder):
    """Several orders side by side, their directions one after the other. A list of orders builds this one.

    Sequences of different length are filled up at the end with the zero token.

    Args:
        orders: names, dicts or orders, at least one. They must know the same tokens and run over the same axes.
    """

    orders: tuple[ScanOrder, ...] = ()
    name = "combined"

    def check(self) -> None:
        if not isinstance(self.orders, tuple) or not self.orders:
            raise ValueError(f"scan order 'combined': orders is {self.orders!r}, expected a list of scan orders")
        object.__setattr__(self, "orders", tuple(SCAN_ORDERS.build(spec) for spec in self.orders))

    @property
    def grid_ranks(self) -> tuple[int, ...]:
        return tuple(rank for rank in ScanOrder.grid_ranks if all(rank in order.grid_ranks for order in self.orders))

    @property
    def cacheable(self) -> bool:
        return all(order.cacheable for order in self.orders)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(label for order in self.orders for label in order.labels)

    def extra_tokens(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        return self.orders[0].extra_tokens(grid)

    def sequence_axes(self, grid: tuple[int, ...]) -> tuple[int, ...] | None:
        return self.orders[0].sequence_axes(grid)

    def sequences(self, grid: tuple[int, ...], device: torch.device) -> Tensor:
        for order in self.orders:
            order.checked_grid(grid)
            same = order.sequence_axes(grid) == self.sequence_axes(grid)
            if not same or (not is_traced(grid) and order.extra_tokens(grid) != self.extra_tokens(grid)):
                raise ValueError(
                    f"scan order 'combined': {order} and {self.orders[0]} do not know the same tokens of a grid {grid}"
                )
        return side_by_side([order.sequences(grid, device) for order in self.orders])

    def published_inverse(self, grid: tuple[int, ...], inverse: Tensor) -> Tensor | None:
        right = inverse.split([order.n_directions for order in self.orders])
        published = [order.published_inverse(grid, part) for order, part in zip(self.orders, right)]
        if all(part is None for part in published):
            return None
        return torch.cat([own if part is None else part for own, part in zip(right, published)])


@register
@dataclass(frozen=True)
class Prompted(ScanOrder):
    """Prompt tokens before and behind every sequence, so that a causal scan has read them before the grid, both ways.

    Tokens are the prompts (numbers 0 .. prompts - 1), then the grid's. A prompt comes twice in a sequence;
    `kernels.ordered_scan` adds up its two results. This toolkit's own, for promptable segmentation.

    Args:
        prompts: how many prompt tokens.
        order: the order inside: a name, dict or order.
        both_ways: every sequence also backward, as further directions.
    """

    prompts: int = 1
    order: ScanOrder | str = "raster"
    both_ways: bool = True
    name = "prompted"

    def check(self) -> None:
        if not isinstance(self.prompts, int) or self.prompts < 0:
            raise ValueError(f"scan order 'prompted': prompts is {self.prompts!r}, expected a number from 0")
        object.__setattr__(self, "order", SCAN_ORDERS.build(self.order))

    @property
    def cacheable(self) -> bool:
        return self.order.cacheable

    @property
    def labels(self) -> tuple[str, ...]:
        labels = self.order.labels
        return (*labels, *(f"{label}, reversed" for label in labels)) if self.both_ways else labels

    def extra_tokens(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        inside = (token + self.prompts for token in self.order.extra_tokens(grid))
        return (*range(self.prompts), *inside)

    def sequences(self, grid: tuple[int, ...], device: torch.device) -> Tensor:
        if self.order.sequence_axes(grid) is not None:
            raise ValueError(f"scan order 'prompted': {self.order} runs over some axes only; prompts need all of them")
        inside = self.order.sequences(self.order.checked_grid(grid), device)
        inside = torch.where(inside == ZERO, ZERO, inside + self.prompts)
        prompts = torch.arange(self.prompts, device=device).expand(len(inside), -1)
        sequences = torch.cat([prompts, inside, prompts], dim=1)
        return torch.cat([sequences, sequences.flip(1)]) if self.both_ways else sequences
