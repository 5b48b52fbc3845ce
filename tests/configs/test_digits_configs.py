"""The small trainings on digits: each begins to learn, and what their metafiles say beats a linear classifier."""

import numpy as np
import pytest
import yaml

from mamba_vision.apis.training import train
from mamba_vision.datasets import SmallPictures
from mamba_vision.utils.paths import project_folder

CONFIGS = project_folder("configs")
FILES = sorted(CONFIGS.glob("*/*-micro_digits.py"))
MARGIN = 2.0  # points


def test_every_backbone_has_one():
    assert {file.parent.name for file in FILES} == {"vim", "vmamba", "localmamba", "rsmamba"}


def test_metafiles_beat_a_linear_classifier_by_the_stated_margin():
    linear = pytest.importorskip("sklearn.linear_model")
    pixels, labels = {}, {}
    for split in ("train", "val"):
        data = SmallPictures("digits", split, size=32, pipeline=[])
        pixels[split] = np.stack([data[i]["img"].ravel() / 255 for i in range(len(data))])
        labels[split] = [data[i]["gt_label"] for i in range(len(data))]
    scores = [
        100 * linear.LogisticRegression(C=C, max_iter=2000).fit(pixels["train"], labels["train"]).score(
            pixels["val"], labels["val"]
        )
        for C in (0.01, 0.1, 1, 10)
    ]  # fmt: skip
    assert max(scores) == pytest.approx(96.0, abs=0.4)  # as the documents say; one digit is 0.33
    for file in FILES:
        meta = yaml.safe_load((file.parent / "metafile.yml").read_text())
        (entry,) = (model for model in meta["Models"] if model["Name"] == file.stem)
        assert entry["Results"][0]["Metrics"]["Top 1 Accuracy"] >= max(scores) + MARGIN


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_begins_to_learn(file, tmp_path):
    """Three epochs on a quarter of the digits: the loss falls, and guesses are better than chance."""
    changes = {
        "train_cfg.max_epochs": 3,
        "train_cfg.val_interval": 3,
        "train_dataloader.dataset.indices": 384,
        "train_dataloader.batch_size": 16,
        "val_dataloader.dataset.indices": 100,
        "custom_hooks": [],
        "default_hooks.logger.interval": 1,
    }
    runner = train(file, work_dir=tmp_path, cfg_options=changes)
    losses = runner.message_hub.get_scalar("train/loss").data[0]
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])
    assert runner.message_hub.get_scalar("val/accuracy/top1").current() > 25
