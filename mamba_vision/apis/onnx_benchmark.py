"""An exported model against the PyTorch model that it was made from, on this machine and the same input."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mamba_vision.apis.onnx_check import example_arrays, torch_result
from mamba_vision.apis.onnx_tasks import Exportable


def benchmark(
    found: Exportable, file: str | Path, size: tuple[int, ...], runs: int = 5, library: str | Path | None = None
) -> dict[str, Any]:
    """Medians of wall times, one input at a time, with PyTorch's number of threads for both.

    Args:
        found: the model in PyTorch.
        file: it, exported.
        size: spatial size of the input.
        runs: timed, behind one that warms up.
        library: our operators for ONNX Runtime, of use also without.

    Returns:
        `torch_ms`, `onnx_ms`, `peak_memory_bytes` (of a process that only runs the file), `threads`, `size`.

    Raises:
        RuntimeError: the process that runs the file failed; its last line is told.
    """
    arrays = example_arrays(found, 1, size, 0)
    torch_result(found, arrays)
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        torch_result(found, arrays)
        times.append(1000 * (time.perf_counter() - start))
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.npz"
        np.savez(inputs, **{one.name: array for one, array in zip(found.inputs, arrays)})
        command = [sys.executable, "-m", "mamba_vision.deploy.measure", str(file), str(inputs), "--runs", str(runs)]
        command += ["--threads", str(threads)] + (["--library", str(library)] if library else [])
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"{file}: measuring failed: {run.stderr.strip().splitlines()[-1:]}")
    measured = json.loads(run.stdout)
    return {
        "torch_ms": round(statistics.median(times), 2), "onnx_ms": measured["ms"],
        "peak_memory_bytes": measured["peak_memory_bytes"], "threads": threads, "size": list(size),
    }  # fmt: skip
