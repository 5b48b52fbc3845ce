"""Bring polyp data sets as they are published into the layout that training reads (data/README.md).

    python tools/dataset_converters/polyps.py kvasir-seg Kvasir-SEG/ data/polyps --test kvasir_test.txt
    python tools/dataset_converters/polyps.py cvc-clinicdb CVC-ClinicDB/ data/polyps --test clinicdb_test.txt
    python tools/dataset_converters/polyps.py etis ETIS-LaribPolypDB/ data/polyps
    python tools/dataset_converters/polyps.py pranet Downloads/ data/polyps

kvasir-seg and cvc-clinicdb are split: --test names the images of the test part, one a line; without it as many as in
PraNet's split (100 and 62) are drawn, and the results compare with no paper's. All others are test sets as a whole.
Pictures and masks become PNG of equal names; masks become 0 and 255. What is there stays: a second run goes on.
"""

import argparse
import sys
from pathlib import Path

from mamba_vision.utils.tool_exit import run_tool

NAMES = ("kvasir-seg", "cvc-clinicdb", "cvc-300", "cvc-colondb", "etis", "bkai", "pranet")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES, help="which data set; pranet: the ready-made split of its authors")
    parser.add_argument("source", type=Path, help="folder of the unpacked download")
    parser.add_argument("out", type=Path, help="folder of all polyp data, such as data/polyps")
    parser.add_argument("--test", type=Path, metavar="FILE", help="names of the images to test on, one a line")
    parser.add_argument("--seed", type=int, default=0, help="of the drawing without --test (default 0)")
    args = parser.parse_args(argv)
    if args.test is not None and args.name not in ("kvasir-seg", "cvc-clinicdb"):
        parser.error(f"--test: {args.name} is a test set as a whole")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    from mamba_vision.utils.quiet import quiet_imports

    with quiet_imports():
        from mamba_vision.datasets.polyp_sources import convert
    try:
        written = convert(args.name, args.source, args.out, args.test, args.seed)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for folder, count in written.items():
        print(f"{folder}: {count} pictures with masks")
    if args.name in ("kvasir-seg", "cvc-clinicdb") and args.test is None:
        print("The test part was drawn: results compare with no paper's. --test takes PraNet's list.")
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(main))
