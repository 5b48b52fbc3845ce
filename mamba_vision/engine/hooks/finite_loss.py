"""A training whose loss is no number is stopped at once."""

import math
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mamba_vision.registry import HOOKS


class TrainingDivergedError(FloatingPointError):
    """The loss became NaN or infinite."""


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Raises TrainingDivergedError at the first loss that is NaN or infinite, before any checkpoint of that state."""

    priority = "HIGH"

    def __init__(self) -> None:
        self._last: float | None = None

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Look at the loss of this iteration."""
        value = (outputs or {}).get("loss", 0.0)
        loss = float(value.detach() if isinstance(value, torch.Tensor) else value)
        if math.isfinite(loss):
            self._last = loss
            return
        samples = data_batch.get("data_samples") if isinstance(data_batch, dict) else None
        cases = [case for sample in samples or () if (case := getattr(sample, "case", None))]
        raise TrainingDivergedError(
            f"loss is {loss} at iteration {runner.iter + 1} (epoch {runner.epoch + 1}); "
            + (f"the last finite loss was {self._last:.4f}. " if self._last is not None else "no loss was finite. ")
            + (f"Cases in the batch: {', '.join(cases)}. " if cases else "")
            + "Checkpoints on disk are from before. A lower learning rate, or training without --amp, usually helps."
        )
