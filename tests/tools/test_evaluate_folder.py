"""tools/evaluate_folder.py and tools/analysis_tools/compare.py, from label files to reports."""

import csv
import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scan_files import affine, labels, save, voxels

from mamba_vision.evaluation import score_structures
from mamba_vision.evaluation.score_summary import cases_csv
from mamba_vision.utils import project_folder
from mamba_vision.utils.atomic import write_text


def tool(name):
    spec = importlib.util.spec_from_file_location(name.split("/")[-1], project_folder("tools") / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folders(tmp_path):
    """Four cases: right, moved by a voxel, without the lesion, and without a prediction."""
    shifted = np.roll(labels(), 1, axis=0)
    predictions = {"a": labels(), "b": shifted, "c": np.minimum(labels(), 1)}
    for case in "abcd":
        save(tmp_path / "data" / "labelsTs" / f"{case}.nii.gz", labels())
        save(tmp_path / "data" / "imagesTs" / f"{case}_0000.nii.gz", voxels())
    for case, array in predictions.items():
        save(tmp_path / "predictions" / f"{case}.nii.gz", array)
    content = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "organ": 1, "lesion": 2}}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(content))
    return tmp_path / "data" / "labelsTs", tmp_path / "predictions"


def rows(folder):
    return {(row["case"], row["name"]): row for row in csv.DictReader((folder / "cases.csv").open())}


def test_the_report_on_two_folders(folders, tmp_path, capsys):
    truth, predictions = folders
    images = str(tmp_path / "data")
    assert tool("evaluate_folder").main([str(truth), str(predictions), "--images", images, "--lesion-min", "0"]) == 1
    report = predictions / "report"
    assert sorted(file.name for file in report.iterdir()) == [
        "bland_altman.png", "boxplots.png", "cases.csv", "report.md", "summary.json", "worst_cases.png",
    ]  # fmt: skip
    shown = capsys.readouterr().out
    assert "failed: d: no prediction" in shown
    found = rows(report)
    assert found["a", "organ"]["dice"] == "1"
    organ = labels() == 1
    shared = (organ & np.roll(organ, 1, axis=0)).sum() / organ.sum()
    assert float(found["b", "organ"]["dice"]) == pytest.approx(shared, abs=1e-5)
    assert float(found["b", "lesion"]["assd_mm"]) > 0
    assert (found["c", "lesion"]["missing"], found["c", "lesion"]["lesions_missed"]) == ("prediction", "1")
    assert float(found["a", "lesion"]["volume_true_ml"]) == pytest.approx((labels() == 2).sum() * 2 / 1000)
    page = (report / "report.md").read_text()
    assert "- d: no prediction" in page
    assert "those of at most 0 mm^3 passed over" in page


def test_regions_and_policies(folders, tmp_path, capsys):
    truth, predictions = folders
    (truth / "d.nii.gz").unlink()
    arguments = [
        str(truth),
        str(predictions),
        "--labels",
        "2=lesion",
        "1+2=whole",
        "7=absent",
        "--out",
        str(tmp_path / "r"),
    ]
    arguments += [
        "--both-empty",
        "perfect",
        "--missing-distance",
        "374",
        "--tolerance",
        "1",
        "2",
        "3",
        "--workers",
        "1",
    ]
    assert tool("evaluate_folder").main(arguments) == 0
    found = rows(tmp_path / "r")
    assert found["c", "whole"]["dice"] == "1"
    assert found["c", "whole"]["label"] == "1+2"
    assert found["c", "lesion"]["hd95_mm"] == "374"
    assert (found["a", "absent"]["dice"], found["a", "absent"]["hd95_mm"]) == ("1", "0")
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary["surface_dice_tolerance_mm"] == [1, 2, 3]
    assert "lesion scores 1, distances 0" in summary["conventions"]


def test_regions_of_dataset_json_and_ignored_voxels(folders, tmp_path):
    truth, predictions = folders
    (truth / "d.nii.gz").unlink()
    content = {"labels": {"background": 0, "whole": [1, 2], "lesion": 2, "ignore": 3}, "regions_class_order": [1, 2]}
    (tmp_path / "other.json").write_text(json.dumps(content))
    ignored = labels()
    ignored[labels() == 2] = 3
    save(truth / "c.nii.gz", ignored)
    arguments = [str(truth), str(predictions), "--dataset-json", str(tmp_path / "other.json"), "--metrics", "dice"]
    assert tool("evaluate_folder").main(arguments) == 0
    found = rows(predictions / "report")
    assert {name for _, name in found} == {"whole", "lesion"}
    assert (found["c", "whole"]["dice"], found["c", "lesion"]["missing"]) == ("1", "both")
    assert found["a", "whole"]["hd95_mm"] == ""


def test_without_a_description_the_values_are_scored(folders, tmp_path):
    truth, predictions = folders
    (tmp_path / "data" / "dataset.json").unlink()
    files = [str(truth / "a.nii.gz"), str(predictions / "b.nii.gz")]
    assert tool("evaluate_folder").main([*files, "--out", str(tmp_path / "r")]) == 0
    assert set(rows(tmp_path / "r")) == {("a", "label_1"), ("a", "label_2")}


def test_predictions_in_another_grid(folders, tmp_path, capsys):
    truth, predictions = folders
    for file in predictions.iterdir():
        file.unlink()
    save(predictions / "a.nii.gz", labels(), affine(origin=(0, 0, 0)))
    arguments = [str(truth), str(predictions), "--out", str(tmp_path / "r")]
    assert tool("evaluate_folder").main(arguments) == 1
    assert "no case could be scored" in capsys.readouterr().err
    assert tool("evaluate_folder").main([*arguments, "--fix-geometry", "copy"]) == 1  # of the cases without prediction
    assert rows(tmp_path / "r")["a", "organ"]["dice"] == "1"


def test_what_cannot_be_evaluated(folders, tmp_path, capsys):
    truth, predictions = folders
    (tmp_path / "empty").mkdir()
    (other := tmp_path / "other").mkdir()
    (other / "another_case.nii.gz").touch()
    run = tool("evaluate_folder").main
    for arguments, match in (
        ([truth, tmp_path / "empty"], "empty: found no label maps"),
        ([tmp_path / "empty", predictions], "empty: found no label maps"),
        ([truth, other], "label maps named like those of"),
        ([truth, tmp_path / "absent"], "absent: no such file or folder"),
        ([truth, predictions, "--metrics", "dise"], "found 'dise'"),
        ([truth, predictions, "--tolerance", "1", "2", "3"], "no case could be scored"),
    ):
        assert run([str(one) for one in arguments]) == 1
        assert match in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run([str(truth), str(predictions), "--labels", "liver"])
    assert "--labels takes VALUE=NAME" in capsys.readouterr().err


def test_two_evaluations_are_compared(tmp_path, capsys):
    compare, folders = tool("analysis_tools/compare"), [str(tmp_path / name) for name in "ab"]
    for place, folder in enumerate(folders):
        scores = [
            score_structures(
                np.roll(labels(), 2 - move * place, axis=0), labels(), (1, 1, 1), {"organ": 1}, case=f"{move}"
            )
            for move in range(3)
        ]
        write_text(Path(folder) / "cases.csv", cases_csv([one for found in scores for one in found]))
    assert compare.main([*folders, "--names", "old", "new", "--metrics", "dice", "--out", str(tmp_path / "c")]) == 0
    shown = capsys.readouterr().out
    assert "A: old\nB: new" in shown
    assert "With 3 pairs and 1 test no" in shown
    (organ,) = csv.DictReader((tmp_path / "c" / "compare.csv").open())
    assert float(organ["difference"]) == pytest.approx(float(organ["mean_b"]) - float(organ["mean_a"]), abs=1e-5)
    assert not math.isnan(float(organ["p"]))
    assert compare.main([folders[0], str(tmp_path)]) == 1
    assert "expected cases.csv" in capsys.readouterr().err
