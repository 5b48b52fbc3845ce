"""The course of a search: kept in a file, cut where a search is resumed."""

import numpy as np
import pytest

from mamba_vision.engine import DirectionHistory

NAMES = ("h", "h_flip", "v", "w2")


def history() -> DirectionHistory:
    made = DirectionHistory(NAMES, keep=2)
    for iteration in (0, 5, 10):
        made.record(iteration, np.array([[0.1, 0.2, 0.3, 0.4], [0.4, 0.1 + iteration / 100, 0.2, 0.3]]))
    return made


def test_round_trip(tmp_path):
    before = history()
    read = DirectionHistory.load(before.save(tmp_path / "directions.json"))
    assert (read.candidates, read.keep, read.iterations) == (NAMES, 2, [0, 5, 10])
    np.testing.assert_allclose(read.weights, before.weights, atol=1e-6)
    assert read.found == before.found == [("v", "w2"), ("h", "w2")]


def test_a_later_record_replaces_what_lies_behind_it():
    made = history()
    made.record(5, np.full((2, 4), 0.25))
    assert made.iterations == [0, 5] and (made.weights[-1] == 0.25).all()


@pytest.mark.parametrize("text", ["{}", "no", '{"candidates": ["h"], "keep": 1, "iterations": [1], "weights": []}'])
def test_another_file(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json"):
        DirectionHistory.load(tmp_path / "a.json")
