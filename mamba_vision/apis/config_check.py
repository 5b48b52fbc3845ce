"""Finding misspelt keys and names in a configuration before anything is built, all of them at once."""

import difflib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine import registry as root
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mamba_vision import registry as ours
from mamba_vision.utils.quiet import quiet_imports

# What MMEngine's Runner and the OpenMMLab tools read at the top of a configuration.
RUNNER_KEYS = frozenset(inspect.signature(Runner.__init__).parameters) - {"self", "cfg"} | {
    "default_scope", "custom_imports", "runner_type", "tta_model", "tta_pipeline", "compile", "vis_backends",
    "model_wrapper_cfg", "strategy", "find_unused_parameters", "activation_checkpointing", "efficient_conv_bn_eval",
}  # fmt: skip

# Variables that OpenMMLab's configurations use by custom.
_CUSTOMARY = frozenset({"train_pipeline", "val_pipeline", "test_pipeline", "data_preprocessor", "dataset_type"})

# Where a part of the configuration is built; everything below `model` is a model, and so on.
_REGISTRIES = {
    "model": ours.MODELS,
    "train_dataloader": ours.DATASETS,
    "val_dataloader": ours.DATASETS,
    "test_dataloader": ours.DATASETS,
    "val_evaluator": ours.METRICS,
    "test_evaluator": ours.METRICS,
    "optim_wrapper": ours.OPTIM_WRAPPERS,
    "param_scheduler": ours.PARAM_SCHEDULERS,
    "default_hooks": ours.HOOKS,
    "custom_hooks": ours.HOOKS,
    "train_cfg": ours.LOOPS,
    "val_cfg": ours.LOOPS,
    "test_cfg": ours.LOOPS,
    "visualizer": ours.VISUALIZERS,
}
_INSIDE = {
    "optimizer": ours.OPTIMIZERS,
    "sampler": ours.DATA_SAMPLERS,
    "batch_sampler": ours.DATA_SAMPLERS,
    "pipeline": ours.TRANSFORMS,
    "inferer": ours.TASK_UTILS,
    "init_cfg": ours.WEIGHT_INITIALIZERS,
    "vis_backends": ours.VISBACKENDS,
    "collate_fn": root.FUNCTIONS,
}
_ELSEWHERE = {"augments"}  # of mmpretrain's classifiers: a registry of its own, which checks by itself
# Keys that builders take out before they call the class.
_BUILDER_KEYS = {"type", "_scope_", "_delete_", "init_cfg", "requires_grad"}
_BUILDER_KEYS_OF = {
    "optim_wrapper": {"constructor", "paramwise_cfg", "optimizer"},
    "param_scheduler": {"convert_to_iter_based", "by_epoch", "begin", "end", "verbose"},
    "default_hooks": {"priority"},
    "custom_hooks": {"priority"},
    "train_cfg": {"by_epoch"},
}
_LOADER_KEYS = set(inspect.signature(DataLoader.__init__).parameters) - {"self"}
_LOADER_KEYS |= {"num_batch_per_epoch", "disable_subprocess_warning"}
_FILLED_IN = {"self", "runner", "dataloader", "evaluator", "params", "sampler", "dataset", "optimizer"}


def check_config(cfg: Config) -> None:
    """Look at every key of `cfg` that something will be built from.

    Reported are: names at the top that resemble one that the Runner reads (others are the file's own variables); types
    that no registry has; arguments that the class does not take. Where a class takes any argument nothing is said.

    Raises:
        ValueError: the whole list, each with the nearest name that would be right.
    """
    problems = list(_top_level(cfg))
    with quiet_imports(), ours.MODELS.switch_scope_and_registry(cfg.get("default_scope")):
        for key, registry in _REGISTRIES.items():
            if cfg.get(key) is not None:
                problems += _section(key, key, cfg[key], registry)
    if problems:
        where = f"{cfg.filename}: " if cfg.filename else ""
        raise ValueError(f"{where}{len(problems)} wrong in the configuration:\n  " + "\n  ".join(problems))


def _top_level(cfg: Config) -> Iterator[str]:
    for name in cfg:
        if name in RUNNER_KEYS or name in _CUSTOMARY:
            continue
        near = difflib.get_close_matches(name, RUNNER_KEYS, 1, 0.88)
        if near:
            yield f"{name}: no such key; did you mean {near[0]!r}?"


def _section(section: str, path: str, value: Any, registry: Registry) -> Iterator[str]:
    """Problems of one part of the configuration and everything in it."""
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _section(section, f"{path}[{index}]", item, registry)
        return
    if not isinstance(value, Mapping):
        return
    if "type" in value:
        yield from _typed(section, path, value, registry)
    elif path == section and section.endswith("_dataloader"):
        yield from (_unknown(path, name, _LOADER_KEYS) for name in value if name not in _LOADER_KEYS)
    for name, item in value.items():
        if isinstance(item, (Mapping, list, tuple)) and name not in _ELSEWHERE:
            yield from _section(section, f"{path}.{name}", item, _INSIDE.get(name, registry))


def _typed(section: str, path: str, value: Mapping[str, Any], registry: Registry) -> Iterator[str]:
    kind = value["type"]
    if path.endswith(".init_cfg") and kind == "Pretrained":
        return  # ours or MMEngine's, as the module chooses when it is initialized
    if isinstance(kind, str):
        if registry is root.FUNCTIONS:  # the one that no library has a child of; looking for one is warned about
            built = registry.get(kind)
        else:
            with registry.switch_scope_and_registry(None) as registry:  # to that of the default scope, as building does
                built = registry.get(kind)
        if built is None:
            near = difflib.get_close_matches(kind.rpartition(".")[2], _names(registry), 1, 0.6)
            yield f"{path}.type: nothing is registered as {kind!r}" + (f"; did you mean {near[0]!r}?" if near else "")
            return
    else:
        built = kind
    accepted = _parameters(built)
    if accepted is None:
        return
    allowed = accepted | _BUILDER_KEYS | _BUILDER_KEYS_OF.get(section, set())
    yield from (_unknown(path, name, accepted - _FILLED_IN) for name in value if name not in allowed)


def _parameters(built: Any) -> set[str] | None:
    """Names of the arguments; None where any name is taken."""
    found: set[str] = set()
    classes: Sequence[Any] = built.__mro__ if inspect.isclass(built) else (built,)
    for owner in classes:
        if inspect.isclass(owner) and "__init__" not in vars(owner):
            continue
        try:
            parameters = inspect.signature(vars(owner)["__init__"] if inspect.isclass(owner) else owner).parameters
        except (TypeError, ValueError):
            return None
        found |= set(parameters)
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values()):
            return found
    return None


def _names(registry: Registry) -> set[str]:
    """All names that `registry` and its parents know."""
    names = set(registry.module_dict)
    return names | _names(registry.parent) if registry.parent is not None else names


def _unknown(path: str, name: str, accepted: set[str]) -> str:
    near = difflib.get_close_matches(name, accepted, 1, 0.6)
    hint = f"did you mean {near[0]!r}?" if near else f"expected some of {', '.join(sorted(accepted))}"
    return f"{path}.{name}: no such argument; {hint}"
