"""Which patches a training sees: a numbered, endless series of draws, the same for every number of workers.

A draw carries all that its randomness depends on. So a training that stops and goes on sees the patches of one that
never stopped, and two processes share a series without overlap.
"""

from collections.abc import Iterator
from typing import NamedTuple

from mmengine.dist import get_dist_info
from torch.utils.data import Sampler

from mamba_vision.registry import DATA_SAMPLERS


class Draw(NamedTuple):
    """One patch of the series that `seed` stands for."""

    seed: int
    number: int
    foreground: bool  # centred on a voxel of some foreground class


@DATA_SAMPLERS.register_module()
class PatchBatchSampler(Sampler[list[Draw]]):
    """`iterations` batches an epoch, cases drawn with replacement.

    As in nnU-Net the last `batch_size - round(batch_size * (1 - foreground))` patches of a batch are centred on
    foreground: of a batch of two, one.

    Args:
        sampler: what MMEngine builds from the dataloader's `sampler`; its seed is taken, its order is not.
        batch_size: patches a batch and process.
        iterations: batches an epoch and process.
        foreground: part of the patches that are centred on foreground.

    Raises:
        ValueError: a count below 1, or a part outside 0 to 1.
    """

    def __init__(self, sampler: Sampler, batch_size: int, iterations: int, foreground: float = 0.33) -> None:
        for name, value in (("batch_size", batch_size), ("iterations", iterations)):
            if int(value) != value or value < 1:
                raise ValueError(f"{name}: expected a whole number of at least 1, found {value!r}")
        if not 0 <= foreground <= 1:
            raise ValueError(f"foreground: expected a part between 0 and 1, found {foreground!r}")
        self.sampler = sampler
        self.batch_size = int(batch_size)
        self.iterations = int(iterations)
        self.first_forced = round(batch_size * (1 - foreground))
        self.seed = int(getattr(sampler, "seed", None) or 0)
        self.rank, self.world_size = get_dist_info()
        self.epoch = 0
        self.skip = 0

    def set_epoch(self, epoch: int, skip: int = 0) -> None:
        """Go to `epoch` (from 0); the next iteration over it leaves out the first `skip` batches."""
        self.epoch, self.skip = epoch, skip

    def __iter__(self) -> Iterator[list[Draw]]:
        skip, self.skip = self.skip, 0
        for iteration in range(skip, self.iterations):
            batch = (self.epoch * self.iterations + iteration) * self.world_size + self.rank
            yield [
                Draw(self.seed, batch * self.batch_size + place, place >= self.first_forced)
                for place in range(self.batch_size)
            ]

    def __len__(self) -> int:
        return self.iterations
