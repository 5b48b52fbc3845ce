"""Restore pictures: enlarge, denoise, remove JPEG artefacts; one, several or whole folders, of any size.

    python tools/restore.py photo.jpg --checkpoint mambairv2_classicSR_x2.pth --out restored
    python tools/restore.py photos/ --config work_dirs/mambair-tiny_x2_photographs --out restored
    python tools/restore.py scan.tif --checkpoint realDN.pth --tile 400

Which published network weights belong to is found out from the weights; weights of your own need --config. 8 and 16
bits, gray, color and transparency stay what they are. For each picture the result and NAME_before_after.png are
written. A picture that fails is reported and the others go on; the exit status is then 1.
"""

import argparse
import sys
from pathlib import Path


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, nargs="+", help="image files, or folders of them")
    parser.add_argument(
        "--checkpoint", type=Path, help="weights; default: the best in the folder --config, else the last"
    )
    parser.add_argument(
        "--config", type=Path, help="configuration of an ImageRestorer, or the folder it was trained in"
    )
    parser.add_argument("--arch", metavar="NETWORK:VARIANT",
                        help="the network, such as MambaIRv2:light_x4; default: as the weights tell")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("restored"), help="folder of the results (default: restored)")
    parser.add_argument("--recursive", action="store_true", help="also look into folders inside folders")
    parser.add_argument("--tile", type=int, default=None, metavar="PIXELS",
                        help="longest side of a tile before its margins, 0: never split (default: as the "
                             "configuration says, else 200)")  # fmt: skip
    parser.add_argument("--overlap", type=float, default=None, metavar="SHARE",
                        help="margin of a tile over its side, 0 to 0.5 (default 0.1)")  # fmt: skip
    parser.add_argument(
        "--format", choices=("png", "tif", "jpg", "webp"), default="png", help="of results (default png)"
    )
    parser.add_argument("--quality", type=int, default=95, help="of JPEG and WebP results, 1 to 100 (default 95)")
    parser.add_argument("--ema", action="store_true", help="take the moving average stored beside the weights")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ...; default: a GPU if there is one")
    parser.add_argument("--amp", action="store_true", help="compute in half precision")
    parser.add_argument("--preview", action=argparse.BooleanOptionalAction, default=True, help="before/after pictures")
    parser.add_argument("--skip-existing", action="store_true", help="leave pictures whose result is there")
    args = parser.parse_args(argv)
    if args.checkpoint is None and args.config is None:
        parser.error("no model: give --checkpoint (published weights) or --config")
    if args.tile is not None and args.tile != 0 and args.tile < 16:
        parser.error(f"--tile: expected 0 or at least 16 pixels, found {args.tile}")
    if args.overlap is not None and not 0 <= args.overlap <= 0.5:
        parser.error(f"--overlap: expected 0 to 0.5, found {args.overlap}")
    if not 1 <= args.quality <= 100:
        parser.error(f"--quality: expected 1 to 100, found {args.quality}")
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
        args.out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options = RestoreOptions(
        tiling=tiling_of(model, args.tile, args.overlap), amp=args.amp, suffix=f".{args.format}", quality=args.quality,
        preview=args.preview, skip_existing=args.skip_existing,
    )  # fmt: skip
    device = next(model.parameters()).device
    console.print(f"{len(pictures)} picture{'s'[: len(pictures) > 1]}; {model.variant}, x{model.scale}, on {device}")
    try:
        failures = restore_pictures(model, pictures, args.out, options, console)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command with --skip-existing goes on", file=sys.stderr)
        return 130
    console.print(f"{len(pictures) - len(failures)} of {len(pictures)} restored, in {args.out}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
