"""Who trains and who validates: nnU-Net's folds, number for number."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mamba_vision.utils.atomic import write_json
from mamba_vision.volumes.volume import VolumeError

SEED = 12345


def make_splits(
    cases: Sequence[str], folds: int = 5, groups: Mapping[str, str] | None = None
) -> list[dict[str, list[str]]]:
    """[{'train': [...], 'val': [...]}] a fold, over the sorted names.

    With `groups` (case -> patient) it is the sorted patients that are split, so that all cases of one are in one part;
    a case without a patient stands for itself.

    The same as scikit-learn's KFold(folds, shuffle=True, random_state=12345), which nnU-Net uses. Fewer cases than
    folds give one fold a case; a single case both trains and validates.

    Raises:
        ValueError: no case, a name twice, or fewer than two folds.
    """
    names = sorted(cases)
    if not names or len(set(names)) != len(names):
        raise ValueError(f"cases: expected distinct names, found {names}")
    if folds < 2:
        raise ValueError(f"folds: expected 2 or more, found {folds}")
    if groups is not None:
        members: dict[str, list[str]] = {}
        for name in names:
            members.setdefault(groups.get(name, name), []).append(name)
        splits = make_splits(list(members), folds)
        return [
            {part: sorted(name for group in fold[part] for name in members[group]) for part in fold} for fold in splits
        ]
    if len(names) == 1:
        return [{"train": names, "val": names}]
    folds = min(folds, len(names))
    order = np.arange(len(names))
    np.random.RandomState(SEED).shuffle(order)
    splits = []
    for part in np.array_split(order, folds):  # the first ones are larger by one, as in KFold
        chosen = set(part.tolist())
        splits.append(
            {
                "train": [name for index, name in enumerate(names) if index not in chosen],
                "val": [names[index] for index in sorted(chosen)],
            }
        )
    return splits


def listed_splits(folds: Mapping[str, str]) -> list[dict[str, list[str]]]:
    """The folds that a list of scans names: case -> number of the fold it validates; '' trains in every fold.

    Raises:
        ValueError: no case validates, or none is left to train in some fold.
    """
    numbers = sorted({int(fold) for fold in folds.values() if fold})
    if not numbers:
        raise ValueError(f"folds: expected the number of a fold for some cases, found none for {len(folds)}")
    splits = [
        {
            "train": sorted(case for case, fold in folds.items() if not fold or int(fold) != number),
            "val": sorted(case for case, fold in folds.items() if fold and int(fold) == number),
        }
        for number in numbers
    ]
    if not all(split["train"] for split in splits):
        raise ValueError(f"folds: expected cases to train on beside those of fold {numbers[0]}, found none")
    return splits


def save_splits(path: str | Path, splits: list[dict[str, list[str]]]) -> Path:
    """Write as JSON, in the form of nnU-Net's splits_final.json."""
    return write_json(path, splits)


def load_splits(path: str | Path) -> list[dict[str, list[str]]]:
    """Read splits.json (or nnU-Net's splits_final.json).

    Raises:
        VolumeError: no such file, or not in this form.
    """
    try:
        splits = json.loads(Path(path).read_text(encoding="utf-8"))
        return [{part: [str(name) for name in fold[part]] for part in ("train", "val")} for fold in splits]
    except (OSError, ValueError, KeyError, TypeError) as e:
        expected = "a list of {'train': [names], 'val': [names]}"
        raise VolumeError(path, f"no usable splits ({type(e).__name__}: {e})", expected) from e
