"""A training that goes on with another length than it began with: not by accident, and with the right rate."""

import warnings
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mamba_vision.registry import HOOKS, PARAM_SCHEDULERS
from mamba_vision.utils.wording import count


@HOOKS.register_module()
class ScheduleChangeHook(Hook):
    """Compares a resumed training's length with the configuration's.

    MMEngine would go on with the old schedule's state: beyond its end the rate stays where it fell to. With `extend`
    the rate is that of the new schedule, as if it had been followed from the start.

    Args:
        extend: go on with another length; otherwise it is an error, which tells the rate before and after.
    """

    priority = "VERY_HIGH"

    def __init__(self, extend: bool = False) -> None:
        self.extend = extend
        self._changed = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Look at the lengths.

        Raises:
            ValueError: they differ, and `extend` is not set.
        """
        info = (checkpoint.get("message_hub") or {}).get("runtime_info") or {}
        key, unit = ("max_epochs", "epoch") if runner.max_epochs else ("max_iters", "iteration")
        before, now = info.get(key), getattr(runner, key)
        if not runner._resume or not before or before == now or not runner.cfg.get("param_scheduler"):
            return  # without a schedule the rate knows no length
        meta, groups = checkpoint.get("meta", {}), (checkpoint.get("optimizer") or {}).get("param_groups") or [{}]
        new = _rate(runner, meta.get("epoch", 0), meta.get("iter", 0))
        said = (
            f"this training was planned for {count(before, unit)} and would go on to {now}. Learning rate: "
            f"{_text(groups[0].get('lr'))} where it stopped, {_text(new)} with the new schedule"
        )
        if not self.extend:
            raise ValueError(f"--resume: {said}. Add --extend to go on with it, or take the old length")
        runner.logger.info(f"Extended: {said}.")
        self._changed = True

    def before_train(self, runner: Runner) -> None:
        """Put the new schedule in the place of the one that was loaded."""
        if not self._changed:
            return
        for group in runner.optim_wrapper.param_groups:
            group["lr"] = group.get("initial_lr", group["lr"])
            group.pop("initial_lr", None)
        runner.param_schedulers = runner.build_param_scheduler(runner.cfg.param_scheduler)
        for schedule in runner.param_schedulers:
            _follow(schedule, runner.epoch, runner.iter)
        self._changed = False


def _rate(runner: Runner, epoch: int, iteration: int) -> float | None:
    """The first group's rate after so much training, by the configuration's schedules; None where it can't be told."""
    settings = runner.cfg.get("param_scheduler")
    settings = settings if isinstance(settings, (list, tuple)) else [settings]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=runner.cfg.optim_wrapper.optimizer.lr)
    if any(one.get("convert_to_iter_based") for one in settings):
        return None
    for one in settings:
        _follow(PARAM_SCHEDULERS.build({**one, "optimizer": optimizer}), epoch, iteration)
    return optimizer.param_groups[0]["lr"]


def _follow(schedule: Any, epoch: int, iteration: int) -> None:
    """Step a new schedule to where a training is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the optimizer has made no step
        for _ in range(epoch if schedule.by_epoch else iteration):
            schedule.step()


def _text(rate: float | None) -> str:
    return "unknown" if rate is None else f"{rate:.3g}"
