"""Pictures of a search for scan directions: how much each candidate counts in each layer, now and over time.

Legend: S steps of the search, N layers, K candidates.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mamba_vision.utils.atomic import atomic_path


def direction_heat_map(
    weights_NK: np.ndarray,
    names: Sequence[str],
    kept: Sequence[Sequence[str]] = (),
    path: str | Path | None = None,
    title: str | None = None,
) -> Figure:
    """A row a layer, a column a candidate, coloured by weight; kept candidates are framed.

    Args:
        weights_NK: (layers, candidates), rows sum to 1.
        names: of the candidates.
        kept: names of the candidates that each layer keeps.
        path: PNG to write, whole or not at all.
        title: a line above the picture.

    Raises:
        ValueError: names and weights differ in number.
    """
    weights_NK = _checked(np.asarray(weights_NK), names, 2)
    layers, candidates = weights_NK.shape
    figure = Figure(figsize=(2.2 + 0.72 * candidates, 1.7 + 0.34 * layers), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    image = panel.imshow(weights_NK, cmap="viridis", aspect="auto", vmin=0, vmax=max(weights_NK.max(), 2 / candidates))
    middle = image.norm.vmax / 2
    for layer in range(layers):
        for k in range(candidates):
            colour = "black" if weights_NK[layer, k] > middle else "white"
            text = f"{100 * weights_NK[layer, k]:.1f}"
            panel.text(k, layer, text, ha="center", va="center", color=colour, fontsize=7)
            if kept and names[k] in kept[layer]:
                frame = Rectangle(
                    (k - 0.46, layer - 0.44), 0.92, 0.88, fill=False, edgecolor="orangered", linewidth=1.8
                )
                panel.add_patch(frame)
    panel.set_xticks(range(candidates), names, rotation=35, ha="right")
    panel.set_yticks(range(layers))
    panel.set_ylabel("layer")
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    figure.colorbar(image, ax=panel, label="weight", fraction=0.05, pad=0.02)
    panel.set_title("direction weights, %" + (" (framed: kept)" if kept else ""), fontsize="medium")
    if title:
        figure.suptitle(title)
    return _saved(figure, path)


def direction_curves(
    iterations: Sequence[int],
    weights_SNK: np.ndarray,
    names: Sequence[str],
    path: str | Path | None = None,
    title: str | None = None,
) -> Figure:
    """A panel a layer, a curve a candidate: its weight over the iterations of the search.

    Args:
        iterations: S numbers.
        weights_SNK: (S, layers, candidates).
        names: of the candidates.
        path: PNG to write, whole or not at all.
        title: a line above the panels.

    Raises:
        ValueError: names or iterations and weights differ in number.
    """
    weights_SNK = _checked(np.asarray(weights_SNK), names, 3)
    if len(iterations) != len(weights_SNK):
        raise ValueError(f"iterations: found {len(iterations)}, expected one for each of {len(weights_SNK)} weights")
    layers = weights_SNK.shape[1]
    columns = min(layers, 5)
    rows = -(-layers // columns)
    figure = Figure(figsize=(1.2 + 2.3 * columns, 1.1 + 1.7 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
    for layer, panel in enumerate(panels):
        if layer >= layers:
            panel.set_axis_off()
            continue
        for k, name in enumerate(names):  # a colour a path, dashed where it is read backward
            forward = list(dict.fromkeys(one.removesuffix("_flip") for one in names))
            colour = f"C{forward.index(name.removesuffix('_flip')) % 10}"
            style = "--" if name.endswith("_flip") else "-"
            panel.plot(iterations, weights_SNK[:, layer, k], style, color=colour, linewidth=1.2, label=name)
        panel.set_title(f"layer {layer}", fontsize="small")
        panel.grid(alpha=0.3)
        panel.set_ylim(0, 1.05 * float(weights_SNK.max()))
    figure.supxlabel("iteration")
    figure.supylabel("weight")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize="small")
    if title:
        figure.suptitle(title)
    return _saved(figure, path)


def _checked(weights: np.ndarray, names: Sequence[str], axes: int) -> np.ndarray:
    if weights.ndim != axes or weights.shape[-1] != len(names) or 0 in weights.shape:
        raise ValueError(f"weights: found shape {weights.shape}, expected {axes} axes, the last of {len(names)} names")
    return weights


def _saved(figure: Figure, path: str | Path | None) -> Figure:
    if path is not None:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=120)
    return figure
