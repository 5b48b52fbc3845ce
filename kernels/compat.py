"""mamba_ssm, causal_conv1d and selective_scan_cuda*, as far as vision code uses them, backed by this package.

    import mamba_vision.kernels.compat
    mamba_vision.kernels.compat.install()
    from mamba_ssm import Mamba  # code written for the published packages runs unmodified, on CPU and GPU

Nothing happens on import. `install` puts modules of these names into `sys.modules`, `uninstall` takes them out again.
"""

import importlib
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from mamba_vision.kernels import (
    published_blocks,
    published_cuda,
    published_mamba2,
    published_ops,
    published_steps,
)

_ours: dict[str, ModuleType] = {}


def install() -> None:
    """Make the published module names importable, with these ops behind them. Doing it twice does no harm.

    Raises:
        RuntimeError: one of the published packages is already imported: code that holds on to it would go on using it.
    """
    if _ours and all(sys.modules.get(name) is module for name, module in _ours.items()):
        return
    modules = _modules()
    taken = sorted(name for name in modules if name in sys.modules)
    if taken:
        raise RuntimeError(
            f"{', '.join(taken)} already imported in this process: call mamba_vision.kernels.compat.install() before "
            "anything imports these packages, or work without them"
        )
    _ours.clear()
    _ours.update(modules)
    sys.modules.update(modules)


def uninstall() -> None:
    """Take the modules out again; what was imported from them goes on working. Does nothing if not installed."""
    for name, module in _ours.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]
    _ours.clear()


def _modules() -> dict[str, ModuleType]:
    """All modules by name, packages with their submodules as attributes."""
    modules = {}
    for name, contents in _contents().items():
        module = ModuleType(name, f"Stands in for {name}, on mamba_vision's ops.")
        is_package = any(other.startswith(name + ".") for other in _contents())
        module.__spec__ = ModuleSpec(name, loader=None, origin="mamba_vision.kernels.compat", is_package=is_package)
        if is_package:
            module.__path__ = []
        vars(module).update(contents)
        modules[name] = module
    for name, module in modules.items():
        package, _, last = name.rpartition(".")
        if package:
            setattr(modules[package], last, module)
    return modules


def _layers(*names: str) -> Callable[[str], Any]:
    """These attributes of a module. The layers live with the other mixers, a room above: fetched when they are used."""

    def layer(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"mamba_vision.kernels.compat offers no {name!r} here")
        with importlib.import_module("mamba_vision.utils.quiet").quiet_imports():
            if name == "Mamba":  # with what forks for vision have added
                return importlib.import_module("mamba_vision.models.mixers.published_mamba").PublishedMamba
            return getattr(importlib.import_module("mamba_vision.models.mixers"), name)

    return layer


def _contents() -> dict[str, dict[str, Any]]:
    """What each published module offers."""

    def of(source: Any, *names: str) -> dict[str, Any]:
        return {name: getattr(source, name) for name in names}

    scans = of(
        published_ops,
        "selective_scan_fn",
        "selective_scan_ref",
        "mamba_inner_fn",
        "mamba_inner_fn_no_out_proj",
        "bimamba_inner_fn",
    )
    norms = of(published_ops, "RMSNorm", "layer_norm_fn", "rms_norm_fn")
    gated_norms = of(published_mamba2, "layernorm_fn", "rmsnorm_fn")
    gated_norms |= {"LayerNorm": published_mamba2.GatedLayerNorm, "RMSNorm": published_mamba2.GatedRMSNorm}
    convolutions = of(published_ops, "causal_conv1d_fn") | of(published_steps, "causal_conv1d_update")
    layers = _layers("Mamba", "Mamba2")
    return {
        "mamba_ssm": {"__getattr__": layers, **of(published_ops, "selective_scan_fn", "mamba_inner_fn")},
        "mamba_ssm.modules": {},
        "mamba_ssm.modules.block": of(published_blocks, "Block"),
        "mamba_ssm.modules.mamba2": {"__getattr__": _layers("Mamba2")},
        "mamba_ssm.modules.mamba2_simple": {"__getattr__": _layers("Mamba2Simple")},
        "mamba_ssm.modules.mamba_simple": {"__getattr__": _layers("Mamba"), "Block": published_blocks.SimpleBlock},
        "mamba_ssm.modules.mlp": of(published_blocks, "GatedMLP"),
        "mamba_ssm.ops": {},
        "mamba_ssm.ops.selective_scan_interface": scans,
        "mamba_ssm.ops.triton": {},
        "mamba_ssm.ops.triton.selective_state_update": of(published_steps, "selective_state_update"),
        "mamba_ssm.ops.triton.layernorm": norms,
        "mamba_ssm.ops.triton.layer_norm": norms,
        "mamba_ssm.ops.triton.layernorm_gated": gated_norms,
        "mamba_ssm.ops.triton.ssd_combined": of(
            published_mamba2, "mamba_chunk_scan_combined", "mamba_split_conv1d_scan_combined"
        ),
        "mamba_ssm.utils": {},
        "mamba_ssm.utils.generation": of(published_blocks, "GenerationMixin"),
        "mamba_ssm.utils.hf": of(published_blocks, "load_config_hf", "load_state_dict_hf"),
        "causal_conv1d": convolutions,
        "causal_conv1d.causal_conv1d_interface": convolutions,
        "selective_scan_cuda": {"fwd": published_cuda.mamba_fwd, "bwd": published_cuda.mamba_bwd},
        "selective_scan_cuda_core": {"fwd": published_cuda.core_fwd, "bwd": published_cuda.core_bwd},
        "selective_scan_cuda_oflex": {"fwd": published_cuda.oflex_fwd, "bwd": published_cuda.oflex_bwd},
    }
