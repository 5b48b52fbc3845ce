"""Means, intervals, corrected tests, and the file of scores."""

import math

import numpy as np
import pytest
from scipy import stats

from mamba_vision.evaluation import ClassScore
from mamba_vision.evaluation.run_comparison import EVERY_CLASS, compare_runs, holm
from mamba_vision.evaluation.score_summary import bootstrap_interval, cases_csv, describe, read_cases, summarize

NAN = float("nan")


def score(case: str, dice: float, name: str = "liver", hd95: float = 2.0, error: float = 1.0) -> ClassScore:
    missing = "both" if math.isnan(dice) else ""
    return ClassScore(case, 1, name, dice, dice, hd95, 10.0, 10.0 + error, missing, lesions_found=2.0)


def test_the_interval_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(0).beta(8, 2, 40)
    low, high = bootstrap_interval(values, resamples=20000)
    reference = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20000, rng=1).confidence_interval
    assert (low, high) == pytest.approx((reference.low, reference.high), abs=2e-3)
    assert bootstrap_interval(values) == bootstrap_interval(values)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    random = np.random.default_rng(1)
    intervals = [bootstrap_interval(random.normal(3, 1, 30), resamples=400) for _ in range(300)]
    assert 0.89 < np.mean([low <= 3 <= high for low, high in intervals]) < 0.98


def test_intervals_over_classes_draw_whole_cases():
    values = np.random.default_rng(2).random((12, 1))
    same = bootstrap_interval(values)
    assert bootstrap_interval(np.repeat(values, 3, axis=1)) == pytest.approx(same)  # equal classes add no information
    holes = np.repeat(values, 3, axis=1)
    holes[:, 1] = np.nan
    assert bootstrap_interval(holes) == pytest.approx(same)
    assert bootstrap_interval(np.array([0.5, np.nan])) is None
    assert describe([0.5])["ci95"] is None


def test_the_file_of_scores_comes_back(tmp_path):
    scores = [score("a", 0.9), score("b", NAN), score("ä, b", 0.5, "cyst")]
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "cases.csv").write_text(cases_csv(scores), encoding="utf-8")
    for place in (tmp_path, tmp_path / "report", tmp_path / "report" / "cases.csv"):
        back = read_cases(place)
        assert cases_csv(back) == cases_csv(scores)
    assert summarize(back)["classes"]["liver"]["lesions"]["found"] == 4
    with pytest.raises(ValueError, match=r"expected cases\.csv"):
        read_cases(tmp_path / "absent")
    (tmp_path / "cases.csv").write_text("case,label\na,1\n")
    with pytest.raises(ValueError, match="columns case, dice, name"):
        read_cases(tmp_path)
    (tmp_path / "cases.csv").write_text("case,name,dice\na,liver,good\n")
    with pytest.raises(ValueError, match="expected numbers in the row of a, liver"):
        read_cases(tmp_path)


def test_holms_correction():
    # Holm's own procedure by hand: 4 tests, sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, never falling.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    corrected = holm([0.02, NAN, 0.04])
    assert corrected[0] == pytest.approx(0.04)
    assert math.isnan(corrected[1])


def test_a_comparison_pairs_cases_and_tests_each_class():
    random = np.random.default_rng(3)
    base = {f"case{number}": random.uniform(0.6, 0.8) for number in range(12)}
    first = [score(case, dice, name) for case, dice in base.items() for name in ("liver", "cyst")]
    second = [score(case, dice + 0.05, "liver", 1.0, -2.0) for case, dice in reversed(base.items())]
    second += [score(case, base[case], "cyst") for case in base]
    second += [score("only here", 0.1)]
    found, left_out = compare_runs(first, second, ["dice", "hd95_mm", "volume_error_ml"])
    assert left_out == ["only here"]
    by = {(one.metric, one.name): one for one in found}
    liver, cyst, overall = by["dice", "liver"], by["dice", "cyst"], by["dice", EVERY_CLASS]
    assert (liver.n, liver.difference) == (12, pytest.approx(0.05))
    assert liver.p == pytest.approx(2 / 2**12)  # all 12 signs alike: exact
    assert liver.ci95 == pytest.approx([0.05, 0.05])
    assert (cyst.difference, cyst.p, cyst.p_holm, cyst.better()) == (0, 1, 1, "")
    assert overall.difference == pytest.approx(0.025)
    assert liver.better() == "B"
    assert by["hd95_mm", "liver"].better() == "B"  # less is better
    assert by["volume_error_ml", "liver"].difference == pytest.approx(1)  # from 1 too much to 2 too little
    assert by["volume_error_ml", "liver"].better() == "A"
    plain = [one.p for one in found]
    assert [one.p_holm for one in found] == pytest.approx(holm(plain))
    reference = stats.wilcoxon(np.array(liver.pairs)).pvalue
    assert liver.p == pytest.approx(reference)


def test_comparisons_that_cannot_be_made():
    with pytest.raises(ValueError, match=r"metrics: expected some of dice, .* found dise"):
        compare_runs([score("a", 0.5)], [score("a", 0.5)], ["dise"])
    with pytest.raises(ValueError, match="cases and classes that both have, found none"):
        compare_runs([score("a", 0.5)], [score("b", 0.5)], ["dice"])
    (one,), _ = compare_runs([score("a", NAN)], [score("a", 0.5)], ["dice"])
    assert one.n == 0
    assert math.isnan(one.p_holm)
    assert one.better() == ""
