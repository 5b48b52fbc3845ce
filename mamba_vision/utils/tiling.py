"""How large pictures are split: the published geometry of image restoration, as numbers of pixels alone.

An image of H rows is split into H // tile + 1 bands of equal height (mirrored up at its end to make it so); each is
read with a margin of a tenth of its height into its neighbours, and the same along columns.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tiling:
    """How images are split.

    Attributes:
        tile: sides shorter than this are not split; bands are of this length at most.
        overlap: margin on every inner side, over the band's length.
        blend: fade tiles into each other; False pastes them as published.

    Raises:
        ValueError: a tile below 16 pixels, or a margin outside 0 to 0.5.
    """

    tile: int = 200
    overlap: float = 0.1
    blend: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.tile, int) or self.tile < 16:
            raise ValueError(f"tile: expected a whole number of pixels of at least 16, found {self.tile!r}")
        if not 0 <= self.overlap <= 0.5:
            raise ValueError(f"overlap: expected a share of the tile from 0 to 0.5, found {self.overlap!r}")


@dataclass(frozen=True)
class Band:
    """One tile along one axis, in pixels of the input: what is read, and which part of it is the tile's own."""

    start: int
    stop: int
    core_start: int
    core_stop: int


def bands(length: int, tiling: Tiling) -> list[Band]:
    """The tiles along an axis; the last core may end behind `length`, which is then to be mirrored up to it."""
    count = length // tiling.tile + 1
    core = -(-length // count)
    margin = int(core * tiling.overlap)
    total = core * count
    return [
        Band(max(k * core - margin, 0), min((k + 1) * core + margin, total), k * core, (k + 1) * core)
        for k in range(count)
    ]
