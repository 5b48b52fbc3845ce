"""Time and memory of an exported model in a process of its own, which holds nothing but NumPy and ONNX Runtime.

    python -m mamba_vision.deploy.measure MODEL.onnx INPUTS.npz --runs 5 --threads 1

Prints one line of JSON: `ms`, the median of the runs' wall times behind one that warms up, and `peak_memory_bytes`.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

from mamba_vision.deploy.model_file import ModelFile
from mamba_vision.utils.memory import peak_memory


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Time and memory of an exported model.")
    parser.add_argument("model", type=Path)
    parser.add_argument("inputs", type=Path, help="arrays by the names of the inputs, .npz")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--library", type=Path)
    args = parser.parse_args()
    model = ModelFile(args.model, args.library, args.threads)
    with np.load(args.inputs, allow_pickle=False) as found:
        arrays = [found[name] for name in model.inputs]
    model(*arrays)
    times = []
    for _ in range(args.runs):
        start = time.perf_counter()
        model(*arrays)
        times.append(1000 * (time.perf_counter() - start))
    print(json.dumps({"ms": round(statistics.median(times), 2), "peak_memory_bytes": peak_memory()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
