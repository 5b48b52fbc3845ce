"""Every case segmented by the fold that did not train on it: what choices after training are made on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from mamba_vision.apis.config_loading import load_config
from mamba_vision.apis.segmentation_files import SegmentOptions
from mamba_vision.apis.segmentation_run import Reporter, segment_scans
from mamba_vision.apis.segmentation_workers import segment_on_devices
from mamba_vision.apis.volume_cascade import low_resolution
from mamba_vision.apis.volume_ensemble import EnsembleSource, VolumeEnsemble, fold_folder
from mamba_vision.volumes.plan import Plan
from mamba_vision.volumes.reading import is_nifti, read_label
from mamba_vision.volumes.scan_files import ScanFiles, read_scan_label
from mamba_vision.volumes.scans import find_scans
from mamba_vision.volumes.splits import load_splits
from mamba_vision.volumes.volume import VolumeError, stem

FOLDER = "cross_validation"


@dataclass(frozen=True)
class Predictions:
    """Cases with their truth, and a folder of label maps of them.

    Attributes:
        name: of what made them.
        folder: holds CASE.nii.gz, and CASE_probabilities.nii where they were asked for.
        scans: the cases, with labels.
        plan: of the model.
        folds: that made them.
    """

    name: str
    folder: Path
    scans: list[ScanFiles]
    plan: Plan
    folds: tuple[str, ...] = ()

    @property
    def structures(self) -> dict[str, list[int]]:
        """What is scored: regions where the plan has some, else labels; name to label values."""
        plan = self.plan
        return dict(plan.regions) or {name: [value] for name, value in plan.labels.items() if value}

    def masks(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Case, prediction and truth (X, Y, Z), one after the other; voxels to ignore are 0 in both.

        Raises:
            VolumeError: a label map that is missing or in another grid than its truth.
        """
        for scan in self.scans:
            found = read_label(self.folder / f"{scan.case}.nii.gz")
            truth = read_scan_label(scan, found, self.plan.fix_geometry, self.plan.labels).array[0]
            mask = found.array[0]
            if mask.shape != truth.shape:
                raise VolumeError(found.name, f"{mask.shape} voxels", f"those of its truth, {truth.shape}")
            if self.plan.ignore_label is not None:
                counted = truth != self.plan.ignore_label
                mask, truth = mask * counted, truth * counted
            yield scan.case, mask, truth

    def probabilities(self, case: str) -> np.ndarray:
        """(X, Y, Z, K), mapped from the file."""
        return nib.load(self.folder / f"{case}_probabilities.nii", mmap=True).dataobj


class HeldOutSource(EnsembleSource):
    """A fold as it validates: in a cascade, also the low resolution is of the fold that did not train on the case."""

    def build(self, device: str | torch.device | None = None) -> VolumeEnsemble:
        """Load everything; raises as init_volume_ensemble."""
        ensemble = super().build(device)
        for model in ensemble.models if ensemble.plans[0].cascaded else ():
            low_resolution(model, self.folds)
        return ensemble


def cross_validate(
    work_dir: str | Path,
    folds: Sequence[str | int] = (),
    *,
    devices: Sequence[str] = ("cpu",),
    tta: str = "flips",
    amp: bool = False,
    probabilities: bool = False,
    reporter: Reporter,
) -> Predictions:
    """Segment the validation cases of every fold with that fold's best checkpoint, into WORK_DIR/cross_validation.

    What is there already, made with the same weights and options, is not made again. No clean-up is applied.

    Args:
        work_dir: of tools/plan.py and tools/train.py --fold N.
        folds: default: all of splits.json.
        devices: as tools/segment.py takes them; several share the cases.
        tta, amp: as for inference_volume.
        probabilities: keep them, for ensembles.
        reporter: is told how it goes.

    Raises:
        FileNotFoundError: a fold that was not trained.
        ValueError: no labelled cases, or some that could not be segmented.
    """
    folder = Path(work_dir)
    cfg = load_config(folder / "config.py")
    if not cfg.get("scans") or not cfg.get("splits"):
        raise ValueError(f"{cfg.filename}: expected a planned configuration with `scans` and `splits`")
    splits = load_splits(cfg.splits)
    chosen = [str(fold) for fold in folds] or [str(number) for number in range(len(splits))]
    for fold in chosen:
        if not fold.isdigit() or int(fold) >= len(splits):
            raise ValueError(f"folds: expected numbers below {len(splits)}, found {fold!r}")
        fold_folder(folder, fold)  # all must be there before long work begins
    labelled = {scan.case: scan for scan in find_scans(cfg.scans, series=cfg.get("series")) if scan.label is not None}
    options = SegmentOptions(
        tta=tta, amp=amp, probabilities=probabilities, compress=False, postprocessing="none", statistics=False,
        preview=False, resume=True,
    )  # fmt: skip
    scans, failures, plan = [], {}, None
    for fold in chosen:
        names = splits[int(fold)]["val"]
        if missing := [name for name in names if name not in labelled]:
            raise ValueError(f"{cfg.scans}: expected labelled scans of fold {fold}, found no {', '.join(missing)}")
        held_out = [labelled[name] for name in names]
        source = HeldOutSource((folder,), (fold,))
        ensemble = source.build(devices[0] if len(devices) == 1 else "cpu")
        plan = ensemble.plans[0]
        if len(devices) == 1:
            failures |= segment_scans(ensemble, held_out, folder / FOLDER, options, reporter)
        else:
            del ensemble
            failures |= segment_on_devices(source, devices, held_out, folder / FOLDER, options, reporter)
        scans += held_out
    if failures:
        listed = "\n  ".join(f"{case}: {reason}" for case, reason in failures.items())
        raise ValueError(f"{len(failures)} of {len(scans)} cases could not be segmented:\n  {listed}")
    return Predictions(folder.name, folder / FOLDER, scans, plan, tuple(chosen))


def given_predictions(work_dir: str | Path, predictions: str | Path, labels: str | Path) -> Predictions:
    """Label maps that are there already, and the true ones of equal names.

    Raises:
        ValueError: no plan in the work folder, no label maps, or one without its truth.
    """
    predictions, labels = Path(predictions), Path(labels)
    plan = Plan.load(Path(work_dir) / "plan.json")
    truths = {stem(file): file for file in sorted(labels.iterdir()) if is_nifti(file)}
    cases = sorted(file.name[: -len(".nii.gz")] for file in predictions.glob("*.nii.gz"))
    cases = [case for case in cases if not case.endswith("_probabilities")]
    if not cases:
        raise ValueError(f"{predictions}: expected label maps CASE.nii.gz, found none")
    if missing := [case for case in cases if case not in truths]:
        raise ValueError(f"{labels}: expected the true labels of every case, found none of {', '.join(missing)}")
    scans = [ScanFiles(case, (predictions / f"{case}.nii.gz",), truths[case]) for case in cases]
    return Predictions(predictions.name, predictions, scans, plan)
