"""Segment pictures: a file, several, or folders of them, of any size. (tools/segment.py is for CT and MRI.)

    python tools/segment_image.py configs/vmamba/vmamba-tiny-s1l8_upernet_8xb2-160k_ade20k-512x512.py \\
        upernet_vssm.pth street.jpg --out seen

Writes FOLDER/masks/*.png, whose pixels are numbers of classes, FOLDER/overlays/*.png, and FOLDER/shares.csv, the share
of each class. A damaged picture is reported and the others go on; the exit status is then 1.
"""

import argparse
import csv
import sys
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
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ...; default: a GPU if there is one")
    return parser.parse_args(argv)


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected more than 0 and at most 1, found {value}")
    return value


def write_shares(path: Path, shares: dict[str, list]) -> None:
    """Write the rows of each picture, after those that an earlier run has written of others."""
    from mamba_vision.utils.atomic import atomic_path

    head, before = ["image", "class", "share"], []
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            first, *before = list(csv.reader(file)) or [head]
        before = [row for row in before if row and row[0] not in shares] if first == head else []
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *before, *(row for rows in shares.values() for row in rows)])


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    from mamba_vision.utils.quiet import quiet_imports

    try:
        from mamba_vision.apis.image_files import find_images, picture_names

        images = find_images(args.images, args.recursive)
        with quiet_imports():
            from mamba_vision.apis.image_segmentation import ImageSegmentationInferencer, write_png
        inferencer = ImageSegmentationInferencer(args.config, args.checkpoint, args.device)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    names, shares, failed = picture_names(images, ".png"), {}, []
    try:
        for result in inferencer.segment(images, not args.no_overlay, args.opacity):
            if result.error:
                failed.append(result.error)
                print(f"{result.image}: FAILED", flush=True)
                continue
            write_png(args.out / "masks" / names[result.image], result.mask)
            if result.overlay is not None:
                write_png(args.out / "overlays" / names[result.image], result.overlay)
            shares[result.image] = [[result.image, name, f"{share:.6f}"] for name, share in result.shares.items()]
            most = ", ".join(f"{name} {100 * share:.1f} %" for name, share in list(result.shares.items())[:4])
            print(f"{result.image}: {most}", flush=True)
    finally:  # also after Ctrl-C
        write_shares(args.out / "shares.csv", shares)
    folders = "masks" if args.no_overlay else "masks, overlays"
    print(f"{len(images) - len(failed)} of {len(images)} segmented; in {args.out}: {folders}, shares.csv")
    for error in failed:
        print(f"failed: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
