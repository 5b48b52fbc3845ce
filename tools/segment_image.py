"""Segment pictures: a file, several, or folders of them, of any size. (tools/segment.py is for CT and MRI.)

    python tools/segment_image.py configs/vmamba/vmamba-tiny-s1l8_upernet_8xb2-160k_ade20k-512x512.py \\
        upernet_vssm.pth street.jpg --out seen

Writes FOLDER/masks/*.png, whose pixels are numbers of classes, FOLDER/overlays/*.png, and FOLDER/shares.csv, the share
of each class. A damaged picture is reported and the others go on; the exit status is then 1.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="configuration file")
    parser.add_argument("checkpoint", help="weights, trained here or as published")
    parser.add_argument("images", type=Path, nargs="+", help="pictures, or folders of them")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where everything is written")
    parser.add_argument("--recursive", action="store_true", help="also look into folders inside folders")
    parser.add_argument("--no-overlay", action="store_true", help="write no pictures, masks only")
    parser.add_argument("--opacity", type=_share, default=0.5, help="of the colours of overlays, 0 to 1 (default 0.5)")
    parser.add_argument("--resume", action="store_true",
                        help="leave what is finished with the same weights and options")  # fmt: skip
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ...; default: a GPU if there is one")
    return parser.parse_args(argv)


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected more than 0 and at most 1, found {value}")
    return value


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    from mamba_vision.utils.quiet import quiet_imports

    try:
        from mamba_vision.utils.image_files import find_images

        images = find_images(args.images, args.recursive)
        with quiet_imports():
            from mamba_vision.apis.image_segmentation import ImageSegmentationInferencer
            from mamba_vision.apis.image_segmentation_run import PictureOptions, segment_images
        inferencer = ImageSegmentationInferencer(args.config, args.checkpoint, args.device)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options = PictureOptions(not args.no_overlay, args.opacity, args.resume)
    try:
        failed = segment_images(inferencer, images, args.out, options, partial(print, flush=True))
    except BlockingIOError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command with --resume goes on", file=sys.stderr)
        return 130
    folders = "masks" if args.no_overlay else "masks, overlays"
    print(f"{len(images) - len(failed)} of {len(images)} segmented; in {args.out}: {folders}, shares.csv")
    for error in failed:
        print(f"failed: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
