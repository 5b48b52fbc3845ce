"""Pictures of scan orders."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mamba_vision.registry import SCAN_ORDERS
from mamba_vision.visualization.scan_paths import scan_lines, scan_paths_animation, scan_paths_figure

RED = np.array([215, 48, 31])  # the mark of a start


def is_red(picture: Image.Image) -> np.ndarray:
    return np.abs(np.asarray(picture.convert("RGB")).astype(int) - RED).max(-1) < 12


def test_lines_of_an_order_along_some_axes_cover_the_grid() -> None:
    order = SCAN_ORDERS.build(dict(type="cascade", along="columns"))
    down, up = scan_lines(order, (2, 3))
    assert down.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert up.tolist() == [[3, 0], [4, 1], [5, 2]]
    (time_line,) = scan_lines(SCAN_ORDERS.build(dict(type="zzvideo", layer=2)), (3, 1, 2))
    assert time_line.tolist() == [[0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize(
    "spec,grid",
    [
        ("raster", (1, 1)),
        ("bidirectional", (17,)),
        ("cross", (3, 4)),
        (dict(type="local", class_token=True), (3, 4)),
        ("tri_oriented", (11, 2, 3)),
        (dict(type="reorder", rate=4), (2, 3)),
        (dict(type="prompted", prompts=2), (3, 3)),
        ("cascade", (3, 4)),
        ("hilbert", (24, 5)),
    ],
    ids=str,
)
def test_any_order_is_drawn(spec: object, grid: tuple[int, ...], tmp_path: Path) -> None:
    order, path = SCAN_ORDERS.build(spec), tmp_path / "order.png"
    figure = scan_paths_figure(scan_lines(order, grid), grid, order.labels, order.extra_tokens(grid), path, "a title")
    titles = [axes.get_title() for axes in figure.axes[: order.n_directions]]
    assert titles == list(order.labels)
    picture = Image.open(path)
    assert max(picture.size) < 4000
    assert is_red(picture).any()
    assert [p.name for p in tmp_path.iterdir()] == ["order.png"]


def test_starts_are_marked_where_paths_start(tmp_path: Path) -> None:
    """The eight zigzags start in the four corners: the red marks of a panel lie in its corner."""
    order = SCAN_ORDERS.build(dict(type="zigzag", schemes=[0, 6]))
    scan_paths_figure(scan_lines(order, (5, 5)), (5, 5), path=tmp_path / "zigzag.png")
    red = is_red(Image.open(tmp_path / "zigzag.png"))
    height, width = red.shape
    panels = red[: int(0.8 * height)]
    for half, row, column in ((slice(0, width // 2), 0, 0), (slice(width // 2, None), 1, 1)):
        rows, columns = np.nonzero(panels[:, half])
        assert (rows.mean() > 0.5 * len(panels)) == row
        assert (columns.mean() > 0.25 * width) == column


def test_animation_walks_and_rests(tmp_path: Path) -> None:
    order = SCAN_ORDERS.build("bidirectional")
    scan_paths_animation(scan_lines(order, (3, 3)), (3, 3), tmp_path / "walk.gif", order.labels)
    with Image.open(tmp_path / "walk.gif") as walk:
        assert walk.n_frames == 9
        grays = []
        for frame in range(9):
            walk.seek(frame)
            grays.append(
                int((np.abs(np.asarray(walk.convert("RGB")).astype(int) - 237).max(-1) < 3).sum())
            )  # cells not walked yet
    assert grays == sorted(grays, reverse=True)
    assert len(set(grays)) == 9


@pytest.mark.parametrize(
    "lines,labels,message",
    [
        ([], None, "lines: found no direction"),
        ([[0, 1, 9]], None, "lines: found tokens 0 to 9, expected -1 to 3"),
        ([[0, 1, 2, 3]], ["a", "b"], "labels: found 2, expected one for each of 1 directions"),
    ],
)
def test_bad_lines(lines: list, labels: list | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scan_paths_figure(lines, (2, 2), labels)
