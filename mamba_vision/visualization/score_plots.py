"""Pictures of scores over cases."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mamba_vision.utils.atomic import atomic_path

_MOST_COLUMNS = 4
_BLUE, _GRAY, _RED = "#1f77b4", "#666666", "#d62728"


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
    figure, panels = _panels(len(scores), max(1.6 + 0.5 * classes, 3.2), 3.8)
    random = np.random.default_rng(0)
    for panel, (name, by_class) in zip(panels, scores.items()):
        values = [np.array([one for one in found if np.isfinite(one)]) for found in by_class.values()]
        labels = [f"{label} (n={len(found)})" for label, found in zip(by_class, values)]
        panel.boxplot(values, showfliers=False, medianprops={"color": "black"})
        panel.set_xticks(range(1, len(values) + 1), labels, rotation=30, ha="right", fontsize="small")
        for place, found in enumerate(values, 1):
            jitter = random.uniform(-0.12, 0.12, len(found)) if len(found) > 1 else 0
            panel.scatter(place + jitter * np.ones(len(found)), found, s=12, alpha=0.6, zorder=3)
        panel.set_title(name)
        panel.grid(axis="y", alpha=0.3)
        share = "mm" not in name and "%" not in name and "ml" not in name
        if share and all(len(found) == 0 or (found.min() >= 0 and found.max() <= 1) for found in values):
            panel.set_ylim(0, 1.02)
        elif not share and not any(len(found) for found in values):
            panel.set_yticks([])
    return _finish(figure, title, path)


def bland_altman_figure(
    volumes: Mapping[str, tuple[Sequence[float], Sequence[float]]], path: str | Path | None = None,
    title: str | None = None,
) -> Figure:  # fmt: skip
    """A panel for each class: predicted minus true volume over their mean, with the bias and the limits of agreement.

    The limits are bias +- 1.96 standard deviations (Bland and Altman, Lancet 1986, 307-310).

    Args:
        volumes: {"liver": (true, predicted)} in ml, a case each.
        path, title: as for boxplots_figure.
    """
    figure, panels = _panels(len(volumes), 3.6, 3.2)
    for panel, (name, (true, predicted)) in zip(panels, volumes.items()):
        true, predicted = np.asarray(true, float), np.asarray(predicted, float)
        difference = predicted - true
        panel.scatter((true + predicted) / 2, difference, s=16, alpha=0.7, color=_BLUE, zorder=3)
        panel.axhline(0, color="0.8", linewidth=1)
        if len(difference) > 1:
            bias, spread = float(difference.mean()), 1.96 * float(difference.std(ddof=1))
            lines = ((bias, "-", "bias"), (bias + spread, "--", "+1.96 sd"), (bias - spread, "--", "-1.96 sd"))
            for height, style, what in lines if spread else lines[:1]:
                panel.axhline(height, color=_RED, linestyle=style, linewidth=1)
                panel.annotate(
                    f"{what} {height:.3g}", (1, height), xycoords=("axes fraction", "data"), xytext=(-3, 2),
                    textcoords="offset points", ha="right", va="bottom", color=_RED, fontsize="x-small",
                )  # fmt: skip
        panel.margins(y=0.15)
        panel.set_title(f"{name} (n={len(difference)})")
        panel.set_xlabel("mean of true and predicted (ml)", fontsize="small")
        panel.set_ylabel("predicted - true (ml)", fontsize="small")
        panel.grid(alpha=0.3)
    return _finish(figure, title, path)


def differences_figure(
    rows: Mapping[str, Sequence[tuple[str, Sequence[float], Sequence[float] | None, str]]],
    path: str | Path | None = None,
    title: str | None = None,
) -> Figure:
    """A panel for each score, a line for each class: every case's difference as a dot, the mean with its interval.

    Args:
        rows: {"Dice": [(class, differences a case, (low, high) of the mean or None, text at the right)]}.
        path, title: as for boxplots_figure.
    """
    lines = max(len(found) for found in rows.values())
    figure, panels = _panels(len(rows), 4.6, 1.3 + 0.42 * lines)
    random = np.random.default_rng(0)
    for panel, (name, found) in zip(panels, rows.items()):
        for place, (_, pairs, interval, text) in enumerate(found):
            height = -place + random.uniform(-0.14, 0.14, len(pairs))
            panel.scatter(pairs, height, s=10, alpha=0.35, color=_GRAY, linewidths=0)
            if len(pairs):
                mean = float(np.mean(pairs))
                panel.plot(mean, -place, "o", color=_BLUE, zorder=4)
                panel.plot(interval or (mean, mean), (-place, -place), color=_BLUE, linewidth=2, zorder=3)
            panel.annotate(
                text, (1, -place), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points",
                va="center", fontsize="x-small",
            )  # fmt: skip
        panel.axvline(0, color="black", linewidth=0.8)
        panel.set_yticks([-place for place in range(len(found))], [label for label, *_ in found], fontsize="small")
        panel.set_ylim(-len(found) + 0.5, 0.5)
        panel.set_title(name)
        panel.grid(axis="x", alpha=0.3)
    return _finish(figure, title, path)


def _panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels of this size in inches, at most _MOST_COLUMNS beside each other."""
    columns = min(count, _MOST_COLUMNS)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for empty in panels[count:]:
        empty.set_axis_off()
    return figure, panels[:count]


def _finish(figure: Figure, title: str | None, path: str | Path | None) -> Figure:
    if title:
        figure.suptitle(title)
    if path is not None:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=120)
    return figure
