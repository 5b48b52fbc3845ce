"""Masks of several models side by side on one slice of a scan, with what differs from the truth beneath."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mamba_vision.utils.atomic import atomic_path
from mamba_vision.visualization.volumes import label_colour


def mask_rows_figure(
    image_XYZ: np.ndarray,
    truth_XYZ: np.ndarray,
    masks: Mapping[str, np.ndarray],
    path: str | Path | None = None,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    slice_index: int | None = None,
) -> Figure:
    """The scan and the truth, then each mask; under each mask its errors: red where its label is not the truth's.

    Args:
        image_XYZ: one channel in canonical RAS axes.
        truth_XYZ, masks: integer labels of the same shape.
        path: PNG to write, whole or not at all.
        spacing: voxel size in mm.
        slice_index: axial slice; by default the one with most of the truth.

    Raises:
        ValueError: no mask, or shapes that differ.
    """
    if not masks:
        raise ValueError("masks: found none, expected at least one")
    for name, array in {"truth": truth_XYZ, **masks}.items():
        if array.shape != image_XYZ.shape:
            raise ValueError(f"{name}: found shape {array.shape}, expected that of the scan, {image_XYZ.shape}")
    index = int((truth_XYZ > 0).sum((0, 1)).argmax()) if slice_index is None else slice_index

    def plane(array: np.ndarray) -> np.ndarray:
        return array[::-1, :, index].T  # the patient's right at the left, the front up

    image, truth = plane(image_XYZ), plane(truth_XYZ)
    columns = len(masks) + 1
    width, height = image.shape[1] * spacing[0], image.shape[0] * spacing[1]
    figure = Figure(figsize=(1.75 * columns, 2 * (1.75 * height / width + 0.25)), facecolor="black")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, columns, gridspec_kw=dict(wspace=0.03, hspace=0.1, left=0, right=1, bottom=0, top=0.93))

    def show(cell, overlay: np.ndarray | None, title: str) -> None:
        frame = {"extent": (0, width, 0, height), "origin": "lower"}
        cell.imshow(image, cmap="gray", interpolation="bilinear", **frame)
        if overlay is not None:
            cell.imshow(overlay, interpolation="nearest", **frame)
        cell.set_axis_off()
        cell.set_title(title, color="white", fontsize=9, pad=3)

    show(axes[0, 0], None, "scan")
    show(axes[1, 0], _coloured(truth), "truth")
    for column, (name, mask) in enumerate(masks.items(), 1):
        labels = plane(mask)
        show(axes[0, column], _coloured(labels), name)
        wrong = labels != truth
        red = np.zeros((*labels.shape, 4), np.float32)
        red[wrong] = (1.0, 0.15, 0.1, 0.9)
        show(axes[1, column], red, f"{wrong.sum() / max((truth > 0).sum(), 1):.1%} wrong")
    if path is not None:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=110, facecolor="black", format="png")
    return figure


def _coloured(labels: np.ndarray) -> np.ndarray:
    overlay = np.zeros((*labels.shape, 4), np.float32)
    for label in np.unique(labels[labels > 0]):
        overlay[labels == label] = (*label_colour(int(label)), 0.6)
    return overlay
