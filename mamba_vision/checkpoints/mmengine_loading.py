"""MMEngine through our loader: `init_cfg`, `load_from` and resuming never unpickle without protection.

MMEngine tries the weights-only way first and, when a file is refused, loads it again unprotected. Its 'Pretrained'
initializer also accepts missing weights in silence.
"""

import logging
from pathlib import Path
from typing import Any

import mmengine.runner.checkpoint as mmengine_checkpoint
from mmengine.logging import print_log
from mmengine.model import weight_init
from torch import nn

from mamba_vision.checkpoints.loading import load_file, load_stream
from mamba_vision.checkpoints.published import load_published
from mamba_vision.registry import WEIGHT_INITIALIZERS


@WEIGHT_INITIALIZERS.register_module(name="Pretrained")
class Pretrained:
    """`init_cfg=dict(type='Pretrained', checkpoint=...)`: weights-only, strict, takes published files.

    Args:
        checkpoint: File or address.
        prefix: Take only the names that begin so, e.g. 'backbone.'.
        map_location: Accepted as MMEngine's has it; weights are copied to where the module lies.
        ema: Take the moving average stored beside the weights.
        skip: Patterns of names in the module that keep their own initialization, such as a head for other classes.
    """

    def __init__(
        self,
        checkpoint: str,
        prefix: str | None = None,
        map_location: str = "cpu",
        ema: bool = False,
        skip: tuple[str, ...] | list[str] = (),
    ) -> None:
        self.checkpoint, self.map_location = str(checkpoint), map_location
        self.prefix, self.ema, self.skip = prefix or "", ema, tuple(skip)
        if self.prefix and not self.prefix.endswith("."):
            self.prefix += "."

    def __call__(self, module: nn.Module) -> None:
        report = load_published(module, self.checkpoint, prefix=self.prefix, ema=self.ema, skip=self.skip)
        print_log(f"{type(module).__name__}: {len(report.loaded)} weights from {self.checkpoint}", logger="current")
        if hasattr(module, "_params_init_info"):
            weight_init.update_init_info(module, init_info=f"Pretrained: loaded from {self.checkpoint}")


def _strict_torch_load(file: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
    """MMEngine's reader of files and streams, weights-only whatever the caller says."""
    if weights_only is False:
        print_log("a checkpoint was asked for without protection; it is read weights-only", "current", logging.WARNING)
    return load_file(file, map_location) if isinstance(file, (str, Path)) else load_stream(file, map_location)


def _strict_load_url(url: str, model_dir: str | None = None, map_location: Any = None, **_: Any) -> Any:
    """MMEngine's reader of addresses: downloaded by torch.hub, read weights-only."""
    return load_file(url, map_location)


def install_safe_loading() -> None:
    """Make MMEngine, and what is built on it, load every checkpoint through `load_file`. Repeating it does nothing.

    Replaces the readers of `mmengine.runner.checkpoint`, through which `load_checkpoint`, the Runner's `load_from` and
    `resume`, and MMEngine's own 'Pretrained' (of other projects' modules) go. Call it before a Runner is built.

    Raises:
        RuntimeError: this MMEngine has no such reader: going on would be unsafe.
    """
    for name in ("_safe_torch_load", "load_url"):
        if not hasattr(mmengine_checkpoint, name):
            raise RuntimeError(
                f"mmengine.runner.checkpoint has no {name}: install onedl-mmengine >= 0.10.12, whose loading is known"
            )
    mmengine_checkpoint._safe_torch_load = _strict_torch_load
    mmengine_checkpoint.load_url = _strict_load_url
