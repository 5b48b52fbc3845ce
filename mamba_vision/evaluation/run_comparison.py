"""Is one model better than another? The same cases scored twice, tested pair by pair."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from mamba_vision.evaluation.score_summary import LOWER_IS_BETTER, SCORES, bootstrap_interval, score_matrix
from mamba_vision.evaluation.volume_scores import ClassScore

EVERY_CLASS = "mean over classes"


@dataclass(frozen=True)
class Difference:
    """One score of one class: both means over the cases that have it in both runs, and what sets them apart.

    Attributes:
        difference: mean of B - A; `ci95` its bootstrap interval, None below two cases.
        p: two-sided, of Wilcoxon's signed-rank test; 1 where no pair differs.
        p_holm: corrected for all tests of the comparison (Holm's step-down procedure).
    """

    metric: str
    name: str
    n: int
    mean_a: float
    mean_b: float
    difference: float
    ci95: list[float] | None
    p: float
    p_holm: float
    pairs: tuple[float, ...]  # B - A, a case each

    def better(self, level: float = 0.05) -> str:
        """'A', 'B', or '' where the corrected test shows no difference."""
        if not self.p_holm < level or self.difference == 0:
            return ""
        return "B" if (self.difference > 0) != (self.metric in LOWER_IS_BETTER) else "A"


def compare_runs(
    first: Sequence[ClassScore], second: Sequence[ClassScore], metrics: Sequence[str]
) -> tuple[list[Difference], list[str]]:
    """Compare run B with run A class by class, and for the mean over the classes of each case.

    Args:
        first, second: scores of runs A and B.
        metrics: some of score_summary.SCORES. Errors of volume are compared by size, without their sign.

    Returns:
        The differences, a metric after the other; names of the cases that are in one run only and were left out.

    Raises:
        ValueError: an unknown metric, or no case and class that both runs have.
    """
    unknown = [metric for metric in metrics if metric not in SCORES]
    if unknown or not metrics:
        raise ValueError(f"metrics: expected some of {', '.join(SCORES)}, found {', '.join(unknown) or 'none'}")
    keys = [{(score.case, score.name) for score in run} for run in (first, second)]
    both = keys[0] & keys[1]
    if not both:
        raise ValueError("runs: expected cases and classes that both have, found none")
    left_out = sorted({case for case, _ in keys[0] ^ keys[1]} - {case for case, _ in both})
    runs = [
        sorted((one for one in run if (one.case, one.name) in both), key=lambda one: one.case)
        for run in (first, second)
    ]
    found = []
    for metric in metrics:
        (a, _, names), (b, _, names_b) = (score_matrix(run, metric) for run in runs)
        b = b[:, [names_b.index(name) for name in names]]
        if metric.startswith("volume_error"):
            a, b = abs(a), abs(b)
        defined = np.isfinite(a) & np.isfinite(b)
        a, b = np.where(defined, a, np.nan), np.where(defined, b, np.nan)
        columns = [(name, a[:, place], b[:, place]) for place, name in enumerate(names)]
        if len(names) > 1:
            columns.append((EVERY_CLASS, _row_means(a), _row_means(b)))
        found += [_difference(metric, *column) for column in columns]
    corrected = holm([one.p for one in found])
    return [Difference(**{**one.__dict__, "p_holm": p}) for one, p in zip(found, corrected)], left_out


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction: p sorted ascending times the number of tests left, never falling, at most 1; NaN stays.

    Holm, S. (1979): A simple sequentially rejective multiple test procedure. Scand. J. Statist. 6, 65-70.
    """
    tested = [place for place, p in enumerate(p_values) if not np.isnan(p)]
    corrected, least = [float("nan")] * len(p_values), 0.0
    for rank, place in enumerate(sorted(tested, key=lambda place: p_values[place])):
        least = max(least, min(1.0, (len(tested) - rank) * p_values[place]))
        corrected[place] = least
    return corrected


def _difference(metric: str, name: str, a: np.ndarray, b: np.ndarray) -> Difference:
    used = np.isfinite(a)
    a, b = a[used], b[used]
    pairs = b - a
    nan = float("nan")
    if not len(pairs):
        return Difference(metric, name, 0, nan, nan, nan, None, nan, nan, ())
    p = float(stats.wilcoxon(pairs).pvalue) if pairs.any() else 1.0
    mean_a, mean_b, change = float(a.mean()), float(b.mean()), float(pairs.mean())
    interval = bootstrap_interval(pairs)
    return Difference(metric, name, len(pairs), mean_a, mean_b, change, interval, p, nan, tuple(pairs.tolist()))


def _row_means(matrix: np.ndarray) -> np.ndarray:
    """Mean of each row's defined values; NaN for a row without one."""
    counts = np.isfinite(matrix).sum(axis=1)
    return np.where(counts, np.nansum(matrix, axis=1) / np.maximum(counts, 1), np.nan)
