"""One patient, several cases: in one part of a fold."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import write_series

from mamba_vision.volumes.patients import check_patients, patient_of, patients_of
from mamba_vision.volumes.scans import ScanFiles
from mamba_vision.volumes.splits import make_splits


def scan(case: str) -> ScanFiles:
    return ScanFiles(case, (Path(f"{case}_0000.nii.gz"),))


@pytest.mark.parametrize(
    ("case", "patient"),
    [
        ("sub-07_ses-2_T1w", "sub-07"), ("BraTS-GLI-00012-001", "BraTS-GLI-00012"),
        ("patient012_frame01", "patient012"),
        ("liver_3_visit2", "liver_3"), ("AB_followup", "AB"), ("case_0001", None), ("visit_2021", None),
    ],
)  # fmt: skip
def test_names_that_tell(case, patient):
    assert patient_of(scan(case)) == patient


def test_a_dicom_header_tells(tmp_path):
    write_series(tmp_path / "scan", np.zeros((4, 5, 3), np.int16))
    for file in (tmp_path / "scan").iterdir():
        header = pydicom.dcmread(file)
        header.PatientID = "P-17"
        header.save_as(file)
    assert patient_of(ScanFiles("visit", (tmp_path / "scan",))) == "P-17"


def test_patients_stay_together_where_asked():
    cases = [f"patient{number:03d}_frame{frame}" for number in range(10) for frame in (1, 2)]
    scans, patients = [scan(case) for case in cases], patients_of([scan(case) for case in cases])
    torn = check_patients(scans, make_splits(cases), patients)
    assert torn and torn[0].severity == "warning" and "--by-patient" in torn[0].cure
    assert "is trained on and validated in fold" in torn[0].found
    together = make_splits(cases, groups=patients)
    assert check_patients(scans, together, patients) == []
    assert sorted(name for fold in together for name in fold["val"]) == sorted(cases)
    for fold in together:
        assert sorted([*fold["train"], *fold["val"]]) == sorted(cases)


def test_cases_without_a_patient_stand_for_themselves():
    names = ["a", "b", "c", "d", "e"]
    assert make_splits(names, groups={}) == make_splits(names)
