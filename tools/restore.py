"""Restore pictures: enlarge, denoise, remove JPEG artefacts; one, several or whole folders, of any size.

    python tools/restore.py photo.jpg --checkpoint mambairv2_classicSR_x2.pth --out restored
    python tools/restore.py photos/ --config work_dirs/mambair-tiny-x2_photographs --out restored
    python tools/restore.py scan.tif --checkpoint realDN.pth --tile 400

Which published network weights belong to is found out from the weights; weights of your own need --config. 8 and 16
bits, gray, color and transparency stay what they are. For each picture the result and NAME_before_after.png are
written. A picture that fails is reported and the others go on; the exit status is then 1.
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
    parser.add_argument("pictures", type=Path, nargs="+", help="image files, or folders of them")
    parser.add_argument("--out", type=Path, default=Path("restored"), help="folder of the results (default: restored)")
    parser.add_argument("--recursive", action="store_true", help="also look into folders inside folders")
    add_picture_options(parser, "ImageRestorer", "MambaIRv2:light_x4", "200")
    args = parser.parse_args(argv)
    check_picture_options(parser, args)
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    # After the arguments, so that --help and a misspelt option answer at once.
    from rich.console import Console

    from mamba_vision.utils.quiet import quiet_imports

    with quiet_imports():
        from mamba_vision.apis.restoration import init_restorer
        from mamba_vision.apis.restoration_run import RestoreOptions, collect_pictures, restore_pictures, tiling_of
    console = Console(highlight=False, soft_wrap=True)
    try:
        pictures = collect_pictures(args.pictures, args.recursive, args.out)
        model = init_restorer(args.config, args.checkpoint, args.arch, args.device, args.ema)
        make_folder(args.out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options = RestoreOptions(
        tiling=tiling_of(model, args.tile, args.overlap), amp=args.amp, suffix=f".{args.format}", quality=args.quality,
        preview=args.preview, skip_existing=args.skip_existing,
        resume=args.resume,
    )  # fmt: skip
    device = next(model.parameters()).device
    console.print(f"{count(len(pictures), 'picture')}; {model.variant}, x{model.scale}, on {device}",
                  markup=False)  # fmt: skip
    try:
        failures = restore_pictures(model, pictures, args.out, options, console)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command with --resume goes on", file=sys.stderr)
        return 130
    console.print(f"{len(pictures) - len(failures)} of {len(pictures)} restored, in {args.out}", markup=False)
    say_failures(failures)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
