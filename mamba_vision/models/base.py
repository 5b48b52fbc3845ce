"""What every network and backbone of ours shares: strict initialization from a file, names without weight decay."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mmengine.model import BaseModule
from torch import nn

# Resolved through the registry when it is used: the loader lives in a room above this one.
STRICT_PRETRAINED = "mamba_vision.Pretrained"


def strict_init_cfg(init_cfg: dict | list[dict] | None) -> dict | list[dict] | None:
    """`init_cfg` with MMEngine's 'Pretrained' replaced by ours: weights-only, strict, knows published names.

    MMEngine's own initializer unpickles a file without protection when the safe way fails, and ignores missing weights.
    """
    if isinstance(init_cfg, (list, tuple)):
        return [strict_init_cfg(one) for one in init_cfg]
    if init_cfg and init_cfg.get("type") == "Pretrained":
        return {**init_cfg, "type": STRICT_PRETRAINED}
    return init_cfg


class Network(BaseModule):
    """An MMEngine module whose `init_cfg=dict(type='Pretrained', checkpoint=...)` goes through the strict loader.

    Attributes:
        published_renames: Pairs (published name, our name) of patterns, where `*` stands for a run of characters
            without a dot and `**` for any run: see `mamba_vision.checkpoints.rename`.
        published_ignored: Patterns of published names that carry nothing of their own.
        published_forms: Options, beside `arch`, of the forms in which the variants are published, by name; '' where
            there is one form. `mamba_vision.list_models` makes its names from it.
    """

    published_renames: tuple[tuple[str, str], ...] = ()
    published_ignored: tuple[str, ...] = ()
    published_forms: Mapping[str, Mapping[str, Any]] = MappingProxyType({"": {}})

    def __init__(self, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg=strict_init_cfg(init_cfg))

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that are published without weight decay: what its mixers say, with their paths."""
        return names_without_decay(self)


def names_without_decay(model: nn.Module) -> set[str]:
    """Full names of the parameters for which a submodule's own `no_weight_decay()` asks."""
    found = set()
    for path, module in model.named_modules():
        if path and not isinstance(module, Network) and hasattr(module, "no_weight_decay"):
            found |= {f"{path}.{name}" for name in module.no_weight_decay()}
    return found
