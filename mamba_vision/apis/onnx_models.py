"""The model that a configuration or a name means, as it is exported: weights loaded strictly, metadata gathered."""

import inspect
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from torch import nn

from mamba_vision.apis.config_loading import load_config
from mamba_vision.apis.example_inputs import published_size
from mamba_vision.apis.image_model import build_from_config, config_of, dataset_meta
from mamba_vision.apis.model_names import Variant, find_variant
from mamba_vision.apis.model_weights import classes_in
from mamba_vision.apis.onnx_tasks import (
    Exportable,
    classifier,
    config_seal,
    fuser,
    picture_network,
    prompted,
    restorer,
    segmentor,
    sharpener,
)
from mamba_vision.apis.onnx_volumes import volume_network, volume_segmentor
from mamba_vision.apis.prompt_model import resize_step
from mamba_vision.apis.volume_ensemble import init_volume_ensemble
from mamba_vision.checkpoints import CheckpointError, find_state_dict, load_file, load_published
from mamba_vision.deploy.torch_graph import ExportError

_IMAGENET = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "rgb": True, "steps": []}


def load_exportable(
    model: str | Path, checkpoint: str | Path | None = None, folds: Sequence[str | int] = ()
) -> Exportable:
    """What to export for a model.

    Args:
        model: a configuration, the work folder of a segmentation of scans, or a name of `mamba_vision.list_models()`.
        checkpoint: weights, read weights-only and loaded strictly; a work folder has its own. None: as initialized,
            which is of use to measure speed alone.
        folds: of a work folder, whose logits are averaged; default: its own checkpoint, or all its folds.

    Raises:
        FileNotFoundError, ValueError: a configuration, name or checkpoint that does not exist.
        CheckpointError: the checkpoint is damaged, refused, or belongs to another model.
        ExportError: a model of a kind that is not exported.
    """
    path = Path(model)
    if path.is_dir():
        found = volume_segmentor(init_volume_ensemble(path, folds, checkpoint, "cpu"))
        found.metadata["name"] = path.resolve().name
    elif folds:
        raise ExportError(f"folds: {model} is no work folder, so that it has none")
    elif path.suffix in (".py", ".json", ".yaml", ".yml"):
        cfg = load_config(path)
        found = _from_config(cfg, path, checkpoint)
        found.metadata.update(name=path.stem, training_config=config_seal(cfg))
    else:
        variant = find_variant(str(model))
        found = from_variant(variant, checkpoint)
        found.metadata["name"] = variant.name
    found.module.eval()
    return found


def _from_config(cfg: Config, path: Path, checkpoint: str | Path | None) -> Exportable:
    if "model" not in cfg:
        raise ExportError(f"{path}: expected a configuration with a model, found none")
    kind = str(cfg.model.get("type", "")).split(".")[-1]
    if kind == "VolumeSegmentor":
        if checkpoint is None:
            raise ExportError(f"{path}: a model for scans is exported with its checkpoint; name it, or its work folder")
        return volume_segmentor(init_volume_ensemble(path, (), checkpoint, "cpu"))
    model = build_from_config(cfg)
    content = _fill(model, checkpoint)
    if hasattr(model, "decode_head"):
        return segmentor(model, cfg, dataset_meta(content, cfg, model))
    if hasattr(model, "head") and hasattr(model, "backbone"):
        return classifier(model, cfg, dataset_meta(content, cfg, model)["classes"])
    if hasattr(model, "network") and hasattr(model.network, "prompts"):
        resize = resize_step(cfg)
        how = {"interpolation": "bilinear", "backend": "pillow"}
        steps = [] if resize is None else [{"size": list(resize.size), **how}]
        return prompted(model.network, {**_IMAGENET, "steps": steps}, model.threshold)
    if hasattr(model, "network"):
        found = _of_network(model.network, getattr(model, "tiling", None), getattr(model, "peak", 1.0))
        if found is not None:
            return found
    raise _refusal(path, getattr(model, "network", model))


def from_variant(variant: Variant, checkpoint: str | Path | None = None) -> Exportable:
    """What to export for a variant; as load_exportable, but for its name and the mode of evaluation.

    Raises:
        ExportError: a system whose export is not known.
        ValueError, OSError: the weights cannot be read, or belong to another model.
    """
    if variant.is_backbone:
        classes = 1000
        if checkpoint is not None:
            classes = classes_in(find_state_dict(load_file(checkpoint), source=f"checkpoint {checkpoint}")) or classes
        cfg = config_of(variant, classes)
        model = build_from_config(cfg)
        return classifier(model, cfg, dataset_meta(_fill(model, checkpoint), cfg, model)["classes"])
    network = variant.system(**variant.options)
    _fill(network, checkpoint)
    found = _of_network(network, None, 1.0)
    if found is not None:
        return found
    if hasattr(network, "num_classes") and "times" not in inspect.signature(network.forward).parameters:
        flat = getattr(network, "spatial_dims", 3) == 2
        return picture_network(network) if flat else volume_network(network, published_size(variant, network))
    raise _refusal(variant.name, network)


def _refusal(name: object, network: nn.Module) -> ExportError:
    kind = f"{name}: models of type {type(network).__name__} are not exported"
    if "times" in inspect.signature(network.forward).parameters:
        kind += (
            ": a generator makes pictures in many steps, of which a file would hold one, without the sampler and the "
            "decoder around it; use tools/sample.py"
        )
    return ExportError(kind)


def _of_network(network: nn.Module, tiling, peak: float) -> Exportable | None:
    """What the network's own attributes say that it does."""
    if hasattr(network, "guide_channels"):
        return sharpener(network, tiling, peak)
    if hasattr(network, "input_shapes"):
        return fuser(network, tiling)
    if hasattr(network, "upscale"):
        return restorer(network, tiling)
    if hasattr(network, "prompts"):
        return prompted(network, _IMAGENET)
    return None


def _fill(model: nn.Module, checkpoint: str | Path | None) -> dict:
    """Load the weights strictly; what else the file says."""
    if checkpoint is None:
        return {}
    content = load_file(checkpoint)
    state = find_state_dict(content, source=f"checkpoint {checkpoint}")
    target = model
    if hasattr(model, "network") and not any(key.startswith("network.") for key in state):
        target = model.network
    try:
        load_published(target, state)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint}: {error}") from error
    return content
