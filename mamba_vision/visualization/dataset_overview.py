"""A data set at a glance: voxel sizes, extents, volumes of the labels and intensities, the odd cases named."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mamba_vision.utils.atomic import atomic_path
from mamba_vision.visualization.volumes import label_colour

_BINS = 80
_LINEAR_ML = 0.1  # below it the axis of volumes is linear, down to 0
_AXES = ("left-right", "back-front", "down-up")


def dataset_overview_figure(
    names: Sequence[str],
    spacings: np.ndarray,
    shapes: np.ndarray,
    volumes: Mapping[str, Sequence[float]],
    intensities: Sequence[np.ndarray],
    odd: Sequence[int] = (),
    path: str | Path | None = None,
) -> Figure:
    """Four panels: voxel sizes, sizes in voxels, ml of each label, and a histogram of each case's intensities.

    Args:
        names: of the cases.
        spacings, shapes: (cases, 3), mm and voxels along x, y, z.
        volumes: label -> ml of each case, 0 where it has none.
        intensities: values of each case, one channel.
        odd: numbers of the cases to name and to draw in red.
        path: PNG to write, whole or not at all.
    """
    figure = Figure(figsize=(12, 8), layout="constrained")
    FigureCanvasAgg(figure)
    (sizes, shape, ml, values) = figure.subplots(2, 2).ravel()
    for panel, table, title in ((sizes, spacings, "voxel size (mm)"), (shape, shapes, "size (voxels)")):
        _scatter(panel, np.asarray(table, dtype=float), names, odd)
        panel.set_title(title)
    for place, found in enumerate(volumes.values(), 1):
        found = np.asarray(found, dtype=float)
        jitter = np.random.default_rng(0).uniform(-0.15, 0.15, len(found))
        colours = ["#d62728" if number in odd else label_colour(place) for number in range(len(found))]
        ml.scatter(place + jitter, found, s=14, c=colours, alpha=0.7)
    ml.set_xticks(range(1, len(volumes) + 1), list(volumes), rotation=30, ha="right")
    ml.set_yscale("symlog", linthresh=_LINEAR_ML)
    largest = max((max(found, default=0) for found in volumes.values()), default=0)
    ml.set_ylim(0, 1.3 * max(largest, _LINEAR_ML))  # two powers of ten at least, which are what carries numbers
    ml.yaxis.set_major_formatter("{x:g}")
    ml.set_title("volume of each label (ml)")
    _histograms(values, intensities, odd)
    for panel in (sizes, shape, ml, values):
        panel.grid(alpha=0.3)
    if path is not None:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=100)
    return figure


def _scatter(panel: Axes, table: np.ndarray, names: Sequence[str], odd: Sequence[int]) -> None:
    """The first axis across, the other two up."""
    for axis, marker in ((1, "o"), (2, "^")):
        panel.scatter(table[:, 0], table[:, axis], s=22, marker=marker, alpha=0.7, label=_AXES[axis])
    for number in odd:
        panel.scatter([table[number, 0]] * 2, table[number, 1:], s=40, facecolors="none", edgecolors="#d62728")
        panel.annotate(names[number], (table[number, 0], table[number, 2]), fontsize="x-small", color="#d62728")
    panel.set_xlabel(_AXES[0])
    panel.legend(fontsize="small")


def _histograms(panel: Axes, intensities: Sequence[np.ndarray], odd: Sequence[int]) -> None:
    pooled = np.concatenate([np.asarray(one).ravel() for one in intensities])
    low, high = np.percentile(pooled, (0.1, 99.9))
    edges = np.linspace(low, max(high, low + 1e-6), _BINS + 1)
    for number, one in enumerate(intensities):
        counts, _ = np.histogram(one, edges)
        colour = "#d62728" if number in odd else "#1f77b4"
        panel.plot((edges[1:] + edges[:-1]) / 2, counts / max(np.size(one), 1), color=colour, alpha=0.5, linewidth=0.9)
    panel.set_yscale("log")
    panel.set_title("prepared intensities, a line a case (share of the voxels)")
