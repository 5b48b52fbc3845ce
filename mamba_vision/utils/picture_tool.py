"""What tools/restore.py and tools/fuse.py share: the options for the model, the tiles and the results."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path


def add_picture_options(parser: argparse.ArgumentParser, model: str, example: str, tile: str) -> None:
    """Add the options; `check_picture_options` looks at what was given.

    Args:
        model: what a configuration has to build.
        example: NETWORK:VARIANT.
        tile: how large tiles are where neither the user nor the configuration says.
    """
    add = parser.add_argument
    add("--checkpoint", type=Path, help="weights; default: the best in the folder --config, else the last")
    add("--config", type=Path, help=f"configuration of an {model}, or the folder it was trained in")
    add("--arch", metavar="NETWORK:VARIANT", help=f"the network, such as {example}; default: as the weights tell")
    add("--ema", action="store_true", help="take the moving average stored beside the weights")
    add("--tile", type=int, metavar="PIXELS",
        help="longest side of a tile before its margins, 0: never split (default: as the configuration says, else "
             f"{tile})")  # fmt: skip
    add("--overlap", type=float, metavar="SHARE", help="margin of a tile over its side, 0 to 0.5 (default 0.1)")
    add("--format", choices=("png", "tif", "jpg", "webp"), default="png", help="of pictures as results (default png)")
    add("--quality", type=int, default=95, help="of JPEG and WebP results, 1 to 100 (default 95)")
    add("--device", help="cpu, cuda, cuda:1 ...; default: a GPU if there is one")
    add("--amp", action="store_true", help="compute in half precision")
    add("--preview", action=argparse.BooleanOptionalAction, default=True, help="before/after pictures")
    add("--resume", action="store_true", help="leave what is finished with the same weights and options")
    add("--skip-existing", action="store_true", help="leave what has its result already, whatever it was made with")


def say_failures(failures: Mapping[Path, str]) -> None:
    """The files that failed, with the reasons, on stderr: among many files they are out of sight by the end."""
    for source, reason in failures.items():
        print(f"failed: {source}: {reason}", file=sys.stderr)


def check_picture_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a usage error where an option is out of range."""
    if args.checkpoint is None and args.config is None:
        parser.error("no model: give --checkpoint (published weights) or --config")
    if args.tile is not None and args.tile != 0 and args.tile < 16:
        parser.error(f"--tile: expected 0 or at least 16 pixels, found {args.tile}")
    if args.overlap is not None and not 0 <= args.overlap <= 0.5:
        parser.error(f"--overlap: expected 0 to 0.5, found {args.overlap}")
    if not 1 <= args.quality <= 100:
        parser.error(f"--quality: expected 1 to 100, found {args.quality}")
