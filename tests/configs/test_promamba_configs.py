"""The published recipe trains and tests on a miniature of its data; the small one learns."""

import numpy as np
import pytest
import torch
from PIL import Image

from mamba_vision.apis.config_loading import load_config
from mamba_vision.apis.testing import TestOptions, run_test
from mamba_vision.apis.training import train
from mamba_vision.models.backbones.vim import Vim
from mamba_vision.utils import project_folder

FOLDER = project_folder("configs") / "promamba"
RECIPE = FOLDER / "promamba-tiny_1xb16-100e_polyps-352x352.py"


@pytest.fixture
def polyps(tmp_path):
    """The shared layout with two images a folder."""
    parts = [("TrainDataset", "image", "mask")]
    parts += [(f"TestDataset/{name}", "images", "masks") for name in ("Kvasir", "CVC-ClinicDB")]
    for part, *folders in parts:
        for number in range(2):
            mask = np.zeros((60, 80), np.uint8)
            mask[10:40, 20:60] = 255
            image = np.random.randint(0, 255, (60, 80, 3), dtype=np.uint8)
            for folder, array in zip(folders, (image, mask)):
                (tmp_path / part / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(tmp_path / part / folder / f"{number}.png")
    return tmp_path


def miniature(polyps) -> dict:
    """Options that make the recipe small enough for a test, and nothing else of it different."""
    sides = {f"{name}_dataloader.dataset.pipeline.1.size": 64 for name in ("train", "val", "test")}
    roots = {f"{name}_dataloader.dataset.data_root": str(polyps) for name in ("train", "val", "test")}
    workers = {f"{name}_dataloader.num_workers": 0 for name in ("train", "val", "test")}
    workers |= {f"{name}_dataloader.persistent_workers": False for name in ("train", "val", "test")}
    return {
        **sides, **roots, **workers, "model.network.arch": "test", "train_dataloader.batch_size": 2,
        "train_cfg.max_epochs": 1, "train_cfg.val_interval": 1,
    }  # fmt: skip


def test_the_recipe_trains_from_vim_and_tests(polyps, tmp_path):
    vim = Vim("test")
    torch.save({"model": vim.state_dict()}, tmp_path / "vim.pth")
    options = {**miniature(polyps), "vim": str(tmp_path / "vim.pth")}
    runner = train(RECIPE, work_dir=tmp_path / "out", cfg_options=options)
    rates = {group["lr"] / runner.optim_wrapper.param_groups[-1]["lr"] for group in runner.optim_wrapper.param_groups}
    assert sorted(round(rate, 3) for rate in rates) == [0.1, 1.0]
    trained = runner.model.network.encoder.layers[0].norm.weight
    torch.testing.assert_close(trained, vim.layers[0].norm.weight, rtol=0, atol=1e-3)  # it began there
    scores = runner.message_hub.log_scalars
    assert {"val/none/dice", "val/gt_box/mdice", "val/gt_box/Kvasir/sm"} <= set(scores)
    (checkpoint,) = (tmp_path / "out").glob("best_*.pth")
    cfg = load_config(RECIPE, miniature(polyps))
    found = run_test(cfg, checkpoint, TestOptions(work_dir=tmp_path / "test"))
    assert "gt_box_jitter/CVC-ClinicDB/wfm" in found and "point/em" in found
    assert all(0 <= value <= 1 for value in found.values())


@pytest.mark.slow
def test_the_small_one_learns(tmp_path):
    pytest.importorskip("nilearn")
    options = {"train_cfg.max_epochs": 2, "train_cfg.val_interval": 2, "param_scheduler": []}
    runner = train(FOLDER / "promamba-micro_mni152.py", work_dir=tmp_path, cfg_options=options)
    assert runner.message_hub.log_scalars["val/none/dice"].current() > 0.6
