"""KiTS 2019 and 2023: kidneys, tumours and cysts in CT (arXiv 1904.00445, 2307.01984; https://kits-challenge.org).

    python tools/dataset_converters/kits.py kits23/dataset data/Dataset220_KiTS2023 --year 23

SOURCE is the repository's folder dataset (2023) or data (2019), a folder a case: case_00000/imaging.nii.gz and
segmentation.nii.gz; a case without segmentation becomes a test case. The labels are the challenge's regions that
overlap (kidney with masses, masses, tumour); --exclusive names the values of the files instead.
"""

import argparse
import sys

from mamba_vision.utils.converter_tool import converter_parser, run_converter
from mamba_vision.utils.tool_exit import run_tool

REGIONS = {
    19: ({"background": 0, "kidney and tumour": [1, 2], "tumour": 2}, (1, 2)),
    23: ({"background": 0, "kidney and masses": [1, 2, 3], "masses": [2, 3], "tumour": 2}, (1, 3, 2)),
}
EXCLUSIVE = {
    19: {"background": 0, "kidney": 1, "tumour": 2},
    23: {"background": 0, "kidney": 1, "tumour": 2, "cyst": 3},
}


def convert(args: argparse.Namespace) -> str:
    from mamba_vision.volumes.conversion import RawDataset, SourceCase, require_folder, write_raw_dataset
    from mamba_vision.volumes.volume import VolumeError

    cases = []
    folder = require_folder(args.source, "dataset", "data", ".", what="a folder a case, case_00000")
    for case in sorted(folder.glob("case_*")):
        label = case / "segmentation.nii.gz"
        if case.is_dir():
            has_label = label.is_file()
            cases.append(SourceCase(case.name, (case / "imaging.nii.gz",), label if has_label else None, not has_label))
    if not cases:
        raise VolumeError(folder, "no case in it", "folders such as case_00000", "Is it the folder data or dataset?")
    labels, order = (EXCLUSIVE[args.year], ()) if args.exclusive else REGIONS[args.year]
    dataset = RawDataset(f"KiTS 20{args.year}", ["CT"], labels, order, "https://kits-challenge.org")
    write_raw_dataset(args.out, dataset, cases, copy=args.copy)
    training = sum(not one.test for one in cases)
    return f"{training} cases for training, {len(cases) - training} without labels"


def main(argv: list[str] | None = None) -> int:
    parser = converter_parser(__doc__, "folder of the cases")
    parser.add_argument("--year", type=int, choices=(19, 23), default=23, help="of the challenge (default 23)")
    parser.add_argument("--exclusive", action="store_true", help="labels that exclude one another, no regions")
    return run_converter(convert, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(run_tool(main))
