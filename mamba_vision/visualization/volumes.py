"""Pictures of scans: three orthogonal slices with labels over them, as a radiologist looks at them.

Arrays are (X, Y, Z). Without `affine` they are taken as canonical RAS: X runs to the patient's right, Y to the front,
Z to the head. Views are radiological: the patient's right is at the left of the picture, the front is up or left. Of a
single slice only its own plane is drawn, and of a picture, which is no patient, pixels are counted.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import hsv_to_rgb, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from mamba_vision.utils.atomic import atomic_path
from mamba_vision.utils.picture_depth import PICTURE_DEPTH

LabelNames = Mapping[int, str] | Mapping[str, int] | Sequence[str]

# Bright on gray, and told apart with any colour vision as far as eight colours can be; then hues by the golden ratio.
_PALETTE = ("#e6550d", "#3fa7ff", "#ffd92f", "#2ecc8f", "#e377c2", "#a6761d", "#b39ddb", "#00e5e5")
_MOST_IN_LEGEND = 18
_MOST_SAMPLES = 1_000_000


class _View(NamedTuple):
    name: str
    across: int  # array axis drawn to the right (reversed: right and front come first)
    up: int
    through: int
    letters: tuple[str, str, str, str]  # left, right, top, bottom


_VIEWS = (
    _View("axial", 0, 1, 2, ("R", "L", "A", "P")),
    _View("coronal", 0, 2, 1, ("R", "L", "S", "I")),
    _View("sagittal", 1, 2, 0, ("A", "P", "S", "I")),
)


def label_colour(label: int) -> tuple[float, float, float]:
    """The colour (r, g, b in 0..1) that label `label` >= 1 has in every picture."""
    if label <= len(_PALETTE):
        return to_rgb(_PALETTE[label - 1])
    return tuple(hsv_to_rgb((label * 0.618034 % 1.0, 0.55 + 0.4 * (label % 2), 0.95)))


def orthogonal_slices_figure(
    image_XYZ: np.ndarray,
    labels_XYZ: np.ndarray | None = None,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    names: LabelNames | None = None,
    truth_XYZ: np.ndarray | None = None,
    path: str | Path | None = None,
    title: str | None = None,
    *,
    affine: np.ndarray | None = None,
    window: tuple[float, float] | None = None,
) -> Figure:
    """Axial, coronal and sagittal slice, the labels filled over them, the truth outlined, a legend with volumes.

    The slices go through the centre of mass of the labels (of the truth if there are none, else through the middle);
    where that slice holds no label, the one that holds most is taken. Memory-mapped arrays are read plane by plane.

    Args:
        image_XYZ: one channel, (X, Y, Z), any real dtype.
        labels_XYZ: integers, same shape; 0 and below are background.
        spacing: voxel size in mm along the array's axes; overridden by `affine`.
        names: names of the labels, {1: "liver"}, {"liver": 1} or a list in the labels' order.
        truth_XYZ: reference labels, same shape, drawn as outlines.
        path: PNG to write, whole or not at all.
        title: a line above the slices.
        affine: (4, 4), voxel to RAS mm; the arrays are then turned to the canonical axes before drawing.
        window: lowest and highest intensity shown; from the 0.5 and 99.5 percentiles if None.

    Raises:
        ValueError: an array that is not 3-D, or shapes that differ.
    """
    arrays = _checked(image_XYZ, labels_XYZ, truth_XYZ)
    if affine is not None:
        spacing, arrays = _canonical(np.asarray(affine, float), arrays)
    image, labels, truth = arrays
    spacing = np.asarray(spacing, float)
    if spacing.shape != (3,) or not (spacing > 0).all():
        raise ValueError(f"spacing: expected three positive numbers in mm, found {tuple(spacing.tolist())}")
    counts, profiles = _count(labels)
    truth_counts, truth_profiles = _count(truth)
    position = _position(profiles if counts else truth_profiles, image.shape)
    lowest, highest = window or _window(image)

    sizes = np.asarray(image.shape) * spacing
    views = [view for view in _VIEWS if image.shape[view.through] == 1] or _VIEWS
    pixels = len(views) == 1 and spacing[views[0].through] == PICTURE_DEPTH
    if pixels:
        views = [views[0]._replace(name="picture", letters=("",) * 4)]
    widths = [sizes[view.across] for view in views]
    heights = [sizes[view.up] for view in views]
    entries = _legend(
        counts, truth_counts, _name_table(names), None if pixels else float(spacing.prod()) / 1000, truth is not None
    )
    columns = 2 if truth is not None else 3
    footer = 0.24 * -(-len(entries) // columns) + 0.15 if entries else 0.1
    header = 0.62 if title else 0.34
    inches_a_mm = min(12 / sum(widths), 6 / max(heights))
    pictures = max(inches_a_mm * max(heights), 1.5)
    figure_width, figure_height = max(inches_a_mm * sum(widths), 6.0), pictures + header + footer
    figure = Figure(figsize=(figure_width, figure_height), facecolor="black")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        1, len(views), width_ratios=widths, wspace=0.03, left=0.01, right=0.99,
        bottom=footer / figure_height, top=1 - header / figure_height,
    )  # fmt: skip
    for column, view in enumerate(views):
        axes = figure.add_subplot(grid[0, column])
        picked = [None if array is None else _slice(array, view, position) for array in (image, labels, truth)]
        _draw(axes, view, *picked, spacing, lowest, highest)
        place = position[view.through]
        axes.set_title(f"{view.name} {place + 1}/{image.shape[view.through]}", color="0.75", fontsize=9, pad=4)
    if title:
        figure.text(0.5, 1 - 0.2 / figure_height, title, color="white", fontsize=11, ha="center", va="center")
    if entries:
        figure.legend(
            handles=entries, loc="lower center", ncols=min(columns, len(entries)), frameon=False, labelcolor="white",
            fontsize=9, borderaxespad=0.1, labelspacing=0.35,
        )  # fmt: skip
    if path is not None:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=110, facecolor="black", format="png")
    return figure


def _checked(image: np.ndarray, labels: np.ndarray | None, truth: np.ndarray | None) -> list[np.ndarray | None]:
    image = np.asanyarray(image)
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"image_XYZ: expected a 3-D array, found shape {image.shape}")
    arrays = [image]
    for name, array in (("labels_XYZ", labels), ("truth_XYZ", truth)):
        if array is not None and np.shape(array) != image.shape:
            raise ValueError(f"{name}: expected the image's shape {image.shape}, found {np.shape(array)}")
        arrays.append(None if array is None else np.asanyarray(array))
    return arrays


def _canonical(affine: np.ndarray, arrays: list) -> tuple[np.ndarray, list]:
    """Arrays as views along the RAS axes nearest to their own, and the spacing along those."""
    if affine.shape != (4, 4):
        raise ValueError(f"affine: expected shape (4, 4), found {affine.shape}")
    turn = nib.io_orientation(affine)
    spacing = np.empty(3)
    spacing[turn[:, 0].astype(int)] = np.linalg.norm(affine[:3, :3], axis=0)
    return spacing, [None if array is None else nib.apply_orientation(array, turn) for array in arrays]


def _count(labels: np.ndarray | None) -> tuple[dict[int, int], list[np.ndarray] | None]:
    """Voxels of each label above 0, and along each axis the number of labelled voxels; read plane by plane."""
    if labels is None:
        return {}, None
    profiles = [np.zeros(size, np.int64) for size in labels.shape]
    counts: dict[int, int] = {}
    for x in range(labels.shape[0]):
        plane = labels[x]
        marked = plane > 0
        profiles[0][x] = marked.sum()
        if not profiles[0][x]:
            continue
        profiles[1] += marked.sum(1)
        profiles[2] += marked.sum(0)
        for label, voxels in zip(*np.unique(plane[marked], return_counts=True)):
            counts[int(label)] = counts.get(int(label), 0) + int(voxels)
    return counts, profiles


def _position(profiles: list[np.ndarray] | None, shape: tuple[int, ...]) -> list[int]:
    if profiles is None or not profiles[0].any():
        return [size // 2 for size in shape]
    position = []
    for profile in profiles:
        centre = round(float(np.average(np.arange(len(profile)), weights=profile)))
        position.append(centre if profile[centre] else int(profile.argmax()))
    return position


def _window(image: np.ndarray) -> tuple[float, float]:
    step = max(1, int(np.ceil((image.size / _MOST_SAMPLES) ** (1 / 3))))
    sample = np.asarray(image[::step, ::step, ::step], np.float32)
    sample = sample[np.isfinite(sample)]
    lowest, highest = np.percentile(sample, (0.5, 99.5)) if sample.size else (0.0, 1.0)
    return (float(lowest), float(highest)) if highest > lowest else (float(lowest) - 0.5, float(lowest) + 0.5)


def _slice(array: np.ndarray, view: _View, position: list[int]) -> np.ndarray:
    """One plane as rows upwards, columns across."""
    plane = np.take(array, position[view.through], axis=view.through)  # leaves the axes (across, up) in this order
    return np.asarray(plane).T


def _draw(axes, view: _View, image, labels, truth, spacing, lowest: float, highest: float) -> None:
    rows, columns = image.shape
    width, height = columns * spacing[view.across], rows * spacing[view.up]
    frame = {"extent": (0, width, 0, height), "origin": "lower"}
    shown = np.nan_to_num(np.asarray(image, np.float32), nan=lowest, posinf=highest, neginf=lowest)
    axes.imshow(shown, cmap="gray", vmin=lowest, vmax=highest, interpolation="bilinear", **frame)
    if labels is not None:
        overlay = np.zeros((rows, columns, 4), np.float32)
        for label in _present(labels):
            overlay[labels == label] = (*label_colour(label), 0.45)
        axes.imshow(overlay, interpolation="nearest", **frame)
    outlined, dark = (labels, False) if truth is None else (truth, True)
    x = (np.arange(-1, columns + 1) + 0.5) * spacing[view.across]
    y = (np.arange(-1, rows + 1) + 0.5) * spacing[view.up]
    for label in _present(outlined):
        region = np.pad(outlined == label, 1).astype(np.float32)  # padded, so that an outline closes at the border
        if dark:  # a dark rim keeps the line visible on a fill of its own colour
            axes.contour(x, y, region, levels=[0.5], colors="black", linewidths=2.0)
        axes.contour(x, y, region, levels=[0.5], colors=[label_colour(label)], linewidths=1.0 if dark else 0.8)
    axes.set(xlim=(width, 0), ylim=(0, height), xticks=[], yticks=[], aspect="equal", facecolor="black")
    for spine in axes.spines.values():
        spine.set_visible(False)
    for letter, (left, up) in zip(view.letters, ((0.02, 0.5), (0.98, 0.5), (0.5, 0.975), (0.5, 0.025))):
        axes.text(
            left, up, letter, transform=axes.transAxes, color="0.8", fontsize=8, ha="center", va="center",
            path_effects=[withStroke(linewidth=2, foreground="black")],
        )  # fmt: skip


def _present(labels: np.ndarray | None) -> list[int]:
    return [] if labels is None else [int(label) for label in np.unique(labels) if label > 0]


def _name_table(names: LabelNames | None) -> dict[int, str]:
    if names is None:
        return {}
    if not isinstance(names, Mapping):
        return dict(enumerate(names))
    if all(isinstance(key, str) for key in names):
        return {label: name for name, label in names.items()}
    return dict(names)


def _legend(counts: dict, truth_counts: dict, names: dict, ml_a_voxel: float | None, has_truth: bool) -> list:
    def size(voxels: int) -> str:
        return f"{voxels:,} pixels" if ml_a_voxel is None else f"{_ml(voxels * ml_a_voxel)} ml"

    entries = []
    present = sorted(counts.keys() | truth_counts.keys())
    for label in present[:_MOST_IN_LEGEND]:
        text = f"{names.get(label, f'label {label}')}  {size(counts.get(label, 0))}"
        if has_truth:
            text += f"  (truth {size(truth_counts.get(label, 0))})"
        entries.append(Patch(facecolor=label_colour(label), label=text))
    if len(present) > _MOST_IN_LEGEND:
        entries.append(Line2D([], [], linestyle="none", label=f"and {len(present) - _MOST_IN_LEGEND} more"))
    if has_truth and present:
        entries.append(Line2D([], [], color="white", linewidth=1.2, label="outline: truth, fill: segmentation"))
    return entries


def _ml(volume: float) -> str:
    return f"{volume:,.0f}" if volume >= 100 else f"{volume:.3g}"
