"""Compare two folders of label maps: truth and predictions, of whatever program.

    python tools/evaluate_folder.py labelsTs predictions --out report

A prediction has the name of its truth. What the labels mean, and which regions they make, is read from nnU-Net's
dataset.json (in TRUTH, the folder above it, or --dataset-json), or given by --labels. The report has the form of
tools/test.py's: report.md, summary.json, cases.csv, boxplots.png, bland_altman.png, worst_cases.png.
"""

import argparse
import sys
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("truth", type=Path, metavar="TRUTH", help="folder of label maps, or one file")
    add("predictions", type=Path, metavar="PREDICTIONS", help="folder of label maps, or one file")
    add("--out", type=Path, help="folder of the report (default: PREDICTIONS/report)")
    add("--labels", nargs="+", metavar="VALUE=NAME", help="what to score, e.g. 1=liver 2=tumour 1+2=whole")
    add("--dataset-json", type=Path, metavar="FILE", help="nnU-Net's description of labels and regions")
    add("--ignore-label", type=int, metavar="VALUE", help="value of the truth that does not count")
    add("--images", type=Path, help="folder of the scans, to show the worst cases on")
    add("--metrics", nargs="+", metavar="NAME",
        help="some of dice iou sensitivity precision surface_dice hd95 assd lesions (default: all)")  # fmt: skip
    add("--tolerance", type=float, nargs="+", default=[2.0], metavar="MM",
        help="of the surface Dice; one, or one a structure (default 2)")  # fmt: skip
    add("--both-empty", choices=("undefined", "perfect"), default="undefined",
        help="scores of a structure that neither has: left out of means, or 1 as BraTS counts")  # fmt: skip
    add("--missing-distance", type=float, default=float("nan"), metavar="MM",
        help="distance of a structure that one of the two lacks; BraTS: 374 (default: left out)")  # fmt: skip
    add("--lesion-dilation", type=int, default=3, metavar="VOXELS",
        help="by which lesions of the truth grow before they are counted (default 3)")  # fmt: skip
    add("--lesion-min", type=float, default=50.0, metavar="MM3", help="size up to which a lesion is not counted (50)")
    add("--fix-geometry", default="error", choices=("error", "resample", "copy"),
        help="a prediction in another grid than its truth: refuse, resample, or copy the truth's")  # fmt: skip
    add("--workers", type=int, metavar="N", help="cases at once (default: the cores, as far as memory goes)")
    args = parser.parse_args(argv)
    args.structures = parse_structures(parser, args.labels)
    if args.workers is not None and args.workers < 1:
        parser.error(f"--workers must be above 0, got {args.workers}")
    if args.out is None:
        args.out = (args.predictions if args.predictions.is_dir() else args.predictions.parent) / "report"
    return args


def parse_structures(parser: argparse.ArgumentParser, pairs: list[str] | None) -> dict[str, int | list[int]] | None:
    """{name: value}, or {name: values} for a region such as 1+2=whole."""
    if pairs is None:
        return None
    structures: dict[str, int | list[int]] = {}
    for pair in pairs:
        values, equals, name = pair.partition("=")
        if not equals or not name or not all(value.isdigit() for value in values.split("+")):
            parser.error(f"--labels takes VALUE=NAME or VALUE+VALUE=NAME, got {pair!r}")
        if name in structures:
            parser.error(f"--labels: the name {name!r} is given twice")
        numbers = [int(value) for value in values.split("+")]
        structures[name] = numbers if len(numbers) > 1 else numbers[0]
    return structures


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    from rich.console import Console

    from mamba_vision.utils.quiet import quiet_imports

    with quiet_imports():
        from mamba_vision.apis.folder_evaluation import evaluate_folder
        from mamba_vision.apis.volume_report import score_table
        from mamba_vision.evaluation import ScoreOptions
        from mamba_vision.evaluation.volume_scores import METRICS
    console = Console(highlight=False)
    try:
        options = ScoreOptions(
            metrics=args.metrics or METRICS,
            tolerance=args.tolerance if len(args.tolerance) > 1 else args.tolerance[0],
            lesion_dilation=args.lesion_dilation,
            lesion_min_mm3=args.lesion_min,
            both_empty=args.both_empty,
            missing_distance_mm=args.missing_distance,
        )
        summary, failures = evaluate_folder(
            args.truth, args.predictions, args.out, structures=args.structures, dataset_json=args.dataset_json,
            options=options, ignore_label=args.ignore_label, fix_geometry=args.fix_geometry, images=args.images,
            workers=args.workers, progress=True, console=console,
        )  # fmt: skip
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    console.print(score_table(summary))
    for file in sorted(args.out.iterdir()):
        console.print(f"  {file}", markup=False)
    for case, reason in failures.items():
        console.print(f"failed: {case}: {reason}", markup=False)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
