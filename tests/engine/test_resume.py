"""A training that is stopped and resumed is the training that was never stopped, bit for bit."""

import os
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from miniature import SHORT, make_work_dir
from mmengine.hooks import Hook

from mamba_vision.apis.training import train
from mamba_vision.checkpoints import load_file
from mamba_vision.engine import TrainingInterrupted, latest_checkpoint
from mamba_vision.registry import HOOKS


@HOOKS.register_module()
class StopForTest(Hook):
    """Records what the random generators give, and stops the training in one of several ways at a given place."""

    drawn: list = []  # noqa: RUF012  (shared on purpose)
    place: tuple | None = None
    priority = "VERY_LOW"

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        cases = tuple(sample.case for sample in data_batch["data_samples"])
        values = (random.random(), float(np.random.rand()), float(torch.rand(())))
        self.drawn.append((runner.iter, cases, float(sum(image.sum() for image in data_batch["inputs"])), *values))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._stop(("iter", runner.iter + 1))

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._stop(("val", runner.epoch))

    def _stop(self, place):
        if place == StopForTest.place:
            StopForTest.place = None
            os.kill(os.getpid(), signal.SIGTERM)
        if place == ("crash", *(StopForTest.place or ())[1:]):
            raise AssertionError
        if StopForTest.place == ("crash", *place):
            StopForTest.place = None
            raise RuntimeError("power cut")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    make_work_dir(folder, preset="default", prepare=True)
    return folder


def run(folder: Path, place: tuple | None = None, resume: str | None = None) -> list:
    StopForTest.place, StopForTest.drawn = place, []
    config = folder / "work" / "config.py"
    options = {**SHORT, "custom_hooks": [{"type": "StopForTest"}, {"type": "InterruptHook"}]}
    options["default_hooks.checkpoint.interval"] = 1
    train(config, cfg_options=options, resume=resume)
    return StopForTest.drawn


def state(folder: Path) -> dict:
    content = load_file(latest_checkpoint(folder / "work"))
    # Times differ from run to run; everything else must not.
    scalars = content["message_hub"]["log_scalars"]
    history = {name: buffer.data[0].tolist() for name, buffer in scalars.items() if "time" not in name}
    return {
        "weights": content["state_dict"],
        "optimizer": content["optimizer"],
        "schedule": content["param_schedulers"],
        "history": history,
        "place": (content["meta"]["epoch"], content["meta"]["iter"]),
        "best": content["message_hub"]["runtime_info"]["best_score"],
        "validated": content["message_hub"]["runtime_info"]["epochs_validated"],
    }


def same(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def check(found: dict, expected: dict) -> None:
    for name, value in expected.items():
        different = (
            [key for key in value if not same(found[name].get(key), value[key])] if isinstance(value, dict) else ""
        )
        assert same(found[name], value), f"{name} {[(key, found[name].get(key), value[key]) for key in different]}"


@pytest.fixture(scope="module")
def unbroken(prepared, tmp_path_factory) -> tuple[dict, list]:
    folder = copy(prepared, tmp_path_factory.mktemp("unbroken"))
    drawn = run(folder)
    return state(folder), drawn


def copy(prepared: Path, target: Path) -> Path:
    shutil.copytree(prepared, target, dirs_exist_ok=True)
    return target


@pytest.mark.parametrize(
    "place",
    [("iter", 2), ("iter", 3), ("val", 1), ("val", 2)],
    ids=["in an epoch", "at its end", "in a validation", "in the last validation"],
)
def test_stopped_by_a_signal_and_resumed(prepared, unbroken, tmp_path, place):
    folder = copy(prepared, tmp_path)
    with pytest.raises(TrainingInterrupted, match=r"stopped by SIGTERM.*interrupted\.pth.*--resume"):
        run(folder, place)
    before = StopForTest.drawn
    assert latest_checkpoint(folder / "work").name == "interrupted.pth"
    after = run(folder, resume="auto")
    assert before + after == unbroken[1]
    found = state(folder)
    check(found, unbroken[0])
    assert not (folder / "work" / "interrupted.pth").exists()


def test_crashed_without_warning_and_resumed_in_a_moved_folder(prepared, unbroken, tmp_path):
    folder = copy(prepared, tmp_path / "here")
    with pytest.raises(RuntimeError, match="power cut"):
        run(folder, ("crash", "iter", 5))
    moved = tmp_path / "there"
    shutil.move(folder, moved)
    run(moved, resume="auto")
    found = state(moved)
    check(found, unbroken[0])
    assert sorted(file.name for file in (moved / "work").glob("*.pth")) == ["best_dice_epoch_2.pth", "epoch_2.pth"]


def test_patches_do_not_depend_on_the_processes_that_load_them(prepared, unbroken, tmp_path):
    folder = copy(prepared, tmp_path)
    config = folder / "work" / "config.py"
    text = config.read_text().replace(
        "num_workers=0,\n    persistent_workers=False", "num_workers=2,\n    persistent_workers=True"
    )
    config.write_text(text)
    assert "num_workers=2" in text
    assert run(folder) == unbroken[1]
    assert same(state(folder)["weights"], unbroken[0]["weights"])


def test_other_length_of_an_epoch_is_refused(prepared, tmp_path):
    folder = copy(prepared, tmp_path)
    with pytest.raises(TrainingInterrupted):
        run(folder, ("iter", 5))
    with pytest.raises(ValueError, match="outside epoch 2 of 2 iterations"):
        train(folder / "work" / "config.py", cfg_options={**SHORT, "iterations": 2}, resume="auto")


def test_resume_without_a_checkpoint_begins(prepared, tmp_path, capsys):
    folder = copy(prepared, tmp_path)
    with pytest.raises(TrainingInterrupted):
        run(folder, ("iter", 1), resume="auto")
    assert "Nothing to resume" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth does not exist"):
        run(folder, resume="nowhere.pth")
