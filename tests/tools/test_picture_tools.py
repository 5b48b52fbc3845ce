"""Pictures that papers need: hidden_attention.py, grad_cam.py, erf.py and scan_path.py as a user calls them."""

import runpy

import numpy as np
import pytest
import torch
from PIL import Image

import mamba_vision
from mamba_vision.apis.grad_cam import grad_cam
from mamba_vision.apis.receptive_field import effective_receptive_field, field_sides
from mamba_vision.utils.paths import project_folder
from mamba_vision.visualization.heat_maps import overlay

TOOLS = project_folder("tools") / "analysis_tools"


def call(tool: str, *arguments) -> int:
    return runpy.run_path(str(TOOLS / tool))["main"]([str(argument) for argument in arguments])


@pytest.fixture
def given(tmp_path):
    """(model, its weights, a picture, folder)."""
    Image.fromarray(np.random.randint(0, 255, (40, 70, 3), dtype=np.uint8)).save(tmp_path / "dog.png")
    torch.save(mamba_vision.get_model("vim_test", num_classes=3).state_dict(), tmp_path / "vim.pth")
    return "vim_test", tmp_path / "vim.pth", tmp_path / "dog.png", tmp_path


@pytest.mark.parametrize("tool", ["hidden_attention.py", "grad_cam.py"])
def test_maps_over_a_picture(given, capsys, tool):
    model, weights, picture, folder = given
    out = folder / "maps.png"
    assert call(tool, model, weights, picture, "--out", out, "--class", 1, "--device", "cpu") == 0
    assert "dog.png: 1 0." in capsys.readouterr().out and min(Image.open(out).size) > 200
    with pytest.raises((ValueError, OSError), match=r"none\.png"):
        call(tool, model, weights, folder / "none.png", "--device", "cpu")


def test_receptive_fields(given, capsys):
    model, weights, picture, folder = given
    assert (
        call("erf.py", model, "vmamba_test", "--size", 64, "--num", 2, "--out", folder / "e.png", "--device", "cpu")
        == 0
    )
    assert "vmamba_test: part of the image" in capsys.readouterr().out and (folder / "e.png").stat().st_size > 1000
    pictures = ["--checkpoint", weights, "--images", picture, "--size", 64, 96, "--out", folder / "f.png"]
    assert call("erf.py", model, *pictures, "--device", "cpu") == 0


def test_a_layers_paths(tmp_path, capsys):
    assert call("scan_path.py", "localvmamba_tiny", "--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 15 and lines[6].endswith("local: h, w2_flip, w7, w7_flip")
    assert call("scan_path.py", "rsmamba_test", "--layer", 2, "--grid", 3, 4, "--out", tmp_path / "walk.gif") == 0
    assert call("scan_path.py", "vim_test", "--grid", 3, 3, "--out", tmp_path / "path.png") == 0
    assert Image.open(tmp_path / "walk.gif").is_animated
    with pytest.raises(ValueError, match="--layer: found 9, expected 0 to 3"):
        call("scan_path.py", "vim_test", "--layer", 9)


def test_field_of_a_convolution_is_its_kernel():
    """Two 3 x 3 convolutions see 5 x 5 pixels; the rectangle that holds all of it is as large."""
    two = torch.nn.Sequential(*(torch.nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(2)))
    for convolution in two:
        torch.nn.init.ones_(convolution.weight)
    field = effective_receptive_field(lambda x: (two(x),), [torch.rand(2, 1, 11, 11)])
    assert field.max() == field[5, 5] == 1 and (field > 0).sum() == 25
    assert field_sides(field, [1 / 81, 0.99]) == {1 / 81: 1 / 121, 0.99: 25 / 121}
    with pytest.raises(ValueError, match="images: found 0"):
        effective_receptive_field(two, [])


@pytest.mark.parametrize("name", ["vim_test", "vmamba_test", "localvim_test", "localvmamba_test", "rsmamba_test"])
def test_grad_cam_of_every_backbone(name):
    """The map sums, weighted, to what the layer's gradient says; no place speaks against."""
    model = mamba_vision.get_model(name, num_classes=4).eval()
    maps, logits, classes = grad_cam(model, torch.randn(2, 3, 64, 96), torch.tensor([0, 3]))
    assert maps.shape[0] == 2 and maps.ndim == 3 and maps.min() >= 0 and maps.max() > 0
    assert logits.shape == (2, 4) and classes.tolist() == [0, 3]
    with pytest.raises(ValueError, match="layer: found 'nowhere'"):
        grad_cam(model, torch.randn(1, 3, 64, 64), layer="nowhere")


def test_grad_cam_finds_what_is_weighed():
    """Where only one channel counts, the map is that channel's positive part."""
    model = mamba_vision.get_model("vmamba_test", num_classes=2).eval()
    with torch.no_grad():
        model.head.fc.weight.zero_()[0, 5] = 1.0
    x = torch.randn(1, 3, 64, 96)
    maps, _, _ = grad_cam(model, x, torch.tensor([0]))
    channel = model.backbone(x)[-1][:, 5].clamp_min(0).detach()
    torch.testing.assert_close(maps / maps.max(), channel / channel.max())


def test_overlay_is_red_where_the_map_is_high():
    heat = np.array([[0.0, 1.0]])
    painted = overlay(np.full((4, 8, 3), 100, np.uint8), heat)
    assert painted[0, -1, 0] > painted[0, -1, 2] and painted[0, 0, 2] > painted[0, 0, 0]
    assert np.array_equal(overlay(painted, np.zeros((2, 2)), 0.0), painted)
