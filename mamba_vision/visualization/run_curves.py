"""Curves of several trainings in one picture. A leaf: takes numbers, knows no runner."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mamba_vision.utils.atomic import atomic_path


def run_curves_figure(
    runs: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    metric: str,
    path: str | Path,
    lines: Mapping[str, float] | None = None,
    limits: tuple[float, float] | None = None,
    step_name: str = "epoch",
) -> Path:
    """Draw one curve a training, and horizontal lines to compare with; write a PNG.

    Args:
        runs: name -> (steps, values).
        metric: what the values are.
        path: the picture.
        lines: name -> value of each line.
        limits: lowest and highest value shown.
        step_name: what the steps are.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not runs:
        raise ValueError("runs: found none, expected at least one")
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, (steps, values) in runs.items():
        axes.plot(steps, values, marker="o", markersize=3, linewidth=1.5, label=f"{name}, {values[-1]:.1f}")
    for (name, value), style in zip((lines or {}).items(), ("--", ":", "-.") * 10):
        axes.axhline(value, color="black", linestyle=style, linewidth=1, label=f"{name}, {value:.1f}")
    if limits is not None:
        axes.set_ylim(*limits)
    axes.set_xlabel(step_name)
    axes.set_ylabel(metric)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower right")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)
    return Path(path)
