"""Grids of small pictures: what is where."""

import numpy as np
import pytest
import torch
from PIL import Image

from mamba_vision.visualization.picture_grid import picture_grid, save_picture_grid, to_pixels


def test_values():
    assert to_pixels(torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])).tolist() == [0, 0, 128, 255, 255]


def test_pictures_go_left_to_right_then_down():
    values = torch.linspace(-1, 1, 5)
    grid = picture_grid(values.reshape(-1, 1, 1, 1).expand(5, 1, 40, 50), columns=3)
    assert grid.shape == (2 * 42 + 2, 3 * 52 + 2, 3) and grid.dtype == np.uint8
    centres = [grid[22 + 42 * (n // 3), 27 + 52 * (n % 3)].tolist() for n in range(5)]
    assert centres == [[value] * 3 for value in to_pixels(values).tolist()]
    assert picture_grid(torch.zeros(16, 3, 32, 32)).shape == (4 * 34 + 2, 4 * 34 + 2, 3)


def test_small_pictures_are_enlarged_and_colours_kept(tmp_path):
    picture = torch.full((1, 3, 8, 8), -1.0)
    picture[0, 1] = 1
    file = save_picture_grid(tmp_path / "new" / "grid.png", picture)
    shown = np.asarray(Image.open(file))
    assert shown.shape == (32, 32, 3) and shown[20, 20].tolist() == [0, 255, 0]


def test_a_clip_is_a_row():
    clips = torch.linspace(-1, 1, 6).reshape(2, 3, 1, 1, 1).expand(2, 3, 4, 32, 32)
    grid = picture_grid(clips)
    assert grid.shape == (2 * 34 + 2, 3 * 34 + 2, 3)
    assert grid[18, 18, 0] == 0 and grid[52, 86, 0] == 255  # first clip's first frame, last clip's last


def test_bad_pictures():
    with pytest.raises(ValueError, match=r"pictures: found shape \(3, 8, 8\)"):
        picture_grid(torch.zeros(3, 8, 8))
