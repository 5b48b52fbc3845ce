"""The Medical Segmentation Decathlon (arXiv 2106.05735, http://medicaldecathlon.com): one of its ten tasks.

    python tools/dataset_converters/msd.py Task09_Spleen data/Dataset009_Spleen

SOURCE is the unpacked task: dataset.json, imagesTr, labelsTr, imagesTs. Tasks of several channels (brain tumours,
prostate) hold them in one 4-D file, of which each channel becomes a file. tools/plan.py also reads a task as it is.
"""

import argparse
import json
import sys

from mamba_vision.utils.converter_tool import converter_parser, run_converter
from mamba_vision.utils.tool_exit import run_tool

# Task -> channels, labels above background.
TASKS = {
    "Task01_BrainTumour": (4, 3), "Task02_Heart": (1, 1), "Task03_Liver": (1, 2), "Task04_Hippocampus": (1, 2),
    "Task05_Prostate": (2, 2), "Task06_Lung": (1, 1), "Task07_Pancreas": (1, 2), "Task08_HepaticVessel": (1, 2),
    "Task09_Spleen": (1, 1), "Task10_Colon": (1, 1),
}  # fmt: skip


def convert(args: argparse.Namespace) -> str:
    from mamba_vision.volumes.conversion import Part, RawDataset, SourceCase, require_folder, write_raw_dataset
    from mamba_vision.volumes.scan_tables import read_table
    from mamba_vision.volumes.scans import read_dataset_info
    from mamba_vision.volumes.volume import VolumeError

    require_folder(args.source, "imagesTr", what="a task of the Decathlon with dataset.json, imagesTr and labelsTr")
    file = args.source / "dataset.json"
    if not file.is_file():
        raise VolumeError(file, "no such file", "the task's description")
    info, listed = read_dataset_info(args.source), read_table(file)
    task = args.source.resolve().name
    expected = TASKS.get(task, (len(info.channels), len(info.labels) - 1))
    if (len(info.channels), len(info.labels) - 1) != expected:
        found = f"{len(info.channels)} channels and {len(info.labels) - 1} labels"
        raise VolumeError(file, found, f"{expected[0]} and {expected[1]}, as {task} has")
    several = len(info.channels) > 1
    cases = [
        SourceCase(
            one.case,
            tuple(Part(one.images[0], index) for index in range(len(info.channels))) if several else one.images,
            one.label,
            one.fold == "test",
        )
        for one in listed
    ]
    content = json.loads(file.read_text(encoding="utf-8"))
    reference = str(content.get("reference") or "http://medicaldecathlon.com")
    dataset = RawDataset(info.name, info.channels, info.labels, reference=reference)
    write_raw_dataset(args.out, dataset, cases, copy=args.copy)
    training = sum(not one.test for one in cases)
    return f"{training} cases for training, {len(cases) - training} for testing, {len(info.channels)} channels"


def main(argv: list[str] | None = None) -> int:
    return run_converter(convert, converter_parser(__doc__, "folder of the task").parse_args(argv))


if __name__ == "__main__":
    sys.exit(run_tool(main))
