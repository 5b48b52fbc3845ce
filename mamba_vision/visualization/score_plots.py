"""Pictures of scores over cases."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mamba_vision.utils.atomic import atomic_path


def boxplots_figure(
    scores: Mapping[str, Mapping[str, Sequence[float]]], path: str | Path | None = None, title: str | None = None
) -> Figure:
    """A panel for each score, a box for each class with every case as a dot.

    Args:
        scores: {"Dice": {"liver": [0.9, 0.95], ...}, ...}; NaN is left out.
        path: PNG to write, whole or not at all.
        title: a line above the panels.
    """
    classes = max(len(by_class) for by_class in scores.values())
    figure = Figure(figsize=(max(2.6 + 0.55 * classes, 3.2) * len(scores), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    random = np.random.default_rng(0)
    for panel, (name, by_class) in zip(np.atleast_1d(figure.subplots(1, len(scores))), scores.items()):
        values = [np.array([one for one in found if np.isfinite(one)]) for found in by_class.values()]
        labels = [f"{label} (n={len(found)})" for label, found in zip(by_class, values)]
        panel.boxplot(values, showfliers=False, medianprops={"color": "black"})
        panel.set_xticks(range(1, len(values) + 1), labels, rotation=30, ha="right", fontsize="small")
        for place, found in enumerate(values, 1):
            jitter = random.uniform(-0.12, 0.12, len(found)) if len(found) > 1 else 0
            panel.scatter(place + jitter * np.ones(len(found)), found, s=12, alpha=0.6, zorder=3)
        panel.set_title(name)
        panel.grid(axis="y", alpha=0.3)
        if all(len(found) == 0 or (found.min() >= 0 and found.max() <= 1) for found in values) and "mm" not in name:
            panel.set_ylim(0, 1.02)
    if title:
        figure.suptitle(title)
    if path is not None:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=120)
    return figure
