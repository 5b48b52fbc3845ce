"""Training from a configuration: what tools/train.py does, for Python."""

import contextlib
import gc
import io
import itertools
import logging
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mamba_vision.apis.config_check import check_config
from mamba_vision.apis.memory_advice import OutOfMemoryError, is_out_of_memory, out_of_memory
from mamba_vision.apis.preparation import prepare_volumes
from mamba_vision.apis.training_folder import set_aside
from mamba_vision.apis.training_options import TrainOptions, configure, is_sharded
from mamba_vision.checkpoints import install_safe_loading
from mamba_vision.engine import InterruptHook, ProgressHook
from mamba_vision.engine.hooks.checkpoint import POINTER
from mamba_vision.kernels import backend_for
from mamba_vision.utils.folder_lock import folder_lock
from mamba_vision.utils.format_once import install_format_cache
from mamba_vision.utils.wording import count, shown

_RUNS = itertools.count()
_NOISE = ('"FileClient"', '"HardDiskBackend"', "Exp name:", "paramwise_options", 'in the "function" registry tree')


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
            if isinstance(hook, InterruptHook | ProgressHook):
                hook.close()
        leave_processes()
    return runner


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
