"""Models that turn images into images, with their weights: by a configuration, or by what published weights tell."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mamba_vision.apis.volume_model import choose_device, find_checkpoint, half_dtype
from mamba_vision.checkpoints import CheckpointError, find_state_dict, load_file, load_published
from mamba_vision.registry import MODELS


@dataclass(frozen=True)
class Published:
    """A published network and how it is told from others.

    Attributes:
        network: its class.
        module: where that is, with the tables ARCHS and PARAMETERS.
        mark: a part of the names of its weights that no other network has.
        model: task model from a variant's name.
        distinct: variants of one size differ in more than their weights, so that weights do not tell all.
    """

    network: str
    module: ModuleType
    mark: str
    model: Callable[[str], nn.Module]
    distinct: bool = False


def init_pixel_model(
    published: Sequence[Published], tasks: tuple[type, ...], config: str | Path | None, checkpoint: str | Path | None,
    arch: str | None, device: str | torch.device | None, ema: bool,
) -> nn.Module:  # fmt: skip
    """A model of one of the classes `tasks` with weights, in evaluation mode.

    Args:
        published: networks that weights alone, or `arch`, may stand for.
        tasks: classes that a configuration may build.
        config: a configuration, or the folder that it was trained in; None: the published network that the weights
            belong to, found out from their names and number.
        checkpoint: weights, published or our own; of a folder by default the best, else the last. Read weights-only.
        arch: the published network as 'MambaIR:sr_x2', instead of `config`.
        device: 'cpu', 'cuda', 'cuda:1' ...; a GPU by default if there is one.
        ema: take the moving average stored beside the weights (`params_ema`).

    Returns:
        The model, with the attributes `checkpoint` and `variant` (what it is, for people).

    Raises:
        FileNotFoundError: no configuration or checkpoint.
        ValueError: neither config nor checkpoint, a device that is not there, a model for something else.
        CheckpointError: the checkpoint is damaged, refused, or belongs to another network.
    """
    device = choose_device(device)
    folder = None
    if config is not None:
        if arch is not None:
            raise ValueError("config and arch: give one of them")
        folder, cfg = _configuration(Path(config))
    if checkpoint is None and folder is None:
        raise ValueError("checkpoint: expected a file of weights; without config there is none to go by")
    weights = Path(checkpoint) if checkpoint is not None else find_checkpoint(folder)
    state = find_state_dict(load_file(weights), ema=ema, source=f"checkpoint {weights}")
    alone = not any(key.startswith("network.") for key in state)
    try:
        if config is not None:
            model, variant = _built(cfg.model, config, tasks), str(config)
        else:
            one, name = recognize(published, state) if arch is None else _named(published, arch)
            model, variant = one.model(name), f"{one.network} {name}"
        load_published(model.network if alone else model, state)
    except CheckpointError as error:
        raise CheckpointError(f"{weights}: {error}") from error
    model.checkpoint, model.variant = weights, variant
    return model.to(device).eval()


def recognize(published: Sequence[Published], state: dict[str, Tensor]) -> tuple[Published, str]:
    """The network and the variant that published weights belong to.

    Raises:
        CheckpointError: they belong to no published variant, or to several that differ in more than their weights.
    """
    names = [name.removeprefix("network.") for name in state]
    for one in published:
        if not any(one.mark in name for name in names):
            continue
        count = sum(value.numel() for value in state.values() if value.is_floating_point())
        fitting = [variant for variant, parameters in one.module.PARAMETERS.items() if parameters == count]
        if len(fitting) > 1 and one.distinct:
            raise CheckpointError(
                f"weights of a {one.network} that may be {' or '.join(fitting)}: give arch, such as "
                f"{one.network}:{fitting[0]}, or the configuration that they were trained with"
            )
        if fitting:
            return one, fitting[0]
        known = ", ".join(f"{name} {number}" for name, number in one.module.PARAMETERS.items())
        raise CheckpointError(
            f"weights of a {one.network} with {count} parameters, which is none of the published variants ({known}); "
            "give the configuration that they were trained with"
        )
    raise CheckpointError(
        f"weights of an unknown network: the first name is {names[0] if names else 'missing'!r}, expected those of "
        f"{', '.join(one.network for one in published)}; give the configuration that they were trained with"
    )


def half_precision(model: nn.Module, enabled: bool) -> torch.autocast:
    """Context in which the model computes in half precision (`half_dtype`), if `enabled`."""
    device = next(model.parameters()).device
    return torch.autocast(device.type, dtype=half_dtype(device), enabled=enabled)


def _named(published: Sequence[Published], arch: str) -> tuple[Published, str]:
    """Network and variant of NETWORK:VARIANT."""
    network, _, variant = arch.partition(":")
    for one in published:
        if network == one.network and variant in one.module.ARCHS:
            return one, variant
    every = "; ".join(f"{one.network}: {', '.join(one.module.ARCHS)}" for one in published)
    raise ValueError(f"arch: expected NETWORK:VARIANT of {every}; found {arch!r}")


def _configuration(path: Path) -> tuple[Path, Config]:
    """The folder that belongs to it, and the configuration read."""
    if path.is_dir():
        found = sorted(path.glob("*.py"), key=lambda file: file.stat().st_mtime)
        if not found:
            raise FileNotFoundError(f"{path}: expected the configuration (.py) that training leaves there; found none")
        path = found[-1]
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such configuration or folder")
    return path.parent, Config.fromfile(path)


def _built(settings: dict, source: str | Path, tasks: tuple[type, ...]) -> nn.Module:
    try:
        with DefaultScope.overwrite_default_scope("mamba_vision"):
            model = MODELS.build(dict(settings))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{source}: the model cannot be built: {error}") from error
    if not isinstance(model, tasks):
        wanted = " or ".join(task.__name__ for task in tasks)
        raise ValueError(f"{source}: expected an {wanted}, found {type(model).__name__}")
    return model
