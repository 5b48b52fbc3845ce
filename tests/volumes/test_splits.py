"""Folds, number for number those of scikit-learn's KFold(n, shuffle=True, random_state=12345)."""

import pytest

from mamba_vision.volumes import VolumeError, load_splits, make_splits, save_splits

NAMES = [f"case_{number:02d}" for number in range(11)]
# Recorded from scikit-learn 1.9 for 11 cases and 5 folds.
RECORDED = [[0, 3, 7], [6, 10], [8, 9], [1, 4], [2, 5]]


def test_the_recorded_folds():
    splits = make_splits(NAMES[::-1], 5)
    assert [fold["val"] for fold in splits] == [[NAMES[index] for index in fold] for fold in RECORDED]
    for fold in splits:
        assert fold["train"] == [name for name in NAMES if name not in fold["val"]]


def test_the_installed_scikit_learn_agrees():
    model_selection = pytest.importorskip("sklearn.model_selection")
    for cases, folds in ((5, 5), (13, 5), (100, 5), (23, 3)):
        names = [f"{number:03d}" for number in range(cases)]
        splitter = model_selection.KFold(folds, shuffle=True, random_state=12345)
        expected = [{"train": [names[i] for i in a], "val": [names[i] for i in b]} for a, b in splitter.split(names)]
        assert make_splits(names, folds) == expected


def test_few_cases():
    assert [len(fold["val"]) for fold in make_splits(["a", "b", "c"], 5)] == [1, 1, 1]
    assert make_splits(["a"], 5) == [{"train": ["a"], "val": ["a"]}]
    with pytest.raises(ValueError, match="cases: expected distinct names"):
        make_splits(["a", "a"])
    with pytest.raises(ValueError, match="folds: expected 2 or more, found 1"):
        make_splits(["a", "b"], 1)


def test_json(tmp_path):
    splits = make_splits(NAMES)
    assert load_splits(save_splits(tmp_path / "splits.json", splits)) == splits
    (tmp_path / "splits.json").write_text('[{"train": []}]')
    with pytest.raises(VolumeError, match="no usable splits"):
        load_splits(tmp_path / "splits.json")
