"""Which configuration, or which two together, segment best: nnU-Net's choice by cross-validated Dice."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from mamba_vision.apis.cross_validation import Predictions
from mamba_vision.apis.postprocessing_choice import (
    Choice,
    choose_postprocessing,
    dice_of,
    mean_dice,
    mean_over_cases,
)
from mamba_vision.utils import wording
from mamba_vision.utils.atomic import write_json
from mamba_vision.volumes.components import POSTPROCESSING_FILE
from mamba_vision.volumes.reading import read_volume
from mamba_vision.volumes.restore import labels_from_probabilities
from mamba_vision.volumes.writing import write_labels

_SLAB = 2**28  # bytes of probabilities looked at together


@dataclass(frozen=True)
class Candidate:
    """A configuration, or two whose probabilities are averaged, and its cross-validated Dice.

    Attributes:
        name: of the work folder or folders.
        work_dirs: those.
        dice: mean over cases of each structure.
        predictions: the cases.
    """

    name: str
    work_dirs: tuple[Path, ...]
    dice: dict[str, float | None]
    predictions: Predictions

    @property
    def mean(self) -> float:
        """Over structures; -1 where nothing is defined."""
        value = mean_dice(self.dice)
        return -1.0 if value is None else value


@dataclass(frozen=True)
class BestConfiguration:
    """All candidates, best first, and the clean-up of the best."""

    candidates: list[Candidate]
    choice: Choice
    postprocessing: Path

    @property
    def best(self) -> Candidate:
        """The one with the highest mean Dice."""
        return self.candidates[0]

    def command(self) -> str:
        """How to segment new scans with it."""
        first, *others = self.best.work_dirs
        words = [Path(first), "SCANS", "--out", "predictions"]
        if others:
            words += ["--ensemble", *map(Path, others), "--postprocessing", self.postprocessing]
        return wording.command("tools/segment.py", *words, "--folds", *self.best.predictions.folds)


def find_best_configuration(
    configurations: Sequence[tuple[str | Path, Predictions]], out: str | Path, pairs: bool = True, **about: Any
) -> BestConfiguration:
    """Score every configuration and every pair, choose the best, and choose its clean-up.

    Writes best_configuration.json into `out`, the label maps of the pairs into folders there, and postprocessing.json
    into the work folder of the best configuration (that of a pair into `out`).

    Args:
        configurations: work folder and cross-validated predictions of each, with probabilities where there are several.
        out: folder; made if missing.
        pairs: also try two together.
        about: said in best_configuration.json, e.g. the folds.

    Raises:
        ValueError: configurations of other labels or other cases.
    """
    out = Path(out)
    candidates = [Candidate(found.name, (Path(work_dir),), score(found), found) for work_dir, found in configurations]
    for one, two in itertools.combinations(configurations, 2) if pairs else ():
        joined = average(one[1], two[1], out)
        candidates.append(Candidate(joined.name, (Path(one[0]), Path(two[0])), score(joined), joined))
    candidates.sort(key=lambda candidate: (-candidate.mean, len(candidate.work_dirs)))
    best = candidates[0]
    choice = choose_postprocessing(best.predictions.masks, best.predictions.structures)
    place = (best.work_dirs[0] if len(best.work_dirs) == 1 else out) / POSTPROCESSING_FILE
    choice.save(place, chosen_on=best.name, **about)
    table = [
        {"name": one.name, "work_dirs": [str(path) for path in one.work_dirs], "mean_dice": mean_dice(one.dice),
         "dice": one.dice}
        for one in candidates
    ]  # fmt: skip
    write_json(out / "best_configuration.json", {**about, "best": best.name, "candidates": table})
    return BestConfiguration(candidates, choice, place)


def candidates_table(found: BestConfiguration) -> Table:
    """For a terminal: a row a configuration or pair, best first."""
    table = Table(title="cross-validated Dice", title_justify="left")
    table.add_column("configuration")
    for title in ("mean", *found.best.dice):
        table.add_column(title, justify="right")
    for one in found.candidates:
        values = [mean_dice(one.dice), *one.dice.values()]
        table.add_row(one.name, *("-" if value is None else f"{value:.4f}" for value in values))
    return table


def score(predictions: Predictions) -> dict[str, float | None]:
    """Mean Dice over cases of each structure."""
    structures = predictions.structures
    return mean_over_cases([dice_of(mask, truth, structures) for _, mask, truth in predictions.masks()])


def average(one: Predictions, two: Predictions, out: Path) -> Predictions:
    """Label maps from the mean of both probabilities, into a folder in `out`.

    Raises:
        ValueError: other labels, or other cases.
    """
    if one.plan.labels != two.plan.labels or one.structures != two.structures:
        raise ValueError(f"{one.name} and {two.name}: expected the same labels")
    if {scan.case for scan in one.scans} != {scan.case for scan in two.scans}:
        raise ValueError(f"{one.name} and {two.name}: expected the same cases; were they validated on the same folds?")
    name = f"{one.name} + {two.name}"
    folder = out / name.replace(" ", "")
    for scan in one.scans:
        first, second = one.probabilities(scan.case), two.probabilities(scan.case)
        rows = max(1, _SLAB // (8 * int(np.prod(first.shape[1:]))))
        slabs = []
        for start in range(0, first.shape[0], rows):
            part = np.asarray(first[start : start + rows], np.float32) + second[start : start + rows]
            slabs.append(labels_from_probabilities(np.moveaxis(part, -1, 0), one.plan, 2))
        like = read_volume(one.folder / f"{scan.case}.nii.gz")
        write_labels(folder / f"{scan.case}.nii.gz", np.concatenate(slabs), like, one.plan.labels)
    return Predictions(name, folder, one.scans, one.plan, one.folds)
