"""BraTS 2023 (and later years of its form): brain tumours in four MRI contrasts (arXiv 2305.17033 and companions).

    python tools/dataset_converters/brats2023.py BraTS2023-GLI-Challenge-TrainingData data/Dataset137_BraTS2023

SOURCE holds a folder a case, BraTS-GLI-00000-000/BraTS-GLI-00000-000-{t1n,t1c,t2w,t2f,seg}.nii.gz; a case without seg
becomes a test case. The labels are the challenge's regions that overlap (whole tumour, tumour core, enhancing tumour),
of which the network learns each; --exclusive names the three values of the files instead. For configs/segmamba, whose
channels have their own order, --exclusive --contrasts t2w t2f t1n t1c. Visits of one patient: plan with --by-patient.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from mamba_vision.utils.converter_tool import converter_parser, run_converter
from mamba_vision.utils.tool_exit import run_tool

CONTRASTS = {"t1n": "T1", "t1c": "T1 contrast-enhanced", "t2w": "T2", "t2f": "FLAIR"}
REGIONS = {"background": 0, "whole tumour": [1, 2, 3], "tumour core": [1, 3], "enhancing tumour": 3}
REGION_ORDER = (2, 1, 3)  # oedema where only the whole tumour is found, necrosis where the core is too
EXCLUSIVE = {"background": 0, "necrotic core": 1, "oedema": 2, "enhancing tumour": 3}


def convert(args: argparse.Namespace) -> str:
    from mamba_vision.volumes.conversion import RawDataset, require_folder, write_raw_dataset
    from mamba_vision.volumes.volume import VolumeError

    require_folder(args.source, ".", what="a folder a case, such as BraTS-GLI-00000-000")
    if sorted(args.contrasts) != sorted(CONTRASTS):
        raise ValueError(f"--contrasts: expected {', '.join(CONTRASTS)} in some order, got {' '.join(args.contrasts)}")
    cases = find_cases(args.source, args.contrasts)
    if not cases:
        raise VolumeError(args.source, "no case in it", "folders such as BraTS-GLI-00000-000", "Is it unpacked?")
    labels, order = (EXCLUSIVE, ()) if args.exclusive else (REGIONS, REGION_ORDER)
    dataset = RawDataset(
        "BraTS 2023", [CONTRASTS[name] for name in args.contrasts], labels, order, "https://www.synapse.org/brats2023"
    )
    write_raw_dataset(args.out, dataset, cases, copy=args.copy)
    training = sum(not one.test for one in cases)
    kind = "labels" if args.exclusive else "regions"
    return f"{training} cases for training, {len(cases) - training} without labels, 4 channels, 3 {kind}"


def find_cases(source: Path, contrasts: list[str]) -> list[Any]:
    """Every case folder in `source` or in folders of it."""
    from mamba_vision.volumes.conversion import SourceCase

    cases = []
    for folder in sorted([*source.glob("BraTS-*"), *source.glob("*/BraTS-*")]):
        if folder.is_dir() and re.fullmatch(r"BraTS-[A-Za-z]+-\d+-\d+", folder.name):
            images = tuple(folder / f"{folder.name}-{name}.nii.gz" for name in contrasts)
            label = folder / f"{folder.name}-seg.nii.gz"
            cases.append(SourceCase(folder.name, images, label if label.is_file() else None, not label.is_file()))
    return cases


def main(argv: list[str] | None = None) -> int:
    parser = converter_parser(__doc__, "folder of the cases")
    parser.add_argument(
        "--contrasts", nargs=4, choices=CONTRASTS, default=list(CONTRASTS), metavar="NAME",
        help=f"order of the channels (default {' '.join(CONTRASTS)})",
    )  # fmt: skip
    parser.add_argument("--exclusive", action="store_true", help="labels that exclude one another, no regions")
    return run_converter(convert, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(run_tool(main))
