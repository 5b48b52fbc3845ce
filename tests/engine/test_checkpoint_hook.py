"""Checkpoints as files: whole, safe, in folders that move, of the right network."""

import sys
from pathlib import Path

import pytest
import torch
from miniature import SHORT, make_work_dir

from mamba_vision.apis.training import train
from mamba_vision.checkpoints import CheckpointError, load_file
from mamba_vision.engine import AtomicCheckpointHook, latest_checkpoint
from mamba_vision.version import __version__

sys.path.insert(0, str(Path(__file__).parents[1] / "checkpoints"))
from hostile import hostile_file

QUIET = {**SHORT, "custom_hooks": []}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    config = make_work_dir(tmp_path_factory.mktemp("checkpoints"))
    train(config, cfg_options={**QUIET, "default_hooks.checkpoint.max_keep_ckpts": 2})
    return config


def test_files_and_what_is_in_them(trained):
    work = trained.parent
    names = {file.name for file in work.glob("*.pth")}
    assert {"epoch_1.pth", "epoch_2.pth"} < names
    assert len([name for name in names if name.startswith("best_dice_epoch_")]) == 1
    assert (work / "last_checkpoint").read_text() == "epoch_2.pth"
    assert not list(work.glob(".*.pth"))
    content = load_file(work / "epoch_2.pth")
    assert content["meta"]["plan"]["channels"] == ["MR"]
    assert content["meta"]["mamba_vision_version"] == __version__
    assert content["meta"]["dataset_meta"]["classes"] == ("background", "ball", "core")
    assert "optimizer" not in load_file(next(work.glob("best*.pth")))
    # What it remembers of other files are names, so that the folder can move.
    info = content["message_hub"]["runtime_info"]
    assert info["last_ckpt"] == "epoch_2.pth"
    assert info["best_ckpt"].startswith("best_dice_epoch_")


def test_a_crash_while_saving_leaves_the_checkpoint_before(trained, tmp_path, monkeypatch):
    import shutil

    work = tmp_path / "work"
    shutil.copytree(trained.parent, work)
    shutil.copytree(trained.parents[1] / "data", tmp_path / "data")
    before = (work / "epoch_2.pth").read_bytes()
    save, calls = torch.save, []

    def half(content, file, **options):
        calls.append(1)
        if hasattr(file, "write"):
            file.write(b"half a checkpoint")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", half)
    options = {**QUIET, "epochs": 3, "default_hooks.checkpoint.max_keep_ckpts": 1}
    with pytest.raises(OSError, match="no space"):
        train(work / "config.py", resume="auto", extend=True, cfg_options=options)
    assert calls
    assert (work / "epoch_2.pth").read_bytes() == before
    assert latest_checkpoint(work) == work / "epoch_2.pth"
    monkeypatch.setattr(torch, "save", save)
    train(work / "config.py", resume="auto", extend=True, cfg_options=options)
    assert latest_checkpoint(work) == work / "epoch_3.pth"
    assert not (work / "epoch_2.pth").exists()


def test_half_files_of_a_killed_training_are_cleared_away(trained, tmp_path):
    for name in (".0123456789ab.epoch_1.pth", ".ba9876543210.last_checkpoint"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / ".mine.pth").write_bytes(b"somebody's own")
    train(trained, work_dir=tmp_path, validate=False, cfg_options={**QUIET, "epochs": 1, "iterations": 1})
    assert {file.name for file in tmp_path.glob(".*")} == {".mine.pth"}


def test_the_runner_does_not_run_what_a_hostile_file_holds(trained, tmp_path):
    path, marker = hostile_file(tmp_path, load_file(trained.parent / "epoch_2.pth")["state_dict"])
    for options in ({"resume": path}, {"cfg_options": {**QUIET, "load_from": str(path)}}):
        with pytest.raises(CheckpointError, match="refused"):
            train(trained, **{"cfg_options": QUIET, "work_dir": tmp_path / "work", **options})
    pretrained = {"type": "Pretrained", "checkpoint": str(path)}
    for part in ("model.init_cfg", "model.network.init_cfg"):
        with pytest.raises(CheckpointError, match="refused"):
            train(trained, work_dir=tmp_path / "work", cfg_options={**QUIET, part: pretrained})
    assert not marker.exists()


def test_a_checkpoint_of_another_network_is_refused_before_training(trained, tmp_path):
    path = tmp_path / "other.pth"
    state = load_file(trained.parent / "epoch_2.pth")
    torch.save({**state, "state_dict": {"backbone.weight": torch.zeros(3)}}, path)
    for options in ({"resume": path}, {"cfg_options": {**QUIET, "load_from": str(path)}}):
        with pytest.raises(ValueError, match=r"other\.pth belongs to another network.*\n.*missing"):
            train(trained, **{"cfg_options": QUIET, "work_dir": tmp_path / "work", **options})
    wider = {name: torch.zeros(7) if name.endswith("A_log") else value for name, value in state["state_dict"].items()}
    torch.save({**state, "state_dict": wider}, path)
    with pytest.raises(ValueError, match=r"other shape.*A_log"):
        train(trained, resume=path, cfg_options=QUIET, work_dir=tmp_path / "work")


def test_an_unknown_metric_to_save_by_names_the_known_ones(trained, tmp_path):
    with pytest.raises(ValueError, match="no metric is called 'mIoU'; there are dice"):
        train(trained, work_dir=tmp_path, cfg_options={**QUIET, "default_hooks.checkpoint.save_best": "mIoU"})


def test_latest_checkpoint_finds_its_file_in_a_moved_folder(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    (tmp_path / "last_checkpoint").write_text("/somewhere/else/epoch_3.pth")
    with pytest.raises(FileNotFoundError, match=r"names epoch_3\.pth"):
        latest_checkpoint(tmp_path)
    (tmp_path / "epoch_3.pth").touch()
    assert latest_checkpoint(tmp_path) == tmp_path / "epoch_3.pth"


def test_takes_the_arguments_of_mmengines_hook():
    hook = AtomicCheckpointHook(
        interval=2, by_epoch=False, max_keep_ckpts=3, save_best=["dice", "hd95_mm"], rule="less"
    )
    assert hook.filename_tmpl == "iter_{}.pth"
