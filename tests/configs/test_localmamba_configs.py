"""LocalMamba's configurations: networks and optimizers build, supernets fit recipes, the metafile tells the truth."""

import pytest
import torch
import yaml
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope

from mamba_vision.apis.config_loading import load_config
from mamba_vision.apis.direction_search import found_config, recipe_config, supernet_layout
from mamba_vision.apis.training_options import TrainOptions
from mamba_vision.models.backbones import local_vim, local_vmamba
from mamba_vision.models.mixers.direction_merge import DirectionMerge
from mamba_vision.utils import project_folder

FOLDER = project_folder("configs") / "localmamba"
FILES = sorted(FOLDER.glob("*.py"))
META = yaml.safe_load((FOLDER / "metafile.yml").read_text())
MODULES = {"mamba_vision.LocalVim": local_vim, "mamba_vision.LocalVMamba": local_vmamba}


def build(file):
    cfg = load_config(file)
    cfg.model.backbone.pop("init_cfg", None)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device("meta"):
        return cfg, MODELS.build(cfg.model)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_builds_and_decays_as_published(file):
    cfg, model = build(file)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    free = {name for name, p in model.backbone.named_parameters() if decays[id(p)] == 0}
    if "upernet" in file.stem:
        normed = {name for name, _ in model.backbone.named_parameters() if "norm" in name or name == "pos_embed"}
        assert free == normed
        assert model.decode_head.in_channels == [m.shape[1] for m in maps(model.backbone)]
    elif "in1k" in file.stem:
        flat = {name for name, p in model.backbone.named_parameters() if p.ndim == 1}
        assert free == flat | ({"pos_embed", "cls_token"} & {name for name, _ in model.backbone.named_parameters()})
    assert ("search" in file.stem.split("wo-search")[-1]) == any(
        isinstance(m, DirectionMerge) and m.weights is not None for m in model.modules()
    )


def maps(backbone):
    return [torch.empty(1, width) for width in getattr(backbone, "dims", [backbone.embed_dims] * 4)]


@pytest.mark.parametrize("file", [file for file in FILES if "search_" in file.stem and "wo-" not in file.stem],
                         ids=lambda file: file.stem)  # fmt: skip
def test_supernets_fit_their_recipes(file):
    cfg = load_config(file)
    names, layers = supernet_layout(cfg)
    found = found_config(recipe_config(cfg, None, TrainOptions()), [names[:4]] * layers)
    assert len(found.model.backbone.directions) == layers == {15: 15, 20: 20, 33: 33, 4: 4}[layers]


def test_metafile():
    assert {model["Config"] for model in META["Models"]} == {f"configs/localmamba/{file.name}" for file in FILES}
    readme = (FOLDER / "README.md").read_text()
    for model in META["Models"]:
        cfg = load_config(FOLDER.parents[1] / model["Config"])
        assert model["Name"] in readme
        parameters = MODULES[cfg.model.backbone.type].PARAMETERS.get(str(cfg.model.backbone.arch))
        if "in1k" in model["Name"]:
            assert model["Metadata"]["Parameters"] == parameters


def test_warm_up_and_cosine():
    """From 1e-7 by epochs to 1e-3 in 20, then down to 1e-6 by iterations."""
    cfg = load_config(FOLDER / "local-vim-tiny_8xb128_in1k.py")
    warm, cosine = cfg.param_scheduler
    assert cfg.optim_wrapper.optimizer.lr * warm.start_factor == pytest.approx(1e-7)
    assert (warm.end, "convert_to_iter_based" in warm) == (20, False)
    assert (cosine.begin, cosine.end, cosine.eta_min, cosine.convert_to_iter_based) == (20, 300, 1e-6, True)
    assert cfg.optim_wrapper.optimizer.weight_decay == 0.04 and cfg.train_cfg.max_epochs == 300
    search = load_config(FOLDER / "local-vmamba-small-search_8xb128-100e_in1k.py")
    assert search.train_cfg.max_epochs == search.param_scheduler[1].end == 100
