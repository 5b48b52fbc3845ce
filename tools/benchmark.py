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
import platform
import statistics
import sys
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool

# name: batch, channels, length, states, gate
SCANS = {
    "vim_s_224": (128, 768, 197, 16, True),
    "vim_t_1248_seg": (2, 384, 6084, 16, True),
    "segmamba_s0_b2": (2, 96, 262144, 16, True),
    "segmamba_s1_b2": (2, 192, 32768, 16, True),
    "umamba_3d_b1": (1, 96, 110592, 16, True),
}
# name: batch, channels, side of the grid, states; four orders
ORDERED = {
    "vmamba_t_s1": (128, 96, 56, 1),
    "vmamba_t_s2": (128, 192, 28, 1),
    "vmamba_t_s3": (128, 384, 14, 1),
    "vmamba_t_s4": (128, 768, 7, 1),
    "mambair_b4": (4, 360, 64, 16),
}
SMALL_SCANS = {
    "small": (2, 384, 197, 16, True),
    "small_n1": (2, 96, 784, 1, False),
    "vim_t": (1, 384, 197, 16, True),
    "segmamba_4k": (1, 96, 4096, 16, True),
    "segmamba_32k": (1, 96, 32768, 16, True),
}
LONG = 1000  # steps that the plain loop, differentiated by autograd, is not asked for
SMALL_ORDERED = {"small": (1, 96, 14, 1)}
# An H200: bytes/s of a copy, special functions/s, issue slots/s of the multiply-add pipe (docs/performance.md)
BANDWIDTH, SPECIAL, SLOTS = 4.25e12, 132 * 16 * 1.98e9, 132 * 128 * 1.98e9


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

    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(machine_line(torch, device))
    if args.models:
        return compare_models(args, device, machine_line(torch, device))
    published = json.loads(args.baseline.read_text()) if args.baseline.is_file() and device == "cuda" else {}
    results = []
    if args.model:
        for name in args.model:
            results.append(run_model(name, args, device, published.get("models", {})))
    for op in args.op or ([] if args.model else ["selective_scan", "ordered_scan"]):
        results += run_op(op, args, device, published.get(op, {}))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"machine": machine_line(torch, device), "results": results}, indent=1) + "\n")
    print(f"written: {args.out}")
    if args.plot:
        plot(results, args.plot)
    return 0


def machine_line(torch, device: str) -> str:
    try:
        import triton

        compiler = f"Triton {triton.__version__}"
    except ImportError:
        compiler = "no Triton"
    chip = torch.cuda.get_device_name() if device == "cuda" else (platform.processor() or platform.machine())
    return f"{chip}, PyTorch {torch.__version__}, {compiler}, Python {platform.python_version()}"


# ---- models by name --------------------------------------------------------------------------------------------------
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


# ---- ops -------------------------------------------------------------------------------------------------------------
def run_op(op: str, args: argparse.Namespace, device: str, published: dict) -> list[dict]:
    import torch

    from mamba_vision.kernels import use_backend

    table = {
        ("selective_scan", "cuda"): SCANS, ("ordered_scan", "cuda"): ORDERED,
        ("selective_scan", "cpu"): SMALL_SCANS, ("ordered_scan", "cpu"): SMALL_ORDERED,
    }[op, device]  # fmt: skip
    known = {*SCANS, *ORDERED, *SMALL_SCANS, *SMALL_ORDERED}
    if unknown := set(args.shapes or ()) - known:
        raise SystemExit(f"--shapes: unknown {', '.join(sorted(unknown))}; expected some of {', '.join(sorted(known))}")
    names = [name for name in table if not args.shapes or name in args.shapes]
    dtype = torch.float32 if device == "cpu" else getattr(torch, args.dtype)
    prepare = prepare_scan if op == "selective_scan" else prepare_order
    rows = []
    print(f"\n{op}, {str(dtype).removeprefix('torch.')}; µs, medians of {args.repeats}")
    print(f"{'shape':22}{'forward':>9}{'floor':>8}{'share':>7}{'ratio':>7}{'fwd+bwd':>10}{'floor':>8}{'share':>7}"
          f"{'ratio':>7}{'MiB':>7}{'host':>7}")  # fmt: skip
    for name in names:
        portable = None
        for backend in [args.backend] if device == "cuda" or args.backend else cpu_backends(table[name]):
            with use_backend(backend):
                sets = [prepare(table[name], dtype, device) for _ in range(3 if device == "cuda" else 1)]
                row = {"op": op, "shape": name, "backend": backend or "triton", **measure(sets, device, args.repeats)}
            if device == "cuda":
                row |= floors(op, table[name], dtype.itemsize)
                row |= ratios(row, published.get(f"{name}_{short(args.dtype)}"))
            elif backend == "portable":
                portable = row
            else:
                row |= ratios(row, portable)
            rows.append(row)
            print_row(row)
            del sets
    return rows


def cpu_backends(shape) -> list[str]:
    from mamba_vision.kernels.native import BuildError, build_torch_library

    backends = ["portable"]
    try:
        build_torch_library()
        backends.append("native")
    except BuildError as error:
        print(f"without the backend native: {error}")
    return backends if shape[2] > LONG else [*backends, "reference"]


def prepare_scan(shape, dtype, device):
    """(forward, forward and backward) as functions of nothing, over inputs of their own."""
    import torch

    from mamba_vision.kernels import selective_scan

    batch, channels, length, states, gate = shape

    def tokens(scale=1.0):
        return (
            (torch.randn(batch, length, channels, device=device, dtype=dtype) * scale).transpose(1, 2).requires_grad_()
        )

    def by_step():
        return torch.randn(batch, 1, length, states, device=device, dtype=dtype).transpose(2, 3).requires_grad_()

    A = (-torch.rand(channels, states, device=device) * 8 - 0.1).requires_grad_()
    D = torch.randn(channels, device=device, requires_grad=True)
    bias = (torch.rand(channels, device=device) - 4).requires_grad_()
    inputs = (tokens(), tokens(0.5), A, by_step(), by_step(), D, tokens() if gate else None, bias)
    return run_pair(lambda: selective_scan(*inputs, delta_softplus=True), inputs, tokens().detach())


def prepare_order(shape, dtype, device):
    import torch

    from mamba_vision.kernels import ordered_scan

    batch, channels, side, states = shape
    L, K = side * side, 4
    grid = torch.arange(L, device=device).view(side, side)
    rows, columns = grid.flatten(), grid.t().flatten()
    order = torch.stack([rows, columns, rows.flip(0), columns.flip(0)]).int()

    def made(*size):
        return torch.randn(*size, device=device, dtype=dtype).requires_grad_()

    A = (-torch.rand(K, channels, states, device=device) * 8 - 0.1).requires_grad_()
    D = torch.randn(K, channels, device=device, requires_grad=True)
    bias = (torch.rand(K, channels, device=device) - 4).requires_grad_()
    x, dt = made(batch, L, channels), made(batch, K, L, channels)
    inputs = (x, dt, A, made(batch, K, L, states), made(batch, K, L, states), D, bias)

    def forward():
        return ordered_scan(x, order, dt, None, *inputs[2:5], D, bias)

    return run_pair(forward, inputs, torch.randn_like(x))


def run_pair(forward, inputs, grad):
    import torch

    leaves = [t for t in inputs if t is not None]

    def infer():
        with torch.no_grad():
            return forward()

    def train():
        return torch.autograd.grad(forward(), leaves, grad)

    return infer, train


def measure(sets, device: str, repeats: int) -> dict:
    """Medians of both, rotating over the input sets so that no cache answers; extra memory of forward and backward."""
    import torch

    found = {}
    for i, key in enumerate(("forward_us", "forward_backward_us")):
        runs = [pair[i] for pair in sets]
        found[key] = time_gpu(runs, repeats) if device == "cuda" else time_cpu(runs, max(1, repeats // 10))
    if device == "cuda":
        found["host_us"] = host_time(sets[0][1])
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        results = sets[0][1]()  # noqa: F841 (counts as memory)
        found["extra_MiB"] = (torch.cuda.max_memory_allocated() - before) / 2**20
    return found


def time_gpu(runs, repeats: int) -> float:
    """Events around each call; a pause on the device before it lets the host run ahead, as it does in a real model."""
    from time import perf_counter

    import torch

    for run in runs * 2:
        run()
    torch.cuda.synchronize()
    start = perf_counter()
    runs[0]()
    pause = int(2e9 * (1.5 * (perf_counter() - start) + 5e-4))  # cycles, at 2 GHz
    torch.cuda.synchronize()
    events = []
    for i in range(repeats):
        torch.cuda._sleep(pause)
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        runs[i % len(runs)]()
        end.record()
        events.append((start, end))
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in events) * 1e3


def host_time(run) -> float:
    """Time until a call returns, the work on the device still under way."""
    from time import perf_counter

    import torch

    times = []
    for _ in range(10):
        torch.cuda.synchronize()
        start = perf_counter()
        run()
        times.append(perf_counter() - start)
    return statistics.median(times) * 1e6


def time_cpu(runs, repeats: int) -> float:
    from time import perf_counter, process_time

    import torch

    clock = process_time if torch.get_num_threads() == 1 else perf_counter
    runs[0]()
    times = []
    for _ in range(repeats):
        start = clock()
        runs[0]()
        times.append(clock() - start)
    return statistics.median(times) * 1e6


def floors(op: str, shape, size: int) -> dict:
    """Least times: each input read and each output written once, exponentials, multiply-adds; the largest counts."""
    if op == "selective_scan":
        batch, channels, length, states, gate = shape
        K, read, written = 1, 2 + gate, 1
        grads = 2 + gate
    else:
        batch, channels, side, states = shape
        length, K, read, written, grads = side * side, 4, 1 + 4, 1, 1 + 4
    rows = batch * length * channels
    small = batch * K * length * 2 * states * size
    elements = rows * K * states
    forward = max(
        (rows * (read + written) * size + small) / BANDWIDTH, (elements + 2 * rows * K) / SPECIAL, 4 * elements / SLOTS
    )
    backward = max(
        (rows * (read + 1 + grads) * size + 2 * small) / BANDWIDTH, (elements + 3 * rows * K) / SPECIAL,
        13 * elements / SLOTS,
    )  # fmt: skip
    return {"forward_floor_us": forward * 1e6, "forward_backward_floor_us": (forward + backward) * 1e6}


def ratios(row: dict, published: dict | None) -> dict:
    """Published time over ours."""
    if not published:
        return {}
    both = published.get("forward_backward_us") or published["forward_us"] + published["backward_us"]
    found = {
        "forward_ratio": published["forward_us"] / row["forward_us"],
        "forward_backward_ratio": both / row["forward_backward_us"],
    }
    if "extra_MiB" in published:
        found["published_extra_MiB"] = published["extra_MiB"]
    return found


def print_row(row: dict) -> None:
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


def short(dtype: str) -> str:
    return {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}[dtype]


# ---- models ----------------------------------------------------------------------------------------------------------
# our arch: the published file's key
PUBLISHED_MODELS = {
    "VMamba:tiny": "vmamba_t_s1l8_224",
    "VMamba:tiny_s2l5": "vmamba_t_s2l5_224",
    "Vim:tiny": "vim_t_224",
    "Vim:small": "vim_s_224",
    "SegMamba:brats2023": "segmamba_128_b2",
}


def run_model(name: str, args: argparse.Namespace, device: str, published: dict) -> dict:
    """Samples a second of inference and of training (forward and backward, no optimizer), under autocast; peak MiB.

    On a GPU twice: launched one by one, and replayed as CUDA graphs (`mamba_vision.cuda_graphed`), which takes the host
    out of it.
    """
    import torch

    from mamba_vision.models.cuda_graphs import cuda_graphed, without_cuda_graphs
    from mamba_vision.registry import MODELS

    kind, _, arch = name.partition(":")
    size = tuple(int(n) for n in args.input.split(","))
    if kind in ("SegMamba", "UMamba") and len(size) == 4:
        size = (2, 4, 128, 128, 128)
    spec = {"type": kind, **({"arch": arch} if arch else {})}
    if kind in ("SegMamba", "UMamba"):
        spec |= {"in_channels": size[1]}
    model = MODELS.build(spec).to(device)
    dtype = getattr(torch, args.dtype)
    x = [torch.randn(size, device=device) for _ in range(2)]

    def run(i, training):
        with torch.set_grad_enabled(training), torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32):
            out = model(x[i])
        if training:
            total = sum(o.float().mean() for o in (out if isinstance(out, (list, tuple)) else [out]))
            total.backward()
            model.zero_grad(set_to_none=True)

    row = {"model": name, "input": list(size), "dtype": args.dtype}
    for key, training in (("inference", False), ("training", True)):
        model.train(training)
        runs = [lambda i=i, training=training: run(i, training) for i in range(2)]
        if device == "cuda":
            for _ in range(3):
                runs[0]()
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            row[f"{key}_per_s"] = size[0] / wall_time(runs, max(5, args.repeats // 3)) * 1e6
            row[f"{key}_MiB"] = torch.cuda.max_memory_allocated() / 2**20
            try:
                cuda_graphed(model)
                runs[0]()
                row[f"{key}_graph_per_s"] = size[0] / wall_time(runs, max(5, args.repeats // 3)) * 1e6
                row[f"{key}_graph_MiB"] = torch.cuda.max_memory_allocated() / 2**20
            except (RuntimeError, ValueError) as error:  # something in the model can't be captured
                print(f"{name}, {key}: no CUDA graph: {str(error).splitlines()[0]}")
            without_cuda_graphs(model)
        else:
            row[f"{key}_per_s"] = size[0] / time_cpu(runs, 1) * 1e6
    print(f"\n{name} {size}: " + ", ".join(f"{k} {v:.1f}" for k, v in row.items() if isinstance(v, float)))
    values = published.get(f"{PUBLISHED_MODELS.get(name)}_{short(args.dtype)}")
    if values and values["batch"] == size[0]:
        for key in ("inference", "training"):
            row[f"{key}_ratio"] = row[f"{key}_per_s"] / values[f"{key}_per_s"]
            if f"{key}_graph_per_s" in row:
                row[f"{key}_graph_ratio"] = row[f"{key}_graph_per_s"] / values[f"{key}_per_s"]
            row[f"{key}_memory_ratio"] = row[f"{key}_MiB"] / values[f"{key}_MiB"]
        print("  of the published: " + ", ".join(f"{k} {v:.2f}" for k, v in row.items() if k.endswith("ratio")))
    return row


def wall_time(runs, repeats: int) -> float:
    """Microseconds a call as a program sees it that calls again and again."""
    from time import perf_counter

    import torch

    torch.cuda.synchronize()
    start = perf_counter()
    for i in range(repeats):
        runs[i % len(runs)]()
    torch.cuda.synchronize()
    return (perf_counter() - start) / repeats * 1e6


def plot(results: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in results if "forward_us" in row]
    figure, axes = plt.subplots(figsize=(9, 0.45 * len(rows) + 1.5), layout="constrained")
    labels = [f"{row['shape']} {row['backend']}" for row in rows]
    for offset, key in ((-0.2, "forward"), (0.2, "forward_backward")):
        places = [i + offset for i in range(len(rows))]
        axes.barh(places, [row[f"{key}_us"] for row in rows], 0.38, label=key.replace("_", " + "))
        for place, row in zip(places, rows):
            if f"{key}_floor_us" in row:
                axes.plot([row[f"{key}_floor_us"]] * 2, [place - 0.19, place + 0.19], color="black")
    axes.set_yticks(range(len(rows)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("µs (black: the floor)")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"drawn: {path}")


if __name__ == "__main__":
    sys.exit(run_tool(main))
