"""Check scans and plan a training: DATASET -> WORK_DIR with config.py, plan.json, splits.json, preprocessed/ and qc/.

DATASET is images/ and labels/ of equal names, nnU-Net's raw layout, a task of the Decathlon, a BIDS folder, a folder of
DICOM patients, or a CSV or JSON file that lists image, label and fold; scans are NIfTI, NRRD, MetaImage or DICOM. Every
problem of every file is shown before any long work begins.
"""

import argparse
import sys
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("dataset", type=Path, metavar="DATASET", help="the folder, or list, of scans and labels")
    add("--work-dir", type=Path, help="folder to write (default: work_dirs/NAME OF THE DATASET)")
    add("--model", default="umamba_bot",
        choices=("umamba_bot", "umamba_enc", "segmamba", "lightm_unet", "nnunet", "monai_unet"),
        help="network (default umamba_bot); nnunet: nnU-Net's plain one; monai_unet: MONAI's BasicUNet")  # fmt: skip
    add("--configuration", nargs="+", metavar="NAME", dest="configurations",
        choices=("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"),
        help="2d, 3d_fullres, 3d_lowres, 3d_cascade_fullres; the first is config.py, each other one has a folder of "
        "its own (default: 3d_fullres, and what nnU-Net's rules call for)")  # fmt: skip
    add("--preset", default="default", choices=("fast", "default", "best"),
        help="fast: minutes on a CPU; default: nnU-Net's sizes, 8 GB of GPU memory; best: 24 GB")  # fmt: skip
    add("--vram", type=float, metavar="GB", help="GPU memory to plan for, in place of the preset's")
    add("--patch-size", type=int, nargs=3, metavar=("X", "Y", "Z"),
        help="voxels along left-right, back-front, down-up (default: the largest that fits)")  # fmt: skip
    add("--spacing", type=float, nargs=3, metavar=("X", "Y", "Z"),
        help="voxel size in mm along the same axes (default: the median of the data)")  # fmt: skip
    add("--batch-size", type=int, metavar="N", help="patches a batch (default: what fits)")
    add("--folds", type=int, default=5, help="of the cross-validation (default 5)")
    add(
        "--splits",
        type=Path,
        metavar="FILE",
        help="the folds, in the form of splits.json (nnU-Net's splits_final.json)",
    )
    add("--nnunet-plans", type=Path, metavar="FILE",
        help="take spacing, patch, batch, stages and intensities from nnU-Net's plans file (nnUNetPlans.json), and the "
        "folds of splits_final.json where that lies beside it")  # fmt: skip
    add("--by-patient", action="store_true", help="keep all scans of a patient in one part of each fold")
    add("--channels", nargs="+", metavar="NAME", help="names of the channels, in place of dataset.json's; e.g. CT")
    add("--labels", nargs="+", metavar="VALUE=NAME", help="e.g. 1=liver 2=tumour, in place of dataset.json's")
    add("--series", metavar="NAME", help="of DICOM folders that hold several: UID, number or description")
    add("--fix-geometry", default="error", choices=("error", "resample", "copy"),
        help="a label in another grid than its scan: stop, resample it, or copy the scan's geometry")  # fmt: skip
    add("--workers", type=int, metavar="N", help="cases at once (default: the cores, as far as memory goes)")
    add("--seed", type=int, default=0, help="of the training (default 0)")
    add("--dry-run", action="store_true", help="show the plan, write nothing")
    add("--no-estimate", action="store_true", help="do not measure how long the training would take here")
    args = parser.parse_args()
    if args.work_dir is None:
        args.work_dir = Path("work_dirs") / dataset_name(args.dataset.resolve())
    for name in ("vram", "batch_size", "workers"):
        value = getattr(args, name)
        if value is not None and value <= 0:
            parser.error(f"--{name.replace('_', '-')} must be above 0, got {value}")
    for name in ("spacing", "patch_size"):
        value = getattr(args, name)
        if value is not None and min(value) <= 0:
            parser.error(f"--{name.replace('_', '-')} must be three numbers above 0, got {value}")
    if args.folds < 2:
        parser.error(f"--folds must be 2 or more, got {args.folds}")
    args.labels = parse_labels(parser, args.labels)
    return args


def dataset_name(dataset: Path) -> str:
    """Of a folder its name, of a list its name without the ending; dataset.json stands for its folder."""
    if dataset.name == "dataset.json":
        return dataset.parent.name
    return dataset.stem if dataset.is_file() else dataset.name


def parse_labels(parser: argparse.ArgumentParser, pairs: list[str] | None) -> dict[str, int] | None:
    if pairs is None:
        return None
    labels = {"background": 0}
    for pair in pairs:
        value, equals, name = pair.partition("=")
        if not equals or not value.isdigit() or not name:
            parser.error(f"--labels takes VALUE=NAME such as 1=liver, got {pair!r}")
        if int(value) == 0:
            labels = {name: 0, **{known: number for known, number in labels.items() if number}}
        elif name in labels:
            parser.error(f"--labels: the name {name!r} is given twice")
        else:
            labels[name] = int(value)
    return labels


def main() -> int:
    args = parse_args()
    from rich.console import Console

    from mamba_vision.apis.planning import DatasetError, plan_dataset
    from mamba_vision.apis.planning_report import print_plan, print_problems
    from mamba_vision.volumes.volume import VolumeError

    console = Console(highlight=False)
    try:
        planned = plan_dataset(
            args.dataset, args.work_dir, configurations=args.configurations, model=args.model, preset=args.preset,
            vram_gb=args.vram,
            patch_size=args.patch_size, spacing=args.spacing, batch_size=args.batch_size, folds=args.folds,
            splits=args.splits, nnunet_plans=args.nnunet_plans, by_patient=args.by_patient,
            channels=args.channels, labels=args.labels, series=args.series, fix_geometry=args.fix_geometry,
            workers=args.workers, seed=args.seed, dry_run=args.dry_run, estimate=not args.no_estimate,
            progress=True, console=console,
        )  # fmt: skip
    except DatasetError as error:
        print_problems(console, error.problems)
        where = "" if args.dry_run else f" The table is in {args.work_dir / 'problems.csv'}."
        console.print(f"Nothing was planned.{where}", markup=False, soft_wrap=True)
        return 1
    except (VolumeError, ValueError) as error:
        print(f"plan.py: {error}", file=sys.stderr)
        return 1
    print_plan(console, planned)
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
