"""A folder of scans becomes a work folder."""

import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from scan_files import LABELS, affine, labels, make_dataset, save, voxels

from mamba_vision.apis import plan_dataset
from mamba_vision.apis.planning import DatasetError
from mamba_vision.apis.planning_pictures import outlier_scores
from mamba_vision.volumes import Fingerprint, Plan, VolumeError, load_case, load_splits


@pytest.fixture
def data(tmp_path):
    return make_dataset(tmp_path / "data", cases=4)


def test_everything_a_training_needs_is_written(data, tmp_path):
    work = tmp_path / "work"
    planned = plan_dataset(data, work, preset="fast", seed=3)
    names = {"config.py", "plan.json", "fingerprint.json", "splits.json", "problems.csv", "preprocessed", "qc"}
    assert {path.name for path in work.iterdir()} == names
    assert all(path.exists() for path in planned.files) and len(planned.files) == len(names)
    assert Plan.load(work / "plan.json") == planned.plan
    assert Fingerprint.load(work / "fingerprint.json") == planned.fingerprint
    assert load_splits(work / "splits.json") == planned.splits and len(planned.splits) == 4
    assert planned.notes == ["4 cases make 4 folds, not 5."]
    config = Config.fromfile(work / "config.py", import_custom_modules=False)
    assert config.model.network.num_classes == 3 and tuple(config.patch_size) == planned.plan.patch_size
    assert config.randomness.seed == 3 and Path(config.scans) == data.resolve()
    assert [load_case(work / "preprocessed", name).label.max() for name in "abcd"] == [2] * 4
    page = (work / "qc" / "index.html").read_text()
    assert all(f'src="{name}.png"' in page and (work / "qc" / f"{name}.png").stat().st_size > 1000 for name in "abcd")
    assert planned.next_command == f"python tools/train.py {work / 'config.py'}"


def test_a_second_time_keeps_splits_and_an_edited_config(data, tmp_path):
    work = tmp_path / "work"
    plan_dataset(data, work, preset="fast", pictures=0)
    mine = [{"train": ["a", "b", "c"], "val": ["d"]}] * 4
    (work / "splits.json").write_text(json.dumps(mine))
    (work / "config.py").write_text("edited = True\n")
    again = plan_dataset(data, work, preset="fast", pictures=0)
    assert again.splits == mine and load_splits(work / "splits.json") == mine
    assert (work / "config.previous.py").read_text() == "edited = True\n"
    assert any("config.previous.py" in note for note in again.notes)
    (work / "config.py").write_text("edited = 2\n")
    plan_dataset(data, work, preset="fast", pictures=0)
    assert (work / "config.previous.py").read_text() == "edited = True\n"
    assert (work / "config.previous1.py").read_text() == "edited = 2\n"
    save(data / "imagesTr" / "e_0000.nii.gz", voxels(seed=99))
    save(data / "labelsTr" / "e.nii.gz", labels())
    more = plan_dataset(data, work, preset="fast", pictures=0)
    assert len(more.splits) == 5 and any("made anew" in note for note in more.notes)


def test_a_dry_run_writes_nothing(data, tmp_path):
    planned = plan_dataset(data, tmp_path / "work", dry_run=True)
    assert not (tmp_path / "work").exists() and planned.files == [] and "VolumeSegmentor" in planned.config
    (data / "labelsTr" / "a.nii.gz").unlink()
    with pytest.raises(DatasetError):
        plan_dataset(data, tmp_path / "work", dry_run=True)
    assert not (tmp_path / "work").exists()


def test_problems_stop_it_and_are_all_told(data, tmp_path):
    (data / "labelsTr" / "a.nii.gz").unlink()
    (data / "imagesTr" / "b_0000.nii.gz").write_text("no image")
    with pytest.raises(DatasetError, match="2 problems") as caught:
        plan_dataset(data, tmp_path / "work")
    assert "a_0000.nii.gz: no label file" in str(caught.value) and "b_0000.nii.gz: is no image" in str(caught.value)
    assert [one.case for one in caught.value.problems] == ["a", "b"]
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["problems.csv"]


def test_warnings_are_handed_on(data, tmp_path):
    save(data / "labelsTr" / "z.nii.gz", labels())
    for file in (data / "labelsTr").iterdir():
        save(file, (labels() > 0).astype(np.uint8))
    planned = plan_dataset(data, tmp_path / "work", dry_run=True)
    assert [one.found for one in planned.problems] == [
        "a label without an image",
        "label 'lesion' = 2 occurs in no case",
    ]


def test_without_dataset_json_names_come_from_the_data_or_the_caller(data, tmp_path):
    (data / "dataset.json").unlink()
    for file in (data / "labelsTr").iterdir():
        save(file, labels() * 5)
    plan = plan_dataset(data, tmp_path / "work", dry_run=True).plan
    assert plan.channels == ["channel_0"] and plan.labels == {"background": 0, "label_5": 5, "label_10": 10}
    assert plan.network["num_classes"] == 3 and plan.normalization == ["zscore"]
    options = {"channels": ["CT"], "labels": {"background": 0, "liver": 5, "tumour": 10}}
    named = plan_dataset(data, tmp_path / "work", dry_run=True, **options)
    assert named.plan.normalization == ["ct"] and list(named.plan.labels) == ["background", "liver", "tumour"]
    assert named.notes == ["4 cases make 4 folds, not 5."]
    with pytest.raises(DatasetError, match="label value 10"):
        plan_dataset(data, tmp_path / "work", dry_run=True, labels={"background": 0, "liver": 5})


def test_geometry_is_fixed_from_check_to_cache(data, tmp_path):
    save(data / "labelsTr" / "b.nii.gz", labels(), affine((1, 1, 2.1)))
    with pytest.raises(DatasetError, match=r"spacing 1 x 1 x 2\.1"):
        plan_dataset(data, tmp_path / "work")
    planned = plan_dataset(data, tmp_path / "work", fix_geometry="copy", pictures=0)
    assert Plan.load(tmp_path / "work" / "plan.json").fix_geometry == "copy" == planned.plan.fix_geometry


def test_a_single_case_and_bad_options(data, tmp_path):
    for name in "bcd":
        (data / "imagesTr" / f"{name}_0000.nii.gz").unlink()
        (data / "labelsTr" / f"{name}.nii.gz").unlink()
    planned = plan_dataset(data, tmp_path / "work", dry_run=True)
    assert planned.splits == [{"train": ["a"], "val": ["a"]}] and "A single case" in planned.notes[0]
    with pytest.raises(ValueError, match="folds: expected 2 or more"):
        plan_dataset(data, tmp_path / "work", folds=1)
    with pytest.raises(VolumeError, match="no such file or folder"):
        plan_dataset(tmp_path / "absent", tmp_path / "work")


def test_the_most_unusual_case_comes_first(data, tmp_path):
    save(data / "imagesTr" / "c_0000.nii.gz", voxels(seed=20), affine((1, 1, 4)))
    save(data / "labelsTr" / "c.nii.gz", labels(), affine((1, 1, 4)))
    planned = plan_dataset(data, tmp_path / "work", pictures=1)
    scores = outlier_scores(planned.fingerprint)
    assert scores.argmax() == 2 and scores[0] < 1
    assert [path.name for path in sorted((tmp_path / "work" / "qc").iterdir())] == [
        "c.png",
        "dataset.png",
        "index.html",
    ]
    assert list(LABELS) == list(planned.plan.labels)


def test_folds_as_given_or_by_patient(data, tmp_path):
    mine = [{"train": ["a", "b"], "val": ["c"]}]
    (tmp_path / "mine.json").write_text(json.dumps(mine))
    planned = plan_dataset(data, tmp_path / "work", dry_run=True, splits=tmp_path / "mine.json")
    assert planned.splits == mine and "1 case in no fold" in planned.notes[0]
    mine[0]["val"].append("z")
    (tmp_path / "mine.json").write_text(json.dumps(mine))
    with pytest.raises(VolumeError, match="cases that are not in the data set: z"):
        plan_dataset(data, tmp_path / "work", dry_run=True, splits=tmp_path / "mine.json")
    for folder in ("imagesTr", "labelsTr"):
        for file in list((data / folder).iterdir()):
            case, rest = file.name[0], file.name[1:]
            file.rename(file.with_name(f"sub-{'12'[case in 'bd']}_ses-{case}{rest}"))
    torn = plan_dataset(data, tmp_path / "work", dry_run=True, folds=2)
    assert any("is trained on and validated in fold" in one.found for one in torn.problems)
    together = plan_dataset(data, tmp_path / "work", dry_run=True, folds=2, by_patient=True)
    assert together.problems == [] and {tuple(fold["val"]) for fold in together.splits} == {
        ("sub-1_ses-a", "sub-1_ses-c"), ("sub-2_ses-b", "sub-2_ses-d"),
    }  # fmt: skip
