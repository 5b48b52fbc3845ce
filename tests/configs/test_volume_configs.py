"""The published trainings of SegMamba and LightM-UNet."""

from pathlib import Path

import pytest
import torch
import yaml
from miniature import make_work_dir, unformatted
from mmengine.registry import MODELS, DefaultScope

from mamba_vision.apis.config_loading import load_config
from mamba_vision.apis.training import train
from mamba_vision.utils import project_folder

CONFIGS = project_folder("configs")
FILES = sorted(file for system in ("segmamba", "lightm_unet") for file in (CONFIGS / system).glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_parameters_are_those_of_the_metafile(path):
    models = yaml.safe_load((path.parent / "metafile.yml").read_text())["Models"]
    model = next(one for one in models if one["Name"] == path.stem)
    with DefaultScope.overwrite_default_scope("mamba_vision"), torch.device("meta"):
        network = MODELS.build(load_config(path).model.network)
    assert sum(value.numel() for value in network.parameters()) == model["Metadata"]["Parameters"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_published_training_takes_one_step_on_a_miniature(path, tmp_path):
    """The published recipe, network narrowed and patch cut to what a test can hold; then it validates."""
    planned = load_config(make_work_dir(tmp_path, prepare=True))
    places = {key: planned[key] for key in ("scans", "plan", "splits", "prepared")}
    data = {f"{loader}_dataloader.dataset.{key}": value for loader in ("train", "val")
            for key, value in (("root", places["prepared"]), ("splits", places["splits"]),
                               ("classes", planned["classes"]))}  # fmt: skip
    small = {
        "model.plan": places["plan"], "model.network.arch": "tiny", "model.inferer.roi_size": (16, 16, 16),
        "train_dataloader.dataset.patch_size": (16, 16, 16), "train_dataloader.dataset.final_size": (16, 16, 16),
        "train_dataloader.dataset.pipeline": [], "train_dataloader.num_workers": 0, "val_dataloader.num_workers": 0,
        "train_dataloader.batch_sampler.iterations": 1, "train_cfg.max_epochs": 1, "custom_hooks": [],
        "val_evaluator.classes": planned["classes"],
    }  # fmt: skip
    if "segmamba" in path.stem:
        small["val_evaluator.regions"] = {"WT": [1, 2]}
    with unformatted():
        runner = train(path, work_dir=tmp_path / "out", cfg_options={**places, **data, **small})
    assert runner.iter == 1 and (tmp_path / "out" / "epoch_1.pth").is_file()
    rate = runner.optim_wrapper.get_lr()["lr"][0]
    first = 0.01 if "segmamba" in path.stem else 1e-4
    assert 0 < rate < first and Path(runner.work_dir) == tmp_path / "out"
