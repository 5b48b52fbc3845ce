"""Which cases are of one patient: what a validation must not see in training."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from mamba_vision.volumes.checks import Problem
from mamba_vision.volumes.dicom import is_dicom_file
from mamba_vision.volumes.scans import ScanFiles

# Names that say it: BIDS, BraTS (patient and visit), ACDC and the like, and words for one of several visits at the end.
_NAMES = (
    re.compile(r"(sub-[A-Za-z0-9]+)_.+"),
    re.compile(r"(BraTS[A-Za-z0-9]*(?:-[A-Za-z]+)*-\d+)-\d{3}"),
    re.compile(r"(patient[_-]?\d+)[_-].+", re.IGNORECASE),
    re.compile(
        r"(.+?)[_-](?:ses|session|visit|scan|tp|timepoint|time|frame|baseline|followup|follow-up|pre|post)[_-]?\d*",
        re.IGNORECASE,
    ),
)


def patient_of(scan: ScanFiles) -> str | None:
    """The patient's identifier from the DICOM header, else from the case's name; None if neither says."""
    path = scan.images[0]
    if path.is_dir() or is_dicom_file(path):
        file = path if path.is_file() else next((one for one in sorted(path.iterdir()) if is_dicom_file(one)), None)
        if file is not None:
            import pydicom  # an extra, that only DICOM needs

            found = str(pydicom.dcmread(file, stop_before_pixels=True).get("PatientID", "")).strip()
            return found or None
    for pattern in _NAMES:
        if match := pattern.fullmatch(scan.case):
            return match[1]
    return None


def patients_of(scans: Sequence[ScanFiles]) -> dict[str, str]:
    """Case -> patient, where it is known."""
    found = {scan.case: patient_of(scan) for scan in scans}
    return {case: patient for case, patient in found.items() if patient is not None}


def check_patients(
    scans: Sequence[ScanFiles], splits: Sequence[Mapping[str, Sequence[str]]], patients: Mapping[str, str]
) -> list[Problem]:
    """Patients whose cases are both trained on and validated in some fold, a warning each."""
    by_patient: dict[str, list[str]] = defaultdict(list)
    for case, patient in patients.items():
        by_patient[patient].append(case)
    files = {scan.case: str(scan.images[0]) for scan in scans}
    problems = []
    for patient, cases in sorted(by_patient.items()):
        torn = [
            number for number, fold in enumerate(splits)
            if set(cases) & set(fold["train"]) and set(cases) & set(fold["val"]) and fold["train"] != fold["val"]
        ]  # fmt: skip
        if torn:
            problems.append(
                Problem(
                    cases[0], files[cases[0]],
                    f"patient {patient} is trained on and validated in fold {', '.join(map(str, torn))} "
                    f"({', '.join(sorted(cases))})", "each patient in one part",
                    "Plan with --by-patient, or the validation is too good", "warning",
                )
            )  # fmt: skip
    return problems
