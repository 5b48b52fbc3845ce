"""Where a training stands: a live bar on a terminal; elsewhere MMEngine's log lines are enough."""

import logging
import sys
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from mamba_vision.registry import HOOKS


@HOOKS.register_module()
class ProgressHook(Hook):
    """One line that stays: epoch, iteration, loss, last Dice, seconds an iteration, time left, memory.

    While it is up, the log's lines go to the log file only; warnings and errors are still printed.

    Args:
        metric: name of the validation metric shown.
        force: draw even if the output is no terminal (for tests).
    """

    priority = "LOWEST"
    bar: type[Progress] = Progress

    def __init__(self, metric: str = "dice", force: bool = False) -> None:
        self.metric, self.force = metric, force
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._levels: list[tuple[logging.StreamHandler, int, Any]] = []

    def before_train(self, runner: Runner) -> None:
        """Put up the bar."""
        if not is_main_process() or not (self.force or sys.stdout.isatty()):
            return
        console = Console(force_terminal=True) if self.force else Console()
        self._progress = self.bar(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[state]}", table_column=Column()),  # the one that gives way in a narrow window
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TextColumn("left"),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            console=console,
        )
        self._progress.start()
        for handler in runner.logger.handlers:
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                self._levels.append((handler, handler.level, handler.stream))
                handler.setLevel(max(handler.level, logging.WARNING))
                handler.stream = sys.stdout  # rich's stand-in, which prints above the bar
        self._tasks["train"] = self._progress.add_task(
            "training", total=runner.max_iters, completed=runner.iter, state=""
        )

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Move the bar."""
        if self._progress is None:
            return
        scalars = runner.message_hub.log_scalars
        parts = [f"epoch {runner.epoch + 1}/{runner.max_epochs}", f"iter {runner.iter + 1}/{runner.max_iters}"]
        if "train/loss" in scalars:
            parts.append(f"loss {float(scalars['train/loss'].mean(20)):.3f}")
        if f"val/{self.metric}" in scalars:
            parts.append(f"{self.metric} {float(scalars[f'val/{self.metric}'].current()):.3f}")
        if "train/time" in scalars:
            parts.append(f"{float(scalars['train/time'].mean(20)):.2f} s/iter")
        if torch.cuda.is_available():
            parts.append(f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
        self._progress.update(self._tasks["train"], completed=runner.iter + 1, state="  ".join(parts))

    def before_val_epoch(self, runner: Runner) -> None:
        """A second bar while validating."""
        if self._progress is not None:
            self._tasks["val"] = self._progress.add_task("validating", total=len(runner.val_dataloader), state="")

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Move the second bar."""
        if self._progress is not None and "val" in self._tasks:
            self._progress.update(self._tasks["val"], completed=batch_idx + 1)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Print what the validation found."""
        if self._progress is None:
            return
        if "val" in self._tasks:
            self._progress.remove_task(self._tasks.pop("val"))
        found = "  ".join(f"{name} {value:.3f}" for name, value in (metrics or {}).items())
        self._progress.console.print(f"epoch {runner.epoch} of {runner.max_epochs}: {found}", highlight=False)

    def after_train(self, runner: Runner) -> None:
        """Take the bar down."""
        self.close()

    def close(self) -> None:
        """Take the bar down and let the log's lines through again; also after an error."""
        if self._progress is None:
            return
        self._progress.stop()
        self._progress = None
        self._tasks.clear()
        for handler, level, stream in self._levels:
            handler.setLevel(level)
            handler.stream = stream
        self._levels.clear()
