"""Surfaces that turn: a GIF of structures seen from all sides."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LightSource
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from PIL import Image

from mamba_vision.utils.atomic import atomic_path

Colour = tuple[float, float, float]
_LIGHT = LightSource(azdeg=225, altdeg=35)


def rotating_surface(
    surfaces: Sequence[tuple[str, np.ndarray, np.ndarray, Colour]],
    path: str | Path,
    *,
    frames: int = 24,
    seconds: float = 4.0,
    title: str | None = None,
) -> Path:
    """Write a GIF of surfaces that turn once about the axis from feet to head, whole or not at all.

    Args:
        surfaces: name, points (N, 3) in RAS mm, triangles (M, 3) and colour of each.
        path: the .gif.
        frames: pictures in a turn.
        seconds: of a turn.
        title: a line above.

    Raises:
        ValueError: no triangle at all, or fewer than one frame.
    """
    surfaces = [one for one in surfaces if len(one[2])]
    if not surfaces or frames < 1:
        raise ValueError(f"surfaces and frames: expected at least one of each, found {len(surfaces)} and {frames}")
    figure = Figure(figsize=(4, 4.4), facecolor="black")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0.06, 1, 0.9), projection="3d", facecolor="black", proj_type="ortho")
    axes.set_axis_off()
    # One collection for all: of several, each would be drawn as a whole, before or behind the others.
    corners = np.concatenate([points[triangles] for _, points, triangles, _ in surfaces])
    colours = np.concatenate(
        [
            np.tile((*colour, _opacity(points, surfaces)), (len(triangles), 1))
            for _, points, triangles, colour in surfaces
        ]
    )
    axes.add_collection3d(
        Poly3DCollection(corners, facecolors=colours, linewidths=0, shade=True, lightsource=_LIGHT, antialiased=False)
    )
    low = np.min([points.min(axis=0) for _, points, _, _ in surfaces], axis=0)
    high = np.max([points.max(axis=0) for _, points, _, _ in surfaces], axis=0)
    middle, half = (low + high) / 2, float((high - low).max()) / 2 or 1.0
    for name, centre in zip("xyz", middle):
        axes.set(**{f"{name}lim": (centre - half, centre + half)})
    axes.set_box_aspect((1, 1, 1), zoom=1.35)
    figure.legend(
        handles=[Patch(facecolor=colour, label=name) for name, _, _, colour in surfaces[:9]], loc="lower center",
        ncols=3, frameon=False, labelcolor="white", fontsize=7,
    )  # fmt: skip
    if title:
        figure.text(0.5, 0.97, title, color="white", fontsize=9, ha="center", va="center")
    pictures = []
    for frame in range(frames):
        axes.view_init(elev=12, azim=90 + 360 * frame / frames)  # it begins with a look at the face
        canvas.draw()
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
        pictures.append(picture.quantize(255, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE))
    whole = io.BytesIO()
    pictures[0].save(
        whole, "GIF", save_all=True, append_images=pictures[1:], duration=round(1000 * seconds / frames), loop=0
    )
    with atomic_path(path) as temporary:
        temporary.write_bytes(whole.getvalue())
    return Path(path)


def _opacity(points: np.ndarray, surfaces: Sequence[tuple[str, np.ndarray, np.ndarray, Colour]]) -> float:
    """A surface around another one lets that be seen."""
    low, high = points.min(axis=0), points.max(axis=0)
    around = any((other.min(axis=0) > low).all() and (other.max(axis=0) < high).all() for _, other, _, _ in surfaces)
    return 0.35 if around else 1.0
