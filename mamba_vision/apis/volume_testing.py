"""How good is a trained model on labelled scans, measured in the scans' own grids."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from torch import nn

from mamba_vision.apis.sharing import from_all, my_device, my_share, rank
from mamba_vision.apis.volume_ensemble import as_ensemble
from mamba_vision.apis.volume_inference import InferenceOptions, choose_steps, inference_volume
from mamba_vision.apis.volume_model import init_volume_model
from mamba_vision.apis.volume_report import write_report
from mamba_vision.apis.volume_result import VolumeResult
from mamba_vision.evaluation import ClassScore
from mamba_vision.evaluation.volume_scores import METRICS, ScoreOptions, score_structures
from mamba_vision.utils.atomic import writable_folder
from mamba_vision.utils.wording import count, shown
from mamba_vision.visualization.figures import figure_pixels
from mamba_vision.visualization.volumes import orthogonal_slices_figure
from mamba_vision.volumes.components import steps_as_json
from mamba_vision.volumes.pictures import picture_ending
from mamba_vision.volumes.planning import Plan
from mamba_vision.volumes.scan_files import ScanFiles, read_scan_label
from mamba_vision.volumes.scans import find_scans, find_test_scans
from mamba_vision.volumes.splits import load_splits


@dataclass
class TestOutcome:
    """What testing found: the summary as written, the scores, and the cases that could not be tested, with reasons."""

    __test__ = False  # not a test of pytest's

    summary: dict[str, Any]
    scores: list[ClassScore]
    folder: Path
    failures: dict[str, str] = field(default_factory=dict)


def evaluate_volumes(
    cfg: Config,
    checkpoint: str | Path,
    *,
    data: str | Path | None = None,
    folder: str | Path | None = None,
    tta: str = "flips",
    amp: bool = False,
    device: str | None = None,
    masks: str | Path | None = None,
    report: Callable[[str, int, int], None] | None = None,
) -> TestOutcome:
    """Segment labelled scans, as tools/segment.py does it, score them, write a report.

    Of several processes (`sharing.joined`) each takes its share of the scans; the first one writes the report, and
    alone has a summary in what it returns.

    Args:
        cfg: a planned configuration.
        checkpoint: of it.
        data: labelled scans; by default the data set's own test scans if they have labels, else the validation cases
            of the configuration's fold.
        folder: of the report; by default `report` in the work folder.
        tta: 'flips' or 'none', as for inference_volume.
        amp: predict in bfloat16.
        device: as for init_volume_model.
        masks: folder to write the segmentations to.
        report: called before each case with its name, its number and how many there are.

    Raises:
        ValueError: no labelled scans, or none that could be tested; or validation scans of another fold than the
            checkpoint's, which it was trained on.
        OSError: a folder that cannot be written to.
    """
    model = init_volume_model(cfg, checkpoint, my_device(device))
    plan = Plan.from_dict(model.plan)
    scans, which = labelled_scans(cfg, data)
    if "validation" in which and str(model.trained_fold) not in ("None", str(cfg.fold)):
        raise ValueError(
            f"{checkpoint}: trained with fold {model.trained_fold}, so it has seen the validation scans of fold "
            f"{cfg.fold}; expected --fold {model.trained_fold}, or other scans with --data"
        )
    tolerance = (cfg.get("test_evaluator") or {}).get("tolerance", 2.0)
    folder = Path(folder) if folder is not None else Path(cfg.work_dir) / "report"
    for place in (folder, masks):
        if place is not None:
            writable_folder(place)
    start, scores, failures, mine = time.monotonic(), [], {}, my_share(scans)
    for index, scan in enumerate(mine):
        if report:
            report(scan.case, index, len(mine))
        try:
            result, found = score_scan(model, plan, scan, tolerance, tta, amp)
        except (ValueError, OSError) as error:
            failures[scan.case] = str(error)
            continue
        scores += found
        if masks is not None:
            result.save(Path(masks) / f"{scan.case}{picture_ending(scan.images[0]) or '.nii.gz'}")
    parts = from_all((scores, failures))
    order = {scan.case: number for number, scan in enumerate(scans)}
    scores = sorted((score for part, _ in parts for score in part), key=lambda score: order[score.case])
    failures = {case: why for _, part in parts for case, why in part.items()}
    if not scores:
        raise ValueError(
            "no scan could be tested:\n  " + "\n  ".join(f"{case}: {why}" for case, why in failures.items())
        )
    if rank() > 0:
        return TestOutcome({}, scores, folder, failures)
    about = {
        "dataset": plan.dataset,
        "tested_on": which,
        "checkpoint": str(checkpoint),
        "tta": tta,
        "postprocessing": steps_as_json(choose_steps(as_ensemble(model), InferenceOptions())),
        "processes": len(parts),
        "seconds": round(time.monotonic() - start, 1),
        "failures": failures,
    }
    by_name = {scan.case: scan for scan in scans}

    def draw(case: str, line: str) -> np.ndarray:
        return _picture(model, plan, by_name[case], line, tta, amp)

    summary = write_report(folder, scores, about, tolerance, draw)
    return TestOutcome(summary, scores, folder, failures)


def labelled_scans(cfg: Config, data: str | Path | None = None) -> tuple[list[ScanFiles], str]:
    """The scans to test on, all with labels, and in words which these are.

    Raises:
        ValueError: there are none.
    """
    if data is not None:
        for subset in ("test", "train"):
            scans = [scan for scan in find_scans(data, subset) if scan.label is not None]
            if scans:
                return scans, f"{count(len(scans), 'labelled scan')} in {data}"
        raise ValueError(
            f"{data}: expected scans with labels (imagesTs and labelsTs, or images and labels), found none"
        )
    if not cfg.get("scans"):
        raise ValueError(f"{cfg.filename}: expected a planned configuration with the variable `scans`, or --data")
    series = cfg.get("series")
    scans = [scan for scan in find_test_scans(cfg.scans, series) if scan.label is not None]
    if scans:
        return scans, f"{count(len(scans), 'labelled test scan')} of {shown(cfg.scans)}"
    folds = load_splits(cfg.splits)
    names = {name for fold in folds for name in fold["val"]} if str(cfg.fold) == "all" else set(folds[cfg.fold]["val"])
    scans = [scan for scan in find_scans(cfg.scans, series=series) if scan.case in names and scan.label is not None]
    if not scans:
        raise ValueError(f"{cfg.scans}: expected labelled scans of fold {cfg.fold}, found none")
    return scans, f"{count(len(scans), 'validation scan')} of fold {cfg.fold}"


def score_scan(
    model: nn.Module, plan: Plan, scan: ScanFiles, tolerance: float | Sequence[float], tta: str, amp: bool
) -> tuple[VolumeResult, list[ClassScore]]:
    """Segment one scan and compare with its label, voxel by voxel as they are stored.

    Raises:
        ValueError: the scan or its label cannot be read, or has labels that the plan does not know.
    """
    result = inference_volume(model, scan, tta=tta, amp=amp)
    truth = read_scan_label(scan, result.volume, plan.fix_geometry, plan.labels).array[0]
    values = np.array(plan.scheme.values)
    unknown = sorted(set(np.unique(truth).tolist()) - set(values.tolist()))
    if unknown:
        raise ValueError(f"{scan.label}: expected labels {values.tolist()}, found {unknown} too")
    structures = plan.regions or {name: value for name, value in plan.labels.items() if value}
    options = ScoreOptions(METRICS, tolerance)
    return result, score_structures(
        result.mask, truth, result.volume.spacing, structures, options, case=scan.case, ignore_index=plan.ignore_label
    )


def _picture(model: nn.Module, plan: Plan, scan: ScanFiles, line: str, tta: str, amp: bool) -> np.ndarray:
    """A case segmented once more: keeping every volume of a large test set would not fit into memory."""
    result = inference_volume(model, scan, tta=tta, amp=amp)
    truth = read_scan_label(scan, result.volume, plan.fix_geometry, plan.labels).array[0]
    figure = orthogonal_slices_figure(
        result.volume.array[0], result.mask, names=plan.labels, truth_XYZ=truth, affine=result.affine, title=line,
        window=result.window,
    )  # fmt: skip
    return figure_pixels(figure)
