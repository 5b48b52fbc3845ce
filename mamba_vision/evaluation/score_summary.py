"""From scores of cases to the numbers of a table: means with intervals, the worst cases, and the file of all rows."""

import csv
import io
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from mamba_vision.evaluation.volume_scores import ClassScore

SCORES = {
    "dice": "Dice",
    "surface_dice": "surface Dice",
    "hd95_mm": "HD95 (mm)",
    "assd_mm": "ASSD (mm)",
    "iou": "IoU",
    "sensitivity": "sensitivity",
    "precision": "precision",
    "volume_error_ml": "volume error (ml)",
    "volume_error_percent": "volume error (%)",
    "lesion_f1": "lesion-wise F1",
    "lesion_dice": "lesion-wise Dice",
    "lesion_hd95_mm": "lesion-wise HD95 (mm)",
}
LOWER_IS_BETTER = ("hd95_mm", "assd_mm", "lesion_hd95_mm", "volume_error_ml", "volume_error_percent")
LEVEL, RESAMPLES = 0.95, 2000
_COUNTS = ("lesions_found", "lesions_missed", "lesions_false")
COLUMNS = (
    "case", "label", "name", "dice", "iou", "sensitivity", "precision", "surface_dice", "hd95_mm", "assd_mm",
    "volume_true_ml", "volume_predicted_ml", "volume_error_ml", "volume_error_percent", *_COUNTS,
    "lesion_f1", "lesion_dice", "lesion_hd95_mm", "empty_truth", "missing",
)  # fmt: skip


def summarize(scores: Sequence[ClassScore]) -> dict[str, Any]:
    """Means over cases for each class, then over classes.

    Returns:
        {'cases': n, 'classes': {name: {score: {mean, ci95, sd, median, iqr, n}, lesions, missing}}, 'mean': {score:
        mean over classes}, 'mean_ci95': {score: interval}}; None where nothing is defined. Intervals: see
        bootstrap_interval.
    """
    names = list(dict.fromkeys(score.name for score in scores))
    by_class = {name: [score for score in scores if score.name == name] for name in names}
    classes = {
        name: {
            **{key: describe(getattr(score, key) for score in found) for key in SCORES},
            "lesions": {
                key.removeprefix("lesions_"): sum(int(n) for one in found if not math.isnan(n := getattr(one, key)))
                for key in _COUNTS
            },
            "missing": {where: sum(one.missing == where for one in found) for where in ("truth", "prediction", "both")},
        }
        for name, found in by_class.items()
    }
    means = {key: [classes[name][key]["mean"] for name in names] for key in SCORES}
    defined = {key: [value for value in values if value is not None] for key, values in means.items()}
    return {
        "cases": len({score.case for score in scores}),
        "classes": classes,
        "mean": {key: statistics.fmean(values) if values else None for key, values in defined.items()},
        "mean_ci95": {key: bootstrap_interval(score_matrix(scores, key)[0]) for key in SCORES},
    }


def describe(values: Iterable[float]) -> dict[str, Any]:
    """Mean with 95 % interval, standard deviation, median, quartiles and number of the defined values."""
    defined = [float(value) for value in values if math.isfinite(value)]
    if not defined:
        return {"mean": None, "ci95": None, "sd": None, "median": None, "iqr": None, "n": 0}
    return {
        "mean": statistics.fmean(defined),
        "ci95": bootstrap_interval(np.array(defined)),
        "sd": statistics.stdev(defined) if len(defined) > 1 else None,
        "median": statistics.median(defined),
        "iqr": [float(np.percentile(defined, 25)), float(np.percentile(defined, 75))],
        "n": len(defined),
    }


def bootstrap_interval(
    values: np.ndarray, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> list[float] | None:
    """Percentile bootstrap interval of a mean: cases are drawn with replacement, always the same for one seed.

    Args:
        values: (N,) one a case, or (N, K) with K classes, whose means are averaged; NaN is left out.
        level: of confidence.

    Returns:
        [low, high], or None with fewer than two cases that have a value.
    """
    values = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    values = values[np.isfinite(values).any(axis=1)]
    if len(values) < 2:
        return None
    drawn = np.random.default_rng(seed).multinomial(len(values), np.full(len(values), 1 / len(values)), resamples)
    defined = np.isfinite(values)
    counts = drawn @ defined  # (resamples, K)
    sums = drawn @ np.where(defined, values, 0)
    shares = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    present = (counts > 0).sum(axis=1)
    means = shares.sum(axis=1)[present > 0] / present[present > 0]
    edge = 50 * (1 - level)
    return [float(np.percentile(means, edge)), float(np.percentile(means, 100 - edge))]


def score_matrix(scores: Sequence[ClassScore], key: str) -> tuple[np.ndarray, list[str], list[str]]:
    """One score as (cases, classes), NaN where a case lacks a class; and the names of both."""
    cases = list(dict.fromkeys(score.case for score in scores))
    names = list(dict.fromkeys(score.name for score in scores))
    rows, columns = ({name: place for place, name in enumerate(listed)} for listed in (cases, names))
    matrix = np.full((len(cases), len(names)), np.nan)
    for score in scores:
        matrix[rows[score.case], columns[score.name]] = getattr(score, key)
    return matrix, cases, names


def worst_cases(scores: Iterable[ClassScore], count: int = 6) -> list[str]:
    """Names of the cases of lowest mean Dice, the worst first; undefined Dice does not count."""
    by_case: dict[str, list[float]] = {}
    for score in scores:
        if not math.isnan(score.dice):
            by_case.setdefault(score.case, []).append(score.dice)
    return sorted(by_case, key=lambda case: statistics.fmean(by_case[case]))[:count]


def cases_csv(scores: Sequence[ClassScore]) -> str:
    """A row a case and class, columns COLUMNS; undefined values are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for score in scores:
        writer.writerow([_cell(getattr(score, column)) for column in COLUMNS])
    return text.getvalue()


def read_cases(path: str | Path) -> list[ClassScore]:
    """The scores of a run, from its cases.csv: the file, the folder it lies in, or the work folder above `report`.

    Raises:
        ValueError: no such file, or one without the columns case, name and dice.
    """
    path = Path(path)
    places = (path,) if path.suffix == ".csv" else (path / "cases.csv", path / "report" / "cases.csv")
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise ValueError(f"{path}: expected cases.csv, as tools/test.py and tools/evaluate_folder.py write it")
    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    needed = {"case", "name", "dice"}
    if not rows or needed - rows[0].keys():
        raise ValueError(f"{file}: expected rows with the columns {', '.join(sorted(needed))}, found none")
    return [_score(row, file) for row in rows]


def _score(row: dict[str, str], file: Path) -> ClassScore:
    texts = ("case", "name", "missing", "label")
    try:
        numbers = {
            field.name: float(row.get(field.name) or "nan") for field in fields(ClassScore) if field.name not in texts
        }
    except ValueError as error:
        raise ValueError(f"{file}: expected numbers in the row of {row['case']}, {row['name']}: {error}") from error
    return ClassScore(**{name: row.get(name, "") for name in texts}, **numbers)


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return value
