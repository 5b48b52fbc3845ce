"""Prepare images for the trainings of restoration and fusion. Sources stay as they are.

python tools/dataset_converters/pictures.py join DIV2K/DIV2K_train_HR Flickr2K/Flickr2K_HR -o data/DF2K/HR
python tools/dataset_converters/pictures.py bicubic data/DF2K/HR -o data/DF2K/LR_bicubic/X2 --scale 2
python tools/dataset_converters/pictures.py jpeg LIVE1_HQ -o LIVE1_LQ/40 --quality 40
python tools/dataset_converters/pictures.py crops noisy clean -o input_crops target_crops --size 512 --step 256
python tools/dataset_converters/pictures.py wald multispectral.tif panchromatic.tif -o mine.h5 --sensor WV3
"""

import argparse
import sys
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool

WHAT = {
    "join": "links to the images of several folders in one",
    "bicubic": "images made smaller by MATLAB's bicubic interpolation, as DIV2K names them",
    "jpeg": "luminance through JPEG, stored without loss",
    "crops": "overlapping squares of images, or of pairs in two folders alike",
    "wald": "training data for sharpening (HDF5) from two GeoTIFFs, by Wald's protocol",
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(dest="mode", required=True)
    for mode, what in WHAT.items():
        one = modes.add_parser(mode, help=what, description=what)
        several = {"join": "+", "crops": "+", "wald": 2}.get(mode, 1)
        one.add_argument("sources", type=Path, nargs=several, help="two rasters" if mode == "wald" else "folders")
        one.add_argument("-o", "--out", type=Path, nargs="+" if mode == "crops" else 1, required=True, help="results")
        if mode in ("bicubic", "wald"):
            one.add_argument("--scale", type=int, default=4, help="how many times smaller (default 4)")
        if mode == "jpeg":
            one.add_argument("--quality", type=int, required=True, help="1 to 100")
        if mode in ("crops", "wald"):
            one.add_argument("--size", type=int, default=64 if mode == "wald" else 512, help="side in pixels")
            one.add_argument("--step", type=int, help="from square to square (default: size; crops: half of it)")
        if mode == "wald":
            one.add_argument("--sensor", default="other", help="whose optics: WV3, WV2, QB, IKONOS, GF2 ... or other")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    # After the arguments, so that --help and a misspelt option answer at once.
    from rich.console import Console

    from mamba_vision.utils.quiet import quiet_imports

    with quiet_imports():
        from mamba_vision.apis import restoration_preparation as preparation
        from mamba_vision.apis.fusion_preparation import wald_patches
    console = Console(highlight=False, soft_wrap=True)

    def say(line: str) -> None:
        console.print(line, markup=False)

    try:
        if args.mode == "join":
            count = preparation.join(args.sources, args.out[0], say)
        elif args.mode == "bicubic":
            count = preparation.make_bicubic(args.sources[0], args.out[0], args.scale, say)
        elif args.mode == "jpeg":
            count = preparation.make_jpeg(args.sources[0], args.out[0], args.quality, say)
        elif args.mode == "crops":
            count = preparation.cut_crops(args.sources, args.out, args.size, args.step or max(args.size // 2, 1), say)
        else:
            count = wald_patches(*args.sources, args.out[0], args.sensor, args.scale, args.size, args.step or args.size)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    say(f"{count} images, in {' and '.join(map(str, args.out))}")
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
