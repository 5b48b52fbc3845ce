"""A data set read once, from end to end: every problem, and the fingerprint if there is none that matters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console

from mamba_vision.volumes.cache import estimated_voxels
from mamba_vision.volumes.checks import CheckedCase, Problem, check_case, check_set, errors
from mamba_vision.volumes.fingerprint import (
    SAMPLES,
    SAMPLES_A_CASE,
    CaseFingerprint,
    Fingerprint,
    case_fingerprint,
    pool_intensities,
)
from mamba_vision.volumes.parallel import default_workers, for_each
from mamba_vision.volumes.scan_files import ScanFiles, channel_count

_BYTES_A_VOXEL = 24  # peak of reading, checking and sampling, a voxel and channel


@dataclass(frozen=True)
class Survey:
    """What reading every case has shown; `fingerprint` is None when problems stop the plan."""

    problems: list[Problem]
    fingerprint: Fingerprint | None


def survey(
    scans: Sequence[ScanFiles],
    channels: int | None = None,
    label_values: Sequence[int] | None = None,
    *,
    fix_geometry: str = "error",
    label_names: Mapping[str, int] | None = None,
    workers: int | None = None,
    seed: int = 1234,
    progress: bool = False,
    console: Console | None = None,
) -> Survey:
    """Check every training case and take the fingerprint, in one reading.

    Args:
        scans: all must have labels.
        channels: how many a case must have; None: as many as the first one has.
        label_values: allowed in the label files; None: any whole number of 0 or more.
        fix_geometry: see read_volume.
        label_names: values of structures by name, for labels in DICOM.
        workers: cases at once; by default a core each, as far as free memory goes.
        seed: of the foreground samples.
        progress: draw a bar.

    Raises:
        ValueError: there are no scans.
    """
    if not scans:
        raise ValueError("scans: expected at least one case, found none")
    channels = channels if channels is not None else channel_count(scans[0])
    samples = max(min(SAMPLES // len(scans), SAMPLES_A_CASE), 1)

    def look(scan: ScanFiles) -> tuple[CheckedCase, CaseFingerprint | None, np.ndarray | None]:
        checked = check_case(scan, channels, label_values, True, fix_geometry, label_names)
        light = CheckedCase(scan, checked.problems, digest=checked.digest)  # lets the voxels go
        if checked.volume is None or checked.label is None:
            return light, None, None
        return light, *case_fingerprint(scan.case, checked.volume, checked.label, samples, seed)

    workers = workers or default_workers(estimated_voxels(scan) * channels * _BYTES_A_VOXEL for scan in scans)
    looked = for_each(look, scans, workers=workers, title="Reading scans", progress=progress, console=console)
    problems = [problem for checked, _, _ in looked for problem in checked.problems]
    problems += check_set([checked for checked, _, _ in looked])
    if not errors(problems) and all(drawn.shape[1] == 0 for _, _, drawn in looked):
        labels = scans[0].label.parent
        problems.append(Problem("", str(labels), "no label file with any foreground", "something to learn"))
    if errors(problems):
        return Survey(problems, None)
    cases = [case for _, case, _ in looked]
    if mixed := _other_slices(scans, cases):
        return Survey([*problems, *mixed], None)
    intensities = pool_intensities([drawn for _, _, drawn in looked])
    return Survey(problems, Fingerprint(cases, intensities))


def _other_slices(scans: Sequence[ScanFiles], cases: Sequence[CaseFingerprint]) -> list[Problem]:
    """Single slices among volumes, or through other axes than most."""
    planes = [tuple(side == 1 for side in case.shape) for case in cases]
    usual = max(planes, key=planes.count)
    expected = "single slices in one plane, as most cases are" if any(usual) else "volumes, as most cases are"
    return [
        Problem(
            scan.case, str(scan.images[0]),
            f"{' x '.join(map(str, case.shape))} voxels (left-right, back-front, down-up)", expected,
            "Plan slices of each plane, and volumes, as data sets of their own",
        )
        for scan, case, plane in zip(scans, cases, planes)
        if plane != usual
    ]  # fmt: skip
