"""Ctrl-C, SIGTERM and the end of a cluster's time slot: save, say how to go on, stop."""

import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from mmengine.dist import all_reduce, is_distributed
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mamba_vision.engine.hooks.checkpoint import AtomicCheckpointHook
from mamba_vision.registry import HOOKS

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
TIME_IS_UP = 1000  # beside the numbers of signals


class TrainingInterrupted(Exception):  # noqa: N818  (it is no error)
    """Training was stopped by `signum` (a signal, or TIME_IS_UP) and can go on from `checkpoint`."""

    def __init__(self, signum: int, checkpoint: Path | None, epoch: int, iteration: int) -> None:
        name = "the limit of time" if signum == TIME_IS_UP else signal.Signals(signum).name
        saved = (
            f"; everything is saved in {checkpoint}" if checkpoint else "; nothing is saved: no AtomicCheckpointHook"
        )
        super().__init__(
            f"stopped by {name} in epoch {epoch + 1}, after {iteration} iterations in all{saved}. "
            "The same command with --resume goes on from there."
        )
        self.signum, self.checkpoint = signum, checkpoint

    @property
    def status(self) -> int:
        """The exit status that tells it: 124 for the limit of time, as of `timeout`, else 128 + the signal."""
        return 124 if self.signum == TIME_IS_UP else 128 + self.signum


@HOOKS.register_module()
class InterruptHook(Hook):
    """Stops training at the end of the iteration in which a signal came, with a checkpoint, by TrainingInterrupted.

    A second signal stops at once. All processes of a distributed training stop at the same iteration.

    Args:
        max_hours: stop likewise so long after the hook was made, which is when a run begins.

    Raises:
        ValueError: `max_hours` is not above 0.
    """

    priority = "LOWEST"  # the state that is saved includes what other hooks do after an iteration

    def __init__(self, max_hours: float | None = None) -> None:
        if max_hours is not None and max_hours <= 0:
            raise ValueError(f"max_hours: expected a number above 0, found {max_hours}")
        self._until = None if max_hours is None else time.monotonic() + 3600 * max_hours
        self._signum = 0
        self._before: dict[int, Any] = {}
        self._process = os.getpid()

    def before_train(self, runner: Runner) -> None:
        """Take over the signals; only the main thread may."""
        self._signum, self._process = 0, os.getpid()
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}

    def after_train(self, runner: Runner) -> None:
        """Give the signals back."""
        self.close()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Stop here, unless the epoch ends here, which `after_train_epoch` sees to."""
        if not self.end_of_epoch(runner.train_dataloader, batch_idx):
            self._stop_if_asked(runner, runner.epoch, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """Stop between training and validation; the validation is made up for on resuming."""
        self._stop_if_asked(runner, runner.epoch + 1, runner.iter)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Stop within a validation; several processes wait for its end, as they validate different numbers of cases."""
        if self._before and not is_distributed():
            self._stop_if_asked(runner, runner.epoch, runner.iter)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Stop after a validation."""
        if self._before or is_distributed():
            self._stop_if_asked(runner, runner.epoch, runner.iter)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A loader's worker process inherited this: Ctrl-C is its parent's affair, an ordered end is not.
            if signum == signal.SIGTERM:
                signal.signal(signum, signal.SIG_DFL)
                os.kill(os.getpid(), signum)
            return
        if self._signum:
            self.close()
            raise KeyboardInterrupt
        self._signum = signum
        os.write(2, b"\nStopping after this iteration; once more stops at once, without saving.\n")

    def _stop_if_asked(self, runner: Runner, epoch: int, iteration: int) -> None:
        signum = self._signum
        if not signum and self._until is not None and time.monotonic() > self._until:
            signum = TIME_IS_UP
        if is_distributed():
            shared = torch.tensor(signum, device=next(runner.model.parameters()).device)
            all_reduce(shared, "max")
            signum = int(shared)
        if not signum:
            return
        self.close()
        hook = next((hook for hook in runner.hooks if isinstance(hook, AtomicCheckpointHook)), None)
        checkpoint = hook.save_interrupted(runner, epoch, iteration) if hook else None
        raise TrainingInterrupted(signum, checkpoint, epoch, iteration)

    def close(self) -> None:
        """Give the signals back, also after a training that failed."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
