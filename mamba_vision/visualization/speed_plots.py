"""How fast models are, drawn: throughput and memory by image size, accuracy by throughput."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mamba_vision.utils.atomic import atomic_path

Row = Mapping[str, Any]
_STYLES = ("-", "--", ":", "-.")


def speed_figure(rows: Sequence[Row], path: str | Path | None = None, title: str | None = None) -> Figure:
    """Throughput by image size for inference and training; memory, and accuracy by throughput, where they are known.

    Args:
        rows: with model, size, precision, mode, images_per_s, memory_mib and top1, as `benchmark_models` gives them;
            those without a throughput are left out.
        path: PNG to write, whole or not at all.
        title: a line above, such as the machine.

    Raises:
        ValueError: no row has a throughput.
    """
    rows = [row for row in rows if row["images_per_s"]]
    if not rows:
        raise ValueError("rows: found none with a throughput, expected at least one")
    modes = list(dict.fromkeys(row["mode"] for row in rows))
    panels = [(mode, "images_per_s", "images / s") for mode in modes]
    panels += [(mode, "memory_mib", "peak memory, MiB") for mode in modes if any(row["memory_mib"] for row in rows)]
    known = [row for row in rows if row["top1"] and row["size"] == rows[0]["size"] and row["mode"] == modes[0]]
    count = len(panels) + bool(known)
    figure = Figure(figsize=(4.6 * count, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, count, squeeze=False)[0]
    models = list(dict.fromkeys(row["model"] for row in rows))
    precisions = list(dict.fromkeys(row["precision"] for row in rows))
    for ax, (mode, field, label) in zip(axes, panels):
        _by_size(ax, [row for row in rows if row["mode"] == mode and row[field]], field, models, precisions)
        ax.set(title=mode, xlabel="side of the image", ylabel=label)
    if known:
        _by_accuracy(axes[-1], known, models, precisions)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), fontsize="small")
    if title:
        figure.suptitle(title, fontsize="small")
    if path is not None:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=110, format="png")
    return figure


def _by_size(ax: Axes, rows: Sequence[Row], field: str, models: list[str], precisions: list[str]) -> None:
    for m, model in enumerate(models):
        for p, precision in enumerate(precisions):
            line = [row for row in rows if (row["model"], row["precision"]) == (model, precision)]
            sides, values = [row["size"] for row in line], [row[field] for row in line]
            style = _STYLES[p % len(_STYLES)]
            ax.plot(sides, values, style, marker="o", color=f"C{m % 10}", label=f"{model}, {precision}")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    sides = sorted({row["size"] for row in rows})
    ax.set_xticks(sides, [str(side) for side in sides])
    ax.minorticks_off()
    ax.grid(alpha=0.3)


def _by_accuracy(ax: Axes, rows: Sequence[Row], models: list[str], precisions: list[str]) -> None:
    for row in rows:
        marker = "os^D"[precisions.index(row["precision"]) % 4]
        ax.plot(row["images_per_s"], row["top1"], marker, color=f"C{models.index(row['model']) % 10}")
        text = f"{row['model']}, {row['precision']}"
        ax.annotate(text, (row["images_per_s"], row["top1"]), xytext=(4, 4), textcoords="offset points", fontsize=7)
    ax.set_xscale("log")
    ax.margins(x=0.25, y=0.15)
    ax.grid(alpha=0.3)
    ax.set(title=f"at {rows[0]['size']}, {rows[0]['mode']}", xlabel="images / s",
           ylabel="published top-1 on ImageNet-1k, %")  # fmt: skip
