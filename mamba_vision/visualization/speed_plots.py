"""How fast models and ops are, drawn: throughput and memory by image size, accuracy by throughput, ops by floor."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from mamba_vision.utils.atomic import atomic_path

Row = Mapping[str, Any]
_STYLES = ("-", "--", ":", "-.")
_MARKERS = "os^D"
# Labels a decade of a logarithmic axis whose end is less than so many times its beginning
_STEPS = {
    3: (1, 1.2, 1.4, 1.7, 2, 2.5, 3, 4, 5, 6, 8),
    8: (1, 1.5, 2, 3, 4, 6),
    40: (1, 2, 3, 5),
    2000: (1, 2, 5),
    float("inf"): (1,),
}


def speed_figure(rows: Sequence[Row], path: str | Path | None = None, title: str | None = None) -> Figure:
    """Throughput by image size for inference and training; memory, and accuracy by throughput, where they are known.

    Colors are models, line styles and markers are precisions.

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
    across = count if count <= 3 else -(-count // 2)
    down = -(-count // across)
    figure, axes = _figure(4.8 * across, 4.0 * down + 0.8, (down, across))
    models = list(dict.fromkeys(row["model"] for row in rows))
    precisions = list(dict.fromkeys(row["precision"] for row in rows))
    for ax in axes[count:]:
        ax.remove()
    for ax, (mode, field, label) in zip(axes, panels):
        _by_size(ax, [row for row in rows if row["mode"] == mode and row[field]], field, models, precisions)
        ax.set(title=mode, xlabel="side of the image, pixels", ylabel=label)
    if known:
        _by_accuracy(axes[count - 1], known, models, precisions)
    handles = [Line2D([], [], color=_color(m, models), linewidth=3, label=model) for m, model in enumerate(models)]
    handles += [
        Line2D([], [], color="0.3", linestyle=_STYLES[p % 4], marker=_MARKERS[p % 4], label=precision)
        for p, precision in enumerate(precisions)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), fontsize="small")
    if title:
        figure.suptitle(title, fontsize="small", wrap=True)
    return _saved(figure, path)


def op_figure(rows: Sequence[Row], path: str | Path | None = None) -> Figure:
    """Times of ops as bars, forward and with backward, with the machine's floor as a line where it is known.

    Args:
        rows: with shape, backend, forward_us and forward_backward_us, as `benchmark_op` gives them, in microseconds;
            rows of anything else are left out.
        path: PNG to write, whole or not at all.

    Raises:
        ValueError: there is no row of an op.
    """
    rows = [row for row in rows if "forward_us" in row]
    if not rows:
        raise ValueError("rows: found none of an op, expected at least one")
    figure, (ax,) = _figure(9, 0.45 * len(rows) + 1.5, (1, 1))
    for offset, key in ((-0.2, "forward"), (0.2, "forward_backward")):
        places = [i + offset for i in range(len(rows))]
        times = [row[f"{key}_us"] for row in rows]
        bars = ax.barh(places, times, 0.38, label=key.replace("_", " + "))
        ax.bar_label(bars, [f"{time:.3g}" if time < 100 else f"{time:,.0f}" for time in times], padding=4, fontsize=7)
        for place, row in zip(places, rows):
            if f"{key}_floor_us" in row:
                ax.plot([row[f"{key}_floor_us"]] * 2, [place - 0.19, place + 0.19], color="black")
    ax.set_yticks(range(len(rows)), [f"{row['shape']} {row['backend']}" for row in rows])
    ax.invert_yaxis()
    ax.margins(x=0.1)
    ax.grid(axis="x", alpha=0.3)
    ax.set_axisbelow(True)
    ax.set_xlabel("µs (black: the floor)" if any("forward_floor_us" in row for row in rows) else "µs")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return _saved(figure, path)


def _figure(width: float, height: float, panels: tuple[int, int]) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(*panels, squeeze=False).flat)


def _saved(figure: Figure, path: str | Path | None) -> Figure:
    if path is not None:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=120, format="png")
    return figure


def _color(number: int, models: list[str]) -> tuple[float, ...]:
    return colormaps["tab10" if len(models) <= 10 else "tab20"](number % 20)


def _by_size(ax: Axes, rows: Sequence[Row], field: str, models: list[str], precisions: list[str]) -> None:
    for m, model in enumerate(models):
        for p, precision in enumerate(precisions):
            line = [row for row in rows if (row["model"], row["precision"]) == (model, precision)]
            sides, values = [row["size"] for row in line], [row[field] for row in line]
            ax.plot(sides, values, _STYLES[p % 4], marker=_MARKERS[p % 4], color=_color(m, models))
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    sides = sorted({row["size"] for row in rows})
    if len(sides) == 1:
        ax.set_xlim(sides[0] / 2, sides[0] * 2)
    ax.set_xticks(sides, [str(side) for side in sides], rotation=45 if len(sides) > 6 else 0)
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.minorticks_off()
    _readable(ax.yaxis)
    ax.grid(alpha=0.3, which="both")


def _by_accuracy(ax: Axes, rows: Sequence[Row], models: list[str], precisions: list[str]) -> None:
    for row in rows:
        m, p = models.index(row["model"]), precisions.index(row["precision"])
        ax.plot(row["images_per_s"], row["top1"], _MARKERS[p % 4], color=_color(m, models))
    ax.set_xscale("log")
    ax.margins(x=0.08, y=0.1)
    _readable(ax.xaxis)
    ax.grid(alpha=0.3, which="both")
    ax.set(title=f"at {rows[0]['size']}, {rows[0]['mode']}", xlabel="images / s",
           ylabel="published top-1 on ImageNet-1k, %")  # fmt: skip


def _readable(axis: Axis) -> None:
    """Plain numbers on a logarithmic axis, and enough of them for its length, with the steps between as small ticks."""
    low, high = sorted(axis.get_view_interval())
    subs = next(steps for ratio, steps in _STEPS.items() if high / low < ratio)
    axis.set_major_locator(LogLocator(subs=subs, numticks=50))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_locator(LogLocator(subs=range(1, 10), numticks=50))
    axis.set_minor_formatter(NullFormatter())
