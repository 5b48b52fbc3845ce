"""Pictures of scan orders: one panel a direction, tokens coloured by the step that reads them, arrows along the path.

Grids of one axis are a row, of two a table, of three a table for each slice of the first axis, side by side. Tokens
that belong to no place of the grid (class tokens, prompts) stand in a row above it. Where a sequence passes the zero
token, which fills windows up, the path is dotted and tells how many it passes.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PatchCollection, PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

from mamba_vision.scan_orders import ScanOrder, fold
from mamba_vision.utils.atomic import atomic_path

_COLOURS = colormaps["viridis"]
_NEVER_READ = (0.93, 0.93, 0.93, 1.0)
_START, _END = "#d7301f", "#1b1b1b"
_MOST_IN_A_ROW = 4  # panels
_MOST_CELLS_IN_A_ROW = 36  # of all its panels
_SLICE_GAP = 0.6  # cells
_BEND = 0.12  # of jumps along a row or column, so that they are told apart
_MOST_SLICES_IN_A_ROW = 8
_MOST_ARROWS = 160
_MOST_NUMBERS = 64  # tokens of a grid whose cells tell the step
_MOST_FRAMES = 60
_FEW_COLOURS = dict(colors=160, method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)  # small files
_MIDDLE = 6  # of the points that a curve is drawn by


def scan_lines(order: ScanOrder, grid: tuple[int, ...]) -> list[np.ndarray]:
    """The sequences of an order as lines of tokens of the whole grid, which also orders along some axes only have.

    Args:
        order: any scan order.
        grid: the grid's shape.

    Returns:
        For each direction (lines, steps) int64; one line, unless other axes fold into the batch. -1: the zero token.
    """
    orders = order(grid, "cpu")
    indices = orders.indices
    if orders.sequence_axes is None:
        return [sequence[None].numpy() for sequence in indices]
    numbers = fold(indices.new_tensor(range(math.prod(grid))).reshape(1, -1, 1), orders)[..., 0]
    return [numbers[:, sequence].numpy() for sequence in indices]


def scan_paths_figure(
    lines: Sequence[np.ndarray],
    grid: tuple[int, ...],
    labels: Sequence[str] | None = None,
    extra_tokens: Sequence[int] = (),
    path: str | Path | None = None,
    title: str | None = None,
) -> Figure:
    """Draw K scan paths over one grid.

    Args:
        lines: for each direction the tokens in reading order, (steps,) or (lines, steps); -1 is the zero token.
        grid: shape of the grid, one to three axes.
        labels: a name for each direction.
        extra_tokens: numbers of tokens outside the grid.
        path: PNG to write, whole or not at all.
        title: a line above the panels.

    Raises:
        ValueError: no direction, a token that is not there, or names and directions of different number.
    """
    figure, _ = _compose(lines, grid, labels, extra_tokens, title)
    if path is not None:
        with atomic_path(path) as temporary:
            _picture(figure, dpi=100).quantize(**_FEW_COLOURS).save(temporary, format="png", optimize=True)
    return figure


def scan_paths_animation(
    lines: Sequence[np.ndarray],
    grid: tuple[int, ...],
    path: str | Path,
    labels: Sequence[str] | None = None,
    extra_tokens: Sequence[int] = (),
    title: str | None = None,
    seconds: float = 5.0,
) -> None:
    """Write a GIF in which all directions of `scan_paths_figure` are walked at the same pace, at most 60 pictures.

    Raises:
        ValueError: as for `scan_paths_figure`.
    """
    figure, panels = _compose(lines, grid, labels, extra_tokens, title)
    longest = max(panel.steps for panel in panels)
    shown = sorted({round(step) for step in np.linspace(1, longest, min(longest, _MOST_FRAMES))})
    pictures = []
    for step in shown:
        for panel in panels:
            panel.show(step)
        pictures.append(_picture(figure, dpi=72))
    both = np.concatenate([np.asarray(pictures[0]), np.asarray(pictures[-1])])  # one has grays, the other all colours
    palette = Image.fromarray(both).quantize(**_FEW_COLOURS)
    first, *others = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    each = max(20, round(1000 * seconds / len(shown)))
    durations = [each] * (len(shown) - 1) + [each + 1500]  # rest at the end
    with atomic_path(path) as temporary:
        first.save(temporary, format="gif", save_all=True, append_images=others, duration=durations, loop=0)


def _picture(figure: Figure, dpi: int) -> Image.Image:
    figure.set_dpi(dpi)
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])


def _compose(lines, grid, labels, extra_tokens, title) -> tuple[Figure, list["_Panel"]]:
    lines = [np.atleast_2d(np.asarray(line, dtype=np.int64)) for line in lines]
    tokens = math.prod(grid) + len(extra_tokens)
    if not lines:
        raise ValueError("lines: found no direction, expected at least one")
    for line in lines:
        if line.min() < -1 or line.max() >= tokens:
            raise ValueError(f"lines: found tokens {line.min()} to {line.max()}, expected -1 to {tokens - 1}")
    if labels is not None and len(labels) != len(lines):
        raise ValueError(f"labels: found {len(labels)}, expected one for each of {len(lines)} directions")
    places = _places(grid, extra_tokens)
    margin = np.array([0.75 + (_SLICE_GAP if len(grid) == 3 else 0.0), 0.75])  # panels stand farther apart than slices
    low, high = places.min(0) - margin, places.max(0) + margin

    width, height = high - low
    rows = -(-len(lines) // max(2, min(_MOST_IN_A_ROW, int(_MOST_CELLS_IN_A_ROW / width))))
    columns = -(-len(lines) // rows)
    cell = min(0.5, 12 / (columns * width), 3.2 / height) if rows == 1 else min(0.5, 12 / (columns * width))
    header, footer, caption = (0.45 if title else 0.1), 0.62, 0.3
    size = (max(columns * width * cell, 4.5), rows * (height * cell + caption) + header + footer)
    figure = Figure(figsize=size, facecolor="white")
    FigureCanvasAgg(figure)
    panels = []
    for number, line in enumerate(lines):
        row, column = divmod(number, columns)
        left = 0.5 + (column - columns / 2) * width * cell / size[0]
        top = size[1] - header - row * (height * cell + caption) - caption
        axes = figure.add_axes((left, (top - height * cell) / size[1], width * cell / size[0], height * cell / size[1]))
        axes.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]))
        axes.axis("off")
        if labels is not None:
            axes.set_title(labels[number], fontsize=9.5, pad=1)
        panels.append(_Panel(axes, line, places, cell, numbers=tokens <= _MOST_NUMBERS))
    if title:
        figure.text(0.5, 1 - 0.2 / size[1], title, fontsize=12, ha="center", va="center")
    _add_key(figure, size, any((line < 0).any() for line in lines))
    return figure, panels


class _Panel:
    """One direction: its cells, its path and its marks, as far as a step of the walk."""

    def __init__(self, axes: Axes, lines: np.ndarray, places: np.ndarray, cell: float, numbers: bool) -> None:
        self.axes, self.cell = axes, cell
        self.steps = int(np.flatnonzero((lines >= 0).any(0))[-1]) + 1  # zero tokens behind the last count for nothing
        self.lines = lines
        self.first = np.full(len(places), -1)  # the step that first reads each token
        for step in range(self.steps - 1, -1, -1):
            read = lines[:, step]
            self.first[read[read >= 0]] = step
        colours = _COLOURS(Normalize(0, max(self.steps - 1, 1))(self.first))
        self.fills = np.where(self.first[:, None] >= 0, 0.45 * colours + 0.55, _NEVER_READ)
        side = 0.92 if cell > 0.12 else 1.0
        squares = [Rectangle((x - side / 2, y - side / 2), side, side) for x, y in places]
        self.cells = axes.add_collection(PatchCollection(squares, facecolor=self.fills, edgecolor="none", zorder=1))
        self.texts = []
        if numbers and cell > 0.22:
            for token, (x, y) in enumerate(places):
                if self.first[token] >= 0:
                    self.texts.append((token, axes.text(
                        x + 0.42, y + 0.42, str(self.first[token]), fontsize=min(7.0, 16 * cell), color="0.25",
                        ha="right", va="bottom", zorder=6,
                    )))  # fmt: skip
        self._walk(places)
        self._mark(places)

    def _walk(self, places: np.ndarray) -> None:
        """Near steps as thick lines, jumps as thin ones, dotted where zero tokens are passed; arrows on all."""
        groups = {"near": [], "jump": [], "zeros": []}
        self.passed = []
        for line in self.lines:
            at = np.flatnonzero(line >= 0)
            for before, after in pairwise(at):
                ends = places[line[[before, after]]]
                far = np.abs(ends[1] - ends[0]).max() > 1.3
                aligned = np.abs(ends[1] - ends[0]).min() < 0.01
                kind = "zeros" if after - before > 1 else "jump" if far else "near"
                groups[kind].append((after, _bent(ends, _BEND if far and aligned else 0.0)))
                if after - before > 1:
                    self.passed.append((after, groups[kind][-1][1][_MIDDLE], after - before - 1))
        width = max(5.0 * self.cell, 0.6)
        styles = {
            "near": dict(linewidth=width, alpha=1.0, zorder=4),
            "jump": dict(linewidth=0.55 * width, alpha=0.45, zorder=3),
            "zeros": dict(linewidth=0.7 * width, alpha=0.8, zorder=4, linestyle=(0, (1, 1))),
        }
        total = sum(len(group) for group in groups.values())
        every = max(1, -(-total // _MOST_ARROWS))
        self.drawn = []  # (collection, steps at which its parts appear, the parts)
        for kind, group in groups.items():
            if not group:
                continue
            steps, ends = np.array([s for s, _ in group]), np.stack([e for _, e in group])
            colours = _COLOURS(steps / max(self.steps - 1, 1)) * [0.8, 0.8, 0.8, 1]
            collection = LineCollection(ends, colors=colours, capstyle="round", clip_on=False, **styles[kind])
            self.drawn.append((self.axes.add_collection(collection), steps, ends, colours))
            heads = _arrow_heads(ends[::every], max(0.17, 0.03 / self.cell))
            arrows = PolyCollection(heads, facecolors=colours[::every], edgecolors="none", zorder=5, clip_on=False)
            arrows.set_alpha(None if kind == "near" else 0.75)
            self.drawn.append((self.axes.add_collection(arrows), steps[::every], heads, colours[::every]))
        if len(self.passed) <= 40 and self.cell > 0.2:
            self.passed = [
                (step, self.axes.text(*place, f"+{count}", fontsize=6, color="0.2", ha="center", va="center", zorder=7,
                                      bbox=dict(boxstyle="round,pad=0.1", facecolor="white", edgecolor="0.6", lw=0.4)))
                for step, place, count in self.passed
            ]  # fmt: skip
        else:
            self.passed = []

    def _mark(self, places: np.ndarray) -> None:
        read = [line[line >= 0] for line in self.lines]
        size = max(24 * self.cell, 6.0) ** 2 / 2
        starts, ends = (np.stack([places[line[which]] for line in read]) for which in (0, -1))
        style = dict(s=size, zorder=8, edgecolor="white", linewidth=0.8)
        self.axes.scatter(*ends.T, marker="s", color=_END, **style)
        self.axes.scatter(*starts.T, marker="o", color=_START, **style)
        self.here = self.axes.scatter([], [], s=1.6 * size, zorder=9, facecolor="none", edgecolor=_START, linewidth=1.8)
        self.places = places

    def show(self, step: int) -> None:
        """The walk after its first `step` tokens."""
        walked = (self.first >= 0) & (self.first < step)
        self.cells.set_facecolor(np.where(walked[:, None], self.fills, _NEVER_READ))
        for token, text in self.texts:
            text.set_visible(bool(walked[token]))
        for at, text in self.passed:
            text.set_visible(at < step)
        for collection, steps, parts, colours in self.drawn:
            chosen = steps < step
            collection.set_verts(list(parts[chosen]))
            collection.set_color(colours[chosen] if chosen.any() else "none")
        now = self.lines[:, min(step, self.steps) - 1]
        self.here.set_offsets(self.places[now[now >= 0]])


def _places(grid: tuple[int, ...], extra_tokens: Sequence[int]) -> np.ndarray:
    """(T, 2): x to the right and y down of each token's cell."""
    depth, height, width = (1,) * (3 - len(grid)) + tuple(grid)
    d, i, j = (axis.reshape(-1) for axis in np.indices((depth, height, width)))
    down, right = d // _MOST_SLICES_IN_A_ROW, d % _MOST_SLICES_IN_A_ROW
    inside = np.stack([j + right * (width + _SLICE_GAP), i + down * (height + _SLICE_GAP)], axis=1)
    places = np.empty((len(inside) + len(extra_tokens), 2))
    extra = np.isin(np.arange(len(places)), extra_tokens)
    places[~extra] = inside
    span = inside[:, 0].max()
    rank = np.arange(extra.sum()) - (extra.sum() - 1) / 2
    places[extra] = np.stack([span / 2 + 1.2 * rank, np.full(len(rank), -1.6)], axis=1)
    return places


def _bent(ends: np.ndarray, bend: float) -> np.ndarray:
    """(points, 2): a line between two ends (2, 2), bowed to its left by a share of its length."""
    along = ends[1] - ends[0]
    length = max(float(np.linalg.norm(along)), 1e-9)
    bow = np.array([along[1], -along[0]]) / length * min(bend * length, 0.7)
    share = np.linspace(0, 1, 2 * _MIDDLE + 1)[:, None]
    return ends[0] + share * along + 4 * share * (1 - share) * bow


def _arrow_heads(curves: np.ndarray, size: float) -> np.ndarray:
    """(S, 3, 2): a triangle in the middle of each of S curves (S, points, 2), pointing along it."""
    along = curves[:, -1] - curves[:, 0]
    length = np.linalg.norm(along, axis=1, keepdims=True)
    along = size * along / np.where(length > 0, length, 1)
    across = along[:, ::-1] * [-1, 1]
    middle = curves[:, _MIDDLE]
    return np.stack([middle + along, middle - 0.8 * along + across, middle - 0.8 * along - across], axis=1)


def _add_key(figure: Figure, size: tuple[float, float], zeros: bool) -> None:
    marks = [
        Line2D([], [], marker="o", color=_START, linestyle="none", markersize=6, label="start"),
        Line2D([], [], marker="s", color=_END, linestyle="none", markersize=6, label="end"),
    ]
    if zeros:
        marks.append(Line2D([], [], color="0.4", linestyle=(0, (1, 1)), label="+n: past n zero tokens"))
    figure.legend(
        handles=marks, loc="lower center", ncols=len(marks), frameon=False, fontsize=8, handletextpad=0.3,
        bbox_to_anchor=(0.5, 0.2 / size[1]), borderaxespad=0,
    )  # fmt: skip
    bar = figure.add_axes((0.5 - 0.9 / size[0], 0.12 / size[1], 1.8 / size[0], 0.08 / size[1]))
    bar.imshow(np.linspace(0, 1, 64)[None], aspect="auto", cmap=_COLOURS)
    bar.set(xticks=[], yticks=[])
    for spine in bar.spines.values():
        spine.set_visible(False)
    bar.text(-0.04, 0.5, "first", transform=bar.transAxes, fontsize=7, ha="right", va="center")
    bar.text(1.04, 0.5, "last step", transform=bar.transAxes, fontsize=7, ha="left", va="center")
