"""A classifier or segmentor of pictures, from a configuration or a name, with its weights, pipeline and class names."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from mamba_vision.apis.config_loading import load_config
from mamba_vision.apis.model_names import Variant, find_variant, variants
from mamba_vision.apis.model_weights import classes_in
from mamba_vision.apis.volume_model import choose_device
from mamba_vision.checkpoints import CheckpointError, find_state_dict, load_file, load_published
from mamba_vision.registry import DATASETS, MODELS
from mamba_vision.utils.paths import project_folder
from mamba_vision.utils.quiet import quiet_imports


def init_image_model(
    model: str | Path | Config,
    checkpoint: str | Path,
    device: str | torch.device | None = None,
) -> nn.Module:
    """A model of 2-D images, ready to predict.

    Args:
        model: an MMPretrain or MMSegmentation configuration, or a name of `mamba_vision.list_models()`. A name brings
            the test pipeline and the classes of the shipped configuration of that variant and number of classes, or
            ImageNet's.
        checkpoint: its weights, trained here or as published; read weights-only, loaded strictly.
        device: 'cpu', 'cuda', 'cuda:1' ...; a GPU by default if there is one.

    Returns:
        The model in evaluation mode; `cfg` is its configuration, `dataset_meta` has `classes` and perhaps `palette`.

    Raises:
        FileNotFoundError, ValueError: a configuration, name, checkpoint or device that does not exist.
        CheckpointError: the checkpoint is damaged, refused, or belongs to another model.
    """
    device = choose_device(device)
    content = load_file(checkpoint)
    state = find_state_dict(content, source=f"checkpoint {checkpoint}")
    if isinstance(model, Config):
        cfg = model
    elif Path(model).suffix in (".py", ".yml", ".yaml", ".json") or Path(model).exists():
        cfg = load_config(model)
    else:
        cfg = config_of(find_variant(str(model)), classes_in(state) or 1000)
    network = build_from_config(cfg)
    try:
        load_published(network, state)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint}: {error}") from error
    network.cfg = network._config = cfg
    network.dataset_meta = network._dataset_meta = dataset_meta(content, cfg, network)
    return network.to(device).eval()


def build_from_config(cfg: Config) -> nn.Module:
    """The model of a configuration, with its data preprocessor, without any weights.

    Raises:
        ValueError: it cannot be built.
    """
    cfg = cfg.copy()
    settings = cfg.model
    if "data_preprocessor" in cfg:  # as MMEngine's runner hands it on
        settings.setdefault("data_preprocessor", cfg.data_preprocessor)
    for part in (settings, *(settings.get(name) for name in ("backbone", "network"))):
        if isinstance(part, dict):  # those weights are replaced, and need not be there
            part.pop("init_cfg", None)
    try:
        scope = cfg.get("default_scope", "mamba_vision")
        with quiet_imports(), warnings.catch_warnings(), DefaultScope.overwrite_default_scope(scope):
            warnings.filterwarnings("ignore", ".*avg_non_ignore")  # of MMSegmentation's loss, on every build
            model = MODELS.build(settings)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{cfg.filename or 'configuration'}: the model cannot be built: {error}") from error
    from mmengine.model import revert_sync_batchnorm

    return model if torch.cuda.is_available() else revert_sync_batchnorm(model)


def config_of(variant: Variant, classes: int) -> Config:
    """The shipped configuration of a classifier of this variant and classes, else one with ImageNet's pipeline.

    Raises:
        ValueError: the variant is no backbone.
    """
    if not variant.is_backbone:
        raise ValueError(f"{variant.name}: is no backbone of a classifier; name its configuration")
    for cfg in shipped_configs(variant):
        if cfg.model.head.num_classes == classes:
            return cfg
    root = project_folder("configs") / "_base_" / "classification"
    with quiet_imports():
        cfg = Config.fromfile(root / "imagenet_224.py")
    backbone = dict(type=f"mamba_vision.{variant.system.__name__}", **variant.options)
    if not variant.is_plain:
        backbone["out_indices"] = (-1,)
    with torch.device("meta"):
        width = variant.system(**variant.options).embed_dims
    cfg.default_scope = "mmpretrain"
    cfg.data_preprocessor.num_classes = classes
    cfg.model = dict(
        type="ImageClassifier",
        backbone=backbone,
        neck=None if variant.is_plain else dict(type="GlobalAveragePooling"),
        head=dict(type="LinearClsHead", num_classes=classes, in_channels=width),
    )
    return cfg


def shipped_configs(variant: Variant) -> list[Config]:
    """The classification configurations of this installation that have this variant as their backbone."""
    found = []
    for file in sorted(project_folder("configs").glob("[!_]*/*.py")):
        if file.parent.name.replace("_", "") not in variant.name:
            continue
        with quiet_imports():
            cfg = Config.fromfile(file)
        if cfg.get("default_scope") == "mmpretrain" and named_settings(cfg.model.backbone) is variant.settings:
            found.append(cfg)
    return found


def named_settings(backbone: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The entry of the table of variants that a backbone's configuration names, if it does."""
    for variant in variants().values():
        same = backbone.get("type") in (variant.system.__name__, f"mamba_vision.{variant.system.__name__}")
        if same and backbone.get("arch") == variant.options["arch"]:
            return variant.settings
    return None


def dataset_meta(content: dict, cfg: Config, model: nn.Module) -> dict[str, Any]:
    """Classes and palette from the checkpoint, else from the configuration's data set."""
    head = getattr(model, "head", None) or getattr(model, "decode_head", None)
    count = getattr(head, "num_classes", None)
    meta = content.get("meta") if isinstance(content.get("meta"), dict) else {}
    found = meta.get("dataset_meta") or {}
    found = dict(found) if _fits(found.get("classes"), count) else _configured_meta(cfg, count)
    found.setdefault("classes", None)
    found.setdefault("palette", None)
    return found


def _configured_meta(cfg: Config, count: int | None) -> dict[str, Any]:
    loader = cfg.get("test_dataloader") or cfg.get("val_dataloader") or {}
    dataset = loader.get("dataset")
    if not dataset:
        return {}
    try:
        with DefaultScope.overwrite_default_scope(cfg.get("default_scope", "mamba_vision")):
            meta = DATASETS.build({**dataset, "lazy_init": True, "pipeline": []}).metainfo
    except (OSError, ValueError, TypeError, KeyError, ImportError):
        return {}  # the data set need not be here: classes go by their numbers then
    return dict(meta) if _fits(meta.get("classes"), count) else {}


def _fits(classes: Sequence[str] | None, count: int | None) -> bool:
    return bool(classes) and (count is None or len(classes) == count)
