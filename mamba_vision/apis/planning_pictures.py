"""What was prepared, to be looked at before hours of training: a picture a case, the odd ones first."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from rich.console import Console

from mamba_vision.utils.atomic import write_text
from mamba_vision.visualization.dataset_overview import dataset_overview_figure
from mamba_vision.visualization.volumes import orthogonal_slices_figure
from mamba_vision.volumes.cache import CachedCase
from mamba_vision.volumes.fingerprint import CaseFingerprint, Fingerprint
from mamba_vision.volumes.parallel import for_each
from mamba_vision.volumes.plan import Plan

_SAMPLES = 50_000  # voxels of each histogram
_NAMED, _ODD = 3, 3.0  # cases named in the overview: the first so many, if they are so many deviations away
_STYLE = """body {background: #111; color: #ddd; font: 15px sans-serif; margin: 2em}
td, th {padding: .2em 1em; text-align: left} a {color: #8cf} img {max-width: 100%}"""


def write_pictures(
    folder: Path,
    plan: Plan,
    fingerprint: Fingerprint,
    cases: Sequence[CachedCase],
    most: int = 50,
    progress: bool = False,
    console: Console | None = None,
) -> Path:
    """A PNG a case (three slices with labels over them), dataset.png (sizes, volumes, intensities), and index.html with
    all of them and a table.

    Drawn is what the network will see: the first channel, prepared, at the plan's spacing.

    Returns:
        The path of index.html.
    """
    scores = outlier_scores(fingerprint)
    order = sorted(range(len(cases)), key=lambda index: -scores[index])
    drawn = order[:most]

    def draw(index: int) -> None:
        _draw(folder / f"{cases[index].case}.png", plan, cases[index])

    for_each(draw, drawn, title="Drawing cases", progress=progress, console=console)
    names = {value: name for name, value in plan.labels.items()}
    if plan.ignore_label is not None:
        names[plan.ignore_label] = "ignored"
    if drawn:
        odd = [index for index in order[:_NAMED] if scores[index] > _ODD]
        _draw_overview(folder / "dataset.png", fingerprint, cases, names, odd)
    rows = [_row(fingerprint.cases[index], scores[index], names) for index in order]
    head = "<tr><th>case<th>voxels<th>spacing (mm)<th>kept by crop<th>unusual<th>labels (ml)</tr>"
    pictures = ['<img src="dataset.png" alt="sizes, volumes and intensities of all cases">\n'] * bool(drawn)
    pictures += [_picture(cases[index].case) for index in drawn]
    title = f"{escape(plan.dataset)}: {len(cases)} cases, the most unusual first"
    page = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>
<h1>{title}</h1>
<p>Voxels and spacing along left-right, back-front, down-up. "Unusual" counts robust standard deviations of the most
unusual of spacing, extent and label volumes. Pictures show the prepared scans: {escape(", ".join(plan.channels))} at
{escape(plan.reasons.get("spacing", ""))}.</p>
<table>{head}{"".join(rows)}</table>
{"".join(pictures)}
</html>
"""
    return write_text(folder / "index.html", page)


def outlier_scores(fingerprint: Fingerprint) -> np.ndarray:
    """(cases,): how many robust standard deviations the most unusual number of a case lies from the median.

    Numbers are logarithms of spacings, extents in mm and label volumes in ml. A deviation below a tenth (10 %) counts
    as a tenth, so that data without spread have no outliers by rounding.
    """
    values = fingerprint.label_values
    table = np.log(
        [
            [
                *case.spacing,
                *np.multiply(case.cropped_shape, case.spacing),
                *(case.label_ml.get(value, 0) + 0.1 for value in values),
            ]
            for case in fingerprint.cases
        ]
    )
    distance = np.abs(table - np.median(table, axis=0))
    spread = np.maximum(1.4826 * np.median(distance, axis=0), 0.1)
    return (distance / spread).max(axis=1)


def _draw_overview(
    path: Path, fingerprint: Fingerprint, cases: Sequence[CachedCase], names: dict[int, str], odd: Sequence[int]
) -> None:
    found = fingerprint.cases
    labels = fingerprint.label_values
    dataset_overview_figure(
        [case.case for case in found],
        np.array([case.spacing for case in found]),
        np.array([case.shape for case in found]),
        {names.get(label, str(label)): [case.label_ml.get(label, 0) for case in found] for label in labels},
        [_sample(case.image[0]) for case in cases],
        odd,
        path,
    )


def _sample(image: np.ndarray) -> np.ndarray:
    """Some tens of thousands of voxels, evenly drawn."""
    step = max(1, int((image.size / _SAMPLES) ** (1 / 3)))
    return np.array(image[::step, ::step, ::step])


def _draw(path: Path, plan: Plan, case: CachedCase) -> None:
    back = np.argsort(plan.axes)  # network axes -> canonical x, y, z
    orthogonal_slices_figure(
        case.image[0].transpose(back),
        case.label.transpose(back),
        tuple(plan.spacing[axis] for axis in back),
        [*plan.labels, *(["ignored"] if plan.ignore_label is not None else [])],
        path=path,
        title=case.case,
    )


def _row(case: CaseFingerprint, score: float, names: dict[int, str]) -> str:
    volumes = ", ".join(f"{escape(names.get(value, str(value)))} {ml:.3g}" for value, ml in case.label_ml.items())
    cells = (
        f'<a href="#{escape(case.case)}">{escape(case.case)}</a>',
        " x ".join(map(str, case.shape)),
        " x ".join(f"{size:.3g}" for size in case.spacing),
        f"{case.relative_size:.0%}",
        f"{score:.1f}",
        volumes or "none",
    )
    return "<tr>" + "".join(f"<td>{cell}" for cell in cells) + "</tr>"


def _picture(case: str) -> str:
    return f'<h2 id="{escape(case)}">{escape(case)}</h2><img src="{escape(case)}.png" alt="{escape(case)}">\n'
