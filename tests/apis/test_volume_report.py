import csv
import json

import matplotlib.image
import pytest

from mamba_vision.apis.volume_report import score_table, summarize, worst_cases, write_report
from mamba_vision.evaluation import ClassScore

NAN = float("nan")


def score(case: str, name: str, dice: float, hd95: float = 1.0, missing: str = "") -> ClassScore:
    return ClassScore(case, {"liver": 1, "cyst": 2}[name], name, dice, dice, hd95, 10.0, 12.0, missing)


@pytest.fixture
def scores() -> list[ClassScore]:
    return [
        score("a", "liver", 0.9), score("a", "cyst", NAN, NAN, "both"),
        score("b", "liver", 0.7, 3.0), score("b", "cyst", 0.0, NAN, "prediction"),
        score("c", "liver", 0.8, 2.0), score("c", "cyst", 0.5, 8.0),
    ]  # fmt: skip


def test_files_and_numbers(scores, tmp_path):
    summary = write_report(tmp_path, scores, {"dataset": "d"}, 2.0)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    liver, cyst = summary["classes"]["liver"], summary["classes"]["cyst"]
    assert liver["dice"]["mean"] == pytest.approx(0.8)
    assert liver["dice"]["sd"] == pytest.approx(0.1)
    assert liver["dice"]["median"] == pytest.approx(0.8)
    assert liver["dice"]["iqr"] == pytest.approx([0.75, 0.85])
    assert (liver["dice"]["n"], cyst["dice"]["n"], cyst["hd95_mm"]["n"]) == (3, 2, 1)
    assert cyst["hd95_mm"]["sd"] is None
    assert cyst["missing"] == {"truth": 0, "prediction": 1, "both": 1}
    assert summary["mean"]["dice"] == pytest.approx((0.8 + 0.25) / 2)
    assert summary["mean"]["volume_error_ml"] == pytest.approx(2.0)
    rows = list(csv.DictReader((tmp_path / "cases.csv").open()))
    assert len(rows) == 6
    assert rows[1]["dice"] == ""
    assert rows[1]["missing"] == "both"
    assert rows[0]["volume_error_ml"] == "2"
    assert matplotlib.image.imread(tmp_path / "boxplots.png").std() > 0.01


def test_nothing_defined_is_null_not_nan(tmp_path):
    summary = summarize([score("a", "cyst", NAN, NAN, "both")])
    assert summary["mean"]["dice"] is None
    assert "NaN" not in json.dumps(summary)
    assert score_table(summary).row_count == 2


def test_worst_cases_come_first_and_undefined_ones_not_at_all(scores):
    assert worst_cases([*scores, score("d", "cyst", NAN)]) == ["b", "c", "a"]
    assert worst_cases(scores, 1) == ["b"]


def test_no_scores_are_refused(tmp_path):
    with pytest.raises(ValueError, match="found none"):
        write_report(tmp_path, [], {}, 2.0)
