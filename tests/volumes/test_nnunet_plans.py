"""Our plans beside those that nnU-Net itself (nnunetv2 2.8.1) makes for the same data sets.

nnunet_plans.json holds its answers as facts: fingerprints that it was given (or, where a data set was written to disk
for it, what it measured) and the configurations that it planned. Axes there are ours: x, y, z for fingerprints, the
network's for plans.
"""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mamba_vision.volumes import Fingerprint, find_scans, make_plans, survey
from mamba_vision.volumes.fingerprint import CaseFingerprint, Intensities
from mamba_vision.volumes.label_scheme import read_label_scheme

ANSWERS = json.loads((Path(__file__).parent / "nnunet_plans.json").read_text())
SCHEMES = {"CTNormalization": "ct", "ZScoreNormalization": "zscore", "NoNormalization": "none"}
PLANS = [(name, gb) for name, answer in ANSWERS.items() for gb in answer["plans"]]
NUMBERS = ("mean", "median", "std", "min", "max", "percentile_00_5", "percentile_99_5")


def fingerprint(answer) -> Fingerprint:
    cases = [
        CaseFingerprint(str(number), tuple(shape), tuple(shape), tuple(spacing), answer["relative_size"], {1: 1.0})
        for number, (shape, spacing) in enumerate(zip(answer["shapes"], answer["spacings"]))
    ]
    return Fingerprint(cases, [Intensities(**dict.fromkeys(NUMBERS, 1.0))] * len(answer["channels"]))


@pytest.mark.parametrize(("name", "gb"), PLANS)
def test_every_choice_is_nnunets(name, gb):
    answer = ANSWERS[name]
    order = [1, 2, 3] if any(isinstance(value, list) for value in answer["labels"].values()) else None
    scheme = read_label_scheme(answer["labels"], "labels", order)
    theirs = answer["plans"][gb]["configurations"]
    plans = make_plans(
        fingerprint(answer), name, answer["channels"], scheme, model="nnunet", vram_gb=float(gb),
        configurations=list(theirs),
    )  # fmt: skip
    for configuration, their in theirs.items():
        mine = plans[configuration]
        if configuration == "3d_cascade_fullres":
            assert their == {"previous_stage": "3d_lowres"}
            full = plans["3d_fullres"]
            assert (mine.patch_size, mine.spacing, mine.batch_size) == (full.patch_size, full.spacing, full.batch_size)
            continue
        flat = configuration == "2d"
        assert list(mine.axes) == answer["plans"][gb]["axes"]
        assert mine.spacing[flat:] == pytest.approx(their["spacing"], rel=1e-9)
        assert list(mine.patch_size[flat:]) == their["patch_size"]
        assert mine.batch_size == their["batch_size"]
        assert mine.batch_dice == their["batch_dice"]
        assert mine.median_shape[flat:] == pytest.approx(their["median_shape"], abs=0.51)
        assert [SCHEMES[one] for one in their["normalization"]] == mine.normalization
        assert mine.use_mask == their["use_mask"]
        for key in ("features", "strides", "kernel_sizes"):
            assert mine.network[key] == their[key], (configuration, key)


@pytest.mark.parametrize("name", ANSWERS)
def test_the_same_configurations_are_called_for(name):
    """All of nnU-Net's, but 2d only where slices lie far apart: nnU-Net plans it always."""
    answer = ANSWERS[name]
    theirs = answer["plans"]["8"]["configurations"]
    mine = make_plans(fingerprint(answer), name, answer["channels"], {"background": 0, "a": 1}, model="nnunet")
    assert set(mine) - {"2d"} == set(theirs) - {"2d"}
    spacing = theirs.get("3d_fullres", {}).get("spacing")
    assert ("2d" in mine) == (spacing is None or max(spacing) > 3 * min(spacing))


def write(folder: Path, answer) -> None:
    """The data set that nnU-Net measured, written anew by the same recipe."""
    made = answer["made_by"]
    for number, (shape, spacing) in enumerate(made["cases"]):
        random, label = np.random.default_rng(number), np.zeros(shape, np.uint8)
        for part, value in ((0.25, 1), (0.12, 2)):
            label[
                tuple(slice(max(int(s // 2 - s * part), 0), max(int(s // 2 + s * part), s // 2 + 1)) for s in shape)
            ] = value
        inside = np.zeros(shape, bool)
        inside[tuple(slice(int(side * made["frame"]), side - int(side * made["frame"])) for side in shape)] = True
        for channel in range(len(made["channels"])):
            image = (random.normal(100 + 20 * channel, 15, shape) + 60 * label).astype(np.float32)
            image -= 150 * (made["channels"][0] == "CT")
            image[~inside] = 0
            save(folder / "imagesTr" / f"case{number}_{channel:04d}.nii.gz", image.round(2), spacing)
        save(folder / "labelsTr" / f"case{number}.nii.gz", label, spacing)


def save(path: Path, array: np.ndarray, spacing) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([*spacing, 1.0])), path)


@pytest.mark.parametrize("name", [name for name, answer in ANSWERS.items() if "made_by" in answer])
def test_the_fingerprint_is_nnunets(name, tmp_path):
    answer = ANSWERS[name]
    write(tmp_path, answer)
    found = survey(find_scans(tmp_path), workers=1).fingerprint
    assert [list(case.cropped_shape) for case in found.cases] == answer["shapes"]
    assert np.allclose([case.spacing for case in found.cases], answer["spacings"], rtol=1e-6)
    assert found.relative_size == pytest.approx(answer["relative_size"], rel=1e-9)
    for mine, their in zip(found.intensities, answer["intensities"]):
        # Foreground voxels are drawn at random, by nnU-Net and here, but not the same ones.
        for key in NUMBERS:
            assert getattr(mine, key) == pytest.approx(their[key], rel=0.02, abs=1.0), key
