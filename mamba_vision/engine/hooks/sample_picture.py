"""val/epoch_N.png: what a generator draws, from the same noise and for the same conditions after every validation."""

from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mamba_vision.registry import HOOKS
from mamba_vision.visualization.picture_grid import save_picture_grid


@HOOKS.register_module()
class SamplePictureHook(Hook):
    """A grid of the first `count` samples of the validation set, ordered by class where there are classes.

    Raises:
        ValueError: `count` is below 1.
    """

    priority = "LOW"

    def __init__(self, count: int = 100) -> None:
        if count < 1:
            raise ValueError(f"count: expected at least 1, found {count}")
        self.count = count
        self._drawn: list[tuple[int, torch.Tensor]] = []

    def before_val_epoch(self, runner: Runner) -> None:
        """Start anew."""
        self._drawn = []

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: Sequence | None = None
    ) -> None:
        """Keep the pictures of this batch, as long as there is room."""
        for sample in outputs[: self.count - len(self._drawn)] if is_main_process() else ():
            label = int(sample.gt_label) if "gt_label" in sample else 0
            self._drawn.append((label, sample.pred_img.cpu()))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the picture."""
        if not self._drawn:
            return
        pictures = torch.stack([picture for _, picture in sorted(self._drawn, key=lambda pair: pair[0])])
        save_picture_grid(Path(runner.work_dir) / "val" / f"epoch_{runner.epoch}.png", pictures)
        self._drawn = []
