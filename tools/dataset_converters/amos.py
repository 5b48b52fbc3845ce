"""AMOS 2022: 15 abdominal organs in CT and MRI (arXiv 2206.08023, https://zenodo.org/records/7262581).

    python tools/dataset_converters/amos.py amos22 data/Dataset219_AMOS_MRI --modality mri

SOURCE is the unpacked archive: imagesTr, labelsTr, imagesVa, labelsVa, imagesTs. Numbers up to 500 are CT, those above
MRI. The validation cases become test cases with labels, or join the training (--validation train). Test cases without
labels come along as they are.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from mamba_vision.utils.converter_tool import converter_parser, run_converter
from mamba_vision.utils.tool_exit import run_tool

LABELS = (
    "background", "spleen", "right kidney", "left kidney", "gallbladder", "esophagus", "liver", "stomach", "aorta",
    "postcava", "pancreas", "right adrenal gland", "left adrenal gland", "duodenum", "bladder", "prostate or uterus",
)  # fmt: skip
LAST_CT = 500


def convert(args: argparse.Namespace) -> str:
    from mamba_vision.volumes.conversion import RawDataset, require_folder, write_raw_dataset

    require_folder(args.source, "imagesTr", what="AMOS with imagesTr, labelsTr, imagesVa and labelsVa")
    cases = [
        *cases_of(args.source, "Tr", False, args.modality),
        *cases_of(args.source, "Va", args.validation == "test", args.modality),
        *cases_of(args.source, "Ts", True, args.modality),
    ]
    channel = {"ct": "CT", "mri": "MRI", "both": "CT or MRI"}[args.modality]
    names = {name: value for value, name in enumerate(LABELS)}
    dataset = RawDataset(f"AMOS22 {channel}", [channel], names, reference="https://zenodo.org/records/7262581")
    write_raw_dataset(args.out, dataset, cases, copy=args.copy)
    training, labelled = (sum(not one.test for one in cases), sum(one.test and one.label is not None for one in cases))
    unlabelled = len(cases) - training - labelled
    return f"{training} cases for training, {labelled} for testing, {unlabelled} more without labels; {channel}"


def cases_of(source: Path, part: str, test: bool, modality: str) -> list[Any]:
    """The cases of imagesTr, imagesVa or imagesTs; labels of the test part may be missing."""
    from mamba_vision.volumes.conversion import SourceCase

    cases = []
    folder = source / f"images{part}"
    for file in sorted(folder.glob("amos_*.nii.gz")) if folder.is_dir() else ():
        match = re.fullmatch(r"amos_(\d+)\.nii\.gz", file.name)
        if not match or modality not in ("both", "ct" if int(match[1]) <= LAST_CT else "mri"):
            continue
        label = source / f"labels{part}" / file.name
        cases.append(SourceCase(f"amos_{match[1]}", (file,), label if part != "Ts" or label.is_file() else None, test))
    return cases


def main(argv: list[str] | None = None) -> int:
    parser = converter_parser(__doc__, "folder amos22")
    parser.add_argument("--modality", choices=("ct", "mri", "both"), default="ct", help="which scans (default ct)")
    parser.add_argument(
        "--validation", choices=("test", "train"), default="test", help="what imagesVa become (default test)"
    )
    return run_converter(convert, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(run_tool(main))
