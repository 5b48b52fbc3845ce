"""Measure a trained model on labelled scans, or test any MMEngine configuration.

    python tools/test.py work_dirs/liver/config.py work_dirs/liver/best_dice_epoch_900.pth

For volumes: scans are segmented and scored in their own grids. By default these are the data set's test scans if they
have labels, else the validation cases of the fold. report/ then holds report.md, summary.json, cases.csv (a row a case
and class), boxplots.png, bland_altman.png and worst_cases.png. Several processes share the scans:

    bash tools/dist_test.sh work_dirs/liver/config.py work_dirs/liver/best_dice_epoch_900.pth 4
"""

import argparse
import os
import sys
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="configuration file")
    parser.add_argument("checkpoint", type=Path, help="checkpoint file; best.pth: the best_*.pth in its folder")
    parser.add_argument(
        "--work-dir", type=Path, help="where the report goes (default: the configuration's work folder)"
    )
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="change the configuration")
    parser.add_argument("--amp", action="store_true", help="mixed precision")
    parser.add_argument("--tta", nargs="?", const="flips", choices=("flips", "none"),
                        help="volumes: flips (default) averages over mirrored copies, none predicts once, as in "
                             "segment.py; others: use tta_model")  # fmt: skip
    parser.add_argument("--out", type=Path,
                        help="volumes: folder for the segmentations; others: .pkl file for predictions")  # fmt: skip
    volumes = parser.add_argument_group("volumes")
    volumes.add_argument("--data", type=Path, help="labelled scans to test on, in place of the data set's own")
    volumes.add_argument("--fold", help="fold whose validation cases are tested on, or 'all'")
    volumes.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one; of several processes "
                                          "each its own)")  # fmt: skip
    others = parser.add_argument_group("other configurations")
    others.add_argument("--show", action="store_true", help="show predictions in a window")
    others.add_argument("--show-dir", type=Path, help="folder for pictures of predictions")
    others.add_argument("--interval", type=int, default=1, help="draw every n-th sample")
    others.add_argument("--wait-time", type=float, default=2, help="seconds a picture is shown")
    parser.add_argument("--launcher", choices=("none", "pytorch", "slurm", "mpi"), default="none",
                        help="what started several processes; volumes: none or pytorch (torchrun), which share the "
                             "scans")  # fmt: skip
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.checkpoint.name == "best.pth" and not args.checkpoint.exists():
        found = sorted(args.checkpoint.parent.glob("best_*.pth"), key=lambda file: file.stat().st_mtime)
        args.checkpoint = found[-1] if found else args.checkpoint
    for path in (args.config, args.checkpoint):
        if not path.is_file():
            parser.error(f"{path}: no such file")
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def report_folder(args: argparse.Namespace, cfg) -> Path:
    """In --work-dir, else in the folder that training with the same --fold has made."""
    if args.work_dir:
        return args.work_dir / "report"
    return Path(cfg.work_dir, *([] if args.fold is None else [f"fold_{args.fold}"]), "report")


def test_volumes(args: argparse.Namespace, cfg) -> int:
    from rich.console import Console

    from mamba_vision.apis.sharing import joined, rank
    from mamba_vision.apis.volume_report import score_table
    from mamba_vision.apis.volume_testing import evaluate_volumes
    from mamba_vision.utils.wording import command, shown

    console = Console(highlight=False)

    def report(case: str, index: int, total: int) -> None:
        console.print(f"[{index + 1}/{total}] {case}", markup=False)

    with joined(args.launcher):
        outcome = evaluate_volumes(
            cfg,
            args.checkpoint,
            data=args.data,
            folder=report_folder(args, cfg),
            tta=args.tta or "flips",
            amp=args.amp,
            device=args.device,
            masks=args.out,
            report=report,
        )
        if rank() > 0:
            return 1 if outcome.failures else 0
    console.print(f"Tested on {outcome.summary['tested_on']}", markup=False, soft_wrap=True)
    console.print(score_table(outcome.summary))
    for name in ("report.md", "summary.json", "cases.csv", "boxplots.png", "bland_altman.png", "worst_cases.png"):
        if (outcome.folder / name).is_file():
            console.print(f"  {shown(outcome.folder / name)}", markup=False, soft_wrap=True)
    for case, reason in outcome.failures.items():
        console.print(f"failed: {case}: {reason}", markup=False, soft_wrap=True)
    folder = args.config.parent
    planned = args.config.name == "config.py" and args.checkpoint.parent.resolve() == folder.resolve()
    model = [folder] if planned else [args.config, "--checkpoint", args.checkpoint]
    console.print(
        f"Next: {command('tools/segment.py', *model, 'SCANS', '--out', 'predictions')}", markup=False, soft_wrap=True
    )
    return 1 if outcome.failures else 0


def main() -> int:
    args = parse_args()
    # Threads that wait in sleep, not in a loop: on cores that others use too, the loop makes training ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from mamba_vision.utils.quiet import quiet_imports

    with quiet_imports():
        from mamba_vision.apis.config_check import check_config
        from mamba_vision.apis.config_loading import load_config, parse_options
        from mamba_vision.apis.testing import TestOptions, run_test
    changes = [*args.cfg_options, f"fold={args.fold}"] if args.fold is not None else args.cfg_options
    cfg = load_config(args.config, parse_options(changes))
    check_config(cfg)
    if str(cfg.model.get("type", "")).endswith("VolumeSegmentor"):
        return test_volumes(args, cfg)
    names = TestOptions.__dataclass_fields__
    args.tta = args.tta == "flips"
    run_test(cfg, args.checkpoint, TestOptions(**{name: getattr(args, name) for name in names}))
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
