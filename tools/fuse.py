"""Fuse two images of one scene: infrared and visible, MRI and CT, PET or SPECT; or sharpen an image by its guide.

    python tools/fuse.py infrared.png visible.png -o fused.png --checkpoint 10000_E.pth
    python tools/fuse.py msrs/ir msrs/vi -o fused/ --checkpoint 10000_E.pth
    python tools/fuse.py mri.nii.gz ct.nii.gz -o fused.nii.gz --config work_dirs/mambadfuse-ct-mri_2xb6-10k_harvard
    python tools/fuse.py multispectral.tif panchromatic.tif -o sharp.tif --checkpoint 420.pth

Folders are paired by name. Which published network weights belong to is found out from the weights; weights of your own
need --config. Color is kept and luminance fused; GeoTIFFs keep their georeference, bands and number format, NIfTI files
their affine. Beside each result NAME_before_after.png is written. A pair that fails is reported and the others go on;
the exit status is then 1.
"""

import argparse
import sys
from pathlib import Path

from mamba_vision.utils.atomic import make_folder
from mamba_vision.utils.picture_tool import add_picture_options, check_picture_options, say_failures
from mamba_vision.utils.tool_exit import run_tool
from mamba_vision.utils.wording import count


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, help="infrared image or MRI; or the image to sharpen; or a folder of them")
    parser.add_argument("second", type=Path, help="visible image, CT, PET or SPECT; or the guide; or a folder of them")
    parser.add_argument("-o", "--out", type=Path, default=Path("fused"),
                        help="the result's file, or a folder (default: fused)")  # fmt: skip
    parser.add_argument("--peak", type=float, metavar="COUNTS",
                        help="of GeoTIFFs: what stands for full brightness (default: as in training)")  # fmt: skip
    parser.add_argument("--plane", choices=("axial", "coronal", "sagittal"), default="axial",
                        help="of volumes: which slices are fused (default axial)")  # fmt: skip
    for which, example in (("first", "MRI"), ("second", "CT")):
        parser.add_argument(f"--{which}-window", type=float, nargs=2, metavar=("LOW", "HIGH"),
                            help=f"of volumes: values of the {which} ({example}) that become black and white (default: "
                                 "0.5th and 99.5th percentile)")  # fmt: skip
    add_picture_options(parser, "ImageFuser or ImageSharpener", "FusionMamba:gf2", "200, or 64 of the image to sharpen")
    args = parser.parse_args(argv)
    check_picture_options(parser, args)
    if args.peak is not None and args.peak <= 0:
        parser.error(f"--peak: expected a positive number of counts, found {args.peak:g}")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    # After the arguments, so that --help and a misspelt option answer at once.
    from rich.console import Console

    from mamba_vision.utils.quiet import quiet_imports

    with quiet_imports():
        from mamba_vision.apis.fusion import init_fuser, tiling_for
        from mamba_vision.apis.fusion_run import FuseOptions, collect_pairs, fuse_pairs
        from mamba_vision.apis.restoration_run import tiling_of
    console = Console(highlight=False, soft_wrap=True)
    try:
        pairs = collect_pairs(args.first, args.second, args.out, f".{args.format}")
        model = init_fuser(args.config, args.checkpoint, args.arch, args.device, args.ema)
        make_folder(args.out.parent)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options = FuseOptions(
        tiling=tiling_of(model, args.tile, args.overlap, tiling_for(model)), amp=args.amp,
        suffix=f".{args.format}", quality=args.quality, preview=args.preview, skip_existing=args.skip_existing,
        resume=args.resume,
        peak=args.peak, plane=args.plane,
        windows=tuple(None if w is None else tuple(w) for w in (args.first_window, args.second_window)),
    )  # fmt: skip
    folder = None if pairs[0].target == args.out else args.out
    device = next(model.parameters()).device
    console.print(f"{count(len(pairs), 'pair')}; {model.variant}, on {device}", markup=False)
    try:
        failures = fuse_pairs(model, pairs, options, console, folder)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command with --resume goes on", file=sys.stderr)
        return 130
    console.print(f"{len(pairs) - len(failures)} of {len(pairs)} fused", markup=False)
    say_failures(failures)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
