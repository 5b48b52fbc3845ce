"""A training whose loss is no number is stopped at once."""

import math
from collections import deque
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mamba_vision.registry import HOOKS
from mamba_vision.utils.atomic import atomic_path


class TrainingDivergedError(FloatingPointError):
    """The loss became NaN or infinite."""


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Raises TrainingDivergedError at the first loss that is NaN or infinite, before any checkpoint of that state.

    The batch is saved as nan_batch.pt (`inputs`, `labels`, `cases`), to be looked at with torch.load.

    Args:
        remember: finite losses that the message tells, the last ones.
    """

    priority = "HIGH"

    def __init__(self, remember: int = 5) -> None:
        self._last: deque[float] = deque(maxlen=remember)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Look at the loss of this iteration.

        Raises:
            TrainingDivergedError: the loss is not finite.
        """
        value = (outputs or {}).get("loss", 0.0)
        loss = float(value.detach() if isinstance(value, torch.Tensor) else value)
        if math.isfinite(loss):
            self._last.append(loss)
            return
        samples = data_batch.get("data_samples") if isinstance(data_batch, dict) else None
        cases = [case for sample in samples or () if (case := getattr(sample, "case", None))]
        saved = _save_batch(Path(runner.work_dir), runner.rank, data_batch, samples, cases)
        last = ", ".join(f"{value:.4f}" for value in self._last)
        raise TrainingDivergedError(
            f"loss is {loss} at iteration {runner.iter + 1} (epoch {runner.epoch + 1}); "
            + (f"the last finite losses were {last}. " if last else "no loss was finite. ")
            + (f"Cases in the batch: {', '.join(cases)}. " if cases else "")
            + (f"The batch is saved as {saved}. " if saved else "")
            + "Checkpoints on disk are from before. A lower learning rate, or training without --amp, usually helps."
        )


def _save_batch(folder: Path, rank: int, batch: Any, samples: Any, cases: list[str]) -> Path | None:
    """The batch as a file that loads weights-only; None where it has no inputs."""
    if not isinstance(batch, dict) or "inputs" not in batch:
        return None
    inputs = batch["inputs"]
    labels = [sample.gt_label.cpu() for sample in samples or () if "gt_label" in sample]
    content = {
        "inputs": inputs.detach().cpu() if isinstance(inputs, torch.Tensor) else [one.detach().cpu() for one in inputs],
        "labels": labels,
        "cases": cases,
    }
    path = folder / ("nan_batch.pt" if rank == 0 else f"nan_batch_{rank}.pt")
    with atomic_path(path) as temporary:
        torch.save(content, temporary)
    return path
