"""Every shipped configuration reads, passes the check of its keys, and builds; the metafiles say what is true."""

from pathlib import Path

import pytest
import torch
import yaml
from miniature import SHORT, make_work_dir
from mmengine.registry import MODELS, DefaultScope

from mamba_vision.apis.config_check import check_config
from mamba_vision.apis.config_loading import load_config
from mamba_vision.apis.training import train
from mamba_vision.utils import project_folder

CONFIGS = project_folder("configs")
FILES = sorted(file for file in CONFIGS.rglob("*.py") if "_base_" not in file.parts)
PUBLISHED = ("umamba-bot_1xb2-250k_flare22-40x224x192", "umamba-enc_1xb2-250k_amos22-mr-48x160x224")
METAFILES = sorted(CONFIGS.rglob("metafile.yml"))


def name(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


def build(path: Path) -> torch.nn.Module:
    """The model, without memory for its weights."""
    cfg = load_config(path)
    if cfg.model.get("type", "").endswith("VolumeSegmentor"):
        cfg.model.plan = None  # it is made from the data
    cfg.model.pop("init_cfg", None)
    scope = cfg.get("default_scope", "mmengine")
    with DefaultScope.overwrite_default_scope(scope), torch.device("meta"):
        return MODELS.build(cfg.model)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_config_reads_and_builds(path):
    check_config(load_config(path))
    assert any(True for _ in build(path).parameters())


@pytest.mark.parametrize("path", METAFILES, ids=name)
def test_metafile_names_its_configs_and_counts(path):
    content = yaml.safe_load(path.read_text())
    collections = {one["Name"] for one in content["Collections"]}
    named = {model["Name"] for model in content["Models"]}
    assert named == {file.stem for file in path.parent.glob("*.py")}
    for model in content["Models"]:
        assert model["In Collection"] in collections
        config = CONFIGS.parent / model["Config"]
        assert config.stem == model["Name"]
        assert config.is_file()
    for one in content["Collections"]:
        assert (CONFIGS.parent / one["README"]).is_file()


def test_umamba_parameters_are_those_of_the_metafile():
    content = yaml.safe_load((CONFIGS / "umamba" / "metafile.yml").read_text())
    for model in content["Models"]:
        built = build(CONFIGS.parent / model["Config"])
        assert sum(value.numel() for value in built.parameters()) == model["Metadata"]["Parameters"]


@pytest.mark.parametrize("path", [CONFIGS / "umamba" / f"{one}.py" for one in PUBLISHED], ids=name)
def test_a_published_volume_training_takes_one_step_on_a_miniature(path, tmp_path):
    """The published recipe, network narrowed and patch cut to what a test can hold."""
    planned = load_config(make_work_dir(tmp_path, prepare=True))
    options = {
        **{key: planned[key] for key in ("scans", "plan", "splits", "prepared", "classes")},
        "tolerance": 2.0,
        "patch_size": (16, 16, 16),
        "enlarged": (16, 24, 24),
        "model.network.arch": "tiny",
        "model.network.patch_size": (16, 16, 16),
        "train_dataloader.num_workers": 0,
        "val_dataloader.num_workers": 0,
        "train_dataloader.batch_sampler.iterations": 1,
        "train_cfg.max_epochs": 1,
    }
    written = tmp_path / "copy" / path.name
    written.parent.mkdir()
    base = CONFIGS / "_base_" / "volumes"
    data = "flare22" if "flare22" in path.name else "amos22_mr"
    # The data's file alone has variables to set; the rest of the recipe is taken as it is.
    changed = load_config(base / f"{data}.py", {key: options.pop(key) for key in list(options) if "." not in key})
    changed.dump(written.parent / f"{data}.py")
    text = path.read_text().replace(f'"../_base_/volumes/{data}.py"', f'"{written.parent / data}.py"')
    written.write_text(text.replace('"../_base_/volumes', f'"{base}'))
    runner = train(written, work_dir=tmp_path / "out", validate=False, cfg_options={**options, "custom_hooks": []})
    assert runner.iter == 1
    assert (tmp_path / "out" / "epoch_1.pth").is_file()


def test_the_planned_config_trains_one_step(tmp_path):
    runner = train(make_work_dir(tmp_path), cfg_options={**SHORT, "epochs": 1, "iterations": 1})
    assert runner.iter == 1
