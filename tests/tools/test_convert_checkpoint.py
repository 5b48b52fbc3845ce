"""tools/convert_checkpoint.py: a published file in, a plain one out, and messages where it does not fit."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mamba_vision.checkpoints import load_file, load_published
from mamba_vision.models.networks import UMamba
from mamba_vision.utils import project_folder

TOOL = project_folder("tools") / "convert_checkpoint.py"


@pytest.fixture
def convert(monkeypatch: pytest.MonkeyPatch):
    def call(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, arguments)])
        try:
            runpy.run_path(str(TOOL), run_name="__main__")
        except SystemExit as end:
            if end.code:
                raise

    return call


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """An nnU-Net checkpoint of the tiny network, with the second names that such files have."""
    state = UMamba("tiny").state_dict()
    copies = {f"decoder.{name}": value for name, value in state.items() if name.startswith("encoder.")}
    torch.save({"network_weights": state | copies, "current_epoch": 3}, tmp_path / "checkpoint_final.pth")
    return tmp_path / "checkpoint_final.pth"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_checked_against_a_model(convert, published: Path, capsys: pytest.CaptureFixture, suffix: str) -> None:
    out = published.with_name(f"plain{suffix}")
    convert(published, out, "--model", "UMamba", "--options", "arch=tiny", "placement=bot", "patch_size=[16,16,16]")
    text = capsys.readouterr().out
    assert "second names of the same tensors, such as decoder.encoder." in text and "tensors," in text
    model = UMamba("tiny")
    assert not load_published(model, out).ignored
    assert torch.equal(
        model.mamba_layer.norm.weight, load_file(published)["network_weights"]["mamba_layer.norm.weight"]
    )


def test_part_of_a_config(convert, published: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.py"
    config.write_text("model = dict(type='Task', network=dict(type='UMamba', arch='tiny'))\n")
    convert(published, tmp_path / "out.pth", "--config", config, "--part", "network")
    assert all(name.startswith("network.") for name in load_file(tmp_path / "out.pth")["state_dict"])
    with pytest.raises(SystemExit, match="no part 'backbone'; it has type, network"):
        convert(published, tmp_path / "out.pth", "--config", config, "--part", "backbone")


def test_unwrapped_only(convert, published: Path, tmp_path: Path) -> None:
    convert(published, tmp_path / "out.pth", "--prefix", "decoder.encoder.")
    assert "stem.0.conv1.weight" in load_file(tmp_path / "out.pth")["state_dict"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "UMamba", "--options", "arch=tiny", "num_classes=7"], r"final\.pth does not fit UMamba"),
        (["--model", "UMamba", "--options", "arch=huge"], "unknown arch 'huge'"),
        (["--model", "UMamba", "--options", "depth=3"], "depth"),
        (["--model", "NoSuchNet"], "NoSuchNet"),
        (["--ema"], "no moving average"),
        (["--prefix", "x."], "no name that begins with 'x.'"),
    ],
)
def test_errors_leave_no_file(convert, published: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        convert(published, published.with_name("out.pth"), *arguments)
    assert not published.with_name("out.pth").exists()


def test_bad_arguments(convert, published: Path, capsys: pytest.CaptureFixture) -> None:
    for arguments in (["out.zip"], ["a.pth", "--options", "a=1"], ["a.pth", "--part", "x"]):
        with pytest.raises(SystemExit) as stop:
            convert(published, *arguments)
        assert stop.value.code == 2
    assert "OUT must end in .pth or .safetensors" in capsys.readouterr().err


def test_only_its_own_lines_are_printed(published: Path) -> None:
    """Libraries that are imported on the way talk to the screen otherwise."""
    out = published.with_name("plain.pth")
    command = [sys.executable, TOOL, published, out, "--model", "UMamba", "--options", "arch=tiny"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in run.stdout.splitlines()] == ["ignored", f"{out}:"]
    assert run.stderr == ""
