"""The command line of exported models: files in, files out."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mamba_vision.deploy.classify import Classifier
from mamba_vision.deploy.model_file import ModelFile, providers_of
from mamba_vision.deploy.prompt import PromptSegmentor
from mamba_vision.deploy.restore import Fuser, Restorer, Sharpener
from mamba_vision.deploy.scans import ScanSegmentor
from mamba_vision.deploy.segment import PictureSegmentor
from mamba_vision.utils.atomic import atomic_path, writable_folder, write_json
from mamba_vision.utils.image_files import find_images, picture_names
from mamba_vision.utils.memory import parse_size

MASKS = (".png", ".bmp", ".tif", ".tiff")  # keep numbers of classes as they are


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0, or 1 where an input failed."""
    args = _parser().parse_args(arguments)
    try:
        args.providers = providers_of(args.device)
        model = ModelFile(args.model, args.library, args.threads, args.providers)
        if args.device != "cpu" and model.session.get_providers()[0] == "CPUExecutionProvider":
            raise ValueError(f"device: ONNX Runtime could not start CUDA for {args.device!r}; its own log says why")
        return args.run(model, args)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2  # 1: of several inputs, some failed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mamba_vision.deploy",
        description="Use a model that tools/export_onnx.py wrote, without PyTorch.",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, run: Callable, text: str, inputs: str | int = "+") -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("model", type=Path, metavar="MODEL.onnx")
        command.add_argument("inputs", type=Path, nargs=inputs, metavar="INPUT")
        command.add_argument("-o", "--out", type=Path, help="a file, or a folder for several results")
        command.add_argument("--library", type=Path, help="our operators for ONNX Runtime: faster scans")
        command.add_argument("--device", default="cpu", help="cpu (default), or cuda, cuda:1 with onnxruntime-gpu")
        command.add_argument("--threads", type=int, help="of the runtime; default: one a core")
        command.set_defaults(run=run)
        return command

    add("classify", _classify, "The likeliest classes of pictures.").add_argument("--topk", type=int, default=5)
    command = add("segment", _segment, "Masks of pictures (PNG), or of CT and MR scans (NIfTI; pictures as they came).")
    command.add_argument("--channels", action="store_true", help="the inputs are the channels of one scan")
    command.add_argument("--tta", choices=("flips", "none"), default="flips", help="of scans")
    command.add_argument("--overlap", type=float, default=0.5, help="of windows in scans")
    command.add_argument("--max-memory", metavar="SIZE",
                         help="main memory for the logits of a scan, e.g. 8G; beyond it they go to a temporary file "
                              "(default: half of what is free)")  # fmt: skip
    command.add_argument("--no-postprocessing", action="store_false", dest="postprocessing",
                         help="without the clean-up that validation chose, of scans")  # fmt: skip
    command.add_argument("--lowres", type=Path, metavar="MODEL.onnx",
                         help="a cascade's first model; default: MODEL_lowres.onnx beside the second")  # fmt: skip
    add("restore", _restore, "Restore pictures.")
    add(
        "fuse",
        _fuse,
        "Make one picture of two, or sharpen one by its guide: pictures, GeoTIFFs; of sharpening also .npy.",
        2,
    )
    command = add("prompt", _prompt, "The mask of what boxes and points say.", 1)
    command.add_argument("--box", type=float, nargs=4, action="append", default=[], metavar=("X1", "Y1", "X2", "Y2"))
    command.add_argument("--point", type=float, nargs=2, action="append", default=[], metavar=("X", "Y"))
    command.add_argument("--not-point", type=float, nargs=2, action="append", default=[], metavar=("X", "Y"))
    return parser


def _classify(model: ModelFile, args: argparse.Namespace) -> int:
    classifier, found = Classifier(model), {}
    if args.out is not None and args.out.is_dir():
        raise ValueError(f"{args.out}: a folder, expected a file for the classes, such as {args.out / 'classes.json'}")

    def one(path: Path) -> str:
        result = classifier(path, args.topk)
        found[str(path)] = {"labels": result.labels, "scores": [round(score, 6) for score in result.scores]}
        return ", ".join(f"{label} {score:.3f}" for label, score in zip(result.labels, result.scores))

    failed = _each(find_images(args.inputs), one)
    if args.out is not None:
        write_json(args.out, found)
        print(f"wrote {args.out}")
    return failed


def _segment(model: ModelFile, args: argparse.Namespace) -> int:
    if model.task == "volume_segmentation":
        return _segment_scans(model, args)
    segmentor, inputs = PictureSegmentor(model), find_images(args.inputs)
    targets = _targets(args.out, inputs, MASKS)

    def one(path: Path) -> str:
        target = targets(path)
        mask = segmentor(path)
        _write_png(target, mask)
        numbers, counts = np.unique(mask, return_counts=True)
        names = model.info.get("labels") or [str(n) for n in range(int(numbers.max()) + 1)]
        shares = ", ".join(f"{names[n]} {count / mask.size:.1%}" for n, count in zip(numbers, counts))
        return f"{shares}; wrote {target}"

    return _each(inputs, one)


def _segment_scans(model: ModelFile, args: argparse.Namespace) -> int:
    from mamba_vision.volumes.pictures import picture_ending
    from mamba_vision.volumes.scan_collection import collect_scans
    from mamba_vision.volumes.scan_files import ScanFiles, read_scan
    from mamba_vision.volumes.volume import PICTURE_ENDINGS

    memory = None if args.max_memory is None else parse_size(args.max_memory)
    runtime = dict(library=args.library, threads=args.threads, providers=args.providers)
    segmentor = ScanSegmentor(model, args.lowres, **runtime)
    named = args.out is not None and args.out.name.lower().endswith((".nii", ".nii.gz", *PICTURE_ENDINGS))
    paths, channels = ((), args.inputs) if args.channels else (args.inputs, ())
    scans = collect_scans(paths, channels=channels, out=None if named else args.out)
    if named and len(scans) > 1:
        raise ValueError(f"{args.out}: found {len(scans)} scans, expected a folder for their masks")

    def one(scan: ScanFiles) -> str:
        ending = picture_ending(scan.images[0])
        target = args.out if named else (args.out or Path()) / f"{scan.case}{ending or '.nii.gz'}"
        for image in scan.images:
            _keep(image, target)
        writable_folder(target.parent)
        result = segmentor(
            read_scan(scan, segmentor.plan.fix_geometry), args.tta, args.overlap, max_memory=memory,
            scratch=target.parent, postprocessing=args.postprocessing,
        )  # fmt: skip
        result.save(target)
        ml = abs(np.linalg.det(result.volume.affine[:3, :3])) / 1000
        counts = {name: int((result.mask == value).sum()) for name, value in result.labels.items() if value}
        flat = ending and result.volume.is_flat
        sizes = [f"{name} " + (f"{n:,} pixels" if flat else f"{n * ml:.4g} ml") for name, n in counts.items()]
        return f"{', '.join(sizes)}; wrote {target}"

    return _each(scans, one)


def _restore(model: ModelFile, args: argparse.Namespace) -> int:
    from mamba_vision.utils.picture_files import SUFFIXES, as_format_has_it, read_picture, write_picture

    restorer, inputs = Restorer(model), find_images(args.inputs, suffixes=SUFFIXES)
    targets = _targets(args.out, inputs)

    def one(path: Path) -> str:
        before, target = read_picture(path), targets(path)
        alpha = None if before.alpha is None else np.clip(restorer.enlarge(before.alpha), 0, 1)
        after = before.with_color(restorer(before.color), alpha)
        write_picture(target, as_format_has_it(after, target.suffix.lower()))
        sizes = (f"{picture.color.shape[1]} x {picture.color.shape[0]}" for picture in (before, after))
        return f"{' to '.join(sizes)}; wrote {target}"

    return _each(inputs, one)


def _fuse(model: ModelFile, args: argparse.Namespace) -> int:
    from mamba_vision.deploy.picture_fusion import fuse_pictures, fuse_rasters
    from mamba_vision.utils.rasters import is_raster

    first, second = args.inputs
    for path in args.inputs:
        if path.is_dir() or path.name.lower().endswith((".nii", ".nii.gz")):
            raise ValueError(f"{path}: expected a picture, GeoTIFF or .npy; tools/fuse.py takes folders and scans")
    fuser = Sharpener(model) if model.task == "sharpening" else Fuser(model)
    ending = ".npy" if first.suffix.lower() == ".npy" else ".tif" if is_raster(first) or is_raster(second) else ".png"
    name = f"{first.stem}_{'sharpened' if model.task == 'sharpening' else 'fused'}{ending}"
    target = Path(name) if args.out is None else args.out / name if args.out.is_dir() else args.out
    for path in args.inputs:
        _keep(path, target)
    if ending == ".npy":
        _fuse_arrays(fuser, first, second, target)
    elif ending == ".tif":
        fuse_rasters(fuser, first, second, target)
    else:
        fuse_pictures(fuser, first, second, target)
    print(f"wrote {target}")
    return 0


def _fuse_arrays(fuser: Fuser | Sharpener, first: Path, second: Path, target: Path) -> None:
    fuser.model.expect("sharpening")
    if target.suffix.lower() != ".npy":
        raise ValueError(f"{target}: expected a name ending in .npy for the result of .npy files")
    arrays = []
    for path in (first, second):
        try:
            arrays.append(np.load(path, allow_pickle=False))
        except (ValueError, EOFError) as error:  # whose words advise to trust the file
            raise ValueError(f"{path}: damaged, or no array of numbers in NumPy's format, .npy") from error
    result = fuser(*arrays)
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        np.save(file, result)


def _prompt(model: ModelFile, args: argparse.Namespace) -> int:
    (path,) = args.inputs
    target = args.out or path.with_name(f"{path.stem}_mask.png")
    _check_ending(target, MASKS)
    signs = [1] * len(args.point) + [0] * len(args.not_point)
    mask = PromptSegmentor(model)(path, args.box, args.point + args.not_point, signs)
    _write_png(target, mask.astype(np.uint8) * 255)
    print(f"{mask.mean():.1%} of the pixels; wrote {target}")
    return 0


def _each(items: Sequence, one: Callable[..., str]) -> int:
    """Every item, one that fails does not stop the others; 1 if any did."""
    failed = 0
    for item in items:
        name = getattr(item, "case", item)
        try:
            print(f"{name}: {one(item)}", flush=True)
        except (ValueError, OSError) as error:
            failed = 1
            print(f"{name}: failed: {str(error).removeprefix(f'{name}: ')}", file=sys.stderr, flush=True)
    return failed


def _targets(out: Path | None, sources: Sequence[Path], endings: Sequence[str] = ()) -> Callable[[Path], Path]:
    """Where the result of each picture goes: the file named, or a file in the folder named, default the present one.

    Of several of one name, later ones are numbered.
    """
    if out is not None and len(sources) == 1 and out.suffix and not out.is_dir():
        _check_ending(out, endings)
        places = {str(sources[0]): out}
    else:
        places = {source: (out or Path()) / name for source, name in picture_names(sources, ".png").items()}
    return lambda source: _keep(source, places[str(source)])


def _check_ending(out: Path, endings: Sequence[str]) -> None:
    if endings and out.suffix.lower() not in endings:
        raise ValueError(f"{out}: expected a name that ends in {', '.join(endings)}")


def _keep(source: Path, target: Path) -> Path:
    """The target, refused where it is what it is made of."""
    if target.resolve() == source.resolve():
        raise ValueError(f"{source}: the result would overwrite it; name another place with --out")
    return target


def _write_png(path: Path, array: np.ndarray) -> None:
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(array).save(temporary)
