"""tools/benchmark.py on a CPU: backends against the plain loop, results as JSON and a picture, clear refusals."""

import json
import subprocess
import sys
from pathlib import Path

from mamba_vision.utils import project_folder

TOOL = project_folder("tools") / "benchmark.py"


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(TOOL), *arguments], cwd=cwd, text=True, capture_output=True, timeout=120, check=False
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
