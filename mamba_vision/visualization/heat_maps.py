"""Heat maps on their own and over pictures."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from mamba_vision.utils.atomic import atomic_path


def overlay(picture: np.ndarray, heat: np.ndarray, strength: float = 0.5) -> np.ndarray:
    """A picture with a map over it, red where the map is high.

    Args:
        picture: (height, width, 3) uint8.
        heat: (H, W) of any range, enlarged to the picture and stretched to its own lowest and highest value.
        strength: how much of the colours, 0 to 1.

    Returns:
        (height, width, 3) uint8.
    """
    values = np.asarray(heat, dtype=np.float32)
    size = (picture.shape[1], picture.shape[0])
    values = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR))
    spread = values.max() - values.min()
    values = (values - values.min()) / spread if spread > 0 else np.zeros_like(values)
    colours = 255 * colormaps["jet"](values)[..., :3]
    return np.round((1 - strength) * picture + strength * colours).astype(np.uint8)


def overlays_figure(
    picture: np.ndarray, heats: Mapping[str, np.ndarray], path: str | Path | None = None, title: str | None = None
) -> Figure:
    """The picture, and beside it each map over it.

    Args:
        picture: (height, width, 3) uint8.
        heats: maps (H, W) by name.
        path: PNG to write, whole or not at all.
        title: a line above.
    """
    shown = {"picture": picture, **{name: overlay(picture, heat) for name, heat in heats.items()}}
    figure = Figure(figsize=(3 * len(shown), 3.3 * picture.shape[0] / picture.shape[1] + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    for ax, (name, pixels) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items()):
        ax.imshow(pixels)
        ax.set_title(name, fontsize="medium")
        ax.axis("off")
    return _finished(figure, path, title)


def fields_figure(
    fields: Mapping[str, np.ndarray], path: str | Path | None = None, notes: Mapping[str, str] | None = None
) -> Figure:
    """Effective receptive fields side by side, on a scale of their fourth root, as small values matter.

    Args:
        fields: maps (height, width) from 0 to 1 by name.
        path: PNG to write, whole or not at all.
        notes: a line below each.
    """
    figure = Figure(figsize=(3.4 * len(fields), 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    for ax, (name, field) in zip(figure.subplots(1, len(fields), squeeze=False)[0], fields.items()):
        ax.imshow(np.clip(field, 0, 1) ** 0.25, cmap="YlGn", vmin=0, vmax=1)
        ax.set(title=name, xticks=[], yticks=[], xlabel=(notes or {}).get(name, ""))
        ax.xaxis.label.set_fontsize(8)
    return _finished(figure, path, None)


def _finished(figure: Figure, path: str | Path | None, title: str | None) -> Figure:
    if title:
        figure.suptitle(title, fontsize="medium")
    if path is not None:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=110, format="png")
    return figure
