"""Export models, and write the table of docs/reference/onnx.md: what stays free, sizes, error, milliseconds.

    python tools/analysis_tools/onnx_table.py vim_tiny vmamba_tiny_s1l8 --library libmamba_vision_ort.so
    python tools/analysis_tools/onnx_table.py --all --library libmamba_vision_ort.so --store /tmp/onnx.json
    python tools/analysis_tools/onnx_table.py --render --store /tmp/onnx.json

Results are kept in a JSON file, one record a model, as soon as it is measured: a run that was interrupted goes on where
it stopped, cheap models first. `--render` writes the page from it. The same input goes through PyTorch (portable
backend), ONNX Runtime with standard operators, and ONNX Runtime with our operator library, in turn, in one thread.
"""

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "onnx.md"
STORE = ROOT / "benchmarks" / "onnx_cpu.json"
BUDGET = 20  # seconds of repeated runs a model
FORMS = ("torch", "standard", "library")
# Networks measured at a smaller size than their recipe's, at which export, checks and runs take many minutes or, for
# some in standard operators, more than 16 GB.
SMALLER = {
    "lightmunet_liver_3d*": (64, 64, 64),
    "mambair_realsr_*": (64, 64),
    "mambair_sr_*": (64, 64),
    "mambairv2_base_*": (64, 64),
    "mambairv2_denoise_*": (64, 64),
    "mambairv2_jpeg_*": (64, 64),
    "mambairv2_large_*": (64, 64),
    "mambairv2_small_*": (64, 64),
    "segmamba_*": (96, 96, 96),
}
SINGLE = "umamba_enc_abdomen_*"  # of one size, at which checks of three at once take more than 16 GB: batches of one
HEAD = """# Models as ONNX files

Written by `tools/analysis_tools/onnx_table.py` from `benchmarks/onnx_cpu.json`. *free*: sizes that an exported file
leaves open; *error*: the largest difference from PyTorch in the checks of the export, over the largest output; *MB*: of
the file in float32, float16 and int8; *ms*: CPU time of one thread for one input of the size shown, median of up to
{runs} runs in turn, in PyTorch (portable backend), in ONNX Runtime with standard operators, and with our operator
library, each of these two with how many times faster than PyTorch it is. Weights are as initialized; opset 20. Costly
networks are measured at a smaller size than their recipe's:
{smaller}.
{single} are checked with one input at a time, as three at once take more than 16 GB.

{machine}

| name | task | parameters | free | size | error | fp32 MB | fp16 | int8 | PyTorch ms | standard ms | | library ms | |
|:-----|:-----|-----------:|:-----|:-----|------:|--------:|-----:|-----:|-----------:|------------:|-:|-----------:|-:|
"""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="names of mamba_vision.list_models()")
    parser.add_argument("--all", action="store_true", help="every published variant but generators")
    parser.add_argument("--again", action="store_true", help="measure what is in the file of results, too")
    parser.add_argument("--library", type=Path, help="our operators, from `python -m mamba_vision.kernels.native`")
    parser.add_argument("--runs", type=int, default=5, help="most runs of each form (default: %(default)s)")
    parser.add_argument("--store", type=Path, default=STORE, help="file of results (default: %(default)s)")
    parser.add_argument("--machine", help="what to say of the machine, and of what else it did")
    parser.add_argument("--render", action="store_true", help="write the page, measure nothing")
    parser.add_argument("--page", type=Path, default=PAGE, help="page to write (default: the documentation's)")
    args = parser.parse_args()
    if args.render == bool(args.all or args.names):
        parser.error("name models, or --all, or --render")
    return args


def main() -> None:
    args = parse_args()
    from mamba_vision.utils.atomic import write_json, write_text

    store = json.loads(args.store.read_text()) if args.store.is_file() else {"machine": "", "models": {}}
    if args.machine:
        store["machine"] = args.machine
        write_json(args.store, store)
    if args.render:
        write_text(args.page, page(store))
        return
    names = by_cost() if args.all else args.names
    todo = [name for name in names if args.again or name not in store["models"]]
    print(f"{len(todo)} of {len(names)} models to measure", flush=True)
    begin = time.monotonic()
    for number, name in enumerate(todo, start=1):
        start = time.monotonic()
        try:
            store["models"][name] = measured(name, args.library, args.runs)
        except (ValueError, RuntimeError, MemoryError) as error:
            store["models"][name] = {"failed": (str(error).splitlines() or [type(error).__name__])[0][:300]}
        write_json(args.store, store)
        gc.collect()
        record, spent = store["models"][name], time.monotonic() - start
        left = (time.monotonic() - begin) / number * (len(todo) - number)
        print(
            f"[{number}/{len(todo)}] {name}: {record.get('failed') or medians(record)}, {spent:.0f} s; "
            f"at least {left / 60:.0f} min left",  # costly models come last
            flush=True,
        )


def all_names() -> list[str]:
    """The fullest name of every published variant but generators."""
    from mamba_vision.apis.model_table import published_names

    return [names[0] for names in published_names() if not names[0].startswith("zigma")]


def by_cost() -> list[str]:
    """All names, from few operations to many."""
    from mamba_vision.apis.model_table import count

    return sorted(all_names(), key=lambda name: count(name)[1].flops)


def example_size(name: str) -> tuple[int, ...] | None:
    """The size to measure a costly network at; None: that of its recipe."""
    return next((size for pattern, size in SMALLER.items() if fnmatch(name, pattern)), None)


def measured(name: str, library: Path | None, runs: int) -> dict:
    import torch

    from mamba_vision.apis.onnx_check import example_arrays
    from mamba_vision.apis.onnx_export import export_onnx
    from mamba_vision.apis.onnx_models import load_exportable
    from mamba_vision.deploy import ModelFile
    from mamba_vision.kernels import use_backend

    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = load_exportable(name)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        report = export_onnx(found, None, file, example_size(name), () if fnmatch(name, SINGLE) else None)
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
        sizes = {"fp32": report.file_bytes} | {precision: bytes_of(file, precision) for precision in ("fp16", "int8")}
    return {
        "task": report.task, "parameters": sum(p.numel() for p in found.module.parameters()),
        "free": list(report.free), "size": list(report.size), "error": report.error, "bytes": sizes,
        "notes": list(report.notes), "ms": times,
    }  # fmt: skip


def bytes_of(file: Path, precision: str) -> int | None:
    """Size of an exported file in another precision; None if it cannot be lowered."""
    import onnx

    from mamba_vision.deploy.finish import add_scan_function
    from mamba_vision.deploy.precision import lower

    model = onnx.shape_inference.infer_shapes(onnx.load(file))  # types, which the float16 converter wants to know
    del model.functions[:]
    try:
        model = lower(model, precision)
        add_scan_function(model)
    except Exception:  # both converters raise whatever comes
        return None
    return model.ByteSize()


def interleaved(forms: dict[str, Callable], runs: int) -> dict[str, list[float]]:
    """CPU times of each in milliseconds; one run of each in turn, so that all meet the same neighbours."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    number = 0
    begin = time.monotonic()
    while number <= runs:
        for name, form in forms.items():
            start = time.process_time()
            form()
            if number:  # the first is warm-up
                times[name].append(round(1000 * (time.process_time() - start), 2))
        number += 1
        if number > 1 and (time.monotonic() - begin) * (number + 1) / number > BUDGET:
            break
    return times


# ---- page ------------------------------------------------------------------------------------------------------------
def page(store: dict) -> str:
    models = store["models"]
    names = list(dict.fromkeys([*all_names(), *models]))
    done = {name: models[name] for name in names if "ms" in models.get(name, {})}
    failed = {name: models[name]["failed"] for name in names if "failed" in models.get(name, {})}
    missing = [name for name in names if name not in models]
    most = max((len(times) for row in done.values() for times in row["ms"].values()), default=0)
    smaller = ", ".join(f"`{name}`" for name in SMALLER)
    text = HEAD.format(runs=most, machine=store["machine"], smaller=smaller, single=f"`{SINGLE}`")
    text += "".join(line(name, done[name]) for name in sorted(done))
    ratios = {form: [ratio(row, form) for row in done.values() if form in row["ms"]] for form in FORMS[1:]}
    for form, found in ratios.items():
        if found:
            text += (
                f"\n{'Standard operators' if form == 'standard' else 'Our library'}: {min(found):.1f} to "
                f"{max(found):.1f} times as fast as PyTorch, median {statistics.median(found):.1f}.\n"
            )
    if failed:
        text += "\nNot exported:\n\n" + "".join(f"* `{name}`: {why}\n" for name, why in sorted(failed.items()))
    if missing:
        text += "\nNot measured: " + ", ".join(f"`{name}`" for name in sorted(missing)) + ".\n"
    return text


def medians(row: dict) -> str:
    return ", ".join(f"{form} {statistics.median(times):.1f} ms" for form, times in row["ms"].items())


def ratio(row: dict, form: str) -> float:
    """Median of the ratios of runs that followed each other."""
    return statistics.median(torch / other for torch, other in zip(row["ms"]["torch"], row["ms"][form]))


def line(name: str, row: dict) -> str:
    ms = []
    for form in FORMS:
        there = form in row["ms"]
        ms.append(f"{statistics.median(row['ms'][form]):.1f}" if there else "–")
        if form != "torch":
            ms.append(f"{ratio(row, form):.1f} ×" if there else "")
    mega = [f"{size / 1e6:.1f}" if size else "–" for size in row["bytes"].values()]
    cells = [
        f"`{name}`", row["task"].replace("_", " "), f"{row['parameters']:,}", ", ".join(row["free"]) or "nothing",
        " × ".join(map(str, row["size"])), f"{row['error']:.0e}", *mega, *ms,
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    sys.exit(run_tool(main))
