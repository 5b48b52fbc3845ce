"""The command line of exported models: files in, files out."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mamba_vision.deploy.classify import Classifier
from mamba_vision.deploy.model_file import ModelFile
from mamba_vision.deploy.pictures import read_rgb
from mamba_vision.deploy.prompt import PromptSegmentor
from mamba_vision.deploy.restore import Fuser, Restorer, Sharpener
from mamba_vision.deploy.scans import ScanSegmentor
from mamba_vision.deploy.segment import PictureSegmentor
from mamba_vision.utils.atomic import atomic_path, write_json
from mamba_vision.utils.memory import parse_size

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0, or 1 where an input failed."""
    args = _parser().parse_args(arguments)
    try:
        model = ModelFile(args.model, args.library, args.threads)
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
        command.add_argument("--threads", type=int, help="of the runtime; default: one a core")
        command.set_defaults(run=run)
        return command

    add("classify", _classify, "The likeliest classes of pictures.").add_argument("--topk", type=int, default=5)
    command = add("segment", _segment, "Masks of pictures (PNG), or of CT and MR scans (NIfTI).")
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
    add("fuse", _fuse, "Make one picture of two; or sharpen an image (.npy) by its guide (.npy).", 2)
    command = add("prompt", _prompt, "The mask of what boxes and points say.", 1)
    command.add_argument("--box", type=float, nargs=4, action="append", default=[], metavar=("X1", "Y1", "X2", "Y2"))
    command.add_argument("--point", type=float, nargs=2, action="append", default=[], metavar=("X", "Y"))
    command.add_argument("--not-point", type=float, nargs=2, action="append", default=[], metavar=("X", "Y"))
    return parser


def _classify(model: ModelFile, args: argparse.Namespace) -> int:
    classifier, found = Classifier(model), {}

    def one(path: Path) -> str:
        result = classifier(path, args.topk)
        found[str(path)] = {"labels": result.labels, "scores": [round(score, 6) for score in result.scores]}
        return ", ".join(f"{label} {score:.3f}" for label, score in zip(result.labels, result.scores))

    failed = _each(_pictures(args.inputs), one)
    if args.out is not None:
        write_json(args.out, found)
        print(f"wrote {args.out}")
    return failed


def _segment(model: ModelFile, args: argparse.Namespace) -> int:
    if model.task == "volume_segmentation":
        return _segment_scans(model, args)
    segmentor, inputs = PictureSegmentor(model), _pictures(args.inputs)

    def one(path: Path) -> str:
        target = _target(args.out, path, inputs, ".png")
        mask = segmentor(path)
        _write_png(target, mask)
        numbers, counts = np.unique(mask, return_counts=True)
        names = model.info.get("labels") or [str(n) for n in range(int(numbers.max()) + 1)]
        shares = ", ".join(f"{names[n]} {count / mask.size:.1%}" for n, count in zip(numbers, counts))
        return f"{shares}; wrote {target}"

    return _each(inputs, one)


def _segment_scans(model: ModelFile, args: argparse.Namespace) -> int:
    from mamba_vision.volumes import find_scans
    from mamba_vision.volumes.scans import ScanFiles

    memory = None if args.max_memory is None else parse_size(args.max_memory)
    options = {"library": args.library, "threads": args.threads}
    segmentor = ScanSegmentor(model, args.lowres, **options)
    if args.channels:
        scans = [ScanFiles(args.inputs[0].name.split(".")[0].removesuffix("_0000"), tuple(args.inputs))]
    else:
        scans = [scan for path in args.inputs for scan in find_scans(path)]

    def one(scan: ScanFiles) -> str:
        target = _target(args.out, Path(scan.case), scans, ".nii.gz")
        target.parent.mkdir(parents=True, exist_ok=True)
        result = segmentor(
            list(scan.images), args.tta, args.overlap, max_memory=memory, scratch=target.parent,
            postprocessing=args.postprocessing,
        )  # fmt: skip
        result.save(target)
        ml = abs(np.linalg.det(result.volume.affine[:3, :3])) / 1000
        sizes = [f"{name} {(result.mask == value).sum() * ml:.4g} ml" for name, value in result.labels.items() if value]
        return f"{', '.join(sizes)}; wrote {target}"

    return _each(scans, one)


def _restore(model: ModelFile, args: argparse.Namespace) -> int:
    restorer, inputs = Restorer(model), _pictures(args.inputs)

    def one(path: Path) -> str:
        target = _target(args.out, path, inputs, ".png")
        before, alpha = _read_unit(path)
        after = restorer(before)
        _write_unit(target, after, alpha)
        return f"{before.shape[1]} x {before.shape[0]} to {after.shape[1]} x {after.shape[0]}; wrote {target}"

    return _each(inputs, one)


def _fuse(model: ModelFile, args: argparse.Namespace) -> int:
    first, second = args.inputs
    if model.task == "sharpening":
        target = args.out or first.with_name(f"{first.stem}_sharpened.npy")
        result = Sharpener(model)(*(np.load(path, allow_pickle=False) for path in (first, second)))
        with atomic_path(target) as temporary, temporary.open("wb") as file:
            np.save(file, result)
    else:
        target = args.out or first.with_name(f"{first.stem}_fused.png")
        _write_unit(target, Fuser(model)(_read_unit(first)[0], _read_unit(second)[0]), None)
    print(f"wrote {target}")
    return 0


def _prompt(model: ModelFile, args: argparse.Namespace) -> int:
    (path,) = args.inputs
    target = args.out or path.with_name(f"{path.stem}_mask.png")
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
            print(f"{name}: failed: {error}", file=sys.stderr, flush=True)
    return failed


def _pictures(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES)
            if not inside:
                raise FileNotFoundError(f"{path}: no picture in this folder, expected {', '.join(PICTURES)}")
            found += inside
        else:
            found.append(path)
    return found


def _target(out: Path | None, source: Path, sources: Sequence, suffix: str) -> Path:
    """Where a result goes: the file named, or a file in the folder named, by default beside nobody: the present one."""
    name = f"{source.name.split('.')[0] if suffix == '.nii.gz' else source.stem}{suffix}"
    if out is None:
        target = Path(name)
    elif len(sources) == 1 and out.name.lower().endswith((*PICTURES, ".nii", ".nii.gz")):
        target = out
    else:
        target = out / name
    if target.resolve() == source.resolve():
        raise ValueError(f"{source}: the result would overwrite it; name another place with --out")
    return target


def _read_unit(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """(H, W, 1 or 3) in [0, 1], gray where the file is, and its transparency (H, W) of 8 bits."""
    from PIL import Image

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such picture")
    try:
        with Image.open(path) as image:
            mode, bands = image.mode, image.getbands()
            deep = np.asarray(image) if mode.startswith("I;16") else None
            alpha = np.asarray(image.getchannel("A")) if "A" in bands else None
    except Exception as error:  # Pillow's decoders raise what they like
        raise ValueError(f"{path}: damaged, or no picture ({error})") from error
    if deep is not None:
        return (deep.astype(np.float32) / 65535)[..., None], None
    gray = mode in ("1", "L", "LA", "La")
    return read_rgb(path, 1 if gray else 3).astype(np.float32) / 255, alpha


def _write_unit(path: Path, picture: np.ndarray, alpha: np.ndarray | None) -> None:
    from PIL import Image

    levels = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    if alpha is not None:
        size = levels.shape[1::-1]
        clear = np.asarray(Image.fromarray(alpha).resize(size, Image.Resampling.BICUBIC))
        levels = np.concatenate([levels, clear[..., None]], axis=2)
    _write_png(path, levels[..., 0] if levels.shape[2] == 1 else levels)


def _write_png(path: Path, array: np.ndarray) -> None:
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(array).save(temporary)
