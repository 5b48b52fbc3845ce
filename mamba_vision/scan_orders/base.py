"""What a scan order is: a grid shape in, K sequences of token numbers out.

Layouts: B batch, K directions, L steps of a sequence, T tokens, C channels. Tokens of a grid are numbered row-major:
token (i, j) of an H x W grid is i*W + j. The number -1 is an extra token of zeros, the convention of
`kernels.ordered_scan`: it passes convolution and state like any other, and what comes out at its step is dropped.
"""

import math
import operator
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mamba_vision.registry import SCAN_ORDERS
from mamba_vision.scan_orders.cache import BoundedCache

ZERO = -1  # the extra token of zeros in a sequence; in an inverse: no step visits this token

_cache = BoundedCache()


@dataclass(frozen=True)
class Orders:
    """K scan orders over one grid. The tensors are shared by everybody who asks: never write to them.

    Attributes:
        indices: (K, L) int64, or (B, K, L) where every sample has its own: the token read at each step; -1 is the
            zero token.
        inverse: (K, T) or (B, K, T) int64: the step whose result a token gets, the first one where a token comes more
            than once; -1 where none does.
        grid: the grid shape that they were built for.
        sequence_axes: the axes of the grid that a sequence runs over where the other axes fold into the batch
            (`fold`, `unfold`); None where it runs over all.
        published_return: (K, T) int64 where a published system puts results back in other places than they came from:
            token t gets the result of token published_return[k, t] (`return_as_published`); None everywhere else.
    """

    indices: Tensor
    inverse: Tensor
    grid: tuple[int, ...]
    sequence_axes: tuple[int, ...] | None = None
    published_return: Tensor | None = None

    @property
    def tokens(self) -> int:
        """T: how many tokens a sequence is drawn from."""
        return self.inverse.shape[-1]

    @property
    def n_bytes(self) -> int:
        """Memory of the tables."""
        tables = (self.indices, self.inverse, self.published_return)
        return sum(table.numel() * table.element_size() for table in tables if table is not None)


class ScanOrder:
    """An order, told its options; called with a grid shape it gives `Orders`, kept in a bounded cache.

    A subclass is a frozen dataclass: its fields are the options that a config may set. It has a `name`, `grid_ranks`
    (how many axes its grids may have), `labels` (one per direction) and `sequences`. The rest has defaults.
    """

    name: ClassVar[str]
    grid_ranks: ClassVar[tuple[int, ...]] = (1, 2, 3)
    cacheable: ClassVar[bool] = True

    # ---- what a new order writes ----------------------------------------------------------------------------------
    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each of the K directions."""
        raise NotImplementedError

    def sequences(self, grid: tuple[int, ...], device: torch.device) -> Tensor:
        """The token read at each step, (K, L) int64; made from the grid's sizes, so that export keeps them dynamic."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise ValueError when an option has a bad value. Options that came as lists are tuples by now."""

    def extra_tokens(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """Numbers of tokens that stand for no place of the grid, such as a class token; the others fill the grid."""
        return ()

    def sequence_axes(self, grid: tuple[int, ...]) -> tuple[int, ...] | None:
        """The axes that a sequence runs over, if the others fold into the batch."""
        return None

    def published_inverse(self, grid: tuple[int, ...], inverse: Tensor) -> Tensor | None:
        """(K, T): the step whose result a token gets, where a published system takes another than the inverse says."""
        return None

    # ---- what everybody calls -------------------------------------------------------------------------------------
    def tokens(self, grid: tuple[int, ...]) -> int:
        """T: how many tokens a sequence is drawn from."""
        axes = self.sequence_axes(grid)
        along = math.prod(grid if axes is None else [grid[axis] for axis in axes])
        return along + len(self.extra_tokens(grid))

    @property
    def n_directions(self) -> int:
        """K, known before any grid is: how many sets of parameters a mixer needs."""
        return len(self.labels)

    def __call__(self, grid: tuple[int, ...], device: torch.device | str | None = None) -> Orders:
        """The K orders over a grid.

        Args:
            grid: shape of the token grid, slowest axis first: (L,), (H, W) or (D, H, W).
            device: where the tables go; PyTorch's default device if None.

        Raises:
            ValueError: the grid has the wrong number of axes, an axis shorter than 1, or does not suit the order.
        """
        grid = self.checked_grid(grid)
        device = torch.get_default_device() if device is None else torch.device(device)
        # Traced graphs must not capture tables of the shape they are traced with, and a probe that is no plain tensor
        # tells of fake tensors, which must not be kept.
        if not self.cacheable or is_traced(grid) or type(torch.empty(0)) is not Tensor:
            return self.build(grid, device)
        return _cache.get((self, grid, device), lambda: self._build_to_keep(grid, device), lambda made: made.n_bytes)

    def build(self, grid: tuple[int, ...], device: torch.device) -> Orders:
        """`__call__` without checks and cache."""
        indices = self.sequences(grid, device)
        inverse = invert(indices, self.tokens(grid))
        published = self.published_inverse(grid, inverse)
        if published is None:
            return Orders(indices, inverse, grid, self.sequence_axes(grid))
        return Orders(indices, published, grid, self.sequence_axes(grid), indices.gather(1, published))

    def checked_grid(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """The grid as a tuple of sizes, which may be symbolic; ValueError where it cannot be one."""
        sizes = (grid,) if isinstance(grid, (int, torch.SymInt)) else tuple(grid)
        sizes = tuple(s if isinstance(s, (int, torch.SymInt)) else operator.index(s) for s in sizes)
        if len(sizes) not in self.grid_ranks:
            ranks = " or ".join(str(rank) for rank in self.grid_ranks)
            raise ValueError(f"scan order {self.name!r}: grid {sizes} has {len(sizes)} axes, expected {ranks}")
        if not is_traced(sizes) and min(sizes) < 1:
            raise ValueError(f"scan order {self.name!r}: grid {sizes} has an axis shorter than 1")
        return sizes

    def __post_init__(self) -> None:
        for option in fields(self):
            object.__setattr__(self, option.name, _frozen(getattr(self, option.name)))
        self.check()

    def _build_to_keep(self, grid: tuple[int, ...], device: torch.device) -> Orders:
        # A table made under inference_mode could not be saved for a later backward pass.
        with torch.inference_mode(False):
            return self.build(grid, device)


def register(order: type[ScanOrder]) -> type[ScanOrder]:
    """Class decorator: the order can be built by its name from now on."""
    SCAN_ORDERS.register_module(name=order.name, module=order)
    return order


def clear_cache() -> None:
    """Forget every table."""
    _cache.clear()


def hold_orders() -> AbstractContextManager[list]:
    """A list of the orders that are asked for inside the block, for who reads their memory later than Python knows."""
    return _cache.holding()


def is_traced(grid: tuple[int, ...]) -> bool:
    """Whether torch.compile or torch.export is looking, so that sizes may be symbolic."""
    return torch.compiler.is_compiling() or any(isinstance(size, torch.SymInt) for size in grid)


def fixed_grid(order: ScanOrder, grid: tuple[int, ...]) -> tuple[int, ...]:
    """The grid for an order that is a table, not arithmetic in the sizes: torch.compile compiles anew for each grid.

    Raises:
        ValueError: under export with dynamic sizes, which would keep the table of one.
    """
    if any(isinstance(size, torch.SymInt) for size in grid):
        raise ValueError(f"scan order {order.name!r} is a table: export the model for one grid size, not a dynamic one")
    return tuple(operator.index(size) for size in grid)


def token_grid(grid: tuple[int, ...], device: torch.device | None = None) -> Tensor:
    """The tokens' row-major numbers, in the grid's shape, int64."""
    return torch.arange(math.prod(grid), device=device).reshape(grid)


def ceil_div(size: int, by: int) -> int:
    """size / by, rounded up, for sizes of at least 0, also symbolic ones.

    Without negative numbers, which exported graphs divide towards zero where Python divides downwards.
    """
    return (size + by - 1) // by


def columns(tokens: Tensor) -> Tensor:
    """Tokens of an H x W table column by column, (L,)."""
    return tokens.transpose(0, 1).reshape(-1)


def side_by_side(sequences: list[Tensor]) -> Tensor:
    """Stack sequences (K_i, L_i) to (sum of K_i, L): shorter ones are filled up at the end with the zero token.

    A scan is causal, so that zeros behind the last token change nothing.
    """
    longest = sequences[0].shape[-1]
    for sequence in sequences[1:]:
        longest = torch.sym_max(longest, sequence.shape[-1])
    padded = [F.pad(sequence, (0, longest - sequence.shape[-1]), value=ZERO) for sequence in sequences]
    return torch.cat(padded, dim=-2)


def invert(indices: Tensor, tokens: int) -> Tensor:
    """The first step that visits each token, -1 if none does.

    Args:
        indices: (K, L) or (B, K, L) int64, token numbers below `tokens` or -1.
        tokens: T.

    Returns:
        (K, T) or (B, K, T) int64.
    """
    length = indices.shape[-1]
    steps = torch.arange(length, device=indices.device).expand(indices.shape)
    places = torch.where(indices < 0, tokens, indices)  # a place for the zero tokens, cut off below
    first = steps.new_full((*indices.shape[:-1], tokens + 1), length)
    first = first.scatter_reduce(-1, places, steps, "amin", include_self=True)[..., :tokens]
    return torch.where(first == length, ZERO, first)


def one_of(name: str, option: str, value: object, valid: tuple) -> None:
    """Raise ValueError unless `value` is valid for that option of the order `name`."""
    if value not in valid:
        expected = ", ".join(repr(v) for v in valid)
        raise ValueError(f"scan order {name!r}: {option} is {value!r}, expected one of {expected}")


def _frozen(value: object) -> object:
    """Lists, also nested, as tuples: options are compared and hashed."""
    return tuple(_frozen(v) for v in value) if isinstance(value, (list, tuple)) else value
