"""A training loop that can stop anywhere and go on as if it had not."""

import random

import numpy as np
import torch
from mmengine.runner import EpochBasedTrainLoop

from mamba_vision.registry import LOOPS


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """MMEngine's epoch loop, resumed at any iteration, bit for bit where the device computes reproducibly.

    Instead of carrying the states of all random generators from checkpoint to checkpoint, every iteration begins with
    generators (Python, NumPy, torch; each process its own) seeded by (seed, rank, iteration). What an iteration draws
    is then the same whatever came before it: a validation, another number of workers, or a restart. Patches are drawn
    likewise (PatchBatchSampler). An epoch that was left half way goes on behind the batches that it had used.

    A validation that was due when training stopped is made up for on resuming.
    """

    def run(self) -> torch.nn.Module:
        """Train until `max_epochs`."""
        self.runner.call_hook("before_train")
        if self._epoch and self._iter == self._epoch * len(self.dataloader) and self._validated() < self._epoch:
            self._validate_if_due()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._validate_if_due()
        self.runner.call_hook("after_train")
        return self.runner.model

    def run_epoch(self) -> None:
        """Train the rest of the current epoch: all of it, or what is left after a stop.

        Raises:
            ValueError: the checkpoint was written with epochs of another length.
        """
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        start = self._iter - self._epoch * len(self.dataloader)
        if not 0 <= start < len(self.dataloader):
            raise ValueError(
                f"resumed iteration {self._iter} lies outside epoch {self._epoch + 1} of {len(self.dataloader)} "
                "iterations: the length of an epoch (iterations, batch size or data) differs from the checkpoint's"
            )
        sampler = self.dataloader.batch_sampler
        skipped = hasattr(sampler, "skip")
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(self._epoch, start) if skipped else sampler.set_epoch(self._epoch)
        self._seed(self._iter)
        batches = iter(self.dataloader)
        if not skipped:
            for _ in range(start):
                next(batches)
        for index in range(start, len(self.dataloader)):
            self._seed(self._iter)
            self.run_iter(index, next(batches))
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1

    def _seed(self, iteration: int) -> None:
        sequence = np.random.SeedSequence((int(self.runner.seed or 0), self.runner.rank, iteration))
        first, second, third = (int(state) for state in sequence.generate_state(3))
        random.seed(first)
        np.random.seed(second)
        torch.manual_seed(third)

    def _validate_if_due(self) -> None:
        self._decide_current_val_interval()
        due = self._epoch >= self.val_begin and (
            self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs or self.stop_training
        )
        if self.runner.val_loop is None or not due:
            return
        self.runner.val_loop.run()

    def _validated(self) -> int:
        """The last epoch whose validation is done, as AtomicCheckpointHook writes it into checkpoints."""
        return max(self.runner.message_hub.runtime_info.get("epochs_validated", ()), default=0)
