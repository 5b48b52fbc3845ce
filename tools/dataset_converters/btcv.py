"""BTCV, "Beyond the Cranial Vault": 13 abdominal organs in CT (https://doi.org/10.7303/syn3193805).

    python tools/dataset_converters/btcv.py Abdomen/RawData data/Dataset017_BTCV

SOURCE is the unpacked archive RawData: Training/img/img0001.nii.gz, Training/label/label0001.nii.gz and, if there,
Testing/img. A case gets the number of its image.
"""

import argparse
import re
import sys
from pathlib import Path

from mamba_vision.utils.converter_tool import converter_parser, run_converter
from mamba_vision.utils.tool_exit import run_tool

LABELS = (
    "background", "spleen", "right kidney", "left kidney", "gallbladder", "esophagus", "liver", "stomach", "aorta",
    "inferior vena cava", "portal vein and splenic vein", "pancreas", "right adrenal gland", "left adrenal gland",
)  # fmt: skip
LAYOUT = "BTCV's RawData with Training/img and Training/label"


def convert(args: argparse.Namespace) -> str:
    from mamba_vision.volumes.conversion import RawDataset, SourceCase, require_folder, write_raw_dataset

    training = require_folder(args.source, "Training", "RawData/Training", "Abdomen/RawData/Training", what=LAYOUT)
    images, labels = (require_folder(training, name, what=LAYOUT) for name in ("img", "label"))
    cases = [
        SourceCase(f"btcv_{number}", (file,), labels / file.name.replace("img", "label"))
        for number, file in numbered(images)
    ]
    testing = training.parent / "Testing" / "img"
    if testing.is_dir():
        cases += [SourceCase(f"btcv_{number}", (file,), None, True) for number, file in numbered(testing)]
    names = {name: value for value, name in enumerate(LABELS)}
    reference = "https://doi.org/10.7303/syn3193805"
    write_raw_dataset(args.out, RawDataset("BTCV", ["CT"], names, reference=reference), cases, copy=args.copy)
    return f"{sum(not one.test for one in cases)} cases for training, {sum(one.test for one in cases)} for testing"


def numbered(folder: Path) -> list[tuple[str, Path]]:
    """(number, file) of each img0001.nii.gz."""
    found = ((re.fullmatch(r"img(\d+)\.nii(\.gz)?", file.name), file) for file in sorted(folder.iterdir()))
    return [(match[1], file) for match, file in found if match]


def main(argv: list[str] | None = None) -> int:
    return run_converter(convert, converter_parser(__doc__, "folder RawData").parse_args(argv))


if __name__ == "__main__":
    sys.exit(run_tool(main))
