"""How nnunet_plans.json was made: nnU-Net's own fingerprints and plans for invented data sets.

    pip install nnunetv2==2.8.1 && python tests/volumes/record_nnunet_plans.py OUT.json

No test runs this: nnU-Net is not needed to compare with what it has answered. Data sets of MEASURED are written to disk
and read by nnU-Net; of those of DESCRIBED it is given the fingerprint, since their scans would fill a disk.
"""

import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

ROOT = Path(tempfile.mkdtemp())
for _name in ("raw", "preprocessed", "results"):
    os.environ[f"nnUNet_{_name}"] = str(ROOT / _name)

CT_NUMBERS = {
    "mean": 80.0, "median": 85.0, "std": 90.0, "min": -1000.0, "max": 3000.0, "percentile_00_5": -960.0,
    "percentile_99_5": 330.0,
}  # fmt: skip


def organs(count: int) -> dict[str, int]:
    return {"background": 0, **{f"organ{number}": number for number in range(1, count + 1)}}


def around(count: int, shape, spacing, spread: float, seed: int) -> list[tuple]:
    """Cases (shape, spacing) along x, y, z that differ by up to `spread`."""
    random, cases = np.random.default_rng(seed), []
    for _ in range(count):
        sides = random.uniform(1 - spread, 1 + spread, 3)
        plane, through = random.uniform(1 - spread, 1 + spread), random.uniform(1 - spread, 1 + spread)
        size = (round(spacing[0] * plane, 4), round(spacing[1] * plane, 4), round(spacing[2] * through, 4))
        cases.append((tuple(int(side * factor) for side, factor in zip(shape, sides)), size))
    return cases


# channels, cases, share of each side that is a frame of zeros
MEASURED = {
    "isotropic_masked": (["MR"], [((60 + 2 * i, 66, 58 + i), (1.0, 1.0, 1.0)) for i in range(4)], 0.08),
    "anisotropic": (["CT"], [((96, 90, 14 + i), (0.8, 0.8, 5.0 + 0.25 * i)) for i in range(4)], 0.0),
    "small": (["noNorm"], [(shape, (1.0, 1.0, 1.5)) for shape in ((22, 20, 18), (20, 24, 17), (21, 21, 21))], 0.0),
    "two_modalities": (
        ["T1", "CT"], [((48, 50, 40 + i), (0.9 + 0.05 * i, 0.9 + 0.05 * i, 1.2)) for i in range(5)], 0.03
    ),
}  # fmt: skip
# channels, cases, median share that the crop leaves, labels
DESCRIBED = {
    "abdomen_ct": (["CT"], around(30, (512, 512, 97), (0.79, 0.79, 2.5), 0.1, 1), 1.0, organs(13)),
    "large_field_of_view": (["CT"], around(20, (512, 512, 480), (0.9, 0.9, 1.0), 0.08, 2), 1.0, organs(4)),
    "whole_body": (["CT"], around(25, (400, 400, 326), (2.0, 2.0, 3.0), 0.05, 3), 1.0, organs(1)),
    "large_anisotropic": (["CT"], around(25, (640, 640, 200), (0.6, 0.6, 3.0), 0.1, 9), 1.0, organs(2)),
    "prostate": (["T2", "ADC"], around(32, (320, 320, 20), (0.62, 0.62, 3.6), 0.1, 4), 1.0, organs(2)),
    "heart_cine": (["cineMRI"], around(40, (216, 256, 9), (1.56, 1.56, 10.0), 0.2, 5), 1.0, organs(3)),
    "brats": (
        ["T1", "T1ce", "T2", "FLAIR"], around(40, (138, 171, 137), (1.0, 1.0, 1.0), 0.05, 6), 0.36,
        {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3},
    ),
    "hippocampus": (["MRI"], around(40, (35, 50, 36), (1.0, 1.0, 1.0), 0.1, 7), 1.0, organs(2)),
    "microscopy_stack": (["em"], around(3, (1024, 1024, 125), (0.004, 0.004, 0.04), 0.0, 8), 1.0, organs(1)),
    "sagittal_spine": (
        ["T2"], around(25, (17, 448, 448), (4.4, 0.6, 0.6), 0.1, 10), 1.0, {**organs(5), "ignore": 6}
    ),
    "single_slices": (["xray"], around(20, (600, 500, 1), (0.2, 0.2, 1.0), 0.0, 11), 1.0, organs(2)),
}  # fmt: skip
ALSO_24_GB = ("abdomen_ct", "prostate", "brats")


def main() -> None:
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
    from test_nnunet_plans import NUMBERS, write  # the recipe of the scans, which the test follows again

    answers = {}
    for number, (name, (channels, cases, frame)) in enumerate(MEASURED.items(), 1):
        made_by = {"channels": channels, "cases": cases, "frame": frame}
        raw, prepared = _folders(number, name, channels, organs(2), len(cases))
        write(raw, {"made_by": made_by})
        DatasetFingerprintExtractor(number, 1).run(overwrite_existing=True)
        found = json.loads((prepared / "dataset_fingerprint.json").read_text())
        numbers = found["foreground_intensity_properties_per_channel"].values()
        answers[name] = {
            "made_by": made_by, "channels": channels, "labels": organs(2),
            "shapes": [shape[::-1] for shape in found["shapes_after_crop"]],
            "spacings": [spacing[::-1] for spacing in found["spacings"]],
            "relative_size": found["median_relative_size_after_cropping"],
            "intensities": [{key: one[key] for key in NUMBERS} for one in numbers],
            "plans": {"8": _plans(number, prepared, 8)},
        }  # fmt: skip
    for number, (name, (channels, cases, share, labels)) in enumerate(DESCRIBED.items(), len(MEASURED) + 1):
        raw, prepared = _folders(number, name, channels, labels, len(cases))
        nothing = nib.Nifti1Image(np.zeros((2, 2, 2), np.float32), np.eye(4))
        for case in range(len(cases)):
            nib.save(nothing, raw / "labelsTr" / f"case{case}.nii.gz")
            for channel in range(len(channels)):
                nib.save(nothing, raw / "imagesTr" / f"case{case}_{channel:04d}.nii.gz")
        fingerprint = {
            "shapes_after_crop": [shape[::-1] for shape, _ in cases],
            "spacings": [spacing[::-1] for _, spacing in cases],
            "foreground_intensity_properties_per_channel": dict.fromkeys(map(str, range(len(channels))), CT_NUMBERS),
            "median_relative_size_after_cropping": share,
        }
        (prepared / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
        answers[name] = {
            "channels": channels, "labels": labels, "shapes": [shape for shape, _ in cases],
            "spacings": [spacing for _, spacing in cases], "relative_size": share,
            "plans": {str(gb): _plans(number, prepared, gb) for gb in ((8, 24) if name in ALSO_24_GB else (8,))},
        }  # fmt: skip
    Path(sys.argv[1]).write_text(_text(answers))


def _folders(number: int, name: str, channels: list[str], labels: dict, cases: int) -> tuple[Path, Path]:
    raw, prepared = (ROOT / kind / f"Dataset{number:03d}_{name}" for kind in ("raw", "preprocessed"))
    for folder in (raw / "imagesTr", raw / "labelsTr", prepared):
        folder.mkdir(parents=True)
    content = {
        "channel_names": {str(index): channel for index, channel in enumerate(channels)}, "labels": labels,
        "regions_class_order": [1, 2, 3], "numTraining": cases, "file_ending": ".nii.gz",
    }  # fmt: skip
    (raw / "dataset.json").write_text(json.dumps(content))
    return raw, prepared


def _plans(number: int, prepared: Path, gigabytes: int) -> dict[str, Any]:
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

    with contextlib.redirect_stdout(io.StringIO()):
        ExperimentPlanner(number, gpu_memory_target_in_gb=gigabytes).plan_experiment()
    file = prepared / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    file.unlink()  # else the next one keeps what it does not plan anew
    found = {}
    for name, one in plans["configurations"].items():
        if "patch_size" not in one:
            found[name] = {"previous_stage": one["previous_stage"]}
            continue
        network = one["architecture"]["arch_kwargs"]
        found[name] = {
            **{key: one[key] for key in ("spacing", "patch_size", "batch_size", "batch_dice")},
            "median_shape": one["median_image_size_in_voxels"], "normalization": one["normalization_schemes"],
            "use_mask": one["use_mask_for_norm"], "features": network["features_per_stage"],
            "strides": network["strides"], "kernel_sizes": network["kernel_sizes"],
        }  # fmt: skip
    return {"axes": [2 - axis for axis in plans["transpose_forward"]], "configurations": found}


def _text(answers: dict) -> str:
    """A line an entry of a data set."""
    sets = []
    for name, answer in answers.items():
        lines = [f"  {json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in answer.items()]
        sets.append(f"{json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n " + ",\n ".join(sets) + "\n}\n"


if __name__ == "__main__":
    main()
