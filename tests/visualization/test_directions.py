"""Pictures of direction weights."""

import numpy as np
import pytest
from PIL import Image

from mamba_vision.visualization.directions import direction_curves, direction_heat_map

NAMES = ("h", "h_flip", "v", "w2")


def weights(*shape: int) -> np.ndarray:
    values = np.random.default_rng(0).random(shape)
    return values / values.sum(-1, keepdims=True)


def test_heat_map_frames_what_is_kept(tmp_path):
    given = weights(3, 4)
    figure = direction_heat_map(given, NAMES, [("h", "v")] * 3, tmp_path / "map.png", title="after 7 iterations")
    panel = figure.axes[0]
    np.testing.assert_array_equal(panel.images[0].get_array(), given)
    assert len(panel.patches) == 6 and {round(patch.get_x() + 0.46) for patch in panel.patches} == {0, 2}
    assert [label.get_text() for label in panel.get_xticklabels()] == list(NAMES)
    assert f"{100 * given[1, 2]:.1f}" in {text.get_text() for text in panel.texts}
    assert Image.open(tmp_path / "map.png").size[0] > 300 and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("layers", [1, 7])
def test_curves_have_a_panel_a_layer(layers, tmp_path):
    given = weights(5, layers, 4)
    figure = direction_curves([0, 2, 4, 6, 8], given, NAMES, tmp_path / "curves.png")
    panels = [panel for panel in figure.axes if panel.lines]
    assert len(panels) == layers
    np.testing.assert_array_equal(panels[-1].lines[3].get_ydata(), given[:, -1, 3])
    assert panels[0].get_ylim()[0] == 0 and panels[0].get_ylim()[1] > given.max()
    forward, backward = panels[0].lines[:2]
    assert forward.get_color() == backward.get_color() and forward.get_linestyle() != backward.get_linestyle()


def test_bad_numbers():
    with pytest.raises(ValueError, match="weights: found shape"):
        direction_heat_map(weights(3, 5), NAMES)
    with pytest.raises(ValueError, match="iterations: found 2"):
        direction_curves([0, 1], weights(3, 2, 4), NAMES)
