"""The operator library for ONNX Runtime's CUDA provider: it is built without a GPU, and its scans are right on one."""

import os
import subprocess
import sys
from pathlib import Path

import onnxruntime as ort
import pytest
from run_on_cuda import TOKEN, arrays_of, model_of

from mamba_vision.deploy import ModelFile, ModelFileError
from mamba_vision.kernels.native import BuildError, build_ort_cuda_library, gpu_build

pytest.importorskip("triton")


def built(out: Path) -> Path:
    if os.environ.get("TRITON_INTERPRET", "0") == "1":
        pytest.skip("Triton's interpreter compiles nothing")
    try:
        return build_ort_cuda_library(out=out)
    except BuildError as error:
        if "could not compile" in str(error):
            raise
        pytest.skip(str(error))


@pytest.mark.slow
def test_built_where_there_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMBA_VISION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(gpu_build, "STATES", (16,))  # a third of the kernels
    library = built(tmp_path / "cuda.so")
    arrays = arrays_of(TOKEN, dict(b=1, L=5, D=4, G=1, N=16))
    file = tmp_path / "scan.onnx"
    file.write_bytes(model_of("TokenScan", TOKEN, list(TOKEN), arrays, delta_softplus=1).SerializeToString())
    with pytest.raises(ModelFileError, match=r"cuda\.so is made for another provider than CPUExecutionProvider"):
        ModelFile(file, library)


@pytest.mark.gpu
def test_scans_on_a_gpu(tmp_path: Path) -> None:
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("onnxruntime-gpu is not installed")
    script = Path(__file__).parent / "run_on_cuda.py"
    run = subprocess.run(
        [sys.executable, script, built(tmp_path / "cuda.so")], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
