"""Planning from lists, DICOM patients with labels in DICOM, and stacked channels, to prepared cases."""

import json

import numpy as np
import pydicom
import pytest
from dicom_series import write_series
from mmengine.config import Config
from scan_files import labels, make_plan, save, voxels

from mamba_vision.apis import plan_dataset
from mamba_vision.apis.planning import DatasetError
from mamba_vision.apis.preparation import prepare_volumes
from mamba_vision.apis.volume_testing import labelled_scans
from mamba_vision.volumes import build_cache, check_scans, load_case, read_volume
from mamba_vision.volumes.dicom_seg_writing import write_dicom_seg
from mamba_vision.volumes.rtstruct_writing import write_rtstruct
from mamba_vision.volumes.scan_files import read_scan, read_scan_label, structure_labels
from mamba_vision.volumes.scans import find_scans
from mamba_vision.volumes.splits import listed_splits


def patient(folder, seed, names, write=write_dicom_seg, **series):
    """A patient's folder: a series, and beside it the label of scan_files with these names."""
    shape = labels().shape
    write_series(folder / "CT", voxels(seed=seed).astype(np.int16).reshape(shape), intercept=0.0, **series)
    for file in (folder / "CT").glob("*.dcm"):
        dataset = pydicom.dcmread(file)
        dataset.StudyInstanceUID, dataset.FrameOfReferenceUID, dataset.SliceThickness = "1.2.3", "1.2.4", 3.0
        dataset.PatientID, dataset.PatientName = folder.name, "Nobody^"
        dataset.save_as(file)
    (folder / "label").mkdir()
    write(folder / "label" / "label.dcm", labels(), read_volume(folder / "CT"), names)


def test_a_list_with_folds_and_test_scans(tmp_path):
    rows = ["case,image,label,fold"]
    for number, fold in enumerate(("0", "0", "1", "train", "test")):
        save(tmp_path / f"{number}.nii.gz", voxels(seed=number))
        save(tmp_path / f"{number}_seg.nii.gz", labels())
        rows.append(f"c{number},{number}.nii.gz,{number}_seg.nii.gz,{fold}")
    (tmp_path / "scans.csv").write_text("\n".join(rows))
    planned = plan_dataset(tmp_path / "scans.csv", tmp_path / "work", preset="fast", pictures=0)
    assert planned.splits == [
        {"train": ["c2", "c3"], "val": ["c0", "c1"]}, {"train": ["c0", "c1", "c3"], "val": ["c2"]},
    ]  # fmt: skip
    assert "2 folds as the list of scans says." in planned.notes
    assert planned.plan.dataset == "scans"
    config = Config.fromfile(tmp_path / "work" / "config.py", import_custom_modules=False)
    prepare_volumes(config, progress=False)
    scans, which = labelled_scans(config)
    assert [scan.case for scan in scans] == ["c4"]
    assert which.startswith("1 labelled test scan of")


def test_folds_of_a_list_that_leave_nothing():
    with pytest.raises(ValueError, match="expected the number of a fold for some cases"):
        listed_splits({"a": "", "b": ""})
    with pytest.raises(ValueError, match="expected cases to train on beside those of fold 3"):
        listed_splits({"a": "3", "b": "3"})


def test_segments_are_learned_by_name(tmp_path):
    patient(tmp_path / "data" / "p1", 1, {"Organ": 1, "Lesion": 2})
    patient(tmp_path / "data" / "p2", 2, {"lesion": 2, "organ": 1})
    planned = plan_dataset(tmp_path / "data", tmp_path / "work", preset="fast", pictures=0)
    assert planned.plan.labels == {"background": 0, "Organ": 1, "Lesion": 2}
    label = load_case(tmp_path / "work" / "preprocessed", "p2").label
    assert set(np.unique(label)) >= {1, 2}
    named = plan_dataset(
        tmp_path / "data", tmp_path / "other", preset="fast", pictures=0, labels={"background": 0, "lesion": 1}
    )
    assert named.plan.labels == {"background": 0, "lesion": 1}
    assert load_case(tmp_path / "other" / "preprocessed", "p1").label.max() == 1


def test_contours_need_to_be_named_where_there_are_several(tmp_path):
    patient(tmp_path / "data" / "p1", 1, {"Organ": 1, "Lesion": 2}, write_rtstruct)
    patient(tmp_path / "data" / "p2", 2, {"Organ": 1, "Lesion": 2}, write_rtstruct)
    assert structure_labels(find_scans(tmp_path / "data")) == {}
    with pytest.raises(DatasetError) as caught:
        plan_dataset(tmp_path / "data", tmp_path / "work", preset="fast", pictures=0)
    assert [problem.found for problem in caught.value.problems] == ["2 structures (Organ, Lesion)"] * 2
    assert "--labels 1=NAME" in caught.value.problems[0].cure
    named = {"background": 0, "organ": 1, "lesion": 2}
    plan_dataset(tmp_path / "data", tmp_path / "work", preset="fast", pictures=0, labels=named)
    assert load_case(tmp_path / "work" / "preprocessed", "p1").label.max() == 2


def test_the_chosen_series_is_remembered(tmp_path):
    for number in (1, 2):
        folder = tmp_path / "data" / f"p{number}"
        write_series(folder / "CT", voxels(seed=number).astype(np.int16), description="venous")
        save(folder / "label.nii.gz", labels(), read_volume(folder / "CT").affine)  # which says nothing of a series
        write_series(folder / "scout", voxels(seed=9).astype(np.int16), description="scout")
    with pytest.raises(DatasetError, match="2 series of one patient"):
        plan_dataset(tmp_path / "data", tmp_path / "work", preset="fast", pictures=0)
    plan_dataset(tmp_path / "data", tmp_path / "work", preset="fast", pictures=0, series="venous")
    config = Config.fromfile(tmp_path / "work" / "config.py", import_custom_modules=False)
    assert config.series == "venous"
    changed = [file.stat().st_mtime_ns for file in sorted((tmp_path / "work" / "preprocessed").rglob("*.npy"))]
    prepare_volumes(config, progress=False)  # finds the same scans, prepared already
    assert changed == [file.stat().st_mtime_ns for file in sorted((tmp_path / "work" / "preprocessed").rglob("*.npy"))]


@pytest.mark.parametrize("write", [write_dicom_seg, write_rtstruct])
@pytest.mark.parametrize("place", ["CT", "PET"])
def test_of_several_series_the_one_that_was_labelled(tmp_path, write, place):
    """Without a choice, and also where one series lies among the files of the other."""
    for number in (1, 2):
        patient(tmp_path / f"p{number}", number, {"organ": 1}, write)
        write_series(tmp_path / f"p{number}" / place, voxels(seed=9).astype(np.int16), prefix="pet", description="PET")
    scans = find_scans(tmp_path)
    names = {"organ": 1}
    assert [problem.found for problem in check_scans(scans, label_names=names)] == []
    np.testing.assert_array_equal(read_scan(scans[0]).array[0], voxels(seed=1).astype(np.int16))
    assert (read_scan_label(scans[0], read_scan(scans[0]), names=names).array[0] == (labels() == 1)).all()
    (case,) = build_cache(scans[:1], make_plan(labels={"background": 0, "organ": 1}), tmp_path / "cache", workers=1)
    assert case.label.max() == 1


def test_a_task_of_the_decathlon_as_it_is(tmp_path):
    for case in "ab":
        both = np.stack([voxels(seed=ord(case)), voxels(seed=ord(case) + 1)], axis=-1)
        save(tmp_path / "task" / "imagesTr" / f"{case}.nii.gz", both)
        save(tmp_path / "task" / "labelsTr" / f"{case}.nii.gz", labels())
    training = [{"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in "ab"]
    content = {"modality": {"0": "T2", "1": "ADC"}, "labels": {"0": "background", "1": "PZ", "2": "TZ"}}
    (tmp_path / "task" / "dataset.json").write_text(json.dumps({**content, "training": training, "test": []}))
    planned = plan_dataset(tmp_path / "task" / "dataset.json", tmp_path / "work", preset="fast", pictures=1)
    assert planned.plan.channels == ["T2", "ADC"]
    assert load_case(tmp_path / "work" / "preprocessed", "a").image.shape[0] == 2
