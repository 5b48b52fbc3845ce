"""Results beside what needs no network, in a table and in pictures: does the network earn its keep?"""

import copy
import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor

from mamba_vision.registry import HOOKS
from mamba_vision.utils.atomic import write_text
from mamba_vision.visualization.before_after import as_color, save_comparison

_SOURCES = ("first", "second")


@HOOKS.register_module()
class ComparisonHook(Hook):
    """After validation and testing of restoration or fusion: comparison/scores.csv, and a picture of some images.

    The model's `baselines(inputs)` (the image interpolated, the mean of two images ...) are scored by the evaluator's
    own metrics, on the same images. Of several processes, the first one's images count.

    Args:
        pictures: how many images are drawn: baseline, result and, where it is known, the truth.

    Raises:
        ValueError: `pictures` is negative.
    """

    priority = "LOW"

    def __init__(self, pictures: int = 4) -> None:
        if pictures < 0:
            raise ValueError(f"pictures: expected a number from 0, found {pictures}")
        self.pictures = pictures
        self._metrics: dict[str, list] = {}
        self._images = 0

    def before_val_epoch(self, runner: Runner) -> None:
        """Start anew."""
        self._metrics, self._images = {}, 0

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: dict, outputs: list) -> None:
        """Score and draw the images of this batch."""
        self._compare(runner, runner.val_evaluator.metrics, data_batch, outputs)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the table."""
        self._write(runner, metrics)

    def before_test_epoch(self, runner: Runner) -> None:
        """Start anew."""
        self.before_val_epoch(runner)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: dict, outputs: list) -> None:
        """Score and draw the images of this batch."""
        self._compare(runner, runner.test_evaluator.metrics, data_batch, outputs)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the table."""
        self._write(runner, metrics)

    def _compare(self, runner: Runner, own: list, data_batch: dict, outputs: list) -> None:
        if not is_main_process():
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        baselines = model.baselines(model.data_preprocessor(data_batch)["inputs"])
        for name in baselines:
            if name not in self._metrics:
                self._metrics[name] = copy.deepcopy(own)
                for metric in self._metrics[name]:
                    metric.results.clear()
        for number, sample in enumerate(outputs):
            known = sample.to_dict()
            for name, images in baselines.items():
                for metric in self._metrics[name]:
                    metric.process(None, [{**known, "pred_image": images[number]}])
            if self._images < self.pictures:
                self._images += 1
                shown = {name: images[number] for name, images in baselines.items()}
                if "first_image" in known:  # of two images, they themselves say more than their mean
                    shown = {name: known[f"{name}_image"] for name in _SOURCES}
                shown |= {"result": known["pred_image"]} | ({"truth": known["gt_image"]} if "gt_image" in known else {})
                picture = Path(runner.work_dir) / "comparison" / f"{known.get('name') or self._images}.png"
                save_comparison(picture, {name: _pixels(image) for name, image in shown.items()}, zoom_side=48)

    def _write(self, runner: Runner, result: dict[str, float] | None) -> None:
        if not is_main_process() or not self._metrics:
            return
        rows: dict[str, dict[str, Any]] = {
            name: {key: value for metric in metrics for key, value in metric.compute_metrics(metric.results).items()}
            for name, metrics in self._metrics.items()
        }
        rows["result"] = result or {}
        columns = list(next(iter(rows.values())))
        # The evaluator's names carry its prefix.
        got = {key.rpartition("/")[2]: value for key, value in rows["result"].items()}
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["images", *columns])
        for name, scores in rows.items():
            scores = got if name == "result" else scores
            table.writerow([name, *(f"{scores[key]:.4f}" if key in scores else "" for key in columns)])
        path = write_text(Path(runner.work_dir) / "comparison" / "scores.csv", text.getvalue())
        runner.logger.info(f"{path}:\n{text.getvalue().rstrip()}")


def _pixels(image: Tensor) -> np.ndarray:
    """(C, H, W) to gray or RGB (H, W, C) in [0, 1]."""
    return as_color(image.detach().float().cpu().clamp(0, 1).permute(1, 2, 0).numpy())
