"""Checkpoints that a crash can't destroy, in folders that can be moved."""

from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mamba_vision.checkpoints import install_safe_loading
from mamba_vision.registry import HOOKS
from mamba_vision.utils.atomic import atomic_path, remove_leftovers, write_text
from mamba_vision.version import __version__

INTERRUPTED = "interrupted.pth"
POINTER = "last_checkpoint"


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook, with its arguments (and no others), but

    - a file is written under a temporary name, synced and renamed, and only then older ones are deleted;
    - `last_checkpoint`, and what a checkpoint remembers of others, are names inside the work folder;
    - what is loaded is loaded weights-only, and a checkpoint of another network is refused before training;
    - the plan of a volume model travels in `meta['plan']`;
    - after every validation the checkpoint is written again, so that it knows the result.
    """

    def __init__(
        self,
        interval: int = -1,
        by_epoch: bool = True,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        out_dir: str | Path | None = None,
        max_keep_ckpts: int = -1,
        save_last: bool = True,
        save_best: str | list[str] | None = None,
        rule: str | list[str] | None = None,
        greater_keys: Sequence[str] | None = None,
        less_keys: Sequence[str] | None = None,
        filename_tmpl: str | None = None,
        published_keys: str | list[str] | None = None,
        save_begin: int = 0,
    ) -> None:
        super().__init__(
            interval=interval,
            by_epoch=by_epoch,
            save_optimizer=save_optimizer,
            save_param_scheduler=save_param_scheduler,
            out_dir=out_dir,
            max_keep_ckpts=max_keep_ckpts,
            save_last=save_last,
            save_best=save_best,
            rule=rule,
            greater_keys=greater_keys,
            less_keys=less_keys,
            filename_tmpl=filename_tmpl,
            published_keys=published_keys,
            save_begin=save_begin,
        )
        self._position: dict[str, int] = {}

    def before_run(self, runner: Runner) -> None:
        """Close MMEngine's unsafe loading before anything is loaded."""
        install_safe_loading()

    def before_train(self, runner: Runner) -> None:
        """Settle the folder; find the checkpoints again that a resumed training remembers, if the folder was moved."""
        if self.out_dir is None or Path(self.out_dir) == Path(runner.work_dir):
            self.out_dir = runner.work_dir
        else:
            self.out_dir = str(Path(self.out_dir) / Path(runner.work_dir).name)
        if is_main_process():  # a training that was killed while it wrote has left half a file
            for pattern in ("*.pth", POINTER):
                remove_leftovers(self._folder, pattern)
        # Every checkpoint carries the configuration as text; to lay it out takes longer than to write the file.
        object.__setattr__(runner.cfg, "_format_python_code", False)
        info = runner.message_hub.runtime_info
        if self.max_keep_ckpts > 0:
            self.keep_ckpt_ids = deque(info.get("keep_ckpt_ids", ()))
        if self.save_best is not None:
            alone = len(self.key_indicators) == 1
            remembered = {key: info.get("best_ckpt" if alone else f"best_ckpt_{key}") for key in self.key_indicators}
            self.best_ckpt_path_dict = {
                key: str(self._folder / Path(path).name) if path else None for key, path in remembered.items()
            }

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse a checkpoint of another network.

        Raises:
            ValueError: names or shapes of weights differ in a run that resumes; or not one fits, in one that starts.
        """
        if hasattr(runner, "strategy"):  # sharded weights are put together on the first process
            weights = runner.strategy.model_state_dict()
            if not is_main_process():
                return
        else:
            weights = (runner.model.module if is_model_wrapper(runner.model) else runner.model).state_dict()
        mine = {name: tuple(value.shape) for name, value in weights.items()}
        state = checkpoint.get("state_dict", checkpoint)
        theirs = {name.removeprefix("module."): tuple(getattr(value, "shape", ())) for name, value in state.items()}
        missing, surplus = sorted(mine.keys() - theirs.keys()), sorted(theirs.keys() - mine.keys())
        shapes = [
            f"{name}: {theirs[name]} in the file, {mine[name]} in the model"
            for name in sorted(mine.keys() & theirs.keys())
            if mine[name] != theirs[name]
        ]
        resumes = bool(runner._resume)
        if (resumes and (missing or surplus or shapes)) or not mine.keys() & theirs.keys():
            listed = [
                f"  {what} ({len(names)}): " + "; ".join(names[:5]) + (" ..." if len(names) > 5 else "")
                for what, names in (("missing", missing), ("left over", surplus), ("other shape", shapes))
                if names
            ]
            name = f"checkpoint {runner._load_from}" if runner._load_from else "the checkpoint"
            raise ValueError(f"{name} belongs to another network than the config's:\n" + "\n".join(listed))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add what is needed to use the weights on new data."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        # MMEngine's FlexibleRunner puts its own count over the one that it was given, which is not ours.
        checkpoint["meta"].update(self._position, mamba_vision_version=__version__)
        if getattr(model, "plan", None) is not None:
            checkpoint["meta"]["plan"] = model.plan

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        """Keep the best checkpoint, and let the last one know that this epoch is validated."""
        if isinstance(runner._train_loop, dict) or runner._train_loop is None:
            return  # a validation on its own
        done = [*runner.message_hub.runtime_info.get("epochs_validated", ()), int(runner.epoch)]
        runner.message_hub.update_info("epochs_validated", done)
        self._save_best_checkpoint(runner, metrics)
        step = runner.epoch if self.by_epoch else runner.iter
        self._save_checkpoint_with_step(runner, step, {"epoch": runner.epoch, "iter": runner.iter})

    def save_interrupted(self, runner: Runner, epoch: int, iteration: int) -> Path:
        """Save the state after `epoch` whole epochs and `iteration` iterations in all; the file to resume from."""
        runner.message_hub.update_info("last_ckpt", INTERRUPTED)
        path = self._write(runner, INTERRUPTED, {"epoch": epoch, "iter": iteration})
        self._point_to(runner, INTERRUPTED)
        return path

    @property
    def _folder(self) -> Path:
        return Path(self.out_dir)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, int]) -> None:
        name = self.filename_tmpl.format(step)
        surplus: list[int] = []
        if self.max_keep_ckpts > 0:
            kept = [other for other in self.keep_ckpt_ids if other != step] + [step]
            surplus, kept = kept[: -self.max_keep_ckpts], kept[-self.max_keep_ckpts :]
            self.keep_ckpt_ids = deque(kept)
            runner.message_hub.update_info("keep_ckpt_ids", kept)
        self.last_ckpt = str(self._folder / name)
        runner.message_hub.update_info("last_ckpt", name)
        self._write(runner, name, meta)
        self._point_to(runner, name)
        self._delete([self.filename_tmpl.format(other) for other in surplus] + [INTERRUPTED])

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        if not self.save_best or not metrics:
            return
        if "auto" in self.key_indicators:
            self._init_rule(self.rules, [next(iter(metrics))])
            self.best_ckpt_path_dict = {self.key_indicators[0]: self.best_ckpt_path_dict.get("auto")}
        alone = len(self.key_indicators) == 1
        when = runner.epoch if self.by_epoch else runner.iter
        for key, rule in zip(self.key_indicators, self.rules):
            if key not in metrics:
                raise ValueError(f"save_best: no metric is called {key!r}; there are {', '.join(metrics)}")
            score_info, path_info = ("best_score", "best_ckpt") if alone else (f"best_score_{key}", f"best_ckpt_{key}")
            score, best = metrics[key], runner.message_hub.runtime_info.get(score_info, self.init_value_map[rule])
            if score is None or not self.is_better_than[key](score, best):
                continue
            before = self.best_ckpt_path_dict.get(key)
            name = f"best_{key}_{self.filename_tmpl.format(when)}".replace("/", "_")
            runner.message_hub.update_info(score_info, float(score))
            runner.message_hub.update_info(path_info, name)
            self.best_ckpt_path_dict[key] = str(self._folder / name)
            if alone:
                self.best_ckpt_path = self.best_ckpt_path_dict[key]
            self._write(runner, name, {"epoch": runner.epoch, "iter": runner.iter}, weights_only=True)
            if before and Path(before).name != name:
                self._delete([Path(before).name])
            runner.logger.info(f"Best {key} so far: {score:.4f}, saved as {name}")

    def _write(self, runner: Runner, name: str, meta: dict[str, int], weights_only: bool = False) -> Path:
        path, self._position = self._folder / name, dict(meta)
        save = partial(
            runner.save_checkpoint,
            str(path.parent),
            save_optimizer=self.save_optimizer and not weights_only,
            save_param_scheduler=self.save_param_scheduler and not weights_only,
            meta=dict(self._position),
            by_epoch=self.by_epoch,
        )
        if is_main_process():
            with atomic_path(path) as temporary:
                save(temporary.name)
        elif hasattr(runner, "strategy"):  # sharded weights come from all processes; this one writes nothing
            save(name)
        return path

    def _point_to(self, runner: Runner, name: str) -> None:
        if is_main_process():
            inside = self._folder.resolve() == Path(runner.work_dir).resolve()
            write_text(Path(runner.work_dir) / POINTER, name if inside else str(self._folder / name))

    def _delete(self, names: list[str]) -> None:
        if is_main_process():
            for name in names:
                (self._folder / name).unlink(missing_ok=True)


def latest_checkpoint(work_dir: str | Path) -> Path | None:
    """The checkpoint to resume from in `work_dir`, which may have been moved; None if there is none.

    Raises:
        FileNotFoundError: `last_checkpoint` names a file that is not there, and there is none like it.
    """
    pointer = Path(work_dir) / POINTER
    if not pointer.is_file():
        return None
    named = Path(pointer.read_text(encoding="utf-8").strip())
    for path in (Path(work_dir) / named.name, named):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{pointer} names {named.name}, which is not in {work_dir}")
