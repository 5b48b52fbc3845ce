"""A data set that trains in seconds: a bright ball (class 1) with a brighter core (class 2) in noise, as NIfTI scans,
and the work folder of a plan for it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mamba_vision.apis.config_template import render_config
from mamba_vision.volumes.cache import build_cache
from mamba_vision.volumes.planning import Plan
from mamba_vision.volumes.scans import find_scans

CLASSES = ("background", "ball", "core")
TRAIN, TEST = ("case_0", "case_1", "case_2"), ("case_3",)
SHORT = {"epochs": 2, "iterations": 3, "train_cfg.val_interval": 1}


@contextmanager
def unformatted() -> Iterator[None]:
    """MMEngine lays out the configuration four times a training: seconds each, of no use where nobody reads it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda text, **_: (text, False))
        yield


def make_scan(seed: int, shape=(20, 22, 24)) -> tuple[np.ndarray, np.ndarray]:
    """Image float32 and label uint8, both (X, Y, Z)."""
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(side) for side in shape), indexing="ij"), -1)
    centre = np.array([random.uniform(0.4, 0.6) * side for side in shape])
    distance = np.linalg.norm(grid - centre, axis=-1)
    label = (distance < 0.3 * min(shape)).astype(np.uint8) + (distance < 0.15 * min(shape))
    return (100 + 50 * label + 10 * random.standard_normal(shape)).astype(np.float32), label.astype(np.uint8)


def make_dataset(folder: Path) -> Path:
    """nnU-Net's raw layout: three training scans and a labelled test scan."""
    for number, case in enumerate((*TRAIN, *TEST)):
        image, label = make_scan(number)
        end = "Tr" if case in TRAIN else "Ts"
        for kind, array, name in (("images", image, f"{case}_0000"), ("labels", label, case)):
            target = folder / f"{kind}{end}" / f"{name}.nii.gz"
            target.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.diag([1.0, 1.0, 1.0, 1.0])), target)
    names = {name: number for number, name in enumerate(CLASSES)}
    content = {"channel_names": {"0": "MR"}, "labels": names, "numTraining": 3, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def make_plan() -> Plan:
    """For the scans above, with the smallest U-Mamba."""
    return Plan(
        dataset="miniature",
        channels=["MR"],
        labels={name: number for number, name in enumerate(CLASSES)},
        axes=(2, 1, 0),
        spacing=(1.0, 1.0, 1.0),
        patch_size=(16, 16, 16),
        batch_size=2,
        normalization=["zscore"],
        use_mask=[False],
        intensities=[{"mean": 100.0, "std": 20.0, "percentile_00_5": 60.0, "percentile_99_5": 220.0}],
        network={"type": "UMamba", "arch": "tiny", "placement": "bot", "in_channels": 1, "num_classes": 3},
        median_shape=(24, 22, 20),
        reasons={"patch_size": "small"},
    )


def make_work_dir(folder: Path, preset: str = "fast", prepare: bool = False) -> Path:
    """`folder`/data and `folder`/work with plan, splits and config; returns the config's path."""
    data, work = make_dataset(folder / "data"), folder / "work"
    plan = make_plan()
    plan.save(work / "plan.json")
    folds = [{"train": ["case_0", "case_1"], "val": ["case_2"]}, {"train": ["case_1", "case_2"], "val": ["case_0"]}]
    (work / "splits.json").write_text(json.dumps(folds))
    config = work / "config.py"
    config.write_text(render_config(plan, {"scans": str(data)}, work, preset=preset, workers=0))
    if prepare:
        build_cache(find_scans(data), plan, work / "preprocessed", workers=1)
    return config
