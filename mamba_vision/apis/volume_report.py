"""The report on a segmentation's quality: a row a case and class, a summary a class, two pictures."""

import csv
import io
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from mamba_vision.evaluation import ClassScore
from mamba_vision.utils.atomic import write_json, write_text
from mamba_vision.visualization.score_plots import boxplots_figure

SCORES = {
    "dice": "Dice",
    "surface_dice": "surface Dice",
    "hd95_mm": "HD95 (mm)",
    "volume_error_ml": "volume error (ml)",
}
CONVENTIONS = (
    "A class missing in truth or prediction only: Dice and surface Dice 0, HD95 undefined. Missing in both: all "
    "undefined. Undefined values are left out; n counts the others. 'mean' is the plain mean over classes."
)


def write_report(folder: str | Path, scores: Sequence[ClassScore], about: dict[str, Any], tolerance: Any) -> dict:
    """Write cases.csv, summary.json and boxplots.png into `folder`; returns the summary.

    Args:
        folder: made if missing.
        scores: of all cases and classes.
        about: entries put at the top of summary.json, such as the data set and the checkpoint.
        tolerance: of the surface Dice in mm, as used.

    Raises:
        ValueError: no scores.
    """
    if not scores:
        raise ValueError("scores: expected at least one case, found none")
    folder = Path(folder)
    summary = {**about, "surface_dice_tolerance_mm": tolerance, "conventions": CONVENTIONS, **summarize(scores)}
    write_text(folder / "cases.csv", _csv(scores))
    write_json(folder / "summary.json", summary)
    names = list(summary["classes"])
    boxplots_figure(
        {
            title: {name: [getattr(score, key) for score in scores if score.name == name] for name in names}
            for key, title in SCORES.items()
        },
        folder / "boxplots.png",
        f"{summary['cases']} case{'s' if summary['cases'] > 1 else ''}",
    )
    return summary


def summarize(scores: Sequence[ClassScore]) -> dict[str, Any]:
    """{'cases': n, 'classes': {name: {score: {mean, sd, median, iqr, n}}}, 'mean': {score: mean over classes}}."""
    names = list(dict.fromkeys(score.name for score in scores))
    classes = {
        name: {
            **{key: _describe(getattr(score, key) for score in scores if score.name == name) for key in SCORES},
            "missing": {
                where: sum(score.missing == where for score in scores if score.name == name)
                for where in ("truth", "prediction", "both")
            },
        }
        for name in names
    }
    means = {key: [classes[name][key]["mean"] for name in names] for key in SCORES}
    defined = {key: [value for value in values if value is not None] for key, values in means.items()}
    return {
        "cases": len({score.case for score in scores}),
        "classes": classes,
        "mean": {key: statistics.fmean(values) if values else None for key, values in defined.items()},
    }


def score_table(summary: dict[str, Any]) -> Table:
    """The summary for a terminal: a row a class, mean and standard deviation."""
    many = "s" if summary["cases"] > 1 else ""
    table = Table(title=f"{summary['cases']} case{many}, mean ± sd", title_justify="left")
    table.add_column("class")
    for title in SCORES.values():
        table.add_column(title, justify="right")
    for name, found in summary["classes"].items():
        table.add_row(name, *(_cell(found[key]["mean"], found[key]["sd"]) for key in SCORES))
    table.add_section()
    table.add_row("mean", *(_cell(summary["mean"][key], None) for key in SCORES))
    return table


def worst_cases(scores: Iterable[ClassScore], count: int = 6) -> list[str]:
    """Names of the cases of lowest mean Dice, the worst first; undefined Dice does not count."""
    by_case: dict[str, list[float]] = {}
    for score in scores:
        if not math.isnan(score.dice):
            by_case.setdefault(score.case, []).append(score.dice)
    return sorted(by_case, key=lambda case: statistics.fmean(by_case[case]))[:count]


def _describe(values: Iterable[float]) -> dict[str, Any]:
    defined = [float(value) for value in values if math.isfinite(value)]
    if not defined:
        return {"mean": None, "sd": None, "median": None, "iqr": None, "n": 0}
    return {
        "mean": statistics.fmean(defined),
        "sd": statistics.stdev(defined) if len(defined) > 1 else None,
        "median": statistics.median(defined),
        "iqr": [float(np.percentile(defined, 25)), float(np.percentile(defined, 75))],
        "n": len(defined),
    }


def _csv(scores: Sequence[ClassScore]) -> str:
    """A row a case and class; undefined values are empty."""
    text = io.StringIO()
    rows = [{**asdict(score), "volume_error_ml": score.volume_error_ml} for score in scores]
    order = ["case", "label", "name", "dice", "surface_dice", "hd95_mm", "volume_true_ml", "volume_predicted_ml"]
    writer = csv.DictWriter(text, [*order, "volume_error_ml", "missing"], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _number(value) if isinstance(value, float) else value for key, value in row.items()})
    return text.getvalue()


def _number(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""


def _cell(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return "-"
    return f"{mean:.3f}" + (f" ± {deviation:.3f}" if deviation is not None else "")
