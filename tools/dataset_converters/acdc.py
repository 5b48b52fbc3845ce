"""ACDC: both ventricles and the myocardium in cine MRI (https://doi.org/10.1109/TMI.2018.2837502).

    python tools/dataset_converters/acdc.py ACDC/database data/Dataset027_ACDC

SOURCE holds training/ and perhaps testing/, with a folder a patient: patient001_4d.nii.gz, patient001_frame01.nii.gz,
patient001_frame01_gt.nii.gz and Info.cfg, which says what the frames of end diastole (ED) and end systole (ES) are.
These two become cases; where a frame's own file is missing, it is taken out of the 4-D file. Plan with --by-patient, so
that both are in one part of each fold.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from mamba_vision.utils.converter_tool import converter_parser, run_converter
from mamba_vision.utils.tool_exit import run_tool

LABELS = {"background": 0, "right ventricle": 1, "myocardium": 2, "left ventricle": 3}
LAYOUT = "ACDC's folders training and testing, with a folder patient001 a patient"


def convert(args: argparse.Namespace) -> str:
    from mamba_vision.volumes.conversion import RawDataset, require_folder, write_raw_dataset

    training = require_folder(args.source, "training", "database/training", what=LAYOUT)
    cases = [one for patient in sorted(training.glob("patient*")) for one in frames_of(patient, False)]
    testing = training.parent / "testing"
    cases += [one for patient in sorted(testing.glob("patient*")) for one in frames_of(patient, True)]
    dataset = RawDataset("ACDC", ["cine MRI"], LABELS, reference="https://www.creatis.insa-lyon.fr/Challenge/acdc/")
    write_raw_dataset(args.out, dataset, cases, copy=args.copy)
    return f"{sum(not one.test for one in cases)} frames for training, {sum(one.test for one in cases)} for testing"


def frames_of(patient: Path, test: bool) -> list[Any]:
    """The two labelled frames of a patient's folder."""
    from mamba_vision.volumes.conversion import Part, SourceCase

    cases = []
    for frame in labelled_frames(patient / "Info.cfg"):
        name = f"{patient.name}_frame{frame:02d}"
        alone, label = patient / f"{name}.nii.gz", patient / f"{name}_gt.nii.gz"
        whole = patient / f"{patient.name}_4d.nii.gz"
        image = Part(whole, frame - 1) if whole.is_file() and not alone.is_file() else alone
        cases.append(SourceCase(name, (image,), label if label.is_file() or not test else None, test))
    return cases


def labelled_frames(file: Path) -> list[int]:
    """The numbers, from 1, that Info.cfg gives ED and ES.

    Raises:
        VolumeError: no such file, or it does not say.
    """
    from mamba_vision.volumes.volume import VolumeError

    if not file.is_file():
        raise VolumeError(file, "no such file", "the patient's Info.cfg")
    entries = dict(line.split(":", 1) for line in file.read_text(encoding="utf-8").splitlines() if ":" in line)
    try:
        return sorted({int(entries[key]) for key in ("ED", "ES")})
    except (KeyError, ValueError) as e:
        raise VolumeError(file, f"no frame numbers ({e})", "lines such as ED: 1 and ES: 12") from e


def main(argv: list[str] | None = None) -> int:
    return run_converter(convert, converter_parser(__doc__, "folder with training/").parse_args(argv))


if __name__ == "__main__":
    sys.exit(run_tool(main))
