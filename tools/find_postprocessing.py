"""Choose by validation whether only the largest piece of structures should be kept; segment.py then does so by itself.

    python tools/find_postprocessing.py work_dirs/liver
    python tools/find_postprocessing.py work_dirs/liver --predictions masks/ --labels data/liver/labelsTr

Every case is segmented by the fold that did not train on it (what is in work_dirs/liver/cross_validation already is not
made again), or the given label maps are taken. A step is adopted only if it raises Dice there. The result is
WORK_DIR/postprocessing.json, with what was tried.
"""

import argparse
import os
import sys
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool
from mamba_vision.utils.wording import command


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work_dir", type=Path, help="work folder with trained folds")
    parser.add_argument("--folds", nargs="+", default=[], metavar="N", help="default: all of splits.json")
    parser.add_argument("--predictions", type=Path, help="folder of label maps, in place of segmenting the cases")
    parser.add_argument("--labels", type=Path, help="folder of the true ones, with equal names")
    parser.add_argument("--device", default=None, metavar="NAME[,NAME...]", help="as for tools/segment.py")
    parser.add_argument("--tta", choices=("flips", "none"), default="flips", help="as for tools/segment.py")
    parser.add_argument("--amp", action="store_true", help="predict in half precision")
    args = parser.parse_args(argv)
    if (args.predictions is None) != (args.labels is None):
        parser.error("--predictions and --labels go together")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    from rich.console import Console

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from mamba_vision.utils.quiet import quiet_imports

    with quiet_imports():
        from mamba_vision.apis.cross_validation import cross_validate, given_predictions
        from mamba_vision.apis.postprocessing_choice import choice_table, choose_postprocessing
        from mamba_vision.apis.segmentation_progress import ProgressReporter
        from mamba_vision.apis.volume_model import choose_device

    console = Console(highlight=False, soft_wrap=True)
    try:
        if args.predictions is not None:
            found = given_predictions(args.work_dir, args.predictions, args.labels)
        else:
            devices = [str(choose_device(name)) for name in (args.device.split(",") if args.device else [None])]
            with ProgressReporter(None, console) as reporter:
                found = cross_validate(
                    args.work_dir, args.folds, devices=devices, tta=args.tta, amp=args.amp, reporter=reporter
                )
        choice = choose_postprocessing(found.masks, found.structures)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    path = choice.save(args.work_dir / "postprocessing.json", chosen_on=str(found.folder))
    console.print(choice_table(choice))
    console.print(
        f"{path}: {', '.join(step.name for step in choice.steps) or 'no step helps; nothing will be removed'}"
    )
    next_command = command("tools/segment.py", args.work_dir, "SCANS", "--out", "predictions")
    console.print(f"Next: {next_command}", markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
