"""Export a model to one ONNX file, checked against PyTorch before it is kept.

    python tools/export_onnx.py configs/vim/vim-tiny_8xb128_in1k.py vim_t_midclstok_76p1acc.pth --out vim_tiny.onnx
    python tools/export_onnx.py work_dirs/liver --out liver.onnx --verify --benchmark
    python tools/export_onnx.py vmamba_tiny --out vmamba.onnx --int8

Beside MODEL.onnx goes MODEL.json, which says in plain JSON what is known of it; the second network of a cascade also
brings MODEL_lowres.onnx, the first one. Use the file with `python -m mamba_vision.deploy`, which needs no PyTorch, or
with `python tools/segment.py MODEL.onnx SCANS --out MASKS`.
"""

import argparse
import sys
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="CONFIG_OR_NAME", help="a configuration, a work folder, or a model's name")
    parser.add_argument("checkpoint", nargs="?", help="weights; a work folder has its own")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the file to write, .onnx")
    parser.add_argument("--folds", nargs="+", default=[], metavar="N",
                        help="of a work folder: the mean of these folds' logits in one file; default: the folder's own "
                             "checkpoint, or all its folds")  # fmt: skip
    parser.add_argument("--size", type=int, nargs="+", help="height and width, or depth, height and width")
    parser.add_argument(
        "--dynamic", nargs="*", metavar="SIZE",
        help="sizes that stay free: batch height width depth; none: all fixed; default: all that can be",
    )  # fmt: skip
    parser.add_argument("--opset", type=int, default=20, help="version of the standard operators, 18 to 23")
    parser.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32",
                        help="of weights and products (default fp32); int8 quantizes inputs at run time")  # fmt: skip
    for name in ("fp16", "int8"):
        parser.add_argument(f"--{name}", action="store_const", const=name, dest="precision",
                            help=f"the same as --precision {name}")  # fmt: skip
    parser.add_argument("--verify", action="store_true",
                        help="check at three sizes with three seeds each, in place of two sizes")  # fmt: skip
    parser.add_argument("--keep", action="store_true", help="write the file also if the results differ too much")
    parser.add_argument("--benchmark", action="store_true",
                        help="time the file and PyTorch on this machine, and measure the file's memory")  # fmt: skip
    parser.add_argument("--license", metavar="TEXT", help="of the weights, for the metadata")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    from mamba_vision.utils.quiet import quiet_imports

    with quiet_imports():
        from mamba_vision.apis.onnx_benchmark import benchmark
        from mamba_vision.apis.onnx_export import export_onnx
        from mamba_vision.apis.onnx_models import load_exportable
    try:
        found = load_exportable(args.model, args.checkpoint, args.folds)
        report = export_onnx(
            found, args.checkpoint, args.out, args.size, args.dynamic, args.opset, args.precision, print,
            verify=args.verify, keep=args.keep, licence=args.license,
        )  # fmt: skip
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        print(f"{args.out} was not written", file=sys.stderr)
        return 2
    if args.checkpoint is None and not Path(args.model).is_dir():
        print("note: no checkpoint was given, so the weights are as initialized: of use to measure speed alone")
    for one in (report.lowres, report):
        if one is not None:
            describe(one)
    if args.benchmark:
        from mamba_vision.utils.memory import format_size
        from mamba_vision.utils.wording import count

        figures = benchmark(found, report.path, report.size)
        by = " x ".join(map(str, figures["size"]))
        print(
            f"one input of {by}, {count(figures['threads'], 'thread')}: ONNX Runtime {figures['onnx_ms']:.4g} ms, "
            f"PyTorch {figures['torch_ms']:.4g} ms; peak memory of a process that runs the file: "
            f"{format_size(figures['peak_memory_bytes'])}"
        )
    from mamba_vision.deploy.metadata import VERBS

    inputs = {"fusion": "FIRST SECOND", "sharpening": "IMAGE GUIDE"}.get(report.task, "INPUT")
    print(f"next: python -m mamba_vision.deploy {VERBS[report.task]} {report.path} {inputs} -o OUT")
    return 0


def describe(report) -> None:
    """Print what became of one file."""
    from mamba_vision.utils.memory import format_size

    for note in report.notes:
        print(f"note: {note}")
    for check in report.checks:
        shapes = ", ".join(" x ".join(map(str, shape)) for shape in check["inputs"])
        more = f", arg-max agrees at {check['agreement']:.2%}" if "agreement" in check else ""
        print(
            f"checked {shapes} (seed {check['seed']}): differs from PyTorch by {check['absolute']:.1e}, "
            f"{check['error']:.1e} of the largest output{more}"
        )
    free = ", ".join(report.free) or "nothing"
    frequent = ", ".join(f"{name} {count}" for name, count in list(report.operators.items())[:8])
    more = f" and {len(report.operators) - 8} more operators" if len(report.operators) > 8 else ""
    print(
        f"wrote {report.path}: {format_size(report.file_bytes)}, opset {report.opset}; free: {free}; {report.nodes} "
        f"nodes: {frequent}{more}"
    )
    print(f"wrote {report.description}: inputs, preprocessing, labels, checks, SHA-256")


if __name__ == "__main__":
    sys.exit(run_tool(main))
