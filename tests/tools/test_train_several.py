"""Two processes, whole networks (DDP) or parts (FSDP): the same training as in one, on a CPU and on two GPUs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mamba_vision.apis.image_model import build_from_config
from mamba_vision.apis.training import train
from mamba_vision.checkpoints import load_file
from mamba_vision.utils.paths import project_folder

TOOLS, CONFIGS = project_folder("tools"), project_folder("configs")
os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # runs are compared number by number
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
TEXT = """
_base_ = {bases!r}
model = dict(backbone=dict(arch=dict(embed_dims=32, num_layers=2), patch_size=8))
plain = [dict(type="PackInputs")]
train_dataloader = dict(batch_size={batch}, sampler=dict(shuffle=False), dataset=dict(indices=32, pipeline=plain))
val_dataloader = dict(dataset=dict(indices=40))
sgd = dict(type="SGD", lr=0.1)
optim_wrapper = dict(_delete_=True, type="OptimWrapper", optimizer=sgd, clip_grad=dict(max_norm=0.5))
param_scheduler = None
train_cfg = dict(max_epochs=1, val_interval=1)
custom_hooks = []
"""
SHARDED = "strategy = dict(model_wrapper=dict(auto_wrap_policy=dict(min_num_params=2_000)))\n"


def run(config: Path, *arguments) -> subprocess.CompletedProcess:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"] if "--launcher" in arguments else []
    command = [sys.executable, *launch, TOOLS / "train.py", config, *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, env=ENV, timeout=300, check=False)


def configure(folder: Path, batch: int, sharded: bool = False) -> Path:
    """A config that starts from the weights in `folder`: drawn on a GPU or a CPU, those of one seed differ."""
    bases = [str(CONFIGS / "vim" / "vim-micro_digits.py")]
    if sharded:
        bases.append(str(CONFIGS / "_base_" / "strategies" / "fsdp.py"))
    file = folder / f"{'fsdp' if sharded else 'copies'}_{batch}.py"
    file.write_text(TEXT.format(bases=bases, batch=batch) + (SHARDED if sharded else ""))
    start = folder / "start.pth"
    if not start.is_file():
        model = build_from_config(Config.fromfile(file))
        torch.save({"state_dict": model.state_dict()}, start)
    file.write_text(f"{file.read_text()}load_from = {str(start)!r}\n")
    return file


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    two_processes_train_as_one(tmp_path, "Scans run on portable: Triton cannot run", rtol=1e-4, atol=2e-6)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_train_as_one(tmp_path):
    two_processes_train_as_one(tmp_path, "Scans run on triton", rtol=1e-3, atol=1e-5)


def two_processes_train_as_one(tmp_path, backend, **tolerance):
    train(configure(tmp_path, 16), work_dir=tmp_path / "one")
    found = {"one": load_file(tmp_path / "one" / "epoch_1.pth")["state_dict"]}
    for name, sharded in (("ddp", False), ("fsdp", True)):
        shown = run(configure(tmp_path, 8, sharded), "--launcher", "pytorch", "--work-dir", tmp_path / name)
        assert shown.returncode == 0, shown.stderr
        assert backend in shown.stdout
        assert shown.stdout.count("Training Vim") == shown.stdout.count("Trained 1 epoch, 2 iterations") == 1
        assert (tmp_path / name / "best_accuracy_top1_epoch_1.pth").is_file() and "accuracy/top1" in shown.stdout
        found[name] = load_file(tmp_path / name / "epoch_1.pth")["state_dict"]
    for name in ("ddp", "fsdp"):
        torch.testing.assert_close(found[name], found["one"], **tolerance)
    config = configure(tmp_path, 8, sharded=True)
    more = run(config, "--launcher", "pytorch", "--work-dir", tmp_path / "fsdp", "--resume", "--cfg-options",
               "train_cfg.max_epochs=2")  # fmt: skip
    assert more.returncode == 0, more.stderr
    assert "Trained 2 epochs, 4 iterations" in more.stdout and (tmp_path / "fsdp" / "epoch_2.pth").is_file()


def test_one_process_has_no_parts(tmp_path):
    shown = run(configure(tmp_path, 8, sharded=True), "--work-dir", tmp_path / "run")
    assert shown.returncode == 1 and "needs several processes: start with tools/dist_train.sh" in shown.stderr
