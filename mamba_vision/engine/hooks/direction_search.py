"""What a search for scan directions shows and keeps while it runs."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from rich.console import RenderableType
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from mamba_vision.engine.direction_history import DirectionHistory
from mamba_vision.engine.hooks.progress import ProgressHook
from mamba_vision.models.mixers.direction_merge import direction_weights, searching_layers
from mamba_vision.registry import HOOKS
from mamba_vision.visualization.directions import direction_curves, direction_heat_map

COURSE = "directions.json"
HEAT_MAP = "directions.png"
CURVES = "direction_curves.png"


class BarAndTable(Progress):
    """A progress bar with a table below it."""

    table: RenderableType | None = None

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bar first: of a table that is higher than the terminal, the end is cut off."""
        yield self.make_tasks_table(self.tasks)
        if self.table is not None:
            yield self.table


def weights_table(history: DirectionHistory) -> Table:
    """The last weights, a row a layer: darker means more weight, bold and underlined is what would be kept."""
    table = Table(title=f"direction weights after {history.iterations[-1]} iterations, %", box=None, pad_edge=False)
    table.add_column("layer", justify="right")
    for name in history.candidates:
        table.add_column(name, justify="right")
    weights = history.weights[-1]
    for layer, (row, kept) in enumerate(zip(weights, history.found)):
        cells = []
        for name, weight in zip(history.candidates, row):
            shade = int(20 + 200 * weight / weights.max())
            style = f"on rgb({shade // 4},{shade // 2},{shade}) " + ("bold underline" if name in kept else "dim")
            cells.append(Text(f" {100 * weight:5.1f} ", style=style))
        table.add_row(str(layer), *cells)
    return table


@HOOKS.register_module()
class DirectionSearchHook(ProgressHook):
    """Shows the direction weights of a supernet layer by layer, and keeps their course in the work folder.

    On a terminal: a bar and a live table. Elsewhere: the log says after every epoch what each layer would keep.
    Files: `directions.json` (all of it), `directions.png` (heat map), `direction_curves.png`.

    Args:
        keep: directions that a layer of the found network keeps.
        points: at most about so many weights are noted over the search.
        every: least seconds between two drawings of the pictures; at the end they are always drawn.
        metric: name of the validation metric shown.
        force: draw the live table even if the output is no terminal (for tests).

    Raises:
        ValueError: `points` is below 1.
    """

    bar = BarAndTable

    def __init__(
        self, keep: int = 4, points: int = 200, every: float = 20.0, metric: str = "accuracy/top1", force: bool = False
    ) -> None:
        super().__init__(metric, force)
        if points < 1:
            raise ValueError(f"points: found {points}, expected at least 1")
        self.keep, self.points, self.every = keep, points, every
        self.history = DirectionHistory(())
        self._drawn = 0.0

    def before_train(self, runner: Runner) -> None:
        """Find the layers; go on with the course of a search that is resumed."""
        names = tuple(searching_layers(_model(runner))[0].scan.labels)
        self.history = DirectionHistory(names, self.keep)
        course = Path(runner.work_dir) / COURSE
        if runner.iter and course.is_file():
            before = DirectionHistory.load(course)
            if before.candidates == names:
                before.keep = self.keep
                before.forget(runner.iter)
                self.history = before
        super().before_train(runner)
        self._note(runner, runner.iter)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Note the weights now and then, and move the bar."""
        done, step = runner.iter + 1, max(1, runner.max_iters // self.points)
        if done % step == 0 or done == runner.max_iters:
            self._note(runner, done)
        super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def after_train_epoch(self, runner: Runner) -> None:
        """Write, and draw if the pictures are old."""
        if not is_main_process():
            return
        self.history.save(Path(runner.work_dir) / COURSE)
        if time.monotonic() - self._drawn >= self.every:
            self.draw(runner.work_dir)
        if self._progress is None:
            lines = [f"  layer {n:2}: {_line(row, self.history)}" for n, row in enumerate(self.history.weights[-1])]
            runner.logger.info(f"Strongest directions after epoch {runner.epoch + 1}, %:\n" + "\n".join(lines))

    def after_train(self, runner: Runner) -> None:
        """Draw the last state, and take the bar down."""
        if is_main_process():
            self.history.save(Path(runner.work_dir) / COURSE)
            self.draw(runner.work_dir)
        super().after_train(runner)

    def draw(self, folder: str | Path) -> None:
        """Write both pictures."""
        history, folder = self.history, Path(folder)
        title = f"after {history.iterations[-1]} iterations"
        direction_heat_map(history.weights[-1], history.candidates, history.found, folder / HEAT_MAP, title)
        direction_curves(history.iterations, np.stack(history.weights), history.candidates, folder / CURVES)
        self._drawn = time.monotonic()

    def _note(self, runner: Runner, iteration: int) -> None:
        self.history.record(iteration, direction_weights(_model(runner)).cpu().numpy())
        if self._progress is not None:
            self._progress.table = weights_table(self.history)


def _model(runner: Runner) -> Any:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _line(row: np.ndarray, history: DirectionHistory) -> str:
    order = np.argsort(row)[::-1][: history.keep]
    return "  ".join(f"{history.candidates[k]} {100 * row[k]:.1f}" for k in order)
