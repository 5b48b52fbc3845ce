"""The search for scan directions (LocalMamba, arXiv 2403.09338, section 3.2): what tools/search.py does, for Python."""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from mamba_vision.apis.config_check import check_config
from mamba_vision.apis.config_loading import load_config
from mamba_vision.apis.training import run_training
from mamba_vision.apis.training_options import TrainOptions, configure
from mamba_vision.checkpoints import load_file
from mamba_vision.checkpoints.state_dicts import find_state_dict
from mamba_vision.engine import DirectionSearchHook
from mamba_vision.engine.direction_history import DirectionHistory
from mamba_vision.engine.hooks.direction_search import COURSE
from mamba_vision.models.mixers.direction_merge import searching_layers
from mamba_vision.utils.atomic import write_text

FOUND = "found.py"
ALPHA = "multi_scan.weights"  # how published checkpoints of supernets call the weights, behind the layer's name


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        history: the direction weights; of a checkpoint, only the last ones.
        config: the configuration that trains the found network.
    """

    history: DirectionHistory
    config: Path

    @property
    def directions(self) -> list[tuple[str, ...]]:
        """The directions of every layer."""
        return self.history.found


def search(
    config: str | Path, options: TrainOptions | None = None, keep: int = 4, recipe: str | Path | None = None
) -> Found:
    """Train the supernet of `config`, and write the configuration of the network that it finds.

    Weights and direction weights learn together, by one optimizer on the training data. The work folder gets
    directions.json, directions.png and direction_curves.png as it goes, and found.py at the end.

    Args:
        config: any configuration whose `model.backbone` is a LocalVim or LocalVMamba with search.
        options: as for training.
        keep: directions that each layer of the found network has.
        recipe: configuration that the found directions go into; None: the one that `config` names as its `recipe`
            (relative to its folder), or `config` itself with directions in place of the search.

    Raises:
        ValueError: `config` is no supernet's, or the recipe's network has another number of layers. Before training.
        FileNotFoundError: a file that is named is not there.
        TrainingInterrupted, TrainingDivergedError: as in training.
    """
    options = options or TrainOptions()
    cfg = configure(config, options)
    check_config(cfg)
    names, layers = supernet_layout(cfg)
    check_keep(keep, names)
    target = recipe_config(cfg, recipe, options)
    found_config(target, [names[:keep]] * layers)
    put_hook(cfg, keep)
    runner = run_training(cfg, options)
    history = next(hook for hook in runner.hooks if isinstance(hook, DirectionSearchHook)).history
    note = f"after {history.iterations[-1]} iterations of {Path(config).name}"
    return Found(history, write_found(target, history, runner.work_dir, note))


def search_result(
    config: str | Path,
    checkpoint: str | Path,
    options: TrainOptions | None = None,
    keep: int = 4,
    recipe: str | Path | None = None,
) -> Found:
    """What the supernet in a checkpoint finds, ours or one of the published code, without training.

    Args:
        checkpoint: weights of the supernet of `config`.
        config, options, keep, recipe: as for `search`.

    Raises:
        ValueError: as `search`, or the checkpoint holds no direction weights, or those of another supernet.
    """
    options = options or TrainOptions()
    cfg = configure(config, options)
    check_config(cfg)
    names, layers = supernet_layout(cfg)
    check_keep(keep, names)
    weights = checkpoint_weights(find_state_dict(load_file(checkpoint), source=str(checkpoint)), str(checkpoint))
    if tuple(weights.shape) != (layers, len(names)):
        raise ValueError(
            f"{checkpoint}: found direction weights of {weights.shape[0]} layers and {weights.shape[1]} candidates, "
            f"expected {layers} and {len(names)} ({' '.join(names)})"
        )
    history = DirectionHistory(names, keep)
    history.record(0, weights.numpy())
    target = recipe_config(cfg, recipe, options)
    folder = Path(cfg.work_dir)
    found = write_found(target, history, folder, f"in {Path(checkpoint).name}")
    hook = DirectionSearchHook(keep)
    hook.history = history
    hook.draw(folder)
    history.save(folder / COURSE)
    return Found(history, found)


def supernet_layout(cfg: Config) -> tuple[tuple[str, ...], int]:
    """Names of the candidates and number of layers of the configuration's supernet.

    Raises:
        ValueError: its backbone does not search.
    """
    try:
        mixers = searching_layers(_backbone(cfg))
    except ValueError as error:
        raise ValueError(
            f"{cfg.filename}: model.backbone does not search, expected a LocalVim or LocalVMamba with search=True "
            "(see configs/localmamba)"
        ) from error
    return tuple(mixers[0].scan.labels), len(mixers)


def put_hook(cfg: Config, keep: int) -> None:
    """See to it that the search is shown and kept: its own bar takes the place of training's."""
    hooks = [hook for hook in cfg.get("custom_hooks") or [] if not hook["type"].endswith("ProgressHook")]
    own = next((hook for hook in hooks if hook["type"].endswith("DirectionSearchHook")), None)
    if own is None:
        own = ConfigDict(type="mamba_vision.DirectionSearchHook")
        hooks.append(own)
    own["keep"] = keep
    cfg.custom_hooks = hooks


def check_keep(keep: int, names: Sequence[str]) -> None:
    """Raise ValueError unless `keep` directions can be chosen from the candidates."""
    if not 1 <= keep <= len(names):
        raise ValueError(f"keep: found {keep}, expected a number of 1 .. {len(names)}, as many as there are candidates")


def recipe_config(cfg: Config, recipe: str | Path | None, options: TrainOptions) -> Config:
    """The configuration that the found directions go into; see `search`.

    Changes from the command line belong to the search, and reach the recipe only where it is the search's own
    configuration.
    """
    if recipe is None and cfg.get("recipe") is None:
        return load_config(cfg.filename, options.cfg_options)
    path = Path(recipe) if recipe is not None else Path(cfg.filename).parent / cfg.recipe
    return load_config(path)


def found_config(recipe: Config, directions: Sequence[Sequence[str]]) -> Config:
    """A copy of `recipe` whose network scans in these directions.

    Raises:
        ValueError: its network can't: it has another number of layers, or no directions at all.
    """
    cfg = copy.deepcopy(recipe)
    for name in ("search", "candidates", "scan"):
        cfg.model.backbone.pop(name, None)
    cfg.model.backbone.directions = [" ".join(names) for names in directions]
    cfg.pop("recipe", None)
    try:
        _backbone(cfg)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{recipe.filename}: its network can't take the directions of this search: {error}") from error
    return cfg


def write_found(recipe: Config, history: DirectionHistory, folder: str | Path, note: str) -> Path:
    """Write `found.py` into `folder`: the recipe with the found directions, whole, so that it trains as it is."""
    cfg = found_config(recipe, history.found)
    folder = Path(folder)
    cfg.work_dir = str(folder / "found")
    head = [
        f"# {Path(recipe.filename).name} with the directions that a search found, {note}.",
        f"# A layer keeps the {history.keep} strongest of {' '.join(history.candidates)}.",
        "",
    ]
    if is_main_process():
        write_text(folder / FOUND, "\n".join(head) + cfg.pretty_text)
    return folder / FOUND


def checkpoint_weights(state: Mapping[str, Tensor], source: str = "checkpoint") -> Tensor:
    """Direction weights in a supernet's state dict: (layers, candidates), rows sum to 1.

    Raises:
        ValueError: there are none, or layers differ in their number of candidates.
    """
    names = [name for name in state if name == ALPHA or name.endswith("." + ALPHA)]
    if not names:
        raise ValueError(f"{source}: found no name that ends in {ALPHA}, expected the weights of a supernet")
    names.sort(key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
    rows = [state[name].flatten().float().softmax(0) for name in names]
    if len({row.numel() for row in rows}) > 1:
        raise ValueError(f"{source}: layers have different numbers of candidates, expected one number")
    return torch.stack(rows)


def _backbone(cfg: Config) -> nn.Module:
    """The configuration's backbone, without memory for its weights.

    Raises:
        ValueError: it has none.
    """
    if not isinstance(cfg.get("model"), Mapping) or "backbone" not in cfg.model:
        raise ValueError(f"{cfg.filename}: found no model.backbone, expected a LocalVim or LocalVMamba")
    backbone = copy.deepcopy(cfg.model.backbone)
    backbone.pop("init_cfg", None)
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope", "mmengine")), torch.device("meta"):
        return MODELS.build(backbone)
