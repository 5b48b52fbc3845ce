"""Export a trained segmentation model as a MONAI bundle, which `python -m monai.bundle run` segments scans with.

    python tools/export_bundle.py work_dirs/liver -o liver_bundle
    python -m monai.bundle run --config_file liver_bundle/configs/inference.json --bundle_root liver_bundle \\
        --dataset_dir SCANS --output_dir MASKS
"""

import argparse
import sys
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work_dir", type=Path, help="work folder of plan.py and train.py, or a configuration")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--folds", nargs="+", default=[], metavar="N", help="export the average of these folds")
    parser.add_argument("--checkpoint", type=Path, help="weights; default: the best in the work folder, else the last")
    parser.add_argument("--tta", choices=("flips", "none"), default="flips", help="as for tools/segment.py")
    parser.add_argument("--name", help="of the bundle; default: the data set's")
    parser.add_argument("--version", default="0.1.0", help="of the bundle (default 0.1.0)")
    parser.add_argument("--authors", default="not stated", help="for the metadata")
    parser.add_argument("--license", type=Path, dest="license_file", help="file to copy as LICENSE")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    from mamba_vision.utils.quiet import quiet_imports

    with quiet_imports():
        from mamba_vision.apis.bundle_export import export_bundle
    try:
        out = export_bundle(
            args.work_dir, args.out, folds=args.folds, checkpoint=args.checkpoint, tta=args.tta, name=args.name,
            version=args.version, authors=args.authors, license_file=args.license_file,
        )  # fmt: skip
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(f"  {file}" for file in sorted(out.rglob("*")) if file.is_file()))
    print(
        f"Next: python -m monai.bundle run --config_file {out}/configs/inference.json --bundle_root {out} "
        "--dataset_dir SCANS --output_dir MASKS"
    )
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
