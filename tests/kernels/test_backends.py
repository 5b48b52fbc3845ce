"""Which backend runs, and what is said when one cannot."""

import os
import subprocess
import sys

import pytest
import torch

from mamba_vision.kernels import BackendError, backend_for, backends, selective_scan, use_backend

CPU = torch.ones(1)


def test_cpu_tensors_run_portably_and_the_reason_is_told():
    choice = backend_for(CPU)
    assert choice.name == "portable"
    assert "CPU" in choice.reason


def test_gpu_tensors_run_on_triton_where_there_are_kernels(monkeypatch):
    monkeypatch.setattr(backends, "_HAS_TRITON", True)
    monkeypatch.setattr(backends, "_TRITON_OPS", ("selective_scan",))
    assert backends.triton_obstacle("selective_scan", "cuda") is None
    assert backends.triton_obstacle("ssd", "cuda") == "ssd has no Triton kernels"
    monkeypatch.setattr(backends, "_HAS_TRITON", False)
    assert "triton is not installed" in backends.triton_obstacle("selective_scan", "cuda")
    assert "'mps'" in backends.triton_obstacle("selective_scan", "mps")


def test_use_backend_nests_and_ends():
    with use_backend("reference"):
        assert backend_for(CPU).name == "reference"
        assert "asked for" in backend_for(CPU).reason
        with use_backend(None):
            assert backend_for(CPU).name == "portable"
        assert backend_for(CPU).name == "reference"
    assert backend_for(CPU).name == "portable"


def test_unknown_backend():
    with pytest.raises(
        ValueError, match=r"use_backend: unknown backend 'cuda', expected one of triton, native, portable"
    ):
        use_backend("cuda").__enter__()


def test_triton_on_the_cpu_is_an_error_that_says_why(monkeypatch):
    monkeypatch.setattr(backends, "_INTERPRETED", False)
    monkeypatch.setattr(backends, "_TRITON_OPS", ("selective_scan",))
    monkeypatch.setattr(backends, "_HAS_TRITON", True)
    u, A, B = torch.ones(1, 2, 3), -torch.ones(2, 1), torch.ones(1, 1, 3)
    message = "'triton' was asked for, but cannot run selective_scan: the tensors are on the CPU and TRITON_INTERPRET=1"
    with use_backend("triton"), pytest.raises(BackendError, match=message):
        selective_scan(u, u, A, B, B)
    monkeypatch.setattr(backends, "_INTERPRETED", True)
    with use_backend("triton"):
        assert backend_for(CPU).name == "triton"
        with pytest.raises(BackendError, match="A is complex"):
            selective_scan(u, u, A.to(torch.complex64), B.to(torch.complex64), B.to(torch.complex64))
    assert backend_for(CPU).name == "portable"  # the interpreter is slow: only when asked for


@pytest.mark.parametrize(("value", "expected"), [("reference", "reference"), ("", "portable"), ("gpu", "ValueError")])
def test_environment_variable(value, expected):
    script = "import torch; from mamba_vision.kernels import backend_for; print(backend_for(torch.ones(1)).name)"
    environment = {**os.environ, "MAMBA_VISION_BACKEND": value}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    if expected == "ValueError":
        assert "MAMBA_VISION_BACKEND: unknown backend 'gpu'" in run.stderr
    else:
        assert run.stdout.strip() == expected


def test_importing_kernels_imports_neither_mmengine_nor_triton_nor_models():
    script = (
        "import sys, mamba_vision.kernels; "
        "print([m for m in ('mmengine', 'monai', 'mamba_vision.models', 'mamba_ssm') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
