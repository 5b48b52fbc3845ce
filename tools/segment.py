"""Segment scans with a trained model (NIfTI files, pictures, DICOM series, folders), or pictures by boxes, points.

    python tools/segment.py work_dirs/liver ct.nii.gz --out predictions
    python tools/segment.py work_dirs/liver scans/ --out predictions --resume
    python tools/segment.py work_dirs/brain --channels t1.nii.gz flair.nii.gz --out predictions

    python tools/segment.py work_dirs/liver scans/ --folds 0 1 2 3 4 --device cuda:0,cuda:1 --out predictions
    python tools/segment.py work_dirs/liver scans/ --ensemble work_dirs/liver_2d --format dicom-seg --out predictions
    python tools/segment.py liver.onnx scans/ --out predictions
    python tools/segment.py work_dirs/promamba frame.png --box 40,30,200,180 --points 120,90,1 --out masks

A case of several channels is files CASE_0000.nii.gz, CASE_0001.nii.gz ..., or what --channels lists. For each case the
labels (in the grid of the scan) and a picture are written, and for all of them statistics.csv, statistics.json and
run.json. A scan that fails is listed at the end and the others go on; the exit status is then 1.

An exported model (tools/export_onnx.py) takes the place of a work folder; ONNX Runtime predicts, and its precision and
folds are those of the export. The file of a cascade finds its first one beside it, MODEL_lowres.onnx.

Promptable models take pictures, and of the options below --box, --points, --prompts, --checkpoint, --recursive,
--device, --amp, --statistics, --preview, --probabilities and --resume. They write masks/*.png, overlays/*.png and
statistics.
"""

import argparse
import os
import sys
from pathlib import Path

from mamba_vision.utils.atomic import writable_folder
from mamba_vision.utils.memory import format_size, parse_size
from mamba_vision.utils.tool_exit import run_tool

# As apis.segmentation_files, sliding_window and volume_inference have them, which would take seconds to import.
FORMATS = ("nii.gz", "picture", "nrrd", "mha", "dicom-seg", "rtstruct", "stl")
SURFACES = ("ply", "gif")
BUFFERS = ("auto", "memory", "file", "gpu")
FOR_PICTURES = ("model", "scans", "out", "recursive", "checkpoint", "device", "amp", "statistics", "preview",
                "probabilities", "resume", "box", "points", "prompts")  # fmt: skip
PICTURES = (".png", ".bmp", ".tif", ".tiff")
PATTERNS = {"nii.gz": "*.nii.gz", "picture": "pictures", "nrrd": "*.nrrd", "mha": "*.mha",
            "dicom-seg": "*_seg.dcm", "rtstruct": "*_rtstruct.dcm", "stl": "*.stl", "ply": "*.ply",
            "gif": "*_surface.gif"}  # fmt: skip


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="work folder of plan.py and train.py, or a configuration")
    parser.add_argument("scans", type=Path, nargs="*", help="NIfTI files, DICOM folders, or folders of these")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--channels", type=Path, nargs="+", default=[], metavar="FILE",
                        help="the channels of one case, in the order of training")  # fmt: skip
    parser.add_argument("--recursive", action="store_true", help="also look into folders inside folders")
    parser.add_argument("--series", help="UID, number or description, where a DICOM folder holds several series")
    models = parser.add_argument_group("models")
    models.add_argument("--onnx", type=Path, metavar="MODEL.onnx",
                        help="the exported model; a work folder in front of the scans then only gives its "
                             "postprocessing.json")  # fmt: skip
    models.add_argument("--checkpoint", type=Path, help="weights; default: the best in the work folder, else the last")
    models.add_argument("--folds", nargs="+", default=[], metavar="N",
                        help="average the logits of these folds (work folder/fold_N); default: the work folder's own "
                             "checkpoint, or all its folds")  # fmt: skip
    models.add_argument("--ensemble", type=Path, nargs="+", default=[], metavar="WORK_DIR",
                        help="further configurations, whose probabilities are averaged with the first's")  # fmt: skip
    models.add_argument("--postprocessing", default="auto", metavar="auto|none|FILE",
                        help="auto: what validation chose (postprocessing.json in the work folder)")  # fmt: skip
    models.add_argument("--keep-largest", nargs="*", metavar="LABEL",
                        help="of these labels (if none is named, of every one) only the largest piece")  # fmt: skip
    parser.add_argument("--tta", choices=("flips", "none"), default="flips",
                        help="flips: average over mirrored copies, up to 8 times the work (default)")  # fmt: skip
    parser.add_argument("--overlap", type=_overlap, default=0.5, help="of windows, 0 to below 1 (default 0.5)")
    parser.add_argument("--batch-size", type=_positive, help="windows predicted together; default: that of training")
    parser.add_argument("--max-memory", type=_size, metavar="SIZE",
                        help="main memory for the logits, e.g. 8G; beyond it they go to a temporary file in the folder "
                             "of results (default: half of what is free)")  # fmt: skip
    parser.add_argument("--buffer", choices=BUFFERS, default="auto",
                        help="where windows are added up; auto: memory up to --max-memory, then a file")  # fmt: skip
    parser.add_argument("--device", metavar="NAME[,NAME...]",
                        help="cpu, cuda, cuda:1 ...; several, as cuda:0,cuda:1, share the scans; default: a GPU if "
                             "there is one")  # fmt: skip
    parser.add_argument("--amp", action="store_true", help="predict in half precision")
    parser.add_argument("--labels", nargs="+", metavar="NAME", help="write these labels only")
    parser.add_argument("--format", nargs="+", choices=FORMATS, dest="formats",
                        help="of the labels; default nii.gz, and of pictures picture, which is their own. dicom-seg "
                             "and rtstruct need DICOM scans; stl is a file a label")  # fmt: skip
    parser.add_argument("--surface", nargs="*", choices=SURFACES, metavar="ply|gif",
                        help="surfaces of the labels: a file each (ply), a picture that turns (gif); both, if none is "
                             "named")  # fmt: skip
    parser.add_argument("--statistics", action=argparse.BooleanOptionalAction, default=True,
                        help="volumes, places and intensities of the labels")  # fmt: skip
    parser.add_argument("--preview", action=argparse.BooleanOptionalAction, default=True, help="a picture a case")
    parser.add_argument("--probabilities", action="store_true", help="also write the probability of every class")
    parser.add_argument("--uncertainty", action="store_true",
                        help="also write how undecided each voxel is, from 0 to 1")  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="skip cases that are finished")
    prompts = parser.add_argument_group("pictures, promptable models")
    prompts.add_argument("--box", type=_box, action="append", default=[], metavar="X0,Y0,X1,Y1",
                         help="around what is meant, in pixels; again for more boxes")  # fmt: skip
    prompts.add_argument("--points", type=_point, nargs="+", default=[], metavar="X,Y,LABEL",
                         help="label 1: this is meant, 0: this is not")  # fmt: skip
    prompts.add_argument("--prompts", type=Path, metavar="FILE",
                         help='of many pictures, JSON: {"a.png": {"boxes": [[x0, y0, x1, y1]], "points": '
                              "[[x, y, label]]}, ...}")  # fmt: skip
    args = parser.parse_intermixed_args(argv)  # options may stand between the model and its scans
    args.for_scans = [name for name, value in vars(args).items()
                      if name not in FOR_PICTURES and value != parser.get_default(name)]  # fmt: skip
    if args.onnx is not None:
        _put_onnx_first(args, parser)
    if not args.scans and not args.channels:
        parser.error("nothing to segment: name scans, or the --channels of one")
    if args.checkpoint and (args.folds or args.ensemble):
        parser.error("--checkpoint is for a single model: not with --folds or --ensemble")
    args.surfaces = SURFACES if args.surface == [] else tuple(args.surface or ())
    _check_onnx(args, parser)
    args.devices = [name.strip() for name in args.device.split(",")] if args.device else [None]
    return args


def _put_onnx_first(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """The file named by --onnx is the model; what stands in its place is a scan, or the work folder it came from."""
    if args.onnx.suffix != ".onnx":
        parser.error(f"argument --onnx: expected a file that ends in .onnx, found {args.onnx}")
    place, args.model = args.model, args.onnx
    if not (place.suffix == ".py" or (place / "plan.json").is_file()):
        args.scans.insert(0, place)
    elif args.postprocessing == "auto":
        steps = (place if place.is_dir() else place.parent) / "postprocessing.json"
        args.postprocessing = str(steps) if steps.is_file() else "auto"


def _check_onnx(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Options that an exported model has no use for are refused; it runs on the CPU unless a device is named."""
    if not any(model.suffix == ".onnx" for model in (args.model, *args.ensemble)):
        return
    args.device = args.device or "cpu"
    if args.model.suffix != ".onnx":
        return
    for option, value, cure in (
        ("--checkpoint", args.checkpoint, "it has its weights inside"),
        ("--folds", args.folds, "export them: tools/export_onnx.py WORK_DIR --folds ..."),
        ("--amp", args.amp, "choose the precision at export: tools/export_onnx.py --fp16"),
        (
            "--box, --points, --prompts",
            args.box or args.points or args.prompts,
            "use python -m mamba_vision.deploy prompt",
        ),
        ("--buffer gpu", args.buffer == "gpu", "ONNX Runtime gives its results in main memory"),
    ):
        if value:
            parser.error(f"argument {option}: not with an exported model, {cure}")


def _checked(name: str, convert, accept):
    """A conversion for argparse, whose complaints call the value by `name`."""

    def parse(text: str):
        value = convert(text)
        if not accept(value):
            raise ValueError
        return value

    parse.__name__ = name
    return parse


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


_overlap = _checked("overlap (expected 0 to below 1)", float, lambda value: 0 <= value < 1)
_positive = _checked("number (expected 1 or more)", int, lambda value: value >= 1)
_box = _checked("box (expected X0,Y0,X1,Y1 with X0 < X1 and Y0 < Y1)", _numbers,
                lambda box: len(box) == 4 and box[0] < box[2] and box[1] < box[3])  # fmt: skip
_point = _checked("point (expected X,Y,LABEL with label 1 or 0)", _numbers,
                  lambda point: len(point) == 3 and point[2] in (0, 1))  # fmt: skip
_size = _checked("size (expected one such as 8G or 512M)", parse_size, lambda value: True)


def refuse_formats(scans, formats) -> None:
    """Raises ValueError where DICOM objects are asked for of scans that are none."""
    for kind in ("dicom-seg", "rtstruct"):
        for scan in scans if kind in formats else ():
            if scan.images[0].name.lower().endswith((".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", *PICTURES)):
                raise ValueError(
                    f"{scan.images[0]}: no DICOM series, which --format {kind} has to refer to. Choose another"
                )
    for scan in scans if "picture" in formats else ():
        if not scan.images[0].name.lower().endswith(PICTURES):
            raise ValueError(f"{scan.images[0]}: no picture, as --format picture has to be. Choose another")


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    # After the arguments, so that --help and a misspelt option answer at once.
    from rich.console import Console

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # busy waiting makes shared cores ten times slower
    from mamba_vision.utils.quiet import quiet_imports

    with quiet_imports():
        from mamba_vision.apis.prompt_kind import names_promptable
    prompted = args.box or args.points or args.prompts
    if prompted or (args.model.suffix != ".onnx" and names_promptable(args.model)):
        if args.for_scans:
            print(f"error: {', '.join(args.for_scans)}: for scans, not for pictures and prompts", file=sys.stderr)
            return 2
        with quiet_imports():
            from mamba_vision.apis.prompt_command import run_prompts
        return run_prompts(args)

    with quiet_imports():
        from mamba_vision.apis.segmentation_files import SegmentOptions
        from mamba_vision.apis.segmentation_progress import ProgressReporter
        from mamba_vision.apis.segmentation_run import segment_scans
        from mamba_vision.apis.segmentation_workers import segment_on_devices
        from mamba_vision.apis.volume_ensemble import EnsembleSource
        from mamba_vision.apis.volume_inference import choose_labels, choose_steps
        from mamba_vision.apis.volume_model import choose_device
        from mamba_vision.volumes.scan_collection import collect_scans

    console = Console(highlight=False, soft_wrap=True)
    try:
        scans = collect_scans(
            args.scans, channels=args.channels, series=args.series, recursive=args.recursive, out=args.out
        )
        pictures = all(scan.images[0].name.lower().endswith(PICTURES) for scan in scans)
        args.formats = args.formats or ["picture" if pictures else "nii.gz"]
        options = SegmentOptions(
            tta=args.tta, overlap=args.overlap, max_memory=args.max_memory, amp=args.amp, labels=args.labels,
            probabilities=args.probabilities, batch_size=args.batch_size, buffer=args.buffer,
            postprocessing=args.postprocessing, keep_largest=args.keep_largest, formats=tuple(args.formats),
            surfaces=args.surfaces, uncertainty=args.uncertainty, statistics=args.statistics, preview=args.preview,
            resume=args.resume,
        )  # fmt: skip
        source = EnsembleSource((args.model, *args.ensemble), tuple(args.folds), args.checkpoint)
        devices = [choose_device(name) for name in args.devices]
        model = source.build(devices[0] if len(devices) == 1 else "cpu")
        choose_labels(model.labels, options.labels)
        choose_steps(model, options)
        refuse_formats(scans, options.formats)
        writable_folder(args.out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    names = ", ".join(name for name, value in model.labels.items() if value)
    where = ", ".join(map(str, devices))
    memory = f", at most {format_size(args.max_memory)} for logits" if args.max_memory else ""
    console.print(f"{len(scans)} scan{'s'[: len(scans) > 1]}; {names}; {model.describe()} on {where}{memory}")
    try:
        with ProgressReporter(len(scans), console) as reporter:
            if len(devices) == 1:
                failures = segment_scans(model, scans, args.out, options, reporter)
            else:
                del model
                failures = segment_on_devices(source, list(map(str, devices)), scans, args.out, options, reporter)
    except BlockingIOError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command with --resume goes on", file=sys.stderr)
        return 130
    kinds = sorted({PATTERNS[kind] for kind in (*options.formats, *options.surfaces)})
    written = kinds + [name for name in ("statistics.csv", "run.json") if (args.out / name).is_file()]
    good = len(scans) - sum(scan.case in failures for scan in scans)
    console.print(f"{good} of {len(scans)} segmented; in {args.out}: {', '.join(written)}")
    if failures:
        console.print("Failed:", style="bold red")
        for case, reason in failures.items():
            console.print(f"  {case}: {reason}", markup=False)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
