"""Training from a configuration: what tools/train.py does, for Python."""

import contextlib
import gc
import io
import itertools
import logging
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mamba_vision.apis.config_check import check_config
from mamba_vision.apis.config_loading import load_config
from mamba_vision.apis.memory_advice import OutOfMemoryError, is_out_of_memory, out_of_memory
from mamba_vision.apis.preparation import prepare_volumes
from mamba_vision.apis.training_folder import set_aside
from mamba_vision.checkpoints import install_safe_loading
from mamba_vision.engine import ProgressHook, latest_checkpoint
from mamba_vision.engine.hooks.checkpoint import POINTER
from mamba_vision.kernels import backend_for
from mamba_vision.utils.folder_lock import folder_lock
from mamba_vision.utils.format_once import install_format_cache
from mamba_vision.utils.wording import count, shown

_RUNS = itertools.count()
_NOISE = ('"FileClient"', '"HardDiskBackend"', "Exp name:", "paramwise_options", 'in the "function" registry tree')


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


def train(config: str | Path, options: TrainOptions | None = None, **settings: Any) -> Runner:
    """Check, prepare and train; the settings of TrainOptions may be given by name.

    Returns:
        The MMEngine Runner, trained.

    Raises:
        ValueError, FileNotFoundError: a configuration, data or a checkpoint that can't be used, before long work.
        TrainingInterrupted: stopped by a signal or the limit of time, saved.
        TrainingDivergedError: the loss became NaN.
        OutOfMemoryError: it does not fit, with `auto_batch` not even one patch at a time.
    """
    options = options or TrainOptions(**settings)
    while True:
        cfg = configure(config, options)
        try:
            return run_training(cfg, options)
        except OutOfMemoryError as error:
            if not options.auto_batch or error.batch_size < 2 or options.launcher != "none":  # others may have had room
                raise
            smaller = error.batch_size // 2
            print(f"{str(error).splitlines()[0]}. Again with batches of {smaller}.", flush=True)
        gc.collect()  # the network that did not fit
        torch.cuda.empty_cache()
        variable = "batch_size" if "batch_size" in cfg else "train_dataloader.batch_size"
        begun = (Path(cfg.work_dir) / POINTER).is_file() and options.resume is not None
        options = replace(
            options, cfg_options={**options.cfg_options, variable: smaller}, resume="auto" if begun else options.resume
        )


def run_training(cfg: Config, options: TrainOptions) -> Runner:
    """`train` with a configuration that has all options in it (`configure`).

    Raises:
        BlockingIOError: another process trains in this work folder.
    """
    check_config(cfg)
    if not is_first_process(options.launcher):
        return _run_training(cfg, options)
    prepare_volumes(cfg)
    with folder_lock(cfg.work_dir, "training"):
        return _run_training(cfg, options)


def _run_training(cfg: Config, options: TrainOptions) -> Runner:
    if is_first_process(options.launcher) and (earlier := set_aside(cfg)):
        print(
            f"{shown(cfg.work_dir)} held a training already, which --resume would have gone on with. "
            f"It is now in {shown(earlier)}; training begins anew.",
            flush=True,
        )
    join_processes(cfg, options.launcher)
    runner = build_runner(cfg)
    if is_main_process():
        print(describe(runner), flush=True)
    try:
        runner.train()
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise out_of_memory(cfg, error) from None
        raise
    finally:
        for hook in runner.hooks:
            if isinstance(hook, ProgressHook):
                hook.close()
        leave_processes()
    return runner


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
    if options.max_hours is not None:
        others = [hook for hook in cfg.get("custom_hooks") or [] if not str(hook.get("type")).endswith("InterruptHook")]
        cfg.custom_hooks = [*others, _hook("InterruptHook", max_hours=options.max_hours)]
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


def use_tensorboard(cfg: Config) -> None:
    """Write for TensorBoard too, if it is installed and the configuration says nothing of it."""
    backends = cfg.get("visualizer", {}).get("vis_backends")
    named = [str(one.get("type")) for one in backends or ()]
    if backends is not None and "TensorboardVisBackend" not in named and find_spec("tensorboard") is not None:
        cfg.visualizer.vis_backends = [*backends, ConfigDict(type="TensorboardVisBackend")]


def _hook(kind: str, **arguments: Any) -> ConfigDict:
    return ConfigDict(type=f"mamba_vision.{kind}", **arguments)


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


def is_first_process(launcher: str) -> bool:
    """Whether this is the process that prepares data, known before the processes are joined."""
    names = {"pytorch": ("RANK",), "slurm": ("SLURM_PROCID",), "mpi": ("OMPI_COMM_WORLD_RANK", "PMI_RANK")}
    return all(int(os.environ.get(name, 0)) == 0 for name in names.get(launcher, ()))


def leave_processes() -> None:
    """End the process group, if there is one: its threads must not outlive the interpreter, which would then abort."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def join_processes(cfg: Config, launcher: str) -> None:
    """Join the processes that a launcher started. On machines without a GPU MMEngine can't: a gloo group is made.

    The others wait here while the first one prepares data, hence the long time limit.

    Raises:
        ValueError: a launcher other than 'pytorch' without a GPU.
    """
    if launcher == "none":
        return
    hours = 2
    if torch.cuda.is_available():
        dist_cfg = cfg.setdefault("env_cfg", ConfigDict()).setdefault("dist_cfg", ConfigDict(backend="nccl"))
        dist_cfg.setdefault("timeout", hours * 3600)
        return
    if launcher != "pytorch":
        raise ValueError(f"--launcher {launcher}: without a GPU only 'pytorch' (torchrun) can start several processes")
    if not torch.distributed.is_initialized():
        from datetime import timedelta

        torch.distributed.init_process_group("gloo", timeout=timedelta(hours=hours))
    if is_sharded(cfg):
        wrapper = cfg.strategy.setdefault("model_wrapper", ConfigDict(type="MMFullyShardedDataParallel"))
        wrapper.setdefault("device_id", "cpu")
    else:
        cfg.setdefault("model_wrapper_cfg", ConfigDict(type="MMDistributedDataParallel", device_ids=None))


def build_runner(cfg: Config) -> Runner:
    """MMEngine's Runner, which says what it has to say about machine and configuration to the log file only."""
    install_safe_loading()
    install_format_cache()
    work_dir = Path(cfg.work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    _copy_plan(cfg, work_dir)
    # MMEngine keeps logger and history by experiment and second: two Runners within one would share them.
    name, number = cfg.get("experiment_name") or Path(cfg.filename or "run").stem, next(_RUNS)
    cfg.experiment_name = f"{name}-{number}" if number else name
    # The Runner writes the merged configuration into the work folder under the file's name: never over the file itself.
    if cfg.filename and Path(cfg.filename).resolve().parent == work_dir.resolve():
        object.__setattr__(cfg, "_filename", None)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            runner = RUNNERS.get(cfg.get("runner_type", "Runner")).from_cfg(cfg)
    except BaseException:
        sys.stdout.write(said.getvalue())
        raise
    for handler in runner.logger.handlers:
        handler.addFilter(_is_news)
        if isinstance(handler, logging.StreamHandler) and handler.stream is said:
            handler.stream = sys.stdout
    return runner


def _is_news(record: logging.LogRecord) -> bool:
    """All but MMEngine's warnings about its own insides, which no user can heed, and a line for every parameter."""
    text = record.getMessage()
    return not any(noise in text for noise in _NOISE)


def _copy_plan(cfg: Config, work_dir: Path) -> None:
    """Put the plan beside the weights where they are trained elsewhere than planned: weights need it."""
    plan = cfg.get("plan")
    if isinstance(plan, str) and Path(plan).is_file() and is_main_process():
        target = work_dir / "plan.json"
        if target.resolve() != Path(plan).resolve():
            shutil.copyfile(plan, target)


def _scans_on(device: torch.device) -> str:
    """Which backend scans on this device, and why: nobody should find out from the time that it takes."""
    backend = backend_for(torch.empty(0, device=device), "ordered_scan")
    return f"Scans run on {backend.name}: {backend.reason}."


def describe(runner: Runner) -> str:
    """Lines about what is going to be trained, where, and on which scans."""
    many = f", {runner.world_size} processes" if runner.world_size > 1 else ""
    if isinstance(runner.model, dict):  # MMEngine's FlexibleRunner builds it when it begins
        network = runner.model.get("network") or runner.model.get("backbone") or runner.model
        name, strategy = network["type"].rpartition(".")[2], type(runner.strategy).__name__
        begin, device = f"Training {name} by {strategy}{many}.", torch.device(get_device())
        return f"{begin}\n{_scans_on(device)}\nLogs, checkpoints and pictures go to {shown(runner.work_dir)}"
    model = getattr(runner.model, "module", runner.model)
    network = getattr(model, "network", None) or getattr(model, "backbone", None) or model
    millions = sum(value.numel() for value in model.parameters()) / 1e6
    device = next(model.parameters()).device
    threads = count(torch.get_num_threads(), "CPU thread")
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else threads
    precision = getattr(runner.cfg.get("optim_wrapper"), "type", "OptimWrapper")
    mixed = " in mixed precision" if "Amp" in str(precision) else ""
    return (
        f"Training {type(network).__name__} ({millions:.2f} M parameters) on {where}{many}{mixed}.\n"
        f"{_scans_on(device)}\n"
        f"Logs, checkpoints and pictures go to {shown(runner.work_dir)}"
    )
