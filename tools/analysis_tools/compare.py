"""Is run B better than run A? Paired tests of two reports on the same cases.

    python tools/analysis_tools/compare.py work_dirs/umamba work_dirs/segmamba --out comparison

RUN is a work folder with report/, a report folder, or a cases.csv of tools/test.py or tools/evaluate_folder.py. For
each score and class: the mean difference with a 95 % bootstrap interval, and Wilcoxon's signed-rank test with Holm's
correction for all tests made. --out gets compare.csv, compare.md and compare.png.
"""

import argparse
import sys
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_a", type=Path, metavar="RUN_A", help="the run that is there, as described above")
    parser.add_argument("run_b", type=Path, metavar="RUN_B", help="the run that may be better")
    scores = ["dice", "surface_dice", "hd95_mm"]
    said = f"columns of cases.csv, all corrected for (default: {' '.join(scores)})"
    parser.add_argument("--metrics", nargs="+", default=scores, metavar="NAME", help=said)
    parser.add_argument("--names", nargs=2, metavar=("A", "B"), help="of the runs (default: of their folders)")
    parser.add_argument("--out", type=Path, help="folder to write (default: nothing is written)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    from rich.console import Console

    from mamba_vision.utils.quiet import quiet_imports

    with quiet_imports():
        from mamba_vision.apis.run_comparison import compare_folders, comparison_table
    try:
        names = tuple(args.names) if args.names else None
        found = compare_folders(args.run_a, args.run_b, args.metrics, names, args.out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    console = Console(highlight=False)
    console.print(f"A: {found.names[0]}\nB: {found.names[1]}", markup=False)
    console.print(comparison_table(found))
    for note in found.notes:
        console.print(note, markup=False)
    if args.out:
        for name in ("compare.csv", "compare.md", "compare.png"):
            console.print(f"  {args.out / name}", markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
