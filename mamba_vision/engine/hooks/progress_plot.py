"""progress.png: the course of a training at a glance."""

import time
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mamba_vision.registry import HOOKS
from mamba_vision.utils.atomic import atomic_path


@HOOKS.register_module()
class ProgressPlotHook(Hook):
    """Draws losses, learning rate, the validation metric for each class and seconds an iteration.

    What is drawn is MMEngine's own history, which checkpoints carry, so a resumed training shows all of it.

    Args:
        metric: drawn with everything that begins `<metric>_`.
        every: least seconds between two drawings; after a validation and at the end it is always drawn.
    """

    priority = "LOWEST"

    def __init__(self, metric: str = "dice", every: float = 20.0) -> None:
        self.metric, self.every = metric, every
        self._drawn = 0.0

    def after_train_epoch(self, runner: Runner) -> None:
        """Draw if the picture is old."""
        if time.monotonic() - self._drawn >= self.every:
            self._draw(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Draw with the new validation."""
        if not isinstance(runner._train_loop, dict) and runner._train_loop is not None:
            self._draw(runner)

    def after_train(self, runner: Runner) -> None:
        """Draw the last state."""
        self._draw(runner)

    def _draw(self, runner: Runner) -> None:
        if not is_main_process():
            return
        history = {name: buffer.data[0] for name, buffer in runner.message_hub.log_scalars.items()}
        length = len(runner.train_dataloader)
        figure = Figure(figsize=(11, 6.5), layout="constrained")
        FigureCanvasAgg(figure)
        (losses, metrics), (rate, seconds) = figure.subplots(2, 2)
        for name, values in history.items():
            if name.startswith("train/") and "loss" in name and len(values):
                epochs = np.arange(1, len(values) + 1) / length
                line = losses.plot(epochs, values, alpha=0.25, linewidth=0.8)[0]
                losses.plot(epochs, _smooth(values), color=line.get_color(), label=name[6:])
        validated = runner.message_hub.runtime_info.get("epochs_validated", [])
        for name, values in sorted(history.items()):
            short = name.removeprefix("val/")
            if name != short and (short == self.metric or short.startswith(f"{self.metric}_")):
                epochs = validated[-len(values) :] if len(validated) >= len(values) else range(1, len(values) + 1)
                wide = 2.5 if short == self.metric else 1.2
                label = "mean" if short == self.metric else short[len(self.metric) + 1 :].replace("_", " ")
                metrics.plot(epochs, values[-len(epochs) :], marker="o", markersize=3, linewidth=wide, label=label)
        for panel, key, title in ((rate, "train/lr", "learning rate"), (seconds, "train/time", "seconds an iteration")):
            values = history.get(key, np.zeros(0))
            panel.plot(np.arange(1, len(values) + 1) / length, values, linewidth=1)
            panel.set_title(title)
        if len(history.get("train/time", ())):
            seconds.set_ylim(0, 1.5 * float(np.percentile(history["train/time"], 95)))
        losses.set_title("training loss")
        metrics.set_title(f"{self.metric} of the validation cases")
        metrics.set_ylim(0, None if metrics.dataLim.y1 > 1 else 1)  # distances have no upper limit
        for panel in (losses, metrics, rate, seconds):
            panel.set_xlim(left=0)
            panel.set_xlabel("epoch")
            panel.grid(alpha=0.3)
            if panel.get_legend_handles_labels()[0]:
                panel.legend(fontsize="small")
        with atomic_path(Path(runner.work_dir) / "progress.png") as temporary:
            figure.savefig(temporary, dpi=100)
        self._drawn = time.monotonic()


def _smooth(values: np.ndarray, span: int = 20) -> np.ndarray:
    """Mean of up to `span` values up to each."""
    total = np.cumsum(np.concatenate([[0.0], values]))
    index = np.arange(1, len(values) + 1)
    first = np.maximum(index - span, 0)
    return (total[index] - total[first]) / (index - first)
