"""Compare trainings: one curve a work folder, of a metric of the validation or of training.

    python tools/analysis_tools/plot_runs.py work_dirs/vim-micro_digits work_dirs/vmamba-micro_digits \\
        --metric accuracy/top1 --line "linear classifier=96.0" --ylim 80 100 --out curves.png

Reads what MMEngine logs (<time>/vis_data/scalars.json); a training that was resumed is put together.
"""

import argparse
import json
import sys
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="work folders of tools/train.py")
    parser.add_argument("--metric", default="accuracy/top1", help="name in the log (default accuracy/top1)")
    parser.add_argument("--out", type=Path, required=True, metavar="PNG", help="picture to write")
    parser.add_argument("--names", nargs="+", default=[], help="of the curves (default: names of the folders)")
    parser.add_argument("--line", action="append", type=_line, default=[], metavar="NAME=VALUE",
                        help="also draw a horizontal line; may be given several times")  # fmt: skip
    parser.add_argument("--ylim", type=float, nargs=2, metavar=("LOW", "HIGH"), help="values shown")
    args = parser.parse_args(argv)
    if args.names and len(args.names) != len(args.folders):
        parser.error(f"--names: found {len(args.names)}, expected one for each of {len(args.folders)} folders")
    return args


def _line(text: str) -> tuple[str, float]:
    name, equals, value = text.rpartition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, found {text!r}")
    return name, float(value)


def curve(folder: Path, metric: str) -> tuple[list[float], list[float]]:
    """(steps, values) of a metric in the logs of a work folder, later logs over earlier ones.

    Raises:
        ValueError: there are no logs, or the metric is in none; the message names those that are.
    """
    logs = sorted(folder.glob("*/vis_data/scalars.json"))
    if not logs:
        raise ValueError(f"{folder}: no */vis_data/scalars.json, expected a work folder of tools/train.py")
    found, known = {}, set()
    for log in logs:
        for line in log.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            known |= entry.keys() - {"step", "iter", "epoch"}
            if metric in entry:
                found[entry["step"]] = entry[metric]
    if not found:
        raise ValueError(f"{folder}: no metric {metric!r}, there are {', '.join(sorted(known)) or 'none'}")
    steps = sorted(found)
    return steps, [found[step] for step in steps]


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    from mamba_vision.visualization.run_curves import run_curves_figure

    names = args.names or [folder.resolve().name for folder in args.folders]
    try:
        runs = {name: curve(folder, args.metric) for name, folder in zip(names, args.folders)}
        run_curves_figure(runs, args.metric, args.out, dict(args.line), args.ylim and tuple(args.ylim))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, (steps, values) in runs.items():
        print(f"{name}: {values[-1]:.4g} at {steps[-1]:g}, best {max(values):.4g}, lowest {min(values):.4g}")
    print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
