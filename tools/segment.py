"""Segment scans with a trained model: NIfTI files or DICOM series, one, several or whole folders.

    python tools/segment.py work_dirs/liver ct.nii.gz --out predictions
    python tools/segment.py work_dirs/liver scans/ --out predictions --resume
    python tools/segment.py work_dirs/brain --channels t1.nii.gz flair.nii.gz --out predictions

A case of several channels is files CASE_0000.nii.gz, CASE_0001.nii.gz ..., or what --channels lists. For each case the
labels (in the grid of the scan) and a picture are written, and for all of them statistics.csv, statistics.json and
run.json. A scan that fails is listed at the end and the others go on; the exit status is then 1.
"""

import argparse
import os
import sys
from pathlib import Path

from mamba_vision.utils.memory import format_size, parse_size


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="work folder of plan.py and train.py, or a configuration")
    parser.add_argument("scans", type=Path, nargs="*", help="NIfTI files, DICOM folders, or folders of these")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--channels", type=Path, nargs="+", default=[], metavar="FILE",
                        help="the channels of one case, in the order of training")  # fmt: skip
    parser.add_argument("--recursive", action="store_true", help="also look into folders inside folders")
    parser.add_argument("--series", help="UID, number or description, where a DICOM folder holds several series")
    parser.add_argument("--checkpoint", type=Path, help="weights; default: the best in the work folder, else the last")
    parser.add_argument("--tta", choices=("flips", "none"), default="flips",
                        help="flips: average over mirrored copies, up to 8 times the work (default)")  # fmt: skip
    parser.add_argument("--overlap", type=_overlap, default=0.5, help="of windows, 0 to below 1 (default 0.5)")
    parser.add_argument("--batch-size", type=_positive, help="windows predicted together; default: that of training")
    parser.add_argument("--max-memory", type=_size, metavar="SIZE",
                        help="main memory for the logits, e.g. 8G; beyond it they go to a temporary file in the folder "
                             "of results (default: half of what is free)")  # fmt: skip
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ...; default: a GPU if there is one")
    parser.add_argument("--amp", action="store_true", help="predict in half precision")
    parser.add_argument("--labels", nargs="+", metavar="NAME", help="write these labels only")
    parser.add_argument("--statistics", action=argparse.BooleanOptionalAction, default=True,
                        help="volumes, places and intensities of the labels")  # fmt: skip
    parser.add_argument("--preview", action=argparse.BooleanOptionalAction, default=True, help="a picture a case")
    parser.add_argument("--probabilities", action="store_true", help="also write the probability of every class")
    parser.add_argument("--resume", action="store_true", help="skip cases that are finished")
    args = parser.parse_args(argv)
    if not args.scans and not args.channels:
        parser.error("nothing to segment: name scans, or the --channels of one")
    return args


def _checked(name: str, convert, accept):
    """A conversion for argparse, whose complaints call the value by `name`."""

    def parse(text: str):
        value = convert(text)
        if not accept(value):
            raise ValueError
        return value

    parse.__name__ = name
    return parse


_overlap = _checked("overlap (expected 0 to below 1)", float, lambda value: 0 <= value < 1)
_positive = _checked("number (expected 1 or more)", int, lambda value: value >= 1)
_size = _checked("size (expected one such as 8G or 512M)", parse_size, lambda value: True)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    # After the arguments, so that --help and a misspelt option answer at once.
    from rich.console import Console

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # busy waiting makes shared cores ten times slower
    from mamba_vision.utils.quiet import quiet_imports

    with quiet_imports():
        from mamba_vision.apis.scan_collection import collect_scans
        from mamba_vision.apis.segmentation_progress import ProgressReporter
        from mamba_vision.apis.segmentation_run import SegmentOptions, segment_scans
        from mamba_vision.apis.volume_inference import choose_labels
        from mamba_vision.apis.volume_model import init_volume_model

    console = Console(highlight=False, soft_wrap=True)
    try:
        scans = collect_scans(
            args.scans, channels=args.channels, series=args.series, recursive=args.recursive, out=args.out
        )
        model = init_volume_model(args.model, args.checkpoint, args.device)
        choose_labels(model.plan["labels"], args.labels)
        args.out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options = SegmentOptions(
        tta=args.tta, overlap=args.overlap, max_memory=args.max_memory, amp=args.amp,
        labels=tuple(args.labels) if args.labels else None, batch_size=args.batch_size, statistics=args.statistics,
        preview=args.preview, probabilities=args.probabilities, resume=args.resume,
    )  # fmt: skip
    names = ", ".join(name for name, value in model.plan["labels"].items() if value)
    device = next(model.parameters()).device
    memory = f", at most {format_size(args.max_memory)} for logits" if args.max_memory else ""
    console.print(f"{len(scans)} scan{'s'[: len(scans) > 1]}; {names}; {model.checkpoint} on {device}{memory}")
    try:
        with ProgressReporter(len(scans), console) as reporter:
            failures = segment_scans(model, scans, args.out, options, reporter)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command with --resume goes on", file=sys.stderr)
        return 130
    written = [name for name in ("statistics.csv", "run.json") if (args.out / name).is_file()]
    console.print(
        f"{len(scans) - len(failures)} of {len(scans)} segmented; in {args.out}: *.nii.gz, {', '.join(written)}"
    )
    if failures:
        console.print("Failed:", style="bold red")
        for case, reason in failures.items():
            console.print(f"  {case}: {reason}", markup=False)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
