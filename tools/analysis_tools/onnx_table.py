"""Export models, and write the table of docs/reference/onnx.md: what stays free, error, size, milliseconds.

    python tools/analysis_tools/onnx_table.py vim_tiny vmamba_tiny umamba_bot --library libmamba_vision_ort.so
    python tools/analysis_tools/onnx_table.py --all

Results are kept in a JSON file beside the page: models measured before stay in the table. Times are CPU time of the
process with one thread, medians of interleaved runs, with weights as initialized. The same input goes through PyTorch
(portable backend), ONNX Runtime with standard operators, and ONNX Runtime with our operator library.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "onnx.md"
HEAD = """# Models as ONNX files

Written by `tools/analysis_tools/onnx_table.py`. *free*: sizes that an exported file leaves open; *error*: the largest
difference from PyTorch, over the largest output; *ms*: CPU time of one thread for one input of the size shown, in
PyTorch (portable backend), in ONNX Runtime with standard operators, and with our operator library; `–`: not measured.
Weights are as initialized; files are float32, opset 20. The machine had other work, so that times spread by a quarter.

| name | task | free | size | error | MB | PyTorch ms | standard ms | library ms |
|:-----|:-----|:-----|:-----|------:|---:|-----------:|------------:|-----------:|
"""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="names of mamba_vision.list_models()")
    parser.add_argument("--all", action="store_true", help="every published variant but generators")
    parser.add_argument("--library", type=Path, help="our operators, from `python -m mamba_vision.kernels.native`")
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each model (default %(default)s)")
    parser.add_argument(
        "--page", type=Path, default=PAGE, help="the page to write (default: that of the documentation)"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from mamba_vision.apis import list_models
    from mamba_vision.utils.atomic import write_json, write_text

    store = args.page.with_suffix(".json")
    rows = json.loads(store.read_text()) if store.is_file() else {}
    names = args.names
    if args.all:
        small = ("test", "tiny_hyper", "zigma")
        names = [name for name in list_models() if not any(part in name for part in small)]
    for name in names:
        print(name, flush=True)
        try:
            rows[name] = measured(name, args.library, args.runs)
        except ValueError as error:
            rows[name] = {"failed": str(error)}
        print(rows[name], flush=True)
        write_json(store, rows)
        write_text(args.page, HEAD + "".join(line(name, row) for name, row in sorted(rows.items())))


def measured(name: str, library: Path | None, runs: int) -> dict:
    import torch

    from mamba_vision.apis.onnx_export import example_arrays, export_onnx
    from mamba_vision.apis.onnx_models import load_exportable
    from mamba_vision.deploy import ModelFile
    from mamba_vision.kernels import use_backend

    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = load_exportable(name)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        report = export_onnx(found, None, file)
        arrays = example_arrays(found, 1, report.size, 0)
        tensors = [torch.from_numpy(array) for array in arrays]
        forms: dict[str, Callable] = {}
        with torch.no_grad(), use_backend("portable"):
            forms["torch"] = lambda: found.module(*tensors)
            plain = ModelFile(file, threads=1)
            forms["standard"] = lambda: plain(*arrays)
            if library is not None:
                fast = ModelFile(file, library, threads=1)
                forms["library"] = lambda: fast(*arrays)
            times = interleaved(forms, runs)
    return {
        "task": report.task, "free": list(report.free), "size": list(report.size), "error": report.error,
        "bytes": report.file_bytes, "notes": list(report.notes), "ms": times,
    }  # fmt: skip


def interleaved(forms: dict[str, Callable], runs: int) -> dict[str, float]:
    """Median CPU time of each in milliseconds; one run of each in turn, so that all meet the same neighbours."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(runs + 1):
        for name, form in forms.items():
            start = time.process_time()
            form()
            if number:  # the first is warm-up
                times[name].append(1000 * (time.process_time() - start))
    return {name: round(statistics.median(found), 1) for name, found in times.items()}


def line(name: str, row: dict) -> str:
    if "failed" in row:
        return f"| `{name}` | not exported: {row['failed']} |  |  |  |  |  |  |  |\n"
    ms = " | ".join(f"{row['ms'][form]:.1f}" if form in row["ms"] else "–" for form in ("torch", "standard", "library"))
    size = " × ".join(map(str, row["size"]))
    free = ", ".join(row["free"]) or "nothing"
    return f"| `{name}` | {row['task']} | {free} | {size} | {row['error']:.0e} | {row['bytes'] / 1e6:.1f} | {ms} |\n"


if __name__ == "__main__":
    sys.exit(run_tool(main))
