"""Milliseconds of exported models in ONNX Runtime on a GPU, against the CPU; needs onnxruntime-gpu and NumPy alone.

python benchmarks/onnx_cuda.py vim_tiny.onnx vmamba_tiny.onnx --size 224 224 --library mamba_vision_cuda.so
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--size", type=int, nargs="+", help="spatial size; default: that of the file")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--library", type=Path, help="our operators for CUDA; default: the standard ones")
    parser.add_argument("--tf32", action="store_true", help="as the provider does by default")
    parser.add_argument("--seconds", type=float, default=4, help="for each model and provider")
    args = parser.parse_args()

    import onnxruntime as ort

    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # CUDA's libraries from NVIDIA's Python packages, if they are installed
    print("ONNX Runtime", ort.__version__, "with", ", ".join(ort.get_available_providers()))
    for path in args.models:
        outputs = {}
        for provider in ("CUDAExecutionProvider", "CPUExecutionProvider"):
            options = ort.SessionOptions()
            options.log_severity_level = 3
            settings = {}
            if provider == "CUDAExecutionProvider":
                settings = {"use_tf32": str(int(args.tf32))}
                if args.library is not None:
                    options.register_custom_ops_library(str(args.library.resolve()))
            session = ort.InferenceSession(str(path), options, providers=[(provider, settings)])
            if session.get_providers()[0] != provider:
                print(f"{path}: {provider} cannot be used here")
                continue
            size = args.size or json.loads(session.get_modelmeta().custom_metadata_map["mamba_vision"])["size"]
            rng = np.random.default_rng(0)
            feeds = {
                one.name: rng.uniform(size=(args.batch, one.shape[1], *size)).astype(np.float32)
                for one in session.get_inputs()
            }
            outputs[provider] = session.run(None, feeds)[0]
            times, end = [], time.perf_counter() + args.seconds
            while time.perf_counter() < end or len(times) < 3:
                start = time.perf_counter()
                session.run(None, feeds)
                times.append(1000 * (time.perf_counter() - start))
            print(f"{path}: {provider} {statistics.median(times):.2f} ms (median of {len(times)})", flush=True)
        if len(outputs) == 2:
            gpu, cpu = outputs.values()
            print(
                f"{path}: GPU and CPU differ by {np.abs(gpu - cpu).max() / np.abs(cpu).max():.1e} of the largest output"
            )


if __name__ == "__main__":
    main()
