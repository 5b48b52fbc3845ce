"""tools/train.py and tools/test.py as a user starts them: processes, arguments, exit statuses, files."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from miniature import make_work_dir

from mamba_vision.checkpoints import load_file
from mamba_vision.utils import project_folder

TOOLS = project_folder("tools")
SHORT = ["--cfg-options", "epochs=2", "iterations=3", "train_cfg.val_interval=2"]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}


def run(*arguments, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=ENV, timeout=300, check=False, **options)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    return make_work_dir(tmp_path_factory.mktemp("tools"))


@pytest.fixture(scope="module")
def trained(config) -> subprocess.CompletedProcess:
    return run(TOOLS / "train.py", config, "--amp", *SHORT)


def test_a_planned_config_trains_and_says_what_is_next(config, trained):
    assert trained.returncode == 0, trained.stderr
    assert trained.stderr == ""
    for noise in ("OneDL", "MultiScaleDeformableAttention", "FileClient", "Config:", "System environment"):
        assert noise not in trained.stdout
    assert "in mixed precision" in trained.stdout
    assert "Trained 2 epochs, 6 iterations" in trained.stdout
    work = config.parent
    (merged,) = work.glob("2*_*.py")  # with the options in it, which config.py does not have
    assert f"Next: python tools/test.py {merged} {work / 'best_'}" in trained.stdout
    assert (work / "epoch_2.pth").is_file()
    assert (work / "progress.png").is_file()
    assert (work / "val" / "epoch_2.png").is_file()
    assert config.read_text().startswith("# Training of miniature")  # not overwritten by the merged one


def test_the_report_on_the_test_scans(config, trained, tmp_path):
    work = config.parent
    shown = run(TOOLS / "test.py", config, work / "epoch_2.pth", "--out", tmp_path / "masks")
    assert shown.returncode == 0, shown.stderr
    assert "1 labelled test scan of" in shown.stdout
    assert "surface Dice" in shown.stdout
    rows = list(csv.DictReader((work / "report" / "cases.csv").open()))
    assert [(row["case"], row["name"]) for row in rows] == [("case_3", "ball"), ("case_3", "core")]
    summary = json.loads((work / "report" / "summary.json").read_text())
    for row in rows:
        assert float(row["dice"]) == pytest.approx(summary["classes"][row["name"]]["dice"]["mean"], abs=1e-5)
        assert float(row["volume_true_ml"]) > 0
    assert summary["surface_dice_tolerance_mm"] == 2.0
    assert {file.name for file in (work / "report").iterdir()} == {
        "report.md", "cases.csv", "summary.json", "boxplots.png", "bland_altman.png", "worst_cases.png",
    }  # fmt: skip
    assert (tmp_path / "masks" / "case_3.nii.gz").is_file()


def test_the_report_on_a_fold_lists_scans_that_failed(config, trained, tmp_path):
    bad = tmp_path / "data"
    for folder in ("images", "labels"):
        (bad / folder).mkdir(parents=True)
    source = config.parents[1] / "data"
    (bad / "images" / "good.nii.gz").write_bytes((source / "imagesTr" / "case_2_0000.nii.gz").read_bytes())
    (bad / "labels" / "good.nii.gz").write_bytes((source / "labelsTr" / "case_2.nii.gz").read_bytes())
    (bad / "images" / "bad.nii.gz").write_bytes(b"no image")
    (bad / "labels" / "bad.nii.gz").write_bytes((source / "labelsTr" / "case_1.nii.gz").read_bytes())
    shown = run(TOOLS / "test.py", config, config.parent / "epoch_2.pth", "--data", bad, "--work-dir", tmp_path)
    assert shown.returncode == 1
    assert "failed: bad:" in shown.stdout
    assert "good" in (tmp_path / "report" / "cases.csv").read_text()


@pytest.mark.slow
def test_sigterm_saves_and_resume_goes_on(tmp_path):
    config = make_work_dir(tmp_path)
    long = ["--cfg-options", "epochs=2", "iterations=4000", "default_hooks.logger.interval=1"]
    process = subprocess.Popen(
        [sys.executable, str(TOOLS / "train.py"), str(config), *long],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV,
    )  # fmt: skip
    for line in process.stdout:
        if "Epoch(train)" in line:
            break
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM
    assert "--resume goes on from there" in errors
    saved = load_file(config.parent / "interrupted.pth")["meta"]["iter"]
    assert saved >= 1
    shown = run(
        TOOLS / "train.py", config, "--resume", "--extend", "--no-validate",
        "--cfg-options", "epochs=1", f"iterations={saved + 2}",
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert f"resumed epoch: 0, iter: {saved}" in shown.stdout
    assert f"{saved + 2} iterations" in shown.stdout


@pytest.mark.slow
def test_two_processes_on_a_cpu_train_as_one_with_the_double_batch(tmp_path):
    """Gradients are averaged over processes, so that two of batch 1 take the step of one of batch 2."""
    config = make_work_dir(tmp_path, prepare=True)
    options = ["--no-validate", "--cfg-options", "epochs=1", "iterations=2", "randomness.seed=3",
               "optim_wrapper.optimizer.type=SGD", "optim_wrapper.optimizer.lr=0.01",
               "train_dataloader.batch_sampler.foreground=0"]  # fmt: skip
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", TOOLS / "train.py"]
    two = run(*launch, config, "--launcher", "pytorch", "--work-dir", tmp_path / "two", *options, "batch_size=1")
    assert two.returncode == 0, two.stderr
    assert "2 processes" in two.stdout
    assert two.stdout.count("Training UMamba") == 1
    one = run(TOOLS / "train.py", config, "--work-dir", tmp_path / "one", *options, "batch_size=2")
    assert one.returncode == 0, one.stderr
    first, second = (load_file(tmp_path / name / "epoch_1.pth")["state_dict"] for name in ("one", "two"))
    for name, value in first.items():
        assert torch.allclose(value, second[name], atol=2e-5), name


def test_errors_are_one_line_and_status_one(config, tmp_path):
    missing = run(TOOLS / "train.py", tmp_path / "none.py")
    assert missing.returncode == 2
    assert "no such configuration" in missing.stderr
    misspelt = run(TOOLS / "train.py", config, "--cfg-options", "model.mirror_axis=1")
    assert misspelt.returncode == 1
    assert "did you mean 'mirror_axes'" in misspelt.stderr
    assert "Traceback" not in misspelt.stderr
    checkpoint = tmp_path / "no.pth"
    checkpoint.write_bytes(b"rubbish")
    refused = run(TOOLS / "test.py", config, checkpoint)
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert "no.pth" in refused.stderr


def test_a_fold_gets_a_folder_that_can_be_used_alone(config):
    shown = run(TOOLS / "train.py", config, "--fold", "1", "--no-validate", "--cfg-options", "epochs=1", "iterations=1")
    assert shown.returncode == 0, shown.stderr
    folder = config.parent / "fold_1"
    assert (folder / "plan.json").is_file()
    assert (folder / "config.py").is_file()
    assert load_file(folder / "epoch_1.pth")["meta"]["iter"] == 1
    assert "\nfold=1\n" in load_file(folder / "epoch_1.pth")["meta"]["cfg"]
    # the next command tests on what this fold has not seen, and leaves its report there
    (command,) = (line for line in shown.stdout.splitlines() if line.startswith("Next: python "))
    assert command == f"Next: python tools/test.py {folder / 'config.py'} {folder / 'epoch_1.pth'}"
    tested = run(*command.removeprefix("Next: python ").split(), "--tta", "none", cwd=TOOLS.parent)
    assert tested.returncode == 0, tested.stderr
    assert (folder / "report" / "cases.csv").is_file()
    (folder / "report" / "cases.csv").unlink()
    (folder / "epoch_1.pth").rename(folder / "best_dice_epoch_1.pth")
    tested = run(TOOLS / "test.py", config, folder / "best.pth", "--fold", "1", "--tta", "none")
    assert tested.returncode == 0, tested.stderr
    assert (folder / "report" / "cases.csv").is_file()
