"""Clicks become prompts."""

import numpy as np
import pytest

from mamba_vision.apis.prompt_inference import PromptResult
from mamba_vision.apis.prompt_session import BOX, MEANT, NOT_MEANT, PromptSession


class Predictor:
    """Finds what lies in the boxes, and counts how often it is asked."""

    def __init__(self) -> None:
        self.image, self.asked = np.zeros((30, 40, 3), np.uint8), 0

    def predict(self, boxes, points) -> PromptResult:
        self.asked += 1
        mask = np.zeros((30, 40), bool)
        for x1, y1, x2, y2 in boxes:
            mask[y1:y2, x1:x2] = True
        return PromptResult(self.image, mask, mask.astype(np.float32))


@pytest.fixture
def session() -> PromptSession:
    return PromptSession(Predictor())


def test_two_clicks_make_a_box_whichever_corner_comes_first(session):
    session.click(20, 25, BOX)
    assert session.corner == (20, 25) and not session.boxes and "opposite corner" in session.summary()
    session.click(5, 10, BOX)
    assert session.boxes == [[5, 10, 21, 26]] and session.corner is None
    assert session.result.mask.sum() == 16 * 16
    assert "1 box" in session.summary() and "256 pixels, 21.3 %" in session.summary()
    session.click(3, 3, BOX)
    session.click(3, 3, BOX)
    assert session.boxes[1] == [3, 3, 4, 4] and "2 boxes" in session.summary()


def test_points_and_a_corner_that_is_given_up(session):
    session.click(1, 1, BOX)
    session.click(2, 3, MEANT)
    session.click(4, 5, NOT_MEANT)
    assert session.points == [[2, 3, 1], [4, 5, 0]] and session.corner is None
    assert "2 points" in session.summary() and "mask: empty" in session.summary()


def test_undo_and_clear(session):
    session.click(2, 3, MEANT)
    session.click(5, 5, BOX)
    session.click(9, 9, BOX)
    session.click(1, 1, BOX)
    session.undo()
    assert session.corner is None and len(session.boxes) == 1
    session.undo()
    assert not session.boxes and len(session.points) == 1
    session.undo()
    session.undo()
    assert not session.points and "no prompt" in session.summary()
    session.click(2, 3, MEANT)
    session.clear()
    assert not session.points and not session.view().any()


def test_the_model_is_asked_once_a_change(session):
    session.click(5, 5, BOX)
    session.click(9, 9, BOX)
    for _ in range(3):
        session.view(), session.summary()
    assert session.predictor.asked == 1 and session.view().any()


def test_clicks_are_checked(session):
    with pytest.raises(ValueError, match="click: found 40, 3, expected a pixel of the picture of 40 x 30"):
        session.click(40, 3, BOX)
    with pytest.raises(ValueError, match="mode: found 'circle'"):
        session.click(4, 3, "circle")
