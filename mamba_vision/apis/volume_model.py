"""A trained segmentation model from a work folder or a configuration, with its weights."""

import ast
import hashlib
import re
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from mamba_vision.checkpoints import CheckpointError, find_state_dict, load_file, load_published
from mamba_vision.registry import MODELS
from mamba_vision.utils.quiet import quiet_imports
from mamba_vision.utils.wording import command
from mamba_vision.volumes.planning import Plan


def init_volume_model(
    config_or_workdir: str | Path | Config,
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
) -> nn.Module:
    """A VolumeSegmentor ready to segment: its configuration, its plan, its weights.

    Args:
        config_or_workdir: the work folder that tools/plan.py made and tools/train.py trained in (config.py, plan.json
            and checkpoints; it may have been moved), a configuration, or a file that tools/export_onnx.py wrote.
        checkpoint: weights; of a work folder by default the best, else the last. Read weights-only, loaded strictly.
        device: 'cpu', 'cuda', 'cuda:1' ...; a GPU by default if there is one.

    Returns:
        The model in evaluation mode, with the attributes `cfg` (the configuration), `checkpoint` (the file), `plan` and
        `trained_fold` (that whose validation cases training has not seen; None where the checkpoint does not say).

    Raises:
        FileNotFoundError: no configuration, or no checkpoint.
        ValueError: a device that is not there, or a model that is not for volumes.
        CheckpointError: the checkpoint is damaged, refused, or belongs to another network.
    """
    if is_onnx(config_or_workdir):
        from mamba_vision.apis.onnx_volume_model import init_onnx_volume_model  # ONNX Runtime is an extra

        if checkpoint is not None:
            raise ValueError(f"checkpoint: {config_or_workdir} has its weights inside, expected none beside it")
        return init_onnx_volume_model(config_or_workdir, device)
    device = choose_device(device)
    with quiet_imports():
        folder, cfg = _configuration(config_or_workdir)
    weights = Path(checkpoint) if checkpoint is not None else find_checkpoint(folder)
    content = load_file(weights)
    settings = dict(cfg.model, plan=_plan(content, cfg, folder))
    try:
        with quiet_imports(), DefaultScope.overwrite_default_scope("mamba_vision"):
            model = MODELS.build(settings)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{cfg.filename or 'config'}: the model cannot be built: {error}") from error
    if not hasattr(model, "predict_logits"):
        raise ValueError(f"{config_or_workdir}: expected a VolumeSegmentor, found {type(model).__name__}")
    state = find_state_dict(content, source=f"checkpoint {weights}")
    alone = not any(name.startswith("network.") for name in state)  # the network's weights, as nnU-Net stores them
    try:
        load_published(model.network if alone else model, content)
    except CheckpointError as error:
        raise CheckpointError(f"{weights}: {error}") from error
    model.cfg, model.checkpoint, model.trained_fold = cfg, weights, _trained_fold(content)
    return model.to(device).eval()


def is_onnx(source: str | Path | Config) -> bool:
    """Whether this is an exported model."""
    return not isinstance(source, Config) and Path(source).suffix == ".onnx"


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device, or a GPU if there is one and none is named.

    Raises:
        ValueError: no such device on this machine.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except Exception as error:  # each backend of PyTorch has errors of its own for devices that are not there
        reason = str(error).splitlines()[0]
        raise ValueError(f"device: {str(device)!r} cannot be used here ({reason})") from error
    return chosen


def half_dtype(device: torch.device) -> torch.dtype:
    """What is computed in at half precision: bfloat16, or float16 on GPUs that could only emulate it."""
    emulated = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if emulated else torch.bfloat16


def find_checkpoint(folder: Path | None) -> Path:
    """The best checkpoint in a work folder, else the one that `last_checkpoint` names, else the newest.

    Raises:
        FileNotFoundError: there is none.
    """
    if folder is None:
        raise FileNotFoundError("checkpoint: a configuration without a folder needs one")
    by_age = sorted(folder.glob("*.pth"), key=lambda file: file.stat().st_mtime, reverse=True)
    best = [file for file in by_age if file.name.startswith("best")]
    if best:
        return best[0]
    pointer = folder / "last_checkpoint"
    if pointer.is_file():
        # It holds the full path of when it was written; the folder may have been moved since.
        last = folder / Path(pointer.read_text().strip().replace("\\", "/")).name
        if last.is_file():
            return last
    if by_age:
        return by_age[0]
    hint = f"train first: {command('tools/train.py', folder / 'config.py')}"
    raise FileNotFoundError(f"{folder}: no checkpoint (best_*.pth, epoch_*.pth); {hint}, or name one")


def checkpoint_hash(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal: which weights a segmentation was made with."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _plan(checkpoint: dict, cfg: Config, folder: Path | None) -> dict:
    """The plan that the weights were trained with: what the checkpoint says, else plan.json, in this order of trust."""
    meta = checkpoint.get("meta")
    if isinstance(meta, dict) and isinstance(meta.get("plan"), dict):
        return Plan.from_dict(meta["plan"], "the checkpoint's plan").to_dict()
    named = cfg.model.get("plan")
    if isinstance(named, dict):
        return Plan.from_dict(named, cfg.filename or "config").to_dict()
    beside = [folder / "plan.json", folder.parent / "plan.json"] if folder is not None else []
    # What is beside comes first: a merged configuration names the place that it was planned at.
    for path in beside[:1] + ([Path(named)] if named else []) + beside[1:]:
        if path.is_file():
            return Plan.load(path).to_dict()
    raise ValueError(f"{cfg.filename or 'config'}: no plan, neither in the checkpoint nor as plan.json beside it")


def _trained_fold(checkpoint: dict) -> int | str | None:
    """What the configuration in a checkpoint says: training writes its text there."""
    meta = checkpoint.get("meta")
    text = meta.get("cfg") if isinstance(meta, dict) else None
    found = re.search(r"^fold ?= ?(\d+|'\w+')$", text, re.MULTILINE) if isinstance(text, str) else None
    return ast.literal_eval(found[1]) if found else None


def _configuration(source: str | Path | Config) -> tuple[Path | None, Config]:
    """The folder that belongs to it (if any), and the configuration read."""
    if isinstance(source, Config):
        return (Path(source.filename).parent if source.filename else None), source
    path = Path(source)
    if path.is_dir():
        file = path / "config.py"
        if not file.is_file():  # the folder of a fold: training leaves its configuration under the name of the time
            found = sorted(path.glob("*.py"), key=lambda one: one.stat().st_mtime)
            if not found:
                raise FileNotFoundError(f"{path}: expected config.py, as tools/plan.py writes it; found none")
            file = found[-1]
    elif path.is_file():
        file = path
    else:
        raise FileNotFoundError(f"{path}: no such work folder or configuration")
    if file.suffix not in (".py", ".json", ".yaml", ".yml"):
        raise FileNotFoundError(f"{file}: expected a work folder or a configuration (.py)")
    cfg = Config.fromfile(file)
    if "model" not in cfg:
        raise FileNotFoundError(f"{file}: expected a configuration with a model, found none")
    return file.parent, cfg
