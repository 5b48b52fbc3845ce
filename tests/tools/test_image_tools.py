"""tools/classify.py, segment_image.py, get_flops.py, model_table.py, print_env.py as a user calls them."""

import csv
import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mamba_vision
from mamba_vision.apis.config_loading import load_config
from mamba_vision.apis.image_model import build_from_config
from mamba_vision.utils.paths import project_folder

TOOLS = project_folder("tools")


def call(tool: str, *arguments) -> int:
    return runpy.run_path(str(TOOLS / tool))["main"]([str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path):
    """Two pictures, one damaged, and weights of vim_test."""
    (tmp_path / "images").mkdir()
    for name, size in (("a.png", (30, 50)), ("b.png", (99, 40))):
        Image.fromarray(np.random.randint(0, 255, (*size, 3), dtype=np.uint8)).save(tmp_path / "images" / name)
    (tmp_path / "images" / "broken.jpg").write_bytes(b"\xff\xd8 no")
    model = mamba_vision.get_model("vim_test", num_classes=3)
    meta = {"dataset_meta": {"classes": ["cat", "dog", "owl"]}}
    torch.save({"meta": meta, "state_dict": model.state_dict()}, tmp_path / "vim.pth")
    return tmp_path


def test_classify(folder, capsys):
    out = folder / "out"
    arguments = ["--csv", out / "t.csv", "--json", out / "t.json", "--draw", out / "drawn", "--device", "cpu"]
    assert call("classify.py", "vim_test", folder / "vim.pth", folder / "images", *arguments, "--topk", 2) == 1
    shown = capsys.readouterr()
    assert "2 of 3 classified" in shown.out and "broken.jpg: FAILED" in shown.out
    assert "failed: " in shown.err and "broken.jpg: damaged" in shown.err
    with (out / "t.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 and {row["label"] for row in rows if row["label"]} <= {"cat", "dog", "owl"}
    assert sum(bool(row["error"]) for row in rows) == 1
    entries = json.loads((out / "t.json").read_text())
    assert len(entries[0]["labels"]) == 2 and "error" in entries[2] and "error" not in entries[0]
    assert sorted(path.name for path in (out / "drawn").iterdir()) == ["a.png", "b.png"]
    assert call("classify.py", "vim_test", folder / "vim.pth", folder / "images" / "a.png", "--device", "cpu") == 0
    # one drawing is lost, and one line of what is finished torn by a kill: both are made again, and nothing else
    before = {name: (out / "drawn" / f"{name}.png").stat().st_mtime_ns for name in "ab"}
    Image.fromarray(np.zeros((30, 50, 3), np.uint8)).save(folder / "images" / "c.png")
    journal = out / "t.csv.finished.jsonl"
    journal.write_text(journal.read_text()[:-20])
    again = ["vim_test", folder / "vim.pth", folder / "images", *arguments, "--topk", 2, "--resume"]
    assert call("classify.py", *again) == 1
    assert "3 of 4 classified" in capsys.readouterr().out
    after = {name: (out / "drawn" / f"{name}.png").stat().st_mtime_ns for name in "ab"}
    assert before["a"] == after["a"] and before["b"] < after["b"]
    assert [entry["image"][-5:] for entry in json.loads((out / "t.json").read_text())][:2] == ["a.png", "b.png"]
    assert len(journal.read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vim_tset", "vim.pth", "images"), "model 'vim_tset' is not known; nearest: vim_test"),
        (("vim_test", "none.pth", "images"), "none.pth"),
        (("vim_test", "vim.pth", "elsewhere"), "elsewhere: no such image or folder"),
        (("vmamba_test", "vim.pth", "images"), "does not fit ImageClassifier"),
    ],
)
def test_classify_refuses(folder, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    assert call("classify.py", *arguments, "--device", "cpu") == 2
    assert message in capsys.readouterr().err


def test_segment(folder, capsys):
    config = folder / "small.py"
    base = project_folder("configs") / "vmamba" / "vmamba-tiny-s1l8_upernet_8xb2-160k_ade20k-512x512.py"
    config.write_text(
        f"_base_ = {str(base)!r}\n"
        "model = dict(backbone=dict(arch='test'), decode_head=dict(in_channels=[16, 32, 64, 128], channels=8),\n"
        "             auxiliary_head=dict(in_channels=64, channels=8))\n"
    )
    torch.save(build_from_config(load_config(config)).state_dict(), folder / "seg.pth")
    out = folder / "out"
    assert call("segment_image.py", config, folder / "seg.pth", folder / "images", "--out", out, "--device", "cpu") == 1
    assert "2 of 3 segmented" in capsys.readouterr().out
    assert np.array(Image.open(out / "masks" / "b.png")).shape == (99, 40)
    assert np.array(Image.open(out / "overlays" / "b.png")).shape == (99, 40, 3)
    with (out / "shares.csv").open() as file:
        shares = [float(row["share"]) for row in csv.DictReader(file) if row["image"].endswith("a.png")]
    assert sum(shares) == pytest.approx(1, abs=1e-4)
    # an interrupted run goes on where it stopped, in the same table
    before = (out / "masks" / "a.png").stat().st_mtime_ns
    (out / "shares.csv").unlink()
    (out / "overlays" / "b.png").unlink()
    again = [config, folder / "seg.pth", folder / "images", "--out", out, "--device", "cpu", "--resume"]
    assert call("segment_image.py", *again) == 1
    shown = capsys.readouterr().out
    assert "2 of 3 segmented" in shown and shown.count("is there") == 1
    assert (out / "masks" / "a.png").stat().st_mtime_ns == before and (out / "overlays" / "b.png").is_file()
    with (out / "shares.csv").open() as file:
        assert {Path(row["image"]).name for row in csv.DictReader(file)} == {"a.png", "b.png"}
    # a second run, of another picture, keeps the rows of the first
    one = folder / "one.png"
    one.write_bytes((folder / "images" / "a.png").read_bytes())
    assert call("segment_image.py", config, folder / "seg.pth", one, "--out", out, "--device", "cpu") == 0
    with (out / "shares.csv").open() as file:
        assert {Path(row["image"]).name for row in csv.DictReader(file)} == {"a.png", "b.png", "one.png"}


def test_flops(capsys):
    assert call("analysis_tools/get_flops.py", "vim_tiny", "--shape", 224, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["parameters"] == 7_148_008 and report["input"] == [1, 3, 224, 224]
    assert report["flops"] == report["multiply_adds"] + report["scan"] == pytest.approx(1.81e9, rel=0.02)
    config = project_folder("configs") / "vmamba" / "vmamba-tiny-s1l8_upernet_8xb2-160k_ade20k-512x512.py"
    assert call("analysis_tools/get_flops.py", config, "--shape", 512, 2048) == 0
    shown = capsys.readouterr().out
    assert "EncoderDecoder, one input of 3 x 512 x 2048" in shown and "9*L*D*N" in shown
    total = float(shown.split("FLOPs")[1].split("G")[0].split()[-1])
    assert total == pytest.approx(949, rel=0.02)  # published
    assert call("analysis_tools/get_flops.py", "vim_tiny", "--shape", 8, 8) == 1
    assert "error: " in capsys.readouterr().err


def test_flops_of_a_planned_volume(capsys):
    assert call("analysis_tools/get_flops.py", "umamba_bot_tiny", "--shape", 16, 16, 32) == 0
    assert "one input of 1 x 16 x 16 x 32" in capsys.readouterr().out
    config = project_folder("configs") / "umamba" / "umamba-bot_1xb2-250k_flare22-40x224x192.py"  # without its plan
    assert call("analysis_tools/get_flops.py", config, "--shape", 40, 224, 192, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["parameters"] == 41_945_158 and report["flops"] == pytest.approx(789e9, rel=0.02)
    scenes = project_folder("configs") / "rsmamba" / "rsmamba-base_uc.py"
    assert call("analysis_tools/get_flops.py", scenes, "--json") == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == 6_381_141


def test_table_of_some(capsys):
    assert call("analysis_tools/model_table.py", "--only", "vim_tiny", "--out", "-") == 0
    assert "| `vim_tiny` | 7,148,008 |" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        call("analysis_tools/model_table.py", "--only", "vim_tiny")


def test_environment(capsys):
    assert call("misc/print_env.py") == 0
    shown = capsys.readouterr().out
    assert "selective_scan on cpu: portable (Triton cannot run" in shown
    assert f"torch: {torch.__version__.split('+')[0]}" in shown and "mamba_vision: " in shown


def test_curves(tmp_path, capsys):
    for name, values in (("one", (50, 60)), ("two", (70, 90))):
        for part, value in enumerate(values):
            log = tmp_path / name / f"2030010{part}" / "vis_data" / "scalars.json"
            log.parent.mkdir(parents=True)
            log.write_text(json.dumps({"loss": 1.0, "step": part}) + "\n")
            with log.open("a") as file:
                file.write(json.dumps({"accuracy/top1": value, "step": part + 1}) + "\n")
    picture = tmp_path / "curves.png"
    arguments = [tmp_path / "one", tmp_path / "two", "--out", picture, "--line", "linear=55", "--ylim", 0, 100]
    assert call("analysis_tools/plot_runs.py", *arguments) == 0
    assert "two: 90 at 2, best 90, lowest 70" in capsys.readouterr().out and Image.open(picture).size == (700, 420)
    assert call("analysis_tools/plot_runs.py", tmp_path / "one", "--out", picture, "--metric", "dice") == 1
    assert "no metric 'dice', there are accuracy/top1, loss" in capsys.readouterr().err
    assert call("analysis_tools/plot_runs.py", tmp_path, "--out", picture) == 1
    assert "expected a work folder" in capsys.readouterr().err
