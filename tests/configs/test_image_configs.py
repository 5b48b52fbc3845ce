"""Every configuration of the 2-D backbones builds: model, optimizer, pipelines; and its metafile tells the truth."""

import numpy as np
import pytest
import torch
import yaml
from mmengine import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, TRANSFORMS, DefaultScope

from mamba_vision.models.backbones import rsmamba, vim, vmamba
from mamba_vision.utils import project_folder

CONFIGS = project_folder("configs")
SYSTEMS = {"vim": vim, "vmamba": vmamba, "rsmamba": rsmamba}
FILES = sorted(file for system in SYSTEMS for file in (CONFIGS / system).glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_builds(file):
    cfg = Config.fromfile(file)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device("meta"):
        if "data_preprocessor" in cfg:  # as MMPretrain's runner hands it on
            cfg.model.setdefault("data_preprocessor", cfg.data_preprocessor)
        model = MODELS.build(cfg.model)
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        for scheduler in cfg.param_scheduler:
            assert PARAM_SCHEDULERS.get(scheduler.type) is not None
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            for transform in loader.dataset.pipeline:
                TRANSFORMS.build(transform)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    trained = {name: p for name, p in model.backbone.named_parameters() if p.requires_grad}
    names = {name: decays[id(p)] for name, p in trained.items()}
    if cfg.default_scope == "mmpretrain" and "rsmamba" not in file.stem:
        assert {name for name, decay in names.items() if decay == 0} == {
            name for name, p in trained.items() if p.ndim == 1 or name in model.backbone.no_weight_decay()
        }
    head = getattr(model, "head", None) or model.decode_head
    if cfg.default_scope == "mmpretrain":
        assert head.num_classes == cfg.data_preprocessor.num_classes


@pytest.mark.parametrize("set_name", ["uc", "aid", "nwpu"])
def test_scene_pipeline_runs(set_name, tmp_path):
    import mmcv

    cfg = Config.fromfile(CONFIGS / "rsmamba" / f"rsmamba-base_{set_name}.py")
    image = np.random.RandomState(0).randint(0, 255, (256, 300, 3), dtype=np.uint8)
    mmcv.imwrite(image, str(tmp_path / "a.png"))
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            data = dict(img_path=str(tmp_path / "a.png"), gt_label=1)
            for transform in loader.dataset.pipeline:
                data = TRANSFORMS.build(transform)(data)
            assert data["inputs"].shape == (3, 224, 224)
    mean = cfg.data_preprocessor.mean
    assert cfg.train_dataloader.dataset.pipeline[4].hparams.pad_val == [round(x) for x in mean[::-1]]


@pytest.mark.parametrize("system", SYSTEMS)
def test_metafile(system):
    meta = yaml.safe_load((CONFIGS / system / "metafile.yml").read_text())
    listed = {model["Config"] for model in meta["Models"]}
    assert listed == {f"configs/{system}/{file.name}" for file in FILES if file.parent.name == system}
    names = [model["Name"] for model in meta["Models"]]
    assert len(set(names)) == len(names) and all(f"configs/{system}/{n}.py" in listed for n in names)
    for model in meta["Models"]:
        cfg = Config.fromfile(CONFIGS.parent / model["Config"])
        arch = cfg.model.backbone.arch
        parameters = SYSTEMS[system].PARAMETERS.get(arch) if isinstance(arch, str) else None
        if cfg.default_scope == "mmpretrain" and isinstance(parameters, int) and system != "rsmamba":
            assert model["Metadata"]["Parameters"] == parameters, model["Name"]
    readme = (CONFIGS / system / "README.md").read_text()
    assert all(name in readme for name in names if "upernet" not in name or system == "vim")
