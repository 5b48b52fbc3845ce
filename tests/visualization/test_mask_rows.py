"""Masks of several models on one slice."""

import numpy as np
import pytest
from matplotlib.image import imread

from mamba_vision.visualization.mask_rows import mask_rows_figure


def test_rows(tmp_path) -> None:
    truth = np.zeros((12, 10, 4), int)
    truth[3:9, 2:8, 2] = 1
    wrong = truth.copy()
    wrong[3, 2:8, 2] = 0  # 6 of 36
    figure = mask_rows_figure(np.random.rand(12, 10, 4), truth, {"same": truth, "less": wrong}, tmp_path / "rows.png")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["scan", "same", "less", "truth", "0.0% wrong", "16.7% wrong"]
    assert imread(tmp_path / "rows.png").ndim == 3


def test_errors() -> None:
    image, truth = np.zeros((4, 4, 4)), np.zeros((4, 4, 4), int)
    with pytest.raises(ValueError, match="masks: found none"):
        mask_rows_figure(image, truth, {})
    with pytest.raises(ValueError, match=r"small: found shape \(3, 4, 4\), expected that of the scan"):
        mask_rows_figure(image, truth, {"small": truth[:3]})
