"""Compare configurations, and pairs of them, by cross-validated Dice; choose the best and its clean-up.

    python tools/find_best_configuration.py work_dirs/liver_3d work_dirs/liver_2d

Every case is segmented by the fold that did not train on it (what is in WORK_DIR/cross_validation already is not made
again). Of a pair the probabilities are averaged. The command that segments new scans with the winner is printed.
"""

import argparse
import os
import sys
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work_dirs", type=Path, nargs="+", metavar="WORK_DIR", help="work folders with trained folds")
    parser.add_argument("--folds", nargs="+", default=[], metavar="N", help="default: all of splits.json")
    parser.add_argument("--out", type=Path, default=Path("best_configuration"),
                        help="folder of best_configuration.json and of the pairs' label maps")  # fmt: skip
    parser.add_argument("--no-pairs", action="store_true", help="single configurations only; takes less disk")
    parser.add_argument("--device", metavar="NAME[,NAME...]", help="as for tools/segment.py")
    parser.add_argument("--tta", choices=("flips", "none"), default="flips", help="as for tools/segment.py")
    parser.add_argument("--amp", action="store_true", help="predict in half precision")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    from rich.console import Console

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from mamba_vision.utils.quiet import quiet_imports

    with quiet_imports():
        from mamba_vision.apis.best_configuration import candidates_table, find_best_configuration
        from mamba_vision.apis.cross_validation import cross_validate
        from mamba_vision.apis.postprocessing_choice import choice_table
        from mamba_vision.apis.segmentation_progress import ProgressReporter
        from mamba_vision.apis.volume_model import choose_device

    console = Console(highlight=False, soft_wrap=True)
    pairs = len(args.work_dirs) > 1 and not args.no_pairs
    try:
        devices = [str(choose_device(name)) for name in (args.device.split(",") if args.device else [None])]
        found = []
        for work_dir in args.work_dirs:
            console.print(f"{work_dir}:", style="bold")
            with ProgressReporter(None, console) as reporter:
                predictions = cross_validate(
                    work_dir, args.folds, devices=devices, tta=args.tta, amp=args.amp, probabilities=pairs,
                    reporter=reporter,
                )  # fmt: skip
            found.append((work_dir, predictions))
        best = find_best_configuration(found, args.out, pairs, folds=args.folds or "all", tta=args.tta)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console.print(candidates_table(best))
    console.print(choice_table(best.choice))
    steps = ", ".join(step.name for step in best.choice.steps) or "no step helps; nothing will be removed"
    console.print(f"{best.postprocessing}: {steps}")
    console.print(f"Next: {best.command()}")
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
