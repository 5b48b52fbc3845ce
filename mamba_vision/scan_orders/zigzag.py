"""ZigMa's zigzag paths (arXiv 2403.13802) and their factorized form for video."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mamba_vision.scan_orders.base import ScanOrder, register, token_grid

N_SCHEMES = 8
_CORNERS = ("top left", "top right", "bottom left", "bottom right")
SCHEME_LABELS = tuple(f"{way} from {corner}" for corner in _CORNERS for way in ("rows", "columns"))


def zigzag_sequence(tokens: Tensor, scheme: int) -> Tensor:
    """Tokens of an H x W table on one of the eight continuous paths, (L,).

    Scheme 2m + o starts in corner m (top left, top right, bottom left, bottom right) and runs along rows (o = 0) or
    columns (o = 1), turning at each end.
    """
    corner, by_column = divmod(scheme, 2)
    if corner % 2:
        tokens = tokens.flip(1)
    if corner >= 2:
        tokens = tokens.flip(0)
    if by_column:
        tokens = tokens.transpose(0, 1)
    line = torch.arange(tokens.shape[0], device=tokens.device)
    odd = line - 2 * (line // 2)  # the tensor operator % has no ONNX form for symbolic sizes
    return torch.where(odd[:, None] == 1, tokens.flip(1), tokens).reshape(-1)


def check_schemes(order: ScanOrder, schemes: tuple[int, ...]) -> None:
    """ValueError unless all schemes are numbers from 0 to 7."""
    if not schemes or any(not isinstance(s, int) or not 0 <= s < N_SCHEMES for s in schemes):
        raise ValueError(
            f"scan order {order.name!r}: schemes are {schemes!r}, expected numbers from 0 to {N_SCHEMES - 1}"
        )


@register
@dataclass(frozen=True)
class Zigzag(ScanOrder):
    """Zigzag paths over an H x W grid. Published models take one a layer: layer i of `zigzagN8` has schemes=(i % 8,).

    Args:
        schemes: numbers from 0 to 7, one per direction; see `zigzag_sequence`.
    """

    schemes: tuple[int, ...] = tuple(range(N_SCHEMES))
    name = "zigzag"
    grid_ranks = (2,)

    def check(self) -> None:
        check_schemes(self, self.schemes)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(SCHEME_LABELS[scheme] for scheme in self.schemes)

    def sequences(self, grid: tuple[int, ...], device: torch.device) -> Tensor:
        tokens = token_grid(grid, device)
        return torch.stack([zigzag_sequence(tokens, scheme) for scheme in self.schemes])


@register
@dataclass(frozen=True)
class ZigzagVideo(ScanOrder):
    """ZigMa's factorized scan of a (T, H, W) grid: each layer runs either inside frames or along time.

    Layers follow the letters of `order` over and over. An `s` layer takes the next of the eight zigzag schemes in every
    frame (frames fold into the batch); a `t` layer runs along time at every position (positions fold into the batch),
    forward and backward in turn. The published code returns a `t` layer's results in the other direction, so that
    frame f gets the result of frame T-1-f.

    Args:
        order: a string of `s` and `t` (published: `sst`).
        layer: which layer of the network this is.
        turn_back: put a `t` layer's results where they belong, unlike the published code.
    """

    order: str = "sst"
    layer: int = 0
    turn_back: bool = False
    name = "zzvideo"
    grid_ranks = (3,)

    def check(self) -> None:
        if not isinstance(self.order, str) or set(self.order) != {"s", "t"}:
            raise ValueError(
                f"scan order 'zzvideo': order is {self.order!r}, expected letters s and t, both, as in 'sst'"
            )
        if not isinstance(self.layer, int) or self.layer < 0:
            raise ValueError(f"scan order 'zzvideo': layer is {self.layer!r}, expected 0, 1, 2 ...")

    @property
    def along_time(self) -> bool:
        """Whether this is a `t` layer."""
        return self.order[self.layer % len(self.order)] == "t"

    @property
    def _turn(self) -> int:
        """How many layers of the same letter came before."""
        whole, rest = divmod(self.layer, len(self.order))
        letter = self.order[rest]
        return whole * self.order.count(letter) + self.order[:rest].count(letter)

    @property
    def labels(self) -> tuple[str, ...]:
        if self.along_time:
            return ("time backward" if self._turn % 2 else "time forward",)
        return (f"frames, {SCHEME_LABELS[self._turn % N_SCHEMES]}",)

    def sequence_axes(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        return (0,) if self.along_time else (1, 2)

    def sequences(self, grid: tuple[int, ...], device: torch.device) -> Tensor:
        if not self.along_time:
            return zigzag_sequence(token_grid(grid[1:], device), self._turn % N_SCHEMES)[None]
        frames = torch.arange(grid[0], device=device)[None]
        return frames.flip(1) if self._turn % 2 else frames

    def published_inverse(self, grid: tuple[int, ...], inverse: Tensor) -> Tensor | None:
        return inverse.flip(1) if self.along_time and not self.turn_back else None
