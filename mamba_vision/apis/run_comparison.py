"""Two runs on the same cases, compared on paper: a table, a page and a picture."""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from mamba_vision.evaluation.run_comparison import Difference, compare_runs
from mamba_vision.evaluation.score_summary import LOWER_IS_BETTER, SCORES, read_cases
from mamba_vision.utils.atomic import write_text
from mamba_vision.utils.wording import count
from mamba_vision.visualization.score_plots import differences_figure

LEVEL = 0.05  # of significance


@dataclass(frozen=True)
class Comparison:
    """What compare_folders found. `notes` say what limits it."""

    names: tuple[str, str]
    differences: list[Difference]
    notes: list[str]


def compare_folders(
    first: str | Path,
    second: str | Path,
    metrics: Sequence[str] = ("dice", "surface_dice", "hd95_mm"),
    names: tuple[str, str] | None = None,
    out: str | Path | None = None,
) -> Comparison:
    """Compare the reports of two runs; with `out`, write compare.csv, compare.md and compare.png there.

    Args:
        first, second: work folders, report folders or cases.csv files, of runs A and B.
        metrics: some of evaluation.score_summary.SCORES.
        names: of the runs; by default of their folders.

    Raises:
        ValueError: as read_cases and compare_runs.
    """
    runs = [read_cases(path) for path in (first, second)]
    differences, left_out = compare_runs(*runs, metrics)
    names = names or (_name(first), _name(second))
    if names[0] == names[1]:
        names = (str(first), str(second))
    notes = []
    if left_out:
        notes.append(f"{len(left_out)} cases are in one run only and were left out: {', '.join(left_out[:10])}")
    tolerances = [_tolerance(path) for path in (first, second)]
    if "surface_dice" in metrics and tolerances[0] != tolerances[1]:
        notes.append(f"The runs' surface Dice have different tolerances: {tolerances[0]} and {tolerances[1]} mm.")
    most, tests = max(one.n for one in differences), sum(one.n > 0 for one in differences)
    least = min(
        2.0 ** (1 - most) * tests, 1.0
    )  # the signed-rank test's smallest p, where all signs agree, times Holm's factor
    if least >= LEVEL:
        counted = f"With {count(most, 'pair')} and {count(tests, 'test')}"
        notes.append(
            f"{counted} no corrected p can be below {least:.2g}: more cases or fewer metrics could show a difference."
        )
    comparison = Comparison(names, differences, notes)
    if out is not None:
        _write(Path(out), comparison)
    return comparison


def comparison_table(comparison: Comparison) -> Table:
    """For a terminal of 80 columns."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for title in ("", "n", "A", "B", "B - A [95 % interval]", "p (Holm)", "wins"):
        table.add_column(title, justify="right" if title else "left", no_wrap=True)
    metric = ""
    for one, (score, name, n, a, b, change, interval, _, p, better) in zip(
        comparison.differences, _rows(comparison)[1:]
    ):
        if one.metric != metric:
            table.add_section()
            table.add_row(f"[bold]{score}")
            metric = one.metric
        table.add_row(
            f"  {name}", n, a, b, f"{change} [{interval.replace(' to ', ', ')}]".replace("[", "\\["), p, better
        )
    return table


def _write(folder: Path, comparison: Comparison) -> None:
    text = io.StringIO()
    columns = (
        "metric", "name", "n", "mean_a", "mean_b", "difference", "ci95_low", "ci95_high", "p", "p_holm", "better",
    )  # fmt: skip
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for one in comparison.differences:
        low, high = one.ci95 or ("", "")
        numbers = (one.mean_a, one.mean_b, one.difference, low, high, one.p, one.p_holm)
        cells = [f"{number:.6g}" if number != "" and math.isfinite(number) else "" for number in numbers]
        writer.writerow([one.metric, one.name, one.n, *cells, one.better()])
    write_text(folder / "compare.csv", text.getvalue())
    write_text(folder / "compare.md", _page(comparison))
    panels: dict[str, list] = {}
    for one in comparison.differences:
        what = f"{SCORES[one.metric]}, {'less' if one.metric in LOWER_IS_BETTER else 'more'} is better"
        panels.setdefault(what, []).append((one.name, one.pairs, one.ci95, f"p {_p(one.p_holm)}"))
    a, b = comparison.names
    differences_figure(panels, folder / "compare.png", f"{b} minus {a}")


def _page(comparison: Comparison) -> str:
    head, *rows = _rows(comparison)
    a, b = comparison.names
    lines = [head, ["---", "---", *["--:"] * (len(head) - 2)], *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    method = (
        "Each row: the cases that have the class in both runs. Interval: bootstrap of the mean difference. p: "
        "Wilcoxon's signed-rank test, two-sided; p (Holm): corrected for all rows of the table. 'better': a run for "
        "which p (Holm) is below 0.05. Volume errors are compared without their sign."
    )
    parts = [f"# A: {a}, B: {b}", table, "![Differences case by case](compare.png)", method]
    return "\n\n".join([*parts, *comparison.notes]) + "\n"


def _rows(comparison: Comparison) -> list[list[str]]:
    head = ["score", "class", "n", "A", "B", "B - A", "95 % interval", "p", "p (Holm)", "better"]
    rows = []
    for one in comparison.differences:
        interval = f"{one.ci95[0]:+.3f} to {one.ci95[1]:+.3f}" if one.ci95 else "-"
        means = [f"{value:.3f}" if math.isfinite(value) else "-" for value in (one.mean_a, one.mean_b)]
        change = f"{one.difference:+.3f}" if math.isfinite(one.difference) else "-"
        verdict = one.better() or "-"
        rows.append(
            [SCORES[one.metric], one.name, str(one.n), *means, change, interval, _p(one.p), _p(one.p_holm), verdict]
        )
    return [head, *rows]


def _p(value: float) -> str:
    if math.isnan(value):
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _name(path: str | Path) -> str:
    path = Path(path).resolve()
    path = path.parent if path.suffix == ".csv" else path
    return path.parent.name if path.name == "report" else path.name


def _tolerance(path: str | Path) -> object:
    path = Path(path)
    folder = path.parent if path.suffix == ".csv" else path
    for file in (folder / "summary.json", folder / "report" / "summary.json"):
        if file.is_file():
            return json.loads(file.read_text(encoding="utf-8")).get("surface_dice_tolerance_mm")
    return None
