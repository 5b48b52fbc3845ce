"""Random permutations: ZigMa's `randomN` paths, RSMamba's shuffle, and permutations that come with the data."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mamba_vision.scan_orders.base import Orders, ScanOrder, fixed_grid, invert, is_traced, one_of, register

_PATHS = ("forward", "reverse", "shuffle")


def orders_from_permutations(permutations: Tensor) -> Orders:
    """Orders that come with the data or from a checkpoint (MamMIL's graph walks, ZigMa's stored random paths).

    Args:
        permutations: (K, L) or (B, K, L) of an integer type: the token read at each step; each row holds every number
            below L once.

    Raises:
        ValueError: another shape or type, or a row that is no permutation.
    """
    if permutations.ndim not in (2, 3) or permutations.is_floating_point() or permutations.dtype == torch.bool:
        raise ValueError(
            f"permutations: {permutations.dtype} of shape {tuple(permutations.shape)}, "
            "expected integers of shape (orders, length) or (batch, orders, length)"
        )
    indices = permutations.long()
    length = indices.shape[-1]
    if not is_traced((length,)) and not torch.equal(
        indices.sort(-1).values, torch.arange(length, device=indices.device).expand_as(indices)
    ):
        raise ValueError(f"permutations: a row does not hold every number from 0 to {length - 1} once")
    return Orders(indices, invert(indices, length), (length,))


def orders_from_scores(scores: Tensor, descending: bool = False, stable: bool = True) -> Orders:
    """Tokens sorted by a score. (MambaIRv2 sorts pixels by their class, arXiv 2411.15269.)

    Args:
        scores: (T,), or (B, T) where every sample is sorted on its own. No gradient passes.
        descending: largest first.
        stable: ties keep the token order; False leaves their order to PyTorch's faster sort, which depends on the
            machine.

    Returns:
        One order, K = 1: indices (1, T) or (B, 1, T).

    Raises:
        ValueError: scores of another shape.
    """
    if scores.ndim not in (1, 2):
        raise ValueError(f"scores: shape {tuple(scores.shape)}, expected (tokens,) or (batch, tokens)")
    indices = scores.detach().argsort(dim=-1, descending=descending, stable=stable).unsqueeze(-2)
    return Orders(indices, invert(indices, scores.shape[-1]), (scores.shape[-1],))


@register
@dataclass(frozen=True)
class Random(ScanOrder):
    """Random permutations of all tokens that depend on a seed alone, so that a reloaded model scans as it was trained.

    Path j is the j-th shuffle by NumPy's frozen legacy generator. Published ZigMa draws the same way from the global
    generator, without storing what it drew: layer i of `randomN3` trained with seed 0 has paths=(i % 3,), seed=0.

    Args:
        paths: numbers of the paths, one per direction.
        seed: from 0 to 2**32 - 1.
    """

    paths: tuple[int, ...] = (0,)
    seed: int = 0
    name = "random"

    def check(self) -> None:
        if not self.paths or any(not isinstance(p, int) or p < 0 for p in self.paths):
            raise ValueError(f"scan order 'random': paths are {self.paths!r}, expected numbers from 0")
        if not _is_seed(self.seed):
            raise ValueError(f"scan order 'random': seed is {self.seed!r}, expected a number from 0 to 2**32 - 1")

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(f"path {path}" for path in self.paths)

    def sequences(self, grid: tuple[int, ...], device: torch.device) -> Tensor:
        return _drawn(math.prod(fixed_grid(self, grid)), self.seed, self.paths).to(device)


@register
@dataclass(frozen=True)
class Shuffle(ScanOrder):
    """RSMamba's paths (arXiv 2403.19654): forward, reversed, and shuffled.

    Args:
        paths: which of `forward`, `reverse`, `shuffle`, one per direction; all shuffled ones share a permutation.
        seed: None draws a new permutation in every call, in evaluation too, as published. A number gives always the
            same one: for repeatable evaluation and for export. Give each layer its own.
    """

    paths: tuple[str, ...] = _PATHS
    seed: int | None = None
    name = "shuffle"
    cacheable = False

    def check(self) -> None:
        if not self.paths:
            raise ValueError(f"scan order 'shuffle': paths are {self.paths!r}, expected some of {', '.join(_PATHS)}")
        for path in self.paths:
            one_of(self.name, "paths", path, _PATHS)
        if self.seed is not None and not _is_seed(self.seed):
            raise ValueError(
                f"scan order 'shuffle': seed is {self.seed!r}, expected None or a number from 0 to 2**32 - 1"
            )

    @property
    def labels(self) -> tuple[str, ...]:
        return self.paths

    def __call__(
        self, grid: tuple[int, ...], device: torch.device | str | None = None, scores: Tensor | None = None
    ) -> Orders:
        """As for every order; `scores` (T,) replace the random draw: the shuffle is their stable ascending argsort.

        Raises:
            ValueError: as for every order, or scores that are not one per token.
        """
        if scores is None:
            return super().__call__(grid, device)
        grid = self.checked_grid(grid)
        if scores.ndim != 1 or (not is_traced(grid) and scores.shape[0] != math.prod(grid)):
            raise ValueError(
                f"scan order 'shuffle': scores of shape {tuple(scores.shape)}, expected one for each token of {grid}"
            )
        device = scores.device if device is None else torch.device(device)
        indices = self._paths(scores.detach().argsort(stable=True).to(device))
        return Orders(indices, invert(indices, scores.shape[0]), grid)

    def sequences(self, grid: tuple[int, ...], device: torch.device) -> Tensor:
        if "shuffle" not in self.paths:
            return self._paths(torch.arange(math.prod(grid), device=device))
        if self.seed is not None:
            return self._paths(_drawn(math.prod(fixed_grid(self, grid)), self.seed, (0,))[0].to(device))
        # On the CPU whatever the device, so that a run's seed means the same everywhere.
        return self._paths(torch.randperm(math.prod(grid), device="cpu").to(device))

    def _paths(self, permutation: Tensor) -> Tensor:
        forward = torch.arange(permutation.shape[0], device=permutation.device)
        made = {"forward": forward, "reverse": forward.flip(0), "shuffle": permutation}
        return torch.stack([made[path] for path in self.paths])


@torch.compiler.assume_constant_result
def _drawn(tokens: int, seed: int, paths: tuple[int, ...]) -> Tensor:
    """Some of the permutations that a seed gives one after the other, (len(paths), tokens)."""
    generator = np.random.RandomState(seed)
    drawn = [generator.permutation(tokens) for _ in range(max(paths) + 1)]
    return torch.from_numpy(np.stack([drawn[path] for path in paths]).astype(np.int64))


def _is_seed(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < 2**32
