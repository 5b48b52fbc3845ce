"""Moving tokens as an order says, for models and analysis that do not go through `kernels.ordered_scan`.

Layouts: B batch, K directions, L steps of a sequence, T tokens, C channels (any trailing axes).
"""

import torch
from torch import Tensor

from mamba_vision.scan_orders.base import Orders, invert


def gather_tokens(x_BTC: Tensor, orders: Orders) -> Tensor:
    """Tokens in each order's sequence, zeros for the zero token.

    Args:
        x_BTC: (B, T, C).

    Returns:
        (B, K, L, C).

    Raises:
        ValueError: x has another number of tokens than the orders.
    """
    _check_length("x", x_BTC, 1, orders.tokens)
    x_BTC = torch.cat([x_BTC.new_zeros((x_BTC.shape[0], 1, *x_BTC.shape[2:])), x_BTC], 1)  # row 0: the zero token
    index = orders.indices + 1
    if index.ndim == 2:
        return x_BTC[:, index]
    return x_BTC[torch.arange(x_BTC.shape[0], device=x_BTC.device)[:, None, None], index]


def return_tokens(y_BKLC: Tensor, orders: Orders) -> Tensor:
    """Results of each sequence put back to their tokens, as the published system puts them.

    A token that comes more than once gets the sum of its results, one that never comes gets zeros, and results at zero
    tokens are dropped. Sum over K for VMamba's merge.

    Args:
        y_BKLC: (B, K, L, C).

    Returns:
        (B, K, T, C).

    Raises:
        ValueError: y has another number of directions or steps than the orders.
    """
    _check_length("y", y_BKLC, 1, orders.indices.shape[-2])
    _check_length("y", y_BKLC, 2, orders.indices.shape[-1])
    index = (orders.indices + 1).expand(y_BKLC.shape[:3])
    index = index.reshape(*index.shape, *[1] * (y_BKLC.ndim - 3)).expand(y_BKLC.shape)
    y_BKTC = y_BKLC.new_zeros((*y_BKLC.shape[:2], orders.tokens + 1, *y_BKLC.shape[3:]))
    return return_as_published(y_BKTC.scatter_add(2, index, y_BKLC)[:, :, 1:], orders)


def return_as_published(y_BKTC: Tensor, orders: Orders) -> Tensor:
    """Results of `ordered_scan(..., merge='none')`, moved from where they belong to where a published system puts them.

    Nothing happens unless `orders.published_return` is set (LocalMamba's columns on grids that are not square, VMamba's
    cascade, ZigMa's layers along time).

    Args:
        y_BKTC: (B, K, T, C).
    """
    if orders.published_return is None:
        return y_BKTC
    directions = torch.arange(y_BKTC.shape[1], device=y_BKTC.device)[:, None]
    return y_BKTC[:, directions, orders.published_return]


def orders_of_table(indices: Tensor) -> Orders:
    """Orders that are known by their table alone, over a line of as many tokens as it names.

    Args:
        indices: (K, L) or (B, K, L) int64; -1 is the zero token.
    """
    tokens = int(indices.max()) + 1
    return Orders(indices, invert(indices, tokens), (tokens,))


def matrices_of_tokens(matrix_BKLL: Tensor, orders: Orders) -> Tensor:
    """What each direction's steps do to each other, as what tokens do to each other; zero tokens are left out.

    Args:
        matrix_BKLL: (B, K, ..., L, L), a row and a column a step.
        orders: the same for all samples, each of which reads every token.

    Returns:
        (B, K, ..., T, T).

    Raises:
        ValueError: the matrices have another number of directions or steps than the orders.
    """
    _check_length("matrix", matrix_BKLL, 1, orders.indices.shape[0])
    _check_length("matrix", matrix_BKLL, -1, orders.indices.shape[1])
    each = [matrix[..., steps, :][..., steps] for matrix, steps in zip(matrix_BKLL.unbind(1), orders.inverse)]
    return torch.stack(each, 1)


def fold(x_BTC: Tensor, orders: Orders) -> Tensor:
    """The axes that a sequence does not run over, folded into the batch; x itself for orders over all axes.

    Args:
        x_BTC: (B, all tokens of the grid, C).

    Returns:
        (B * other axes, T, C).
    """
    if orders.sequence_axes is None:
        return x_BTC
    x = x_BTC.reshape(x_BTC.shape[0], *orders.grid, *x_BTC.shape[2:])
    return x.permute(_folding(x.ndim, orders)).reshape(-1, orders.tokens, *x_BTC.shape[2:])


def unfold(x_NTC: Tensor, orders: Orders) -> Tensor:
    """Undo `fold`: (B * other axes, T, C) -> (B, all tokens of the grid, C)."""
    if orders.sequence_axes is None:
        return x_NTC
    permutation = _folding(1 + len(orders.grid) + x_NTC.ndim - 2, orders)
    others = [orders.grid[axis - 1] for axis in permutation[1 : 1 + len(orders.grid) - len(orders.sequence_axes)]]
    along = [orders.grid[axis] for axis in orders.sequence_axes]
    x = x_NTC.reshape(-1, *others, *along, *x_NTC.shape[2:])
    back = sorted(range(len(permutation)), key=permutation.__getitem__)
    x = x.permute(back)
    return x.reshape(x.shape[0], -1, *x_NTC.shape[2:])


def class_token_places(where: str, patches: int) -> tuple[int, ...]:
    """Where class tokens stand in a sequence of patches and class tokens.

    Args:
        where: `head`, `middle` (behind the first half of the patches, rounded down), `tail`, `head_tail` (two of them).
        patches: number of patch tokens.

    Raises:
        ValueError: another name.
    """
    places = {"head": (0,), "middle": (patches // 2,), "tail": (patches,), "head_tail": (0, patches + 1)}
    if where not in places:
        raise ValueError(f"class token {where!r}, expected one of {', '.join(places)}")
    return places[where]


def insert_tokens(x_BTC: Tensor, extra_BEC: Tensor, places: tuple[int, ...]) -> Tensor:
    """Put extra tokens into a sequence so that the e-th of them stands at places[e] of the result.

    Args:
        x_BTC: (B, T, C).
        extra_BEC: (B, E, C) or (1, E, C).
        places: E rising positions.

    Returns:
        (B, T + E, C).

    Raises:
        ValueError: places and extra tokens differ in number.
    """
    _check_length("extra", extra_BEC, 1, len(places))
    extra_BEC = extra_BEC.expand(x_BTC.shape[0], -1, -1)
    parts, done = [], 0
    for number, place in enumerate(places):
        parts += [x_BTC[:, done : place - number], extra_BEC[:, number : number + 1]]
        done = place - number
    return torch.cat([*parts, x_BTC[:, done:]], 1)


def split_tokens(x_BTC: Tensor, places: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Undo `insert_tokens`: (B, T + E, C...) -> the rest (B, T, C...) and the extra tokens (B, E, C...)."""
    if not places:
        return x_BTC, x_BTC[:, :0]
    extra = [x_BTC[:, place : place + 1] for place in places]
    starts, stops = [0, *(place + 1 for place in places)], [*places, x_BTC.shape[1]]
    rest = [x_BTC[:, start:stop] for start, stop in zip(starts, stops)]
    return torch.cat(rest, 1), torch.cat(extra, 1)


def patch_token(patch: int, places: tuple[int, ...]) -> int:
    """The place of a patch in a sequence with extra tokens at these places, rising, as `insert_tokens` puts them."""
    for place in places:
        patch += place <= patch
    return patch


def _folding(axes: int, orders: Orders) -> list[int]:
    """The permutation of (B, *grid, C...) that brings the other axes behind B, and the sequence's behind them."""
    along = [1 + axis for axis in orders.sequence_axes]
    others = [1 + axis for axis in range(len(orders.grid)) if 1 + axis not in along]
    return [0, *others, *along, *range(1 + len(orders.grid), axes)]


def _check_length(name: str, tensor: Tensor, axis: int, expected: int) -> None:
    if tensor.shape[axis] != expected:
        raise ValueError(
            f"{name}: shape {tuple(tensor.shape)} has {tensor.shape[axis]} on axis {axis}, expected {expected}"
        )
