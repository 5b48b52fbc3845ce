"""tools/visualize_scan.py as a user calls it: what it draws, lists and refuses."""

import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

from mamba_vision.registry import SCAN_ORDERS
from mamba_vision.utils import project_folder

TOOL = project_folder("tools") / "visualize_scan.py"


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Call the tool in an empty folder; gives its exit status."""

    def call(*arguments: str) -> int:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(TOOL), *arguments])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(TOOL), run_name="__main__")
        return end.value.code

    return call


def test_it_lists_every_order(draw, capsys: pytest.CaptureFixture) -> None:
    assert draw("--list") == 0
    listed = "\n" + capsys.readouterr().out
    for name in SCAN_ORDERS.module_dict:
        assert f"\n{name} " in listed


def test_it_draws_an_order_with_options(draw, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    status = draw("local", "--grid", "4", "5", "--options", "directions=[w2,v]", "class_token=true")
    assert (status, capsys.readouterr().out) == (0, "wrote local.png\n")
    with Image.open(tmp_path / "local.png") as picture:
        picture.verify()


def test_it_draws_orders_side_by_side_and_animates(draw, tmp_path: Path) -> None:
    options = ("--options", "zigzag.schemes=[1]", "raster.reverse=true")
    assert draw("raster", "zigzag", "--grid", "3", "3", *options, "--out", "a/b.png", "--animate", "c.gif") == 0
    assert (tmp_path / "a" / "b.png").is_file()
    with Image.open(tmp_path / "c.gif") as walk:
        assert walk.n_frames == 9
    assert draw("raster", "--grid", "2", "--animate", "only.gif") == 0
    assert not (tmp_path / "raster.png").exists()


@pytest.mark.parametrize(
    "arguments,status,message",
    [
        ((), 2, "name a scan order, or ask for the --list"),
        (("crosss",), 1, "error: scan order: 'crosss' is not known, expected one of"),
        (("cross", "--grid", "2", "3", "4"), 1, "has 3 axes, expected 2"),
        (("cross", "--grid", "0", "3"), 2, "0: expected a length of at least 1"),
        (("cross", "--options", "mode"), 2, "mode: expected NAME=VALUE"),
        (("cross", "--options", "mod=bidi"), 1, "no option mod; it has mode"),
        (("cross", "zigzag", "--options", "mode=bidi"), 1, "as ORDER.mode"),
    ],
)
def test_it_refuses(
    draw, arguments: tuple[str, ...], status: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert draw(*arguments) == status
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
