"""A promptable segmentor from its configuration or work folder, with its weights."""

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mamba_vision.apis.config_loading import load_config
from mamba_vision.apis.image_model import build_from_config
from mamba_vision.apis.prompt_kind import KIND, find_config, is_promptable
from mamba_vision.apis.volume_model import choose_device, find_checkpoint
from mamba_vision.checkpoints import CheckpointError, find_state_dict, load_file, load_published
from mamba_vision.models.tasks.prompt_segmentor import PromptSegmentor
from mamba_vision.registry import TRANSFORMS
from mamba_vision.utils.quiet import quiet_imports


def init_prompt_model(
    config_or_workdir: str | Path | Config,
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
) -> PromptSegmentor:
    """A promptable model, ready to segment.

    Args:
        config_or_workdir: a configuration with a PromptSegmentor, or the folder that it was trained in.
        checkpoint: weights; of a folder by default the best, else the last. Read weights-only, loaded strictly.
        device: 'cpu', 'cuda', 'cuda:1' ...; a GPU by default if there is one.

    Returns:
        The model in evaluation mode, with the attributes `cfg`, `checkpoint` (the file) and `resize` (the step of the
        test pipeline that brings pictures to the network's size, or None).

    Raises:
        FileNotFoundError: no configuration, or no checkpoint.
        ValueError: a device that is not there, or a model of another kind.
        CheckpointError: the checkpoint is damaged, refused, or belongs to another network.
    """
    device = choose_device(device)
    if isinstance(config_or_workdir, Config):
        cfg, folder = config_or_workdir, None
    else:
        file = find_config(config_or_workdir)
        cfg, folder = load_config(file), Path(config_or_workdir) if Path(config_or_workdir).is_dir() else None
    if not is_promptable(cfg):
        raise ValueError(f"{config_or_workdir}: expected a {KIND}, found {cfg.get('model', {}).get('type')}")
    if checkpoint is None and folder is None:
        raise FileNotFoundError(f"checkpoint: {config_or_workdir} is a configuration, which needs a file of weights")
    weights = Path(checkpoint) if checkpoint is not None else find_checkpoint(folder)
    state = find_state_dict(load_file(weights), source=f"checkpoint {weights}")
    network = dict(cfg.model.network)
    if network.get("encoder"):  # those weights are replaced, and need not be there
        network["encoder"] = {**network["encoder"], "init_cfg": None}
    cfg = cfg.copy()
    cfg.model.network = network
    model = build_from_config(cfg)
    try:
        load_published(model, state)
    except CheckpointError as error:
        raise CheckpointError(f"{weights}: {error}") from error
    model.cfg, model.checkpoint, model.resize = cfg, weights, resize_step(cfg)
    return model.to(device).eval()


def resize_step(cfg: Config):
    """The step of the test pipeline that brings pictures to the network's size, or None."""
    loader = cfg.get("test_dataloader") or cfg.get("val_dataloader") or {}
    steps = (loader.get("dataset") or {}).get("pipeline", [])
    for step in steps:
        if str(step["type"]).rpartition(".")[2] == "ResizePrompted":
            with quiet_imports(), DefaultScope.overwrite_default_scope("mamba_vision"):
                return TRANSFORMS.build(dict(step))
    return None
