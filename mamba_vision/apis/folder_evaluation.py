"""Two folders of label maps compared, without a model: truth and predictions of whatever program."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mamba_vision.apis.volume_report import write_report
from mamba_vision.evaluation import ClassScore, ScoreOptions, score_structures
from mamba_vision.utils.atomic import writable_folder
from mamba_vision.visualization.figures import figure_pixels
from mamba_vision.visualization.volumes import orthogonal_slices_figure
from mamba_vision.volumes.cache import estimated_voxels
from mamba_vision.volumes.checks import present_values
from mamba_vision.volumes.label_scheme import LabelScheme, read_label_scheme
from mamba_vision.volumes.parallel import default_workers, for_each
from mamba_vision.volumes.reading import read_label
from mamba_vision.volumes.scan_files import ScanFiles, read_scan
from mamba_vision.volumes.scans import find_labels, find_scans
from mamba_vision.volumes.volume import Volume, VolumeError

_BYTES_A_VOXEL = 32  # peak of scoring one case: two label maps, and distances in the box of the largest structure


def evaluate_folder(
    truth: str | Path,
    predictions: str | Path,
    folder: str | Path,
    *,
    structures: Mapping[str, int | Sequence[int]] | None = None,
    dataset_json: str | Path | None = None,
    options: ScoreOptions | None = None,
    ignore_label: int | None = None,
    fix_geometry: str = "error",
    images: str | Path | None = None,
    workers: int | None = None,
    progress: bool = False,
    console: Console | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Score every label map of `truth` against the one of the same name in `predictions`, and write a report.

    Args:
        truth, predictions: folders of label maps (NIfTI, NRRD, MetaImage, DICOM-SEG), or two single files.
        folder: of the report; see write_report.
        structures: {name: value}, or {name: values} for a region; by default those of dataset.json, else the values
            that occur.
        dataset_json: nnU-Net's description of labels and regions; by default the one in `truth` or the folder above.
        options: how to score.
        ignore_label: value of the truth whose voxels do not count; by default dataset.json's `ignore`.
        fix_geometry: for a prediction in another grid than its truth: 'error', 'resample' or 'copy'.
        images: folder of the scans, to show the worst cases on; by default labels are drawn on black.
        workers: cases at once.
        progress: draw a bar.

    Returns:
        The summary, and the cases that could not be scored with the reasons.

    Raises:
        ValueError: no label maps, none that could be scored, or structures that make no sense.
        OSError: a folder that cannot be written to.
    """
    truths, predicted = find_labels(truth), find_labels(predictions)
    for place, maps in ((truth, truths), (predictions, predicted)):
        if not maps:
            raise ValueError(f"{place}: found no label maps, expected NIfTI, NRRD, MetaImage or DICOM-SEG files")
    if len(truths) == len(predicted) == 1 and Path(truth).is_file():
        predicted = {next(iter(truths)): next(iter(predicted.values()))}
    scheme = _scheme(Path(truth), dataset_json) if structures is None else LabelScheme()
    names = dict(scheme.labels) or {name: value for name, value in (structures or {}).items() if isinstance(value, int)}
    structures = dict(structures or scheme.regions or {name: value for name, value in scheme.labels.items() if value})
    ignore_label = scheme.ignore_label if ignore_label is None else ignore_label
    failures = {case: "no prediction" for case in truths if case not in predicted}
    cases = [case for case in truths if case in predicted]
    if not cases:
        raise ValueError(f"{predictions}: expected label maps named like those of {truth}, found none")

    writable_folder(folder)

    def read(case: str) -> tuple[Volume, np.ndarray]:
        true = read_label(truths[case], names=names or None)
        return true, read_label(predicted[case], true, fix_geometry, names or None).array[0]

    if not structures:
        values = for_each(lambda case: _values(read, case), cases, workers=workers or default_workers())
        seen = sorted({value for found in values for value in found} - {0, ignore_label})
        if not seen:
            raise ValueError(f"{truth}: expected labels above 0 in truth or predictions, found none")
        structures = {f"label_{value}": value for value in seen}
    options = options or ScoreOptions()

    def score(case: str) -> list[ClassScore] | str:
        try:
            true, mine = read(case)
            return score_structures(
                mine, true.array[0], true.spacing, structures, options, case=case, ignore_index=ignore_label
            )
        except (ValueError, OSError) as error:
            return str(error)

    voxels = (estimated_voxels(ScanFiles(case, (truths[case],))) for case in cases)
    workers = workers or default_workers(size * _BYTES_A_VOXEL for size in voxels)
    found = for_each(score, cases, workers=workers, title="Scoring", progress=progress, console=console)
    failures |= {case: one for case, one in zip(cases, found) if isinstance(one, str)}
    scores = [score for one in found if not isinstance(one, str) for score in one]
    if not scores:
        reasons = "".join(f"\n  {case}: {why}" for case, why in failures.items())
        raise ValueError(f"no case could be scored:{reasons}")
    scans = _scans(images) if images is not None else {}
    names = names or {name: value for name, value in structures.items() if isinstance(value, int)}

    def draw(case: str, line: str) -> np.ndarray:
        true, mine = read(case)
        image = read_scan(scans[case], "resample").array[0] if case in scans else None
        if image is None or image.shape != true.shape:
            image = np.zeros(true.shape, dtype=np.uint8)
        figure = orthogonal_slices_figure(
            image, mine, names=names, truth_XYZ=true.array[0], affine=true.affine, title=line,
            window=None if image.any() else (0.0, 1.0),
        )  # fmt: skip
        return figure_pixels(figure)

    about = {"truth": str(truth), "predictions": str(predictions), "failures": failures}
    return write_report(folder, scores, about, options.tolerance, draw, options), failures


def _scheme(truth: Path, dataset_json: str | Path | None) -> LabelScheme:
    folder = truth if truth.is_dir() else truth.parent
    places = (folder, folder.parent) if dataset_json is None else ()
    file = next((place / "dataset.json" for place in places if (place / "dataset.json").is_file()), dataset_json)
    if file is None:
        return LabelScheme()
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
        labels = content["labels"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise VolumeError(file, f"no usable description ({type(e).__name__}: {e})", "a dataset.json with labels") from e
    return read_label_scheme(labels, file, content.get("regions_class_order"))


def _scans(path: str | Path) -> dict[str, ScanFiles]:
    """Every scan there, whether for training or for testing."""
    found, refusal = {}, None
    for subset in ("train", "test"):
        try:
            found |= {scan.case: scan for scan in find_scans(path, subset)}
        except VolumeError as error:
            refusal = error
    if not found:
        raise refusal
    return found


def _values(read: Any, case: str) -> list[int]:
    try:
        true, mine = read(case)
    except (ValueError, OSError):
        return []  # said when it is scored
    return [*present_values(true.array), *present_values(mine[None])]
