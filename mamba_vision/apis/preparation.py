"""Preparing the scans that a configuration names, once, before training."""

from pathlib import Path

from mmengine.config import Config

from mamba_vision.apis.cascade import prepare_previous
from mamba_vision.datasets.volume_dataset import split_cases
from mamba_vision.volumes.cache import build_cache
from mamba_vision.volumes.plan import Plan
from mamba_vision.volumes.scans import find_scans
from mamba_vision.volumes.splits import load_splits

VARIABLES = ("scans", "plan", "splits", "prepared")  # of a configuration for volumes, at its top


def prepare_volumes(cfg: Config, progress: bool = True) -> None:
    """Prepare every case of the splits that is not prepared yet; nothing for configurations of other data.

    Raises:
        ValueError: a missing plan or splits, a fold that is not in them, cases of the splits that are not among the
            scans or have no label, a scan that can't be read, or a cascade whose low resolution is not trained.
    """
    if any(not isinstance(cfg.get(name), str) for name in VARIABLES):
        return
    split_cases(cfg.splits, cfg.get("fold", 0), "val")  # a fold that is not there is told before long work
    plan = Plan.load(cfg.plan)
    wanted = {name for fold in load_splits(cfg.splits) for part in fold.values() for name in part}
    scans = [scan for scan in find_scans(cfg.scans, series=cfg.get("series")) if scan.case in wanted]
    found = {scan.case for scan in scans if scan.label is not None}
    if wanted - found:
        raise ValueError(
            f"{cfg.splits}: {len(wanted - found)} of {len(wanted)} cases have no scan with a label in {cfg.scans}: "
            f"{', '.join(sorted(wanted - found)[:10])}"
        )
    check_network(cfg, plan)
    cases = build_cache(scans, plan, Path(cfg.prepared), progress=progress)
    if plan.cascaded:
        prepare_previous(cfg, plan, cases, progress)


def check_network(cfg: Config, plan: Plan) -> None:
    """The plan's channels and classes must be those that the network was built for.

    Raises:
        ValueError: they are not.
    """
    network = cfg.model.get("network", {})
    for key, planned, what in (
        ("in_channels", plan.in_channels, f"channels {plan.channels}"),
        ("num_classes", plan.num_outputs, f"classes {list(plan.regions or plan.labels)}"),
    ):
        if key in network and network[key] != planned:
            raise ValueError(f"model.network.{key}: expected {planned}, as {cfg.plan} has {what}, found {network[key]}")
