"""What can be chosen for a training, and a configuration with these choices put in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict

from mamba_vision.apis.config_loading import load_config
from mamba_vision.engine import latest_checkpoint


@dataclass(frozen=True)
class TrainOptions:
    """The arguments of tools/train.py; see its --help."""

    work_dir: str | Path | None = None
    resume: str | Path | None = None  # 'auto' or a checkpoint
    amp: bool = False
    validate: bool = True
    auto_scale_lr: bool = False
    pin_memory: bool = True
    persistent_workers: bool = True
    fold: int | str | None = None
    extend: bool = False
    max_hours: float | None = None
    auto_batch: bool = False
    cuda_graph: bool = False
    launcher: str = "none"
    cfg_options: Mapping[str, Any] = field(default_factory=dict)


def configure(config: str | Path, options: TrainOptions) -> Config:
    """The configuration with all options put in.

    Raises:
        ValueError: an option that the configuration has no part for, or that this machine cannot follow.
        FileNotFoundError: no such configuration, or no checkpoint to resume from.
    """
    changes = dict(options.cfg_options)
    if options.fold is not None:
        changes.setdefault("fold", int(options.fold) if str(options.fold).isdigit() else options.fold)
    cfg = load_config(config, changes)
    if options.fold is not None and "fold" not in cfg:
        raise ValueError(f"--fold: {config} has no variable `fold`; only planned configurations of volumes do")
    cfg.launcher = options.launcher
    cfg.work_dir = str(_work_dir(cfg, Path(config), options))
    if options.resume is not None:
        _resume(cfg, options.resume)
    if cfg.get("resume") and not is_sharded(cfg):
        cfg.custom_hooks = [*(cfg.get("custom_hooks") or []), _hook("ScheduleChangeHook", extend=options.extend)]
    use_interruption(cfg, options.max_hours)
    if options.cuda_graph:
        if not torch.cuda.is_available():
            raise ValueError("--cuda-graph: found no CUDA GPU, which is what replays CUDA graphs")
        cfg.custom_hooks = [*(cfg.get("custom_hooks") or []), _hook("CudaGraphHook")]
    if isinstance(cfg.get("plan"), str):
        use_tensorboard(cfg)
    if options.amp:
        use_amp(cfg)
    if is_sharded(cfg):
        use_sharding(cfg)
    if not options.validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if options.auto_scale_lr:
        if not (cfg.get("auto_scale_lr") or {}).get("base_batch_size"):
            raise ValueError(f"--auto-scale-lr: {config} does not set auto_scale_lr.base_batch_size")
        cfg.auto_scale_lr.enable = True
    use_atomic_checkpoints(cfg)
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        loader = cfg.get(name)
        if not isinstance(loader, dict):
            continue
        if not options.pin_memory or not torch.cuda.is_available():
            loader.pin_memory = False
        if not options.persistent_workers or not loader.get("num_workers"):
            loader.persistent_workers = False
    return cfg


def _work_dir(cfg: Config, config: Path, options: TrainOptions) -> Path:
    """--work-dir, else the config's own (with a folder for a fold that was asked for), else work_dirs/<config name>."""
    if options.work_dir is not None:
        return Path(options.work_dir)
    folder = Path(cfg.get("work_dir") or Path("work_dirs") / config.stem)
    return folder / f"fold_{options.fold}" if options.fold is not None else folder


def _resume(cfg: Config, resume: str | Path) -> None:
    """Resume from a checkpoint, or from the last one in the work folder; 'auto' begins anew where there is none."""
    if str(resume) == "auto":
        found = latest_checkpoint(cfg.work_dir)
        if found is None:
            print(f"Nothing to resume in {cfg.work_dir}: training begins.", flush=True)
            return
    else:
        found = Path(resume)
        if not found.is_file():
            raise FileNotFoundError(f"--resume: {found} does not exist")
    cfg.resume, cfg.load_from = True, str(found)


def use_atomic_checkpoints(cfg: Config) -> None:
    """MMEngine's CheckpointHook, where a configuration has it (or none), gives way to ours of the same arguments."""
    hooks = cfg.setdefault("default_hooks", ConfigDict())
    hook = hooks.setdefault("checkpoint", ConfigDict(type="CheckpointHook", interval=1))
    elsewhere = hook is None or any(hook.get(key) for key in ("backend_args", "file_client_args"))
    if not elsewhere and hook.type == "CheckpointHook":
        hook.type = "mamba_vision.AtomicCheckpointHook"


def use_interruption(cfg: Config, max_hours: float | None = None) -> None:
    """Ctrl-C, SIGTERM and the limit of time save what is trained, also in recipes that list hooks of their own."""
    hooks = cfg.get("custom_hooks") or []
    others = [hook for hook in hooks if not _name(hook).endswith("InterruptHook")]
    if max_hours is not None or len(others) == len(hooks):
        cfg.custom_hooks = [*others, _hook("InterruptHook", max_hours=max_hours)]


def use_tensorboard(cfg: Config) -> None:
    """Write for TensorBoard too, if it is installed and the configuration says nothing of it."""
    backends = cfg.get("visualizer", {}).get("vis_backends")
    named = [str(one.get("type")) for one in backends or ()]
    if backends is not None and "TensorboardVisBackend" not in named and find_spec("tensorboard") is not None:
        cfg.visualizer.vis_backends = [*backends, ConfigDict(type="TensorboardVisBackend")]


def _hook(kind: str, **arguments: Any) -> ConfigDict:
    return ConfigDict(type=f"mamba_vision.{kind}", **arguments)


def _name(hook: ConfigDict) -> str:
    """Of its class, which a configuration may also hold itself."""
    kind = hook.get("type")
    return getattr(kind, "__name__", str(kind))


def use_amp(cfg: Config) -> None:
    """Mixed precision: bfloat16 on a CPU and on GPUs that have it, else float16 with a scaled loss.

    Raises:
        ValueError: an optimizer wrapper that has no form for mixed precision.
    """
    wrapper = cfg.optim_wrapper
    kind = wrapper.get("type", "OptimWrapper")
    if kind in ("AmpOptimWrapper", "CpuAmpOptimWrapper", "mamba_vision.CpuAmpOptimWrapper"):
        return
    if kind != "OptimWrapper":
        raise ValueError(f"--amp: optim_wrapper.type is {kind!r}; only 'OptimWrapper' can be replaced by a mixed one")
    if not torch.cuda.is_available():
        wrapper.type = "mamba_vision.CpuAmpOptimWrapper"
        return
    wrapper.type = "AmpOptimWrapper"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        wrapper.dtype, wrapper.loss_scale = "bfloat16", 1.0
    else:
        wrapper.dtype, wrapper.loss_scale = "float16", "dynamic"


def is_sharded(cfg: Config) -> bool:
    """Whether parameters lie in parts over the processes (configs/_base_/strategies/fsdp.py)."""
    return cfg.get("strategy", {}).get("type") in ("FSDPStrategy", "mamba_vision.ShardedStrategy")


def use_sharding(cfg: Config) -> None:
    """The optimizer wrapper for parameters that lie in parts.

    Raises:
        ValueError: one process only, or a wrapper that has no such form.
    """
    if cfg.launcher == "none":
        raise ValueError(f"strategy {cfg.strategy.type} needs several processes: start with tools/dist_train.sh")
    kinds = {name: f"mamba_vision.Sharded{name}" for name in ("OptimWrapper", "AmpOptimWrapper")}
    kind = cfg.optim_wrapper.get("type", "OptimWrapper")
    if kind not in (*kinds, *kinds.values()):
        raise ValueError(f"optim_wrapper.type: found {kind!r} with sharding, expected one of {', '.join(kinds)}")
    cfg.optim_wrapper.type = kinds.get(kind, kind)
