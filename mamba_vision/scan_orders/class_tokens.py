"""Orders over a grid, read by a sequence that holds class tokens besides the grid's."""

import math

import torch
from torch import Tensor

from mamba_vision.scan_orders.base import Orders, ScanOrder, invert


def around_class_tokens(orders: Orders, places: tuple[int, ...]) -> Tensor:
    """Indices of the same orders in a sequence with class tokens, each read at the step that is its place.

    LocalVim's rule (arXiv 2403.09338): patches are reordered among themselves, and the class token stays where it is in
    every direction, backward ones included.

    Args:
        orders: over the patches.
        places: the class tokens' places in the sequence, rising.

    Returns:
        (K, L + number of places) int64.
    """
    return make_room(orders.indices, places)


def make_room(numbers: Tensor, places: tuple[int, ...]) -> Tensor:
    """Numbers of patches (..., L) as numbers in a sequence with class tokens, (..., L + number of places).

    Each class token's number is its place, and it stands there; the zero token stays what it is.
    """
    for place in places:
        numbers = torch.where(numbers >= place, numbers + 1, numbers)
        token = torch.ones_like(numbers[..., :1]) * place
        numbers = torch.cat([numbers[..., :place], token, numbers[..., place:]], -1)
    return numbers


def sequence_order(
    scan: ScanOrder, grid: tuple[int, ...], places: tuple[int, ...], device: torch.device | str | None = None
) -> Tensor:
    """Indices for a sequence of a grid's patches and class tokens.

    Orders of a line run over the whole sequence, class tokens in it (Vim); orders that want a grid leave class tokens
    at their steps (`around_class_tokens`).

    Args:
        scan: the order.
        grid: shape of the grid of patches.
        places: the class tokens' places in the sequence, rising; () for none.
        device: where the indices go.

    Returns:
        (K, L) int64.

    Raises:
        ValueError: the order reads every line of the grid by itself, or wants other tokens besides the grid's.
    """
    _check_whole(scan, grid)
    if _extra_tokens(scan, grid, places):
        return scan(grid, device).indices
    if places and 1 in scan.grid_ranks:
        return scan((math.prod(grid) + len(places),), device).indices
    return around_class_tokens(scan(grid, device), places)


def orders_around(
    scan: ScanOrder, grid: tuple[int, ...], places: tuple[int, ...], device: torch.device | str | None = None
) -> Orders:
    """Like `sequence_order`, with everything that is known of the orders: where results go, as published too.

    An order that knows of these class tokens itself (`extra_tokens`) is asked as it is.

    Raises:
        ValueError: the order reads every line of the grid by itself, or wants other tokens besides the grid's.
    """
    _check_whole(scan, grid)
    if _extra_tokens(scan, grid, places) or not places:
        return scan(grid, device)
    indices = sequence_order(scan, grid, places, device)
    return Orders(indices, invert(indices, math.prod(grid) + len(places)), tuple(grid))


def _check_whole(scan: ScanOrder, grid: tuple[int, ...]) -> None:
    if scan.sequence_axes(scan.checked_grid(grid)) is not None:
        raise ValueError(
            f"scan: found {scan.name!r}, which reads every line of the grid by itself, expected an order of all tokens"
        )


def grid_orders(scan: ScanOrder, grid: tuple[int, ...], device: torch.device | str | None = None) -> Orders:
    """The orders over a grid's own tokens, of a map that has no others.

    Raises:
        ValueError: the order wants tokens besides the grid's.
    """
    _extra_tokens(scan, grid, ())
    return scan(grid, device)


def _extra_tokens(scan: ScanOrder, grid: tuple[int, ...], places: tuple[int, ...]) -> tuple[int, ...]:
    """The order's own tokens besides the grid's, which must be the ones that are there."""
    extra = tuple(scan.extra_tokens(grid))
    if extra and extra != tuple(places):
        there = f"tokens {tuple(places)}" if places else "none"
        raise ValueError(f"scan: found {scan.name!r}, which wants tokens {extra} besides the grid's; there are {there}")
    return extra
