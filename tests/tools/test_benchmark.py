"""tools/benchmark.py on a CPU: models by name, backends against the plain loop, files written, clear refusals."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mamba_vision.apis.model_benchmark import benchmark_models, published_top1
from mamba_vision.utils import project_folder

TOOL = project_folder("tools") / "benchmark.py"


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(TOOL), *arguments], cwd=cwd, text=True, capture_output=True, timeout=300, check=False
    )


def test_writes_table_json_and_picture(tmp_path):
    found = run(
        "--op", "ordered_scan", "--repeats", "1", "--out", "r/result.json", "--plot", "r/result.png", cwd=tmp_path
    )
    assert found.returncode == 0, found.stderr
    assert "portable" in found.stdout and "fwd+bwd" in found.stdout
    results = json.loads((tmp_path / "r/result.json").read_text())
    assert "PyTorch" in results["machine"]
    if "cuda" not in found.stdout:
        times = {row["backend"]: row["forward_backward_us"] for row in results["results"]}
        assert max(times["portable"], times.get("native", 0)) < times["reference"]
    assert (tmp_path / "r/result.png").stat().st_size > 1000


def test_refuses_an_unknown_shape(tmp_path):
    found = run("--op", "selective_scan", "--shapes", "vim_s_225", cwd=tmp_path)
    assert found.returncode != 0
    assert "vim_s_225" in found.stderr and "vim_s_224" in found.stderr


def test_compares_models_by_name(tmp_path):
    """What cannot be timed, as a size that a model refuses, is told in its row and by the exit status."""
    found = run(
        "vim_test", "vit_b_16", "--size", "32", "--precision", "fp32", "bf16", "--repeats", "1", "--inference-only",
        "--csv", "speed.csv", "--plot", "speed.png", cwd=tmp_path,
    )  # fmt: skip
    assert found.returncode == 1 and "Wrong image height" in found.stdout, found.stderr
    rows = list(csv.DictReader((tmp_path / "speed.csv").read_text().splitlines()))
    assert [(row["model"], row["precision"]) for row in rows[:2]] == [("vim_test", "fp32"), ("vim_test", "bf16")]
    assert all(float(row["images_per_s"]) > 0 and float(row["p95_ms"]) >= float(row["p50_ms"]) for row in rows[:2])
    assert [bool(row["error"]) for row in rows] == [False, False, True, True]
    assert (tmp_path / "speed.png").stat().st_size > 1000


def test_names_that_nobody_knows():
    with pytest.raises(ValueError, match=r"'resnet5' is not known.*torchvision"):
        next(benchmark_models(["vim_test", "resnet5"]))
    with pytest.raises(ValueError, match="segmamba_tiny: is no backbone"):
        next(benchmark_models(["segmamba_tiny"]))
    with pytest.raises(ValueError, match="precision: found 'fp8'"):
        next(benchmark_models(["vim_test"], precisions=["fp8"]))


def test_published_accuracies():
    assert published_top1("vim_tiny") == 76.1 and published_top1("vim_test") is None
    assert published_top1("vmamba_tiny") == published_top1("vmamba_tiny_s1l8") == 82.6
    assert 76 < published_top1("resnet50") < 77
