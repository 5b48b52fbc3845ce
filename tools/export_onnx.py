"""Export a model to one ONNX file, checked against PyTorch before it is kept.

    python tools/export_onnx.py configs/vim/vim-tiny_8xb128_in1k.py vim_t_midclstok_76p1acc.pth -o vim_tiny.onnx
    python tools/export_onnx.py work_dirs/liver -o liver.onnx
    python tools/export_onnx.py vmamba_tiny -o vmamba.onnx --precision int8

Use it with `python -m mamba_vision.deploy`, which needs no PyTorch.
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
    parser.add_argument("--size", type=int, nargs="+", help="height and width, or depth, height and width")
    parser.add_argument(
        "--dynamic", nargs="*", metavar="SIZE",
        help="sizes that stay free: batch height width depth; none: all fixed; default: all that can be",
    )  # fmt: skip
    parser.add_argument("--opset", type=int, default=20, help="version of the standard operators, 18 to 23")
    parser.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32",
                        help="of weights and products (default fp32); int8 quantizes inputs at run time")  # fmt: skip
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    from mamba_vision.apis.onnx_export import export_onnx
    from mamba_vision.utils.memory import format_size

    try:
        report = export_onnx(
            args.model, args.checkpoint, args.out, args.size, args.dynamic, args.opset, args.precision, print
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if args.checkpoint is None and not Path(args.model).is_dir():
        print("note: no checkpoint was given, so the weights are as initialized: of use to measure speed alone")
    for note in report.notes:
        print(f"note: {note}")
    for check in report.checks:
        shapes = ", ".join(" x ".join(map(str, shape)) for shape in check["inputs"])
        more = f", arg-max agrees at {check['agreement']:.2%}" if "agreement" in check else ""
        print(f"checked {shapes}: differs from PyTorch by {check['error']:.1e} of the largest output{more}")
    free = ", ".join(report.free) or "nothing"
    print(
        f"wrote {report.path}: {format_size(report.file_bytes)}, {report.nodes} nodes, opset {report.opset}; "
        f"free: {free}"
    )
    verb = {"classification": "classify", "restoration": "restore", "promptable": "prompt", "fusion": "fuse",
            "sharpening": "fuse"}.get(report.task, "segment")  # fmt: skip
    print(f"next: python -m mamba_vision.deploy {verb} {report.path} INPUT -o OUT")
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
