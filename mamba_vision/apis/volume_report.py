"""The report on a segmentation's quality: a row a case and class, a summary a class, pictures, and a page of text."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from mamba_vision.evaluation import ClassScore, ScoreOptions
from mamba_vision.evaluation.score_summary import RESAMPLES, SCORES, cases_csv, summarize, worst_cases
from mamba_vision.utils.atomic import write_json, write_text
from mamba_vision.utils.wording import count
from mamba_vision.visualization.figures import save_stacked
from mamba_vision.visualization.score_plots import bland_altman_figure, boxplots_figure

__all__ = ["WORST", "score_table", "summarize", "worst_cases", "write_report"]

WORST = 6  # cases shown as pictures
_IN_BOXES = (
    "dice", "surface_dice", "hd95_mm", "assd_mm", "sensitivity", "precision", "volume_error_percent", "lesion_f1",
)  # fmt: skip
_IN_TERMINAL = ("dice", "surface_dice", "hd95_mm", "assd_mm", "volume_error_ml")
_IN_TEXT = ("dice", "surface_dice", "hd95_mm", "assd_mm", "sensitivity", "precision", "volume_error_ml", "lesion_f1")


def write_report(
    folder: str | Path,
    scores: Sequence[ClassScore],
    about: dict[str, Any],
    tolerance: Any,
    draw: Callable[[str, str], np.ndarray] | None = None,
    options: ScoreOptions | None = None,
) -> dict:
    """Write cases.csv, summary.json, boxplots.png, bland_altman.png, worst_cases.png and report.md into `folder`.

    Args:
        folder: made if missing.
        scores: of all cases and classes.
        about: entries put at the top of summary.json, such as the data set and the checkpoint.
        tolerance: of the surface Dice in mm, as used.
        draw: (case, line of scores) -> picture (H, W, 3) uint8, for the worst cases; None draws none.
        options: as used, where they are not the usual.

    Returns:
        The summary.

    Raises:
        ValueError: no scores.
    """
    if not scores:
        raise ValueError("scores: expected at least one case, found none")
    folder = Path(folder)
    summary = {
        **about,
        "surface_dice_tolerance_mm": tolerance,
        "conventions": conventions(options or ScoreOptions()),
        **summarize(scores),
    }
    write_text(folder / "cases.csv", cases_csv(scores))
    write_json(folder / "summary.json", summary)
    by_class = {name: [score for score in scores if score.name == name] for name in summary["classes"]}
    cases = count(summary["cases"], "case")
    boxplots_figure(
        {SCORES[key]: {name: [getattr(one, key) for one in found] for name, found in by_class.items()}
         for key in _IN_BOXES},
        folder / "boxplots.png",
        cases,
    )  # fmt: skip
    volumes = {
        name: [(one.volume_true_ml, one.volume_predicted_ml) for one in found if one.missing != "both"]
        for name, found in by_class.items()
    }
    bland_altman_figure(
        {name: tuple(zip(*pairs)) or ((), ()) for name, pairs in volumes.items()},
        folder / "bland_altman.png",
        f"Volumes of {cases}",
    )
    worst = worst_cases(scores, WORST)
    if draw is not None and worst:
        lines = {case: _line(case, scores) for case in worst}
        save_stacked(folder / "worst_cases.png", [draw(case, line) for case, line in lines.items()])
    write_text(folder / "report.md", report_text(summary, about, scores, worst, draw is not None))
    return summary


def conventions(options: ScoreOptions) -> str:
    """How the numbers were made, in words."""
    parts = [
        "A class missing in truth or prediction only: Dice, IoU, surface Dice and lesion scores 0, sensitivity "
        "undefined without truth, precision without prediction,",
        "distances undefined."
        if math.isnan(options.missing_distance_mm)
        else f"distances {options.missing_distance_mm:g} mm.",
        "Missing in both: all undefined."
        if options.both_empty == "undefined"
        else "Missing in both: Dice, IoU, surface Dice and lesion scores 1, distances 0.",
        "Undefined values are left out; n counts the others. 'mean' is the plain mean over classes.",
        f"Intervals: percentile bootstrap of the mean over cases, {RESAMPLES} resamples.",
        "HD95: the larger of the two directions' 95th percentiles. ASSD: the mean over both surfaces' voxels.",
        f"Lesions as BraTS 2023 counts them: the truth grown by {options.lesion_dilation} voxels to join pieces, those "
        f"of at most {options.lesion_min_mm3:g} mm^3 passed over.",
    ]
    return " ".join(parts)


def score_table(summary: dict[str, Any]) -> Table:
    """The summary for a terminal: a row a class, mean and standard deviation."""
    many = "s" if summary["cases"] > 1 else ""
    table = Table(title=f"{summary['cases']} case{many}, mean ± sd", title_justify="left")
    table.add_column("class")
    shown = [key for key in _IN_TERMINAL if summary["mean"][key] is not None] or ["dice"]
    for key in shown:
        table.add_column(SCORES[key], justify="right")
    for name, found in summary["classes"].items():
        table.add_row(name, *(_spread(found[key]["mean"], found[key]["sd"]) for key in shown))
    table.add_section()
    table.add_row("mean", *(_spread(summary["mean"][key], None) for key in shown))
    return table


def report_text(
    summary: dict[str, Any], about: dict[str, Any], scores: Sequence[ClassScore], worst: Sequence[str], pictures: bool
) -> str:
    """The page report.md: what was tested, the tables, the worst cases, the pictures."""
    shown = [key for key in _IN_TEXT if summary["mean"][key] is not None]
    facts = [
        f"- {key.replace('_', ' ')}: {value}" for key, value in about.items() if not isinstance(value, dict) and value
    ]
    rows = [["class", "n", *(SCORES[key] for key in shown)]]
    for name, found in summary["classes"].items():
        rows.append([name, found["dice"]["n"], *(_interval(found[key]["mean"], found[key]["ci95"]) for key in shown)])
    means = (_interval(summary["mean"][key], summary["mean_ci95"][key]) for key in shown)
    rows.append(["**mean**", "", *means])
    medians = [["class", *(SCORES[key] for key in shown)]]
    for name, found in summary["classes"].items():
        medians.append([name, *(_interval(found[key]["median"], found[key]["iqr"]) for key in shown)])
    parts = [
        f"# {about.get('dataset', 'Segmentation')}: {count(summary['cases'], 'case')}",
        "\n".join(facts),
        "## Mean [95 % interval]",
        _markdown(rows),
        "## Median [quartiles]",
        _markdown(medians),
    ]
    counted = {name: found["lesions"] for name, found in summary["classes"].items() if any(found["lesions"].values())}
    if counted:
        lesions = [["class", "found", "missed", "false"], *([name, *found.values()] for name, found in counted.items())]
        parts += ["## Lesions", _markdown(lesions)]
    parts += ["## Worst cases", "\n".join(f"1. {_line(case, scores)}" for case in worst) or "No Dice is defined."]
    if pictures:
        parts.append("![The worst cases](worst_cases.png)")
    if about.get("failures"):
        failed = "\n".join(f"- {case}: {reason}" for case, reason in about["failures"].items())
        parts += ["## Cases that could not be scored", failed]
    parts += [
        "## Pictures",
        "![A box for each class and score](boxplots.png)",
        "![Predicted minus true volume over their mean](bland_altman.png)",
        "## Conventions",
        f"{summary['conventions']} Tolerance of the surface Dice: {summary['surface_dice_tolerance_mm']} mm.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _line(case: str, scores: Sequence[ClassScore]) -> str:
    found = [score for score in scores if score.case == case and not math.isnan(score.dice)]
    return f"{case}: Dice {', '.join(f'{score.name} {score.dice:.3f}' for score in found)}"


def _markdown(rows: Sequence[Sequence[Any]]) -> str:
    head, *body = ([str(cell).replace("|", "\\|") for cell in row] for row in rows)
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))


def _interval(middle: float | None, interval: Sequence[float] | None) -> str:
    if middle is None:
        return "-"
    return f"{_short(middle)}" + (f" [{_short(interval[0])}, {_short(interval[1])}]" if interval else "")


def _short(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _spread(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return "-"
    return f"{mean:.3f}" + (f" ± {deviation:.3f}" if deviation is not None else "")
