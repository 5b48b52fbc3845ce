"""What a segmentation run is about, whatever the user names."""

import numpy as np
import pytest
from dicom_series import write_series
from scan_files import labels, save, voxels

from mamba_vision.volumes import VolumeError
from mamba_vision.volumes.scan_collection import collect_scans


def names(scans):
    return [(scan.case, [path.name for path in scan.images]) for scan in scans]


def test_lists_and_folders_in_folders(tmp_path):
    save(tmp_path / "one" / "a.nii.gz", voxels())
    save(tmp_path / "two" / "deep" / "a.nii.gz", voxels())
    (tmp_path / "scans.csv").write_text("image,label,fold\none/a.nii.gz,,0\n")
    assert names(collect_scans([tmp_path / "scans.csv"])) == [("a", ["a.nii.gz"])]
    assert names(collect_scans([tmp_path], recursive=True)) == [("one_a", ["a.nii.gz"]), ("deep_a", ["a.nii.gz"])]


def test_labels_that_lie_beside_scans_are_no_scans(tmp_path):
    for subject in ("sub-01", "sub-02"):
        save(tmp_path / "bids" / subject / "anat" / f"{subject}_T1w.nii.gz", voxels())
        save(tmp_path / "bids" / "derivatives" / "x" / subject / "anat" / f"{subject}_dseg.nii.gz", labels())
        write_series(tmp_path / "dicom" / subject / "study" / "CT", np.zeros((4, 4, 3), np.int16))
        save(tmp_path / "dicom" / subject / "label.nii.gz", labels())
    for recursive in (False, True):
        found = collect_scans([tmp_path / "bids"], recursive=recursive)
        assert names(found) == [("sub-01", ["sub-01_T1w.nii.gz"]), ("sub-02", ["sub-02_T1w.nii.gz"])]
        found = collect_scans([tmp_path / "dicom"], recursive=recursive)
        assert names(found) == [("sub-01", ["CT"]), ("sub-02", ["CT"])]


def test_each_series_of_a_patient_is_a_case_of_its_own_below_folders(tmp_path):
    """Otherwise the patient's folder, in which nobody chose a series, would be a failure beside them."""
    for series in ("native", "venous"):
        write_series(tmp_path / "patient" / series, np.zeros((4, 4, 3), np.int16), description=series)
    save(tmp_path / "other.nii.gz", voxels())
    assert names(collect_scans([tmp_path])) == [("other", ["other.nii.gz"]), ("patient", ["patient"])]
    found = names(collect_scans([tmp_path], recursive=True))
    assert found == [("other", ["other.nii.gz"]), ("native", ["native"]), ("venous", ["venous"])]
    found = names(collect_scans([tmp_path], recursive=True, series="venous"))
    assert found == [("other", ["other.nii.gz"]), ("patient", ["venous"])]


def test_channels_of_one_case_and_results_that_would_overwrite(tmp_path):
    files = [save(tmp_path / f"{name}.nii.gz", voxels()) for name in ("t1", "flair")]
    (scan,) = collect_scans([], channels=files, series="x")
    assert (scan.images, scan.series) == (tuple(files), "x")
    with pytest.raises(VolumeError, match="the folder of the scan t1"):
        collect_scans([files[0]], out=tmp_path)
    with pytest.raises(VolumeError, match=r"lost\.nii: no such file"):
        collect_scans([], channels=[tmp_path / "lost.nii"])
    with pytest.raises(VolumeError, match="scans: none"):
        collect_scans([])
