"""Small scans to read, and data sets made of them."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from hypothesis import strategies as st

from mamba_vision.volumes import Plan

SHAPE = (18, 20, 16)
LABELS = {"background": 0, "organ": 1, "lesion": 2}
# Every way to name three axes: one direction of each pair, in any order.
AXIS_CODES = st.permutations(["RL", "AP", "SI"]).flatmap(lambda pairs: st.tuples(*map(st.sampled_from, pairs)))
NUMBERS = {"mean": 110.0, "std": 20.0, "percentile_00_5": 80.0, "percentile_99_5": 150.0}


def voxels(shape=SHAPE, seed=0) -> np.ndarray:
    """Noise around a bright box, in a frame of zeros."""
    rng = np.random.default_rng(seed)
    image = np.zeros(shape, np.float32)
    image[2:-2, 1:-2, 2:-1] = rng.normal(100, 10, image[2:-2, 1:-2, 2:-1].shape)
    image[5:12, 6:13, 4:10] += 80
    return image


def labels(shape=SHAPE) -> np.ndarray:
    label = np.zeros(shape, np.uint8)
    label[5:12, 6:13, 4:10] = 1
    label[7:9, 8:11, 5:8] = 2
    return label


def affine(spacing=(1.0, 1.0, 2.0), origin=(-10.0, 5.0, 30.0)) -> np.ndarray:
    matrix = np.diag([*spacing, 1.0])
    matrix[:3, 3] = origin
    return matrix


def save(path: Path, array: np.ndarray, matrix: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine() if matrix is None else matrix)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def make_dataset(folder: Path, cases: int = 3, channels: int = 1, spacing=(1.0, 1.0, 2.0)) -> Path:
    """nnU-Net's raw layout with cases a, b, c, ..."""
    for number in range(cases):
        name = chr(ord("a") + number)
        for channel in range(channels):
            image = voxels(seed=10 * number + channel)
            save(folder / "imagesTr" / f"{name}_{channel:04d}.nii.gz", image, affine(spacing))
        save(folder / "labelsTr" / f"{name}.nii.gz", labels(), affine(spacing))
    names = {str(channel): f"MR{channel}" for channel in range(channels)}
    write_info(folder, channel_names=names, labels=LABELS, numTraining=cases)
    return folder


def write_info(folder: Path, **content) -> None:
    content = {"file_ending": ".nii.gz", **content}
    (folder / "dataset.json").write_text(json.dumps(content))


def make_plan(**changes) -> Plan:
    """A plan that normalizes nothing and keeps the spacing of affine()."""
    plan = Plan(
        dataset="test", channels=["MR"], labels=LABELS, axes=(2, 1, 0), spacing=(2.0, 1.0, 1.0),
        patch_size=(16, 16, 16), batch_size=2, normalization=["none"], use_mask=[False], intensities=[NUMBERS],
        network={}, median_shape=(16, 20, 18),
    )  # fmt: skip
    return replace(plan, **changes)
