"""val/epoch_N.png: the same few cases after every validation, prediction beside truth."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mamba_vision.registry import HOOKS
from mamba_vision.structures import VolumeDataSample
from mamba_vision.visualization.figures import figure_pixels, save_stacked
from mamba_vision.visualization.volumes import orthogonal_slices_figure


@HOOKS.register_module()
class ValidationPictureHook(Hook):
    """Three orthogonal slices of the first `cases` validation cases: prediction filled, truth outlined.

    Raises:
        ValueError: `cases` is below 1.
    """

    priority = "LOW"

    def __init__(self, cases: int = 3) -> None:
        if cases < 1:
            raise ValueError(f"cases: expected at least 1, found {cases}")
        self.cases = cases
        self._pictures: list[np.ndarray] = []

    def before_val_epoch(self, runner: Runner) -> None:
        """Start anew."""
        self._pictures = []

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: Sequence | None = None
    ) -> None:
        """Draw the cases of this batch, as long as there is room."""
        if not is_main_process():
            return
        for volume, sample in zip(data_batch["inputs"], outputs):
            if len(self._pictures) >= self.cases or sample.pred_label.ndim != 3:
                return
            self._pictures.append(case_picture(runner, volume, sample, f"{sample.case}, epoch {runner.epoch}"))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the picture."""
        if not self._pictures:
            return
        save_stacked(Path(runner.work_dir) / "val" / f"epoch_{runner.epoch}.png", self._pictures)
        self._pictures = []


def case_picture(runner: Runner, volume: torch.Tensor, sample: VolumeDataSample, title: str) -> np.ndarray:
    """Pixels of a validated case: its first channel, the prediction filled, the truth outlined.

    Args:
        runner: whose model has a plan, and whose validation data have names of classes, if they have.
        volume: (C, *S), prepared.
        sample: with pred_label and gt_label (*S).
        title: a line above.
    """
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    # The prepared volume has its axes in the plan's order; pictures want X, Y, Z.
    order = np.argsort((getattr(model, "plan", None) or {}).get("axes", (0, 1, 2)))
    dataset = runner.val_dataloader.dataset
    names = dict(enumerate(getattr(dataset, "metainfo", {}).get("classes") or ()))
    if names and getattr(dataset, "ignore_index", None) is not None:
        names[dataset.ignore_index] = "ignored"
    image, labels, truth = (
        array.cpu().numpy().transpose(order) for array in (volume[0], sample.pred_label, sample.gt_label)
    )
    figure = orthogonal_slices_figure(
        image, labels, [sample.spacing[axis] for axis in order], names or None,
        truth_XYZ=truth, title=title,
    )  # fmt: skip
    return figure_pixels(figure)
