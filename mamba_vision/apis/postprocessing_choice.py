"""Which clean-up helps, decided on cases that the models did not train on: nnU-Net's rule.

(a) Keep the largest piece of everything together, if the mean Dice rises and that of no structure falls.
(b) Then, structure by structure, keep its largest piece, if its own mean Dice rises.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from mamba_vision.utils.atomic import write_json
from mamba_vision.volumes.components import KeepLargest, apply_steps, keep_largest, steps_as_json

Structures = Mapping[str, Sequence[int]]
Cases = Callable[[], Iterable[tuple[str, np.ndarray, np.ndarray]]]  # (case, mask, truth), each time from the first


@dataclass(frozen=True)
class Trial:
    """One step that was tried: mean Dice of each structure before and after, and whether it was adopted."""

    step: KeepLargest
    before: dict[str, float | None]
    after: dict[str, float | None]
    adopted: bool


@dataclass(frozen=True)
class Choice:
    """The clean-up that was chosen, and why.

    Attributes:
        steps: in the order in which they are applied.
        trials: all that was tried.
        cases: how many were looked at.
    """

    steps: tuple[KeepLargest, ...]
    trials: list[Trial]
    cases: int

    @property
    def before(self) -> dict[str, float | None]:
        """Mean Dice of each structure without clean-up."""
        return self.trials[0].before

    @property
    def after(self) -> dict[str, float | None]:
        """With it."""
        adopted = [trial for trial in self.trials if trial.adopted]
        return adopted[-1].after if adopted else self.before

    def save(self, path: str | Path, **about: Any) -> Path:
        """Write as postprocessing.json, which segment.py applies; `about` says what it was chosen on."""
        trials = [{**asdict(trial), "step": steps_as_json([trial.step])[0]} for trial in self.trials]
        content = {
            "steps": steps_as_json(self.steps), "connectivity": 26, **about, "cases": self.cases,
            "dice_before": self.before, "dice_after": self.after, "trials": trials,
        }  # fmt: skip
        return write_json(path, content)


def choose_postprocessing(cases: Cases, structures: Structures) -> Choice:
    """Try the steps of nnU-Net's rule on all cases.

    Args:
        cases: gives case, mask and truth, (X, Y, Z) each, one after the other, every time that it is called.
        structures: name to label values, of all that is scored.

    Raises:
        ValueError: no case, or no structure.
    """
    everything = tuple(sorted({value for values in structures.values() for value in values}))
    if not everything:
        raise ValueError("structures: expected at least one")
    union = KeepLargest("all labels together", everything)
    singles = [KeepLargest(name, tuple(values)) for name, values in structures.items()]
    steps: list[KeepLargest] = []
    trials: list[Trial] = []
    for step in [union, *(single for single in singles if single.labels != everything)]:
        before, after, count = _compare(cases, structures, steps, step)
        if step is union:
            fell = any(_value(after[name]) < _value(before[name]) for name in structures)
            adopted = _value(mean_dice(after)) > _value(mean_dice(before)) and not fell
        else:
            adopted = _value(after[step.name]) > _value(before[step.name])
        trials.append(Trial(step, before, after, adopted))
        steps += [step] * adopted
    return Choice(tuple(steps), trials, count)


def choice_table(choice: Choice) -> Table:
    """For a terminal: what was tried, what came of it."""
    table = Table(title=f"keep the largest piece of ... ({choice.cases} cases)", title_justify="left")
    for title in ("step", "mean Dice before", "after", "its own before", "after", ""):
        table.add_column(title, justify="left" if title in ("step", "") else "right")
    for trial in choice.trials:
        own = [scores.get(trial.step.name) for scores in (trial.before, trial.after)]
        means = [mean_dice(scores) for scores in (trial.before, trial.after)]
        table.add_row(trial.step.name, *map(_shown, means + own), "adopted" if trial.adopted else "no gain")
    return table


def dice_of(mask: np.ndarray, truth: np.ndarray, structures: Structures) -> dict[str, float]:
    """Dice of each structure; NaN where neither has it, 0 where one has."""
    scores = {}
    for name, values in structures.items():
        one, other = (np.isin(array, list(values)) for array in (mask, truth))
        size = int(one.sum()) + int(other.sum())
        scores[name] = 2 * int((one & other).sum()) / size if size else math.nan
    return scores


def mean_over_cases(scores: Sequence[Mapping[str, float]]) -> dict[str, float | None]:
    """Of each structure the mean over the cases where it is defined; None where it never is."""
    means = {}
    for name in scores[0]:
        defined = [score[name] for score in scores if not math.isnan(score[name])]
        means[name] = math.fsum(defined) / len(defined) if defined else None
    return means


def mean_dice(means: Mapping[str, float | None]) -> float | None:
    """The plain mean over structures; None where none is defined."""
    defined = [value for value in means.values() if value is not None]
    return math.fsum(defined) / len(defined) if defined else None


def _compare(
    cases: Cases, structures: Structures, steps: Sequence[KeepLargest], step: KeepLargest
) -> tuple[dict[str, float | None], dict[str, float | None], int]:
    before, after = [], []
    for _, mask, truth in cases():
        mask = apply_steps(np.array(mask), steps)
        before.append(dice_of(mask, truth, structures))
        after.append(dice_of(mask, truth, structures) if keep_largest(mask, step.labels) else before[-1])
    if not before:
        raise ValueError("cases: expected at least one, found none")
    return mean_over_cases(before), mean_over_cases(after), len(before)


def _shown(score: float | None) -> str:
    return "-" if score is None else f"{score:.4f}"


def _value(score: float | None) -> float:
    return -1.0 if score is None else score
