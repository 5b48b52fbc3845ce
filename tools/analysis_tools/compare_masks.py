"""A picture of several models' masks on one scan, and of where each is wrong.

    python tools/analysis_tools/compare_masks.py scan.nii.gz truth.nii.gz --out masks.png \\
        --masks "U-Mamba=umamba/masks/case.nii.gz" "nnU-Net=nnunet/masks/case.nii.gz"

The axial slice is the one with most of the truth, or --slice.
"""

import argparse
import sys
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path, help="the scan")
    parser.add_argument("truth", type=Path, help="its labels")
    parser.add_argument("--masks", nargs="+", required=True, metavar="NAME=FILE", help="masks to compare")
    parser.add_argument("--slice", type=int, help="axial slice, from 0 at the feet")
    parser.add_argument("--out", type=Path, required=True, metavar="PNG", help="picture to write")
    args = parser.parse_args(argv)
    for mask in args.masks:
        if "=" not in mask:
            parser.error(f"--masks: found {mask!r}, expected NAME=FILE")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    import nibabel as nib
    import numpy as np

    from mamba_vision.visualization.mask_rows import mask_rows_figure
    from mamba_vision.volumes.reading import read_label, read_volume

    def canonical(volume) -> np.ndarray:
        return nib.as_closest_canonical(nib.Nifti1Image(volume.array[0], volume.affine)).get_fdata()

    try:
        scan = read_volume(args.scan)
        files = dict(entry.split("=", 1) for entry in [f"truth={args.truth}", *args.masks])
        labels = {name: canonical(read_label(file)).round().astype(int) for name, file in files.items()}
        truth = labels.pop("truth")
        turned = nib.as_closest_canonical(nib.Nifti1Image(scan.array[0], scan.affine))
        zooms = tuple(float(size) for size in turned.header.get_zooms()[:3])
        mask_rows_figure(turned.get_fdata(), truth, labels, args.out, zooms, args.slice)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
