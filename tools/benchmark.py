"""Time whole models side by side, and the scan kernels against the floor of the machine and published times.

    python tools/benchmark.py vim_tiny vmamba_tiny localvim_tiny resnet50 --size 224 512 1024 --precision fp32 bf16 \\
        --csv speed.csv --plot speed.png              names of list_models() or of torchvision
    python tools/benchmark.py --op selective_scan                     every shape of the table, on the GPU
    python tools/benchmark.py --op ordered_scan --shapes vmamba_t_s1
    python tools/benchmark.py --model VMamba:tiny --input 128,3,224,224

Models by name: throughput, latency, peak memory (on a GPU), forward and forward with backward. Kernels on a CPU: C++
and the plain loop are compared with the portable backend (ratio: its time over theirs), at small shapes; CPU time if
there is one thread (OMP_NUM_THREADS=1), else time on the clock. Writes CSV (models by name) or JSON and, with --plot,
a picture.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mamba_vision.utils.tool_exit import run_tool


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="NAME", help="classifiers to compare, by name")
    parser.add_argument("--size", type=int, nargs="+", default=[224], metavar="N",
                        help="sides of the images for NAMEs (default: 224)")  # fmt: skip
    parser.add_argument("--precision", nargs="+", default=["fp32"], choices=("fp32", "tf32", "bf16", "fp16"),
                        help="precisions for NAMEs (default: fp32)")  # fmt: skip
    parser.add_argument("--batch-size", type=int, help="images a call for NAMEs (default: 64 on a GPU, else 1)")
    parser.add_argument("--inference-only", action="store_true", help="time no backward pass of NAMEs")
    parser.add_argument("--csv", type=Path, help="table of NAMEs to write")
    parser.add_argument("--op", choices=("selective_scan", "ordered_scan"), action="append", help="default: both")
    parser.add_argument("--model", action="append", help="a registered model, Name or Name:arch")
    parser.add_argument("--input", default="128,3,224,224", help="shape of a model's input (default: %(default)s)")
    parser.add_argument("--shapes", nargs="+", help="names of shapes (default: all)")
    parser.add_argument("--backend", choices=("triton", "native", "portable", "reference"), help="default: by device")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16",
                        help="of the inputs (default: %(default)s)")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=30, help="timed runs (default: %(default)s)")
    parser.add_argument("--baseline", type=Path, help="published times to compare with (default: those of an H200)",
                        default=Path(__file__).parent.parent / "benchmarks/published_h200.json")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("work_dirs/benchmark.json"),
                        help="JSON to write (default: %(default)s)")  # fmt: skip
    parser.add_argument("--plot", type=Path, help="also draw fractions of the floor and ratios here")
    args = parser.parse_args()
    if args.csv and not args.models:
        parser.error("--csv: is a table of NAMEs, of which there is none")
    if min(args.size) < 1 or args.repeats < 1 or (args.batch_size or 1) < 1:
        parser.error("--size, --batch-size and --repeats: expected positive numbers")
    return args


def main() -> int:
    args = parse_arguments()
    import torch

    from mamba_vision.apis.benchmark_timing import machine_line

    device = "cuda" if torch.cuda.is_available() else "cpu"
    machine = machine_line(device)
    print(machine)
    if args.models:
        return compare_models(args, device, machine)
    published = json.loads(args.baseline.read_text()) if args.baseline.is_file() and device == "cuda" else {}
    results = []
    for name in args.model or ():
        results.append(time_network(name, args, device, published.get("models", {})))
    for op in args.op or ([] if args.model else ["selective_scan", "ordered_scan"]):
        results += time_op(op, args, device, published.get(op, {}))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")
    print(f"written: {args.out}")
    if args.plot:
        from mamba_vision.visualization.speed_plots import op_figure

        op_figure(results, args.plot)
        print(f"drawn: {args.plot}")
    return 0


def compare_models(args: argparse.Namespace, device: str, machine: str) -> int:
    import csv
    from dataclasses import asdict, fields

    from mamba_vision.apis.model_benchmark import MODES, Timing, benchmark_models
    from mamba_vision.utils.atomic import atomic_path

    batch = args.batch_size or (64 if device == "cuda" else 1)
    modes = MODES[:1] if args.inference_only else MODES
    widths = {"size": 6, "precision": 6, "mode": 10, "images_per_s": 10, "p50_ms": 10, "p95_ms": 10, "spread": 8,
              "memory_mib": 9}  # fmt: skip
    heads = ("size", "", "", "images/s", "p50 ms", "p95 ms", "spread", "MiB")
    print(f"{'batch of ' + str(batch):22}" + "".join(f"{name:>{width}}" for name, width in zip(heads, widths.values())))
    rows = []
    for row in benchmark_models(args.models, args.size, args.precision, batch, modes, device, repeats=args.repeats):
        rows.append(asdict(row))
        cells = [rows[-1][name] for name in widths]
        line = "".join(
            f"{'-' if cell is None else f'{cell:.3g}' if isinstance(cell, float) else cell:>{width}}"
            for cell, width in zip(cells, widths.values())
        )
        print(f"{row.model:22}{line}" + (f"  {row.error}" if row.error else ""), flush=True)
    if args.csv:
        with atomic_path(args.csv) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, [field.name for field in fields(Timing)] + ["machine"])
            table.writeheader()
            table.writerows({**row, "machine": machine} for row in rows)
        print(f"written: {args.csv}")
    if args.plot and any(row["images_per_s"] for row in rows):
        from mamba_vision.visualization.speed_plots import speed_figure

        speed_figure(rows, args.plot, f"{machine}; batch of {batch}")
        print(f"written: {args.plot}")
    return int(any(row["error"] for row in rows))


def time_op(op: str, args: argparse.Namespace, device: str, published: Mapping[str, Any]) -> list[dict[str, Any]]:
    import torch

    from mamba_vision.apis.kernel_benchmark import benchmark_op

    dtype = torch.float32 if device == "cpu" else getattr(torch, args.dtype)
    timed = benchmark_op(op, device, dtype, args.shapes, args.backend, args.repeats, published)
    print(f"\n{op}, {str(dtype).removeprefix('torch.')}; µs, medians of {args.repeats}")
    print(f"{'shape':22}{'forward':>9}{'floor':>8}{'share':>7}{'ratio':>7}{'fwd+bwd':>10}{'floor':>8}{'share':>7}"
          f"{'ratio':>7}{'MiB':>7}{'host':>7}")  # fmt: skip
    rows = []
    for row in timed:
        print_row(row)
        rows.append(row)
    return rows


def print_row(row: Mapping[str, Any]) -> None:
    def cell(value, width, digits=0, suffix=""):
        return f"{'-' if value is None else format(value, f'.{digits}f') + suffix:>{width}}"

    line = f"{row['shape'] + ('' if row['backend'] == 'triton' else ' ' + row['backend'][:9]):22}"
    for key, width in (("forward", 9), ("forward_backward", 10)):
        floor = row.get(f"{key}_floor_us")
        share = None if floor is None else 100 * floor / row[f"{key}_us"]
        line += (
            cell(row[f"{key}_us"], width)
            + cell(floor, 8)
            + cell(share, 7, 0, "%")
            + cell(row.get(f"{key}_ratio"), 7, 2)
        )
    print(line + cell(row.get("extra_MiB"), 7) + cell(row.get("host_us"), 7))


def time_network(name: str, args: argparse.Namespace, device: str, published: Mapping[str, Any]) -> dict[str, Any]:
    from mamba_vision.apis.network_benchmark import benchmark_network

    size = tuple(int(n) for n in args.input.split(","))
    row = benchmark_network(name, size, device, args.dtype, args.repeats, published)
    speeds = ", ".join(f"{k} {v:.1f}" for k, v in row.items() if isinstance(v, float) and not k.endswith("ratio"))
    print(f"\n{name} {tuple(row['input'])}: {speeds}")
    if ratios := ", ".join(f"{k} {v:.2f}" for k, v in row.items() if k.endswith("ratio")):
        print(f"  of the published: {ratios}")
    return row


if __name__ == "__main__":
    sys.exit(run_tool(main))
