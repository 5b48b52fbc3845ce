"""Fusion's configurations: all in them builds and goes together, small ones train, the metafiles tell the truth."""

import pytest
import yaml
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope

from mamba_vision.apis.config_check import check_config
from mamba_vision.apis.config_loading import load_config
from mamba_vision.apis.testing import TestOptions, run_test
from mamba_vision.apis.training import train
from mamba_vision.datasets import fusion_pairs, fusion_sharpening
from mamba_vision.models.networks import fusionmamba, mambadfuse
from mamba_vision.registry import METRICS, TRANSFORMS
from mamba_vision.utils import project_folder

NETWORKS = {"FusionMamba": fusionmamba, "MambaDFuse": mambadfuse}
FOLDERS = [project_folder("configs") / name for name in ("fusionmamba", "mambadfuse")]
FILES = sorted(file for folder in FOLDERS for file in folder.glob("*.py"))
META = {folder.name: yaml.safe_load((folder / "metafile.yml").read_text()) for folder in FOLDERS}
PARAMETERS = {m["Name"]: m["Metadata"]["Parameters"] for meta in META.values() for m in meta["Models"]}
QUICK = {"train_cfg.max_iters": 2, "train_cfg.val_interval": 2, "train_dataloader.batch_size": 2,
         "default_hooks.checkpoint.interval": 2, "val_dataloader.dataset.tile": 160}  # fmt: skip


def data_sets(loader: dict) -> list[dict]:
    return loader.dataset.get("datasets", [loader.dataset])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_builds(file) -> None:
    cfg = load_config(file)
    check_config(cfg)
    module, network = NETWORKS[cfg.model.network.type], cfg.model.network
    settings = module.ARCHS[network.arch]
    assert PARAMETERS[file.stem] == module.PARAMETERS.get(network.arch, PARAMETERS[file.stem])
    loaders = (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        network.arch = "tiny"  # the networks themselves are built elsewhere
        build_optim_wrapper(MODELS.build(cfg.model), cfg.optim_wrapper)
        for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
            METRICS.build(dict(evaluator))
        for one in (one for loader in loaders for one in data_sets(loader)):
            for step in one.pipeline:
                TRANSFORMS.build(dict(step))
    if "photographs" in file.stem:
        return
    layouts = {one.layout for loader in loaders for one in data_sets(loader)}
    assert len(layouts) == 1
    layout = layouts.pop()
    if module is fusionmamba:
        known = fusion_sharpening.LAYOUTS[layout]
        assert (known.bands, known.guide_channels) == (settings["bands"], settings["guide_channels"])
        assert known.peak == cfg.model.get("peak", 1.0) == cfg.test_evaluator.get("peak", known.peak)
        assert known.sensor == cfg.test_evaluator.get("sensor", "other") and layout in file.stem
    else:
        splits = {one.split for loader in loaders for one in data_sets(loader)}
        assert splits <= set(fusion_pairs.LAYOUTS[layout])
        assert cfg.train_cfg.max_iters == 10_000 and 2 * cfg.train_dataloader.batch_size == 12
        medical = "harvard" in file.stem
        assert cfg.optim_wrapper.optimizer.lr == (2e-4 if medical else 2e-5)
        assert cfg.train_dataloader.dataset.pipeline[1].size == (64 if medical else 128)
        assert cfg.model.loss.get("texture", 20.0) == (100.0 if medical else 20.0)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_metafiles(folder) -> None:
    names = [model["Name"] for model in META[folder.name]["Models"]]
    assert sorted(names) == sorted(file.stem for file in folder.glob("*.py"))
    readme = (folder / "README.md").read_text()
    assert all(name in readme for name in names)


@pytest.mark.parametrize("name", ["fusionmamba-tiny-x4_photographs", "mambadfuse-tiny_photographs"])
def test_a_few_iterations_on_photographs(name: str, tmp_path) -> None:
    """Training, its comparison with what needs no network, and tools/test.py's way to the same scores."""
    file = next(file for file in FILES if file.stem == name)
    runner = train(file, work_dir=tmp_path, cfg_options=QUICK)
    assert sum(p.numel() for p in runner.model.network.parameters()) == PARAMETERS[name]
    rows = [line.split(",") for line in (tmp_path / "comparison" / "scores.csv").read_text().splitlines()]
    baselines = ["bicubic"] if "fusionmamba" in name else ["mean", "maximum"]
    assert [row[0] for row in rows] == ["images", *baselines, "result"] and all(len(r) == len(rows[0]) for r in rows)
    score = rows[0].index("PSNR")
    assert float(rows[-1][score]) == pytest.approx(runner.message_hub.get_scalar("val/PSNR").current(), abs=1e-4)
    assert len(list((tmp_path / "comparison").glob("*.png"))) == 1
    cfg = load_config(file, {"test_dataloader.dataset.tile": 160})
    tested = run_test(cfg, tmp_path / "iter_2.pth", TestOptions(work_dir=tmp_path / "test"))
    assert tested["PSNR"] == pytest.approx(float(rows[-1][score]), abs=1e-3)
