import csv
import json

import matplotlib.image
import numpy as np
import pytest

from mamba_vision.apis.run_comparison import compare_folders, comparison_table
from mamba_vision.apis.volume_report import conventions, score_table, summarize, worst_cases, write_report
from mamba_vision.evaluation import ClassScore, ScoreOptions

NAN = float("nan")
FILES = ["bland_altman.png", "boxplots.png", "cases.csv", "report.md", "summary.json"]


def score(case: str, name: str, dice: float, hd95: float = 1.0, missing: str = "") -> ClassScore:
    label = {"liver": 1, "cyst": 2}[name]
    return ClassScore(case, label, name, dice, dice, hd95, 10.0, 12.0, missing, assd_mm=hd95 / 2, lesions_found=1.0)


@pytest.fixture
def scores() -> list[ClassScore]:
    return [
        score("a", "liver", 0.9), score("a", "cyst", NAN, NAN, "both"),
        score("b", "liver", 0.7, 3.0), score("b", "cyst", 0.0, NAN, "prediction"),
        score("c", "liver", 0.8, 2.0), score("c", "cyst", 0.5, 8.0),
    ]  # fmt: skip


def test_files_and_numbers(scores, tmp_path):
    summary = write_report(tmp_path, scores, {"dataset": "d", "failures": {"x": "no label"}}, 2.0)
    assert sorted(file.name for file in tmp_path.iterdir()) == FILES
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    liver, cyst = summary["classes"]["liver"], summary["classes"]["cyst"]
    assert liver["dice"]["mean"] == pytest.approx(0.8)
    assert liver["dice"]["sd"] == pytest.approx(0.1)
    assert liver["dice"]["median"] == pytest.approx(0.8)
    assert liver["dice"]["iqr"] == pytest.approx([0.75, 0.85])
    low, high = liver["dice"]["ci95"]
    assert 0.699 < low < 0.8 < high < 0.901
    assert (liver["dice"]["n"], cyst["dice"]["n"], cyst["hd95_mm"]["n"]) == (3, 2, 1)
    assert cyst["hd95_mm"]["sd"] is None
    assert cyst["missing"] == {"truth": 0, "prediction": 1, "both": 1}
    assert liver["lesions"] == {"found": 3, "missed": 0, "false": 0}
    assert summary["mean"]["dice"] == pytest.approx((0.8 + 0.25) / 2)
    assert summary["mean"]["volume_error_ml"] == pytest.approx(2.0)
    assert summary["mean_ci95"]["dice"][0] < summary["mean"]["dice"]
    rows = list(csv.DictReader((tmp_path / "cases.csv").open()))
    assert len(rows) == 6
    assert rows[1]["dice"] == ""
    assert (rows[1]["missing"], rows[1]["empty_truth"], rows[3]["empty_truth"]) == ("both", "1", "0")
    assert (rows[0]["volume_error_ml"], rows[0]["volume_error_percent"]) == ("2", "20")
    for name in ("boxplots.png", "bland_altman.png"):
        assert matplotlib.image.imread(tmp_path / name).std() > 0.01


def test_the_page_says_what_the_numbers_are(scores, tmp_path):
    write_report(tmp_path, scores, {"dataset": "Abdomen", "failures": {"x": "no label"}}, 2.0, lambda *_: _picture())
    page = (tmp_path / "report.md").read_text()
    assert page.startswith("# Abdomen: 3 cases\n")
    assert "| liver | 3 | 0.800 [" in page
    assert "| sensitivity" not in page  # defined nowhere
    assert "1. b: Dice liver 0.700, cyst 0.000\n" in page
    assert "- x: no label" in page
    assert "Tolerance of the surface Dice: 2.0 mm" in page
    assert "![The worst cases](worst_cases.png)" in page
    assert matplotlib.image.imread(tmp_path / "worst_cases.png").shape[:2] == (30, 20)
    special = conventions(ScoreOptions(both_empty="perfect", missing_distance_mm=374.0, lesion_min_mm3=0))
    assert "distances 374 mm" in special
    assert "lesion scores 1, distances 0" in special


def _picture() -> np.ndarray:
    return np.zeros((10, 20, 3), np.uint8)


def test_nothing_defined_is_null_not_nan(tmp_path):
    scores = [score("a", "cyst", NAN, NAN, "both")]
    summary = summarize(scores)
    assert summary["mean"]["dice"] is None
    assert "NaN" not in json.dumps(summary)
    assert score_table(summary).row_count == 2
    write_report(tmp_path, scores, {}, 2.0, lambda *_: _picture())
    assert "No Dice is defined." in (tmp_path / "report.md").read_text()


def test_worst_cases_come_first_and_undefined_ones_not_at_all(scores):
    assert worst_cases([*scores, score("d", "cyst", NAN)]) == ["b", "c", "a"]
    assert worst_cases(scores, 1) == ["b"]


def test_no_scores_are_refused(tmp_path):
    with pytest.raises(ValueError, match="found none"):
        write_report(tmp_path, [], {}, 2.0)


def test_two_reports_compared(scores, tmp_path):
    better = [score(one.case, one.name, one.dice + 0.01, one.hd95_mm, one.missing) for one in scores]
    for folder, run, tolerance in (("one/report", scores, 2.0), ("two", better, 1.0)):
        write_report(tmp_path / folder, run, {}, tolerance)
    found = compare_folders(tmp_path / "one", tmp_path / "two", out=tmp_path / "out")
    assert found.names == ("one", "two")
    assert "different tolerances: 2.0 and 1.0 mm" in found.notes[0]
    assert "With 3 pairs and 9 tests no corrected p can be below 1:" in found.notes[1]
    rows = list(csv.DictReader((tmp_path / "out" / "compare.csv").open()))
    assert [(row["metric"], row["name"], row["n"]) for row in rows[:3]] == [
        ("dice", "liver", "3"), ("dice", "cyst", "2"), ("dice", "mean over classes", "3"),
    ]  # fmt: skip
    assert float(rows[0]["difference"]) == pytest.approx(0.01)
    assert len(rows) == 9
    assert comparison_table(found).row_count == 9 + 3
    assert "| Dice | liver | 3 | 0.800 | 0.810 | +0.010 |" in (tmp_path / "out" / "compare.md").read_text()
    assert matplotlib.image.imread(tmp_path / "out" / "compare.png").std() > 0.01
