"""training/index.html: how a training went, on one page."""

import math
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import all_gather_object, is_distributed, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mamba_vision.engine.hooks.validation_picture import case_picture
from mamba_vision.evaluation.volume_metric import VolumeMetric
from mamba_vision.evaluation.volume_scores import ScoreOptions, score_structures
from mamba_vision.registry import HOOKS
from mamba_vision.utils.atomic import write_text
from mamba_vision.visualization.figures import save_stacked

_STYLE = """body {font: 15px sans-serif; margin: 2em; max-width: 75em} td, th {padding: .2em 1em; text-align: left}
img {max-width: 100%}"""
_Scored = tuple[float, str, dict[str, float], np.ndarray | None]  # mean Dice, case, Dice of each structure, picture


@HOOKS.register_module()
class TrainingReportHook(Hook):
    """Writes a page after every validation and at the end: what was trained and for how long, the curves
    (progress.png), the last validation's cases with the worst first, and pictures of the worst.

    Args:
        cases: how many are drawn.

    Raises:
        ValueError: `cases` is negative.
    """

    priority = "LOWEST"

    def __init__(self, cases: int = 6) -> None:
        if cases < 0:
            raise ValueError(f"cases: expected 0 or more, found {cases}")
        self.cases = cases
        self._found: list[_Scored] = []
        self._begun = time.time()
        self._epoch = 0

    def before_train(self, runner: Runner) -> None:
        """The clock starts."""
        self._begun = time.time()

    def before_val_epoch(self, runner: Runner) -> None:
        """Start anew."""
        self._found = []

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: Sequence | None = None
    ) -> None:
        """Score these cases; draw those that are among the worst so far."""
        metric = next((one for one in runner.val_evaluator.metrics if isinstance(one, VolumeMetric)), None)
        if metric is None or not _in_training(runner):
            return
        for volume, sample in zip(data_batch["inputs"], outputs):
            scores = score_structures(
                sample.pred_label, sample.gt_label, sample.spacing, metric.structures, ScoreOptions(("dice",)),
                case=sample.case, ignore_index=metric.ignore_index,
            )  # fmt: skip
            dice = {score.name: score.dice for score in scores}
            mean = _mean(dice.values())
            limit = sorted(one[0] for one in self._found if one[3] is not None)[: self.cases]
            worst = self.cases > 0 and (len(limit) < self.cases or mean < limit[-1])
            title = f"{sample.case}: Dice " + ", ".join(f"{name} {one:.3f}" for name, one in dice.items())
            drawn = case_picture(runner, volume, sample, title) if worst and sample.pred_label.ndim == 3 else None
            self._found.append((mean, sample.case, dice, drawn))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the page."""
        if _in_training(runner):
            self._epoch = runner.epoch
            if is_distributed():
                self._found = [one for part in all_gather_object(self._found) for one in part]
            self._write(runner)

    def after_train(self, runner: Runner) -> None:
        """Write the page as it is at the end."""
        self._write(runner)

    def _write(self, runner: Runner) -> None:
        if not is_main_process():
            return
        folder = Path(runner.work_dir) / "training"
        self._found.sort(key=lambda one: (one[0], one[1]))
        drawn = [one for one in self._found if one[3] is not None][: self.cases]
        if drawn:
            save_stacked(folder / "worst_cases.png", [one[3] for one in drawn])
        title = f"Training of {Path(runner.work_dir).resolve().name}"
        parts = [f"<h1>{escape(title)}</h1>", _table(_facts(runner, time.time() - self._begun).items())]
        parts.append(
            '<h2>Course</h2><img src="../progress.png" alt="losses, learning rate, Dice, seconds an iteration">'
        )
        if self._found:
            head = ["case", "mean Dice", *self._found[0][2]]
            rows = [
                [case, f"{mean:.3f}", *(f"{one:.3f}" for one in dice.values())] for mean, case, dice, _ in self._found
            ]
            parts.append(f"<h2>Validation cases after epoch {self._epoch}, the worst first</h2>{_table(rows, head)}")
        if drawn:
            parts.append('<h2>The worst cases</h2><p>Prediction filled, truth outlined.</p><img src="worst_cases.png">')
        page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        write_text(folder / "index.html", f"{page}<style>{_STYLE}</style>\n" + "\n".join(parts) + "\n</html>\n")


def _facts(runner: Runner, seconds: float) -> dict[str, Any]:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    plan, info = getattr(model, "plan", None) or {}, runner.message_hub.runtime_info
    scalars = {name: buffer.data[0] for name, buffer in runner.message_hub.log_scalars.items()}
    network = getattr(model, "network", model)
    facts = {
        "network": f"{type(network).__name__}, {sum(one.numel() for one in model.parameters()) / 1e6:.2f} M parameters",
        "data set": plan.get("dataset"),
        "configuration": plan.get("configuration"),
        "fold": runner.cfg.get("fold"),
        "patch": " x ".join(map(str, plan.get("patch_size", ()))),
        "batch": runner.cfg.get("batch_size"),
        "epochs": f"{runner.epoch} of {runner.max_epochs}, {runner.iter} iterations",
        "time": f"{seconds / 3600:.2f} hours since the start or the last resume",
        "seconds an iteration": _last(scalars.get("train/time"), 20),
        "loss": _last(scalars.get("train/loss"), 20),
        "learning rate": _last(scalars.get("train/lr"), 1),
        "best": f"{info['best_score']:.4f}, {info.get('best_ckpt')}" if "best_score" in info else None,
        "GPU memory": _last(scalars.get("train/memory"), 1, " MB"),
    }
    return {name: value for name, value in facts.items() if value not in (None, "")}


def _last(values: np.ndarray | None, span: int, unit: str = "") -> str | None:
    return None if values is None or not len(values) else f"{float(np.mean(values[-span:])):.4g}{unit}"


def _table(rows: Any, head: Sequence[str] = ()) -> str:
    lines = ["".join(f"<th>{escape(str(cell))}</th>" for cell in head)] if head else []
    lines += ["".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _mean(values: Any) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def _in_training(runner: Runner) -> bool:
    return not isinstance(runner._train_loop, dict) and runner._train_loop is not None
