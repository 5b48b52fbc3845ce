"""Data for fusion: HDF5 files and folders in their layouts, made-up pairs, packing, errors."""

import pickle
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch

from mamba_vision.datasets import fusion_pairs, fusion_sharpening
from mamba_vision.datasets.fusion_pairs import FusionPairs, pair_by_name
from mamba_vision.datasets.fusion_sharpening import SharpeningDataset
from mamba_vision.registry import TRANSFORMS
from mamba_vision.utils.picture_files import Picture, luminance, write_picture


def build(**settings):
    return TRANSFORMS.build({**settings, "type": f"mamba_vision.{settings['type']}"})


def write_h5(path: Path, bands: int = 8, images: int = 3, peak: float = 2047, guide: int = 1, **changed) -> Path:
    """A file in PanCollection's layout, 16 x 8 pixels, guides 4 times larger; `changed`: arrays, None for none."""
    rng = np.random.default_rng(0)
    arrays = {
        "ms": rng.integers(0, peak + 1, (images, bands, 16, 8)).astype(np.float64),
        "lms": rng.normal(peak / 2, peak, (images, bands, 64, 32)),
        "pan": rng.integers(0, peak + 1, (images, guide, 64, 32)).astype(np.float64),
        "gt": rng.integers(0, peak + 1, (images, bands, 64, 32)).astype(np.float64),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, array in {**arrays, **changed}.items():
            if array is not None:
                file[key] = array
    return path


def test_pancollection(tmp_path: Path) -> None:
    write_h5(tmp_path / "training" / "train_wv3.h5")
    write_h5(tmp_path / "test" / "test_wv3_OrigScale_multiExm1.h5", gt=None)
    pipeline = [dict(type="mamba_vision.PackSharpening")]
    train = SharpeningDataset("wv3", data_root=tmp_path, pipeline=pipeline)
    assert len(train) == 3 and len(SharpeningDataset("wv3", data_root=tmp_path, limit=2)) == 2
    packed = pickle.loads(pickle.dumps(train))[2]
    with h5py.File(tmp_path / "training" / "train_wv3.h5") as file:
        for key, got in (*packed["inputs"].items(), ("gt", packed["data_samples"].gt_image)):
            assert torch.equal(got, torch.from_numpy((file[key][2] / np.float32(2047)).astype(np.float32)))
    sample = packed["data_samples"]
    assert sample.lms_image.shape == (8, 64, 32) and sample.scale == 4 and sample.dataset == "wv3_train"
    assert sample.name == "train_wv3_2" and sample.ms_image.shape == (8, 16, 8)
    both = SharpeningDataset("wv3", ["train", "full"], tmp_path, pipeline=pipeline)
    assert len(both) == 6 and both[0]["data_samples"].dataset == "wv3_train"
    full = both[3]["data_samples"]
    assert "gt_image" not in full and full.pan_image.shape == (1, 64, 32)


def test_files_of_ones_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "cave.h5", "w") as file:  # other authors' names, no interpolated images
        file["GT"], file["LRHSI"], file["RGB"] = (
            rng.random((2, c, 8 * s, 8 * s)) for c, s in ((31, 4), (31, 1), (3, 4))
        )
    data = SharpeningDataset("cave", data_root=tmp_path, file="cave.h5")
    assert data.get_data_info(1)["pan"].shape == (32, 32, 3) and "lms" not in data.get_data_info(0)
    path = write_h5(tmp_path / "own.h5", bands=5, peak=100)
    assert SharpeningDataset(file=str(path), peak=100).get_data_info(0)["ms"].max() <= 1


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        (dict(gt=None), r"found arrays .*missing \['gt'\]"),
        (dict(bands=4), "found 4 bands and 1 channels of the guide, expected 8 and 1 of wv3"),
        (dict(guide=3), "found 8 bands and 3 channels"),
        (dict(pan=np.zeros((3, 1, 64, 33))), "a whole number of times larger"),
        (dict(pan=np.zeros((2, 1, 64, 32))), "as many guides as images"),
        (dict(gt=np.zeros((3, 8, 32, 32))), "found gt"),
        (dict(ms=np.zeros((3, 8, 16))), "found shapes"),
    ],
)
def test_wrong_files(tmp_path: Path, changed: dict, match: str) -> None:
    write_h5(tmp_path / "train_wv3.h5", **changed)
    with pytest.raises(ValueError, match=match):
        SharpeningDataset("wv3", data_root=tmp_path)


def test_sharpening_errors(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ValueError, match="layout: found 'wv9'"):
        SharpeningDataset("wv9")
    with pytest.raises(ValueError, match=r"split: found \['test'\]"):
        SharpeningDataset("wv3", "test")
    with pytest.raises(ValueError, match="expected a layout, or file and peak"):
        SharpeningDataset(file="a.h5")
    with pytest.raises(ValueError, match="file: one file is of one split"):
        SharpeningDataset("wv3", ["train", "valid"], file="a.h5")
    with pytest.raises(ValueError, match="peak: expected a positive number"):
        SharpeningDataset("wv3", peak=-1)
    with pytest.raises(FileNotFoundError, match=r"train_wv3.h5: expected this file.*found none"):
        SharpeningDataset("wv3", data_root=tmp_path)
    write_h5(tmp_path / "train_gf2.h5", bands=4, peak=2047)
    with pytest.raises(ValueError, match=r"values from .* expected 0 to 1000; set peak"):
        SharpeningDataset("gf2", data_root=tmp_path, peak=1000).get_data_info(0)
    (tmp_path / "train_qb.h5").write_bytes(b"no HDF5")
    with pytest.raises(ValueError, match="damaged, or no HDF5 file"):
        SharpeningDataset("qb", data_root=tmp_path)
    write_h5(tmp_path / "more" / "train_wv3.h5"), write_h5(tmp_path / "again" / "train_wv3.h5")
    with pytest.raises(FileNotFoundError, match="found 2 files"):
        SharpeningDataset("wv3", data_root=tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ImportError, match=r"pip install mamba_vision\[remote\]"):
        SharpeningDataset("gf2", data_root=tmp_path)


def write_pair(root: Path, name: str, size=(40, 50), colors: int = 3, other_size=None) -> None:
    rng = np.random.default_rng(len(name))
    for folder, channels, pixels in (("ir", 1, size), ("vi", colors, other_size or size)):
        image = np.rint(255 * rng.random((*pixels, channels))).astype(np.float32) / 255
        write_picture(root / folder / name, Picture(image))


def test_pairs(tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        write_pair(tmp_path / "MSRS" / "train", name)
    steps = [
        dict(type="LoadFusionPair"),
        dict(type="RandomFusionCrop", size=16),
        dict(type="RandomFlipTurn", keys=["first", "second"]),
        dict(type="PackFusionPair"),
    ]
    data = FusionPairs("msrs", data_root=tmp_path, pipeline=[{**s, "type": f"mamba_vision.{s['type']}"} for s in steps])
    assert [data.get_data_info(i)["name"] for i in range(len(data))] == ["a", "b"]
    packed = data[0]
    assert {key: tuple(image.shape) for key, image in packed["inputs"].items()} == dict.fromkeys(
        ("first", "second"), (1, 16, 16)
    )
    assert packed["data_samples"].dataset == "msrs" and packed["data_samples"].first_image.shape == (1, 16, 16)
    color = build(type="LoadFusionPair", channels=1)(data.get_data_info(0))
    assert color["second"].shape == (40, 50, 1) and color["second"].max() <= 1


def test_turns_keep_pairs_together() -> None:
    first = np.random.rand(6, 6, 1)
    for _ in range(8):
        got = build(type="RandomFlipTurn", keys=["first", "second"])({"first": first, "second": 2 * first})
        np.testing.assert_array_equal(2 * got["first"], got["second"])


def test_pair_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="split: tno has test, found 'train'"):
        FusionPairs("tno")
    with pytest.raises(ValueError, match="layout: found 'kaist'"):
        FusionPairs("kaist")
    with pytest.raises(ValueError, match="or the folders first and second"):
        FusionPairs(first="ir")
    with pytest.raises(FileNotFoundError, match="TNO/ir: no such folder"):
        FusionPairs("tno", "test", tmp_path)
    write_pair(tmp_path / "TNO", "a.png", other_size=(40, 49))
    with pytest.raises(ValueError, match=r"different sizes.*a.png 40 x 50 and 40 x 49"):
        FusionPairs("tno", "test", tmp_path)
    both = [{f"{key}_path": tmp_path / "TNO" / folder / "a.png" for key, folder in (("first", "ir"), ("second", "vi"))}]
    with pytest.raises(ValueError, match="found 40 x 50 and 40 x 49 pixels, expected images of one size"):
        build(type="LoadFusionPair")(both[0])
    with pytest.raises(ValueError, match=r"a.png: found one channel \(gray\), expected three"):
        build(type="LoadFusionPair", channels=3)(both[0])
    write_pair(tmp_path / "TNO", "b.png")
    (tmp_path / "TNO" / "ir" / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"no partner of the same name for .*vi/b.png"):
        FusionPairs("tno", "test", tmp_path)
    write_picture(tmp_path / "TNO" / "ir" / "a.jpg", Picture(np.zeros((4, 4, 1), np.float32)))
    with pytest.raises(ValueError, match="expected one file of a name"):
        pair_by_name(tmp_path / "TNO" / "ir", tmp_path / "TNO" / "vi")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no images in it"):
        pair_by_name(tmp_path / "empty", tmp_path / "empty")
    with pytest.raises(ValueError, match="expected at least 64 for the crop"):
        build(type="RandomFusionCrop", size=64)({"first": np.zeros((40, 50, 1))})
    with pytest.raises(ValueError, match="second has values from 0 to 2, expected 0 to 1"):
        build(type="PackFusionPair")(
            {"first": np.zeros((2, 2, 1)), "second": np.float32([0, 1, 2, 0]).reshape(2, 2, 1)}
        )
    with pytest.raises(ValueError, match="channels: expected 1 or 3"):
        build(type="LoadFusionPair", channels=2)


def test_two_views_hold_the_truth_between_them() -> None:
    photograph = np.random.rand(64, 80, 3).astype(np.float32)
    made, again, other = (build(type="MakeTwoViews", seed=3)({"gt": photograph, "name": name}) for name in "aab")
    truth = luminance(photograph)
    np.testing.assert_array_equal(made["first"], again["first"])
    assert (made["first"] != other["first"]).any(), "every image is divided in another way"
    np.testing.assert_allclose(made["gt"], truth)
    errors = np.stack([np.abs(made[key] - truth) for key in ("first", "second")])
    assert errors.min(0).mean() < 0.2 * errors.max(0).mean() and (errors.mean((1, 2, 3)) > 0.02).all()
    brighter = np.maximum(made["first"], made["second"])
    assert np.abs(brighter - truth).mean() > 0.3 * errors.max(0).mean(), "taking the brighter pixel must not do"


def test_guided_pairs_follow_walds_protocol() -> None:
    photograph = np.tile(np.float32([0.2, 0.5, 0.8]), (32, 48, 1))
    made = build(type="MakeGuidedPair")({"gt": photograph, "scale": 4})
    np.testing.assert_allclose(made["ms"], np.tile(np.float32([0.2, 0.5, 0.8]), (8, 12, 1)), atol=1e-5)
    np.testing.assert_allclose(made["pan"], luminance(photograph))
    assert build(type="MakeGuidedPair")({"gt": np.zeros((8, 8, 5)), "scale": 2})["pan"].shape == (8, 8, 1)


SHARPENED = {"wv3": (8, 1, 2047), "qb": (4, 1, 2047), "gf2": (4, 1, 1023), "cave": (31, 3, 1),
             "pavia": (102, 1, 1), "botswana": (145, 1, 1), "wdc": (191, 1, 1)}  # fmt: skip


@pytest.mark.parametrize("name", sorted(fusion_sharpening.LAYOUTS))
def test_every_sharpening_layout(tmp_path: Path, name: str) -> None:
    """Bands, channels of the guide and counts, by the data sets' descriptions."""
    bands, guides, peak = SHARPENED[name]
    for kind in ("train_{}", "valid_{}", "test_{}_multiExm1", "test_{}_OrigScale_multiExm1"):
        changed = {"ms": np.full((1, bands, 16, 8), peak)} | ({"gt": None} if "Orig" in kind else {})
        write_h5(tmp_path / f"{kind.format(name)}.h5", bands, 1, peak, guides, **changed)
    pipeline = [dict(type="mamba_vision.PackSharpening")]
    data = SharpeningDataset(name, ["train", "valid", "reduced", "full"], tmp_path, pipeline=pipeline)
    packed = [data[i] for i in range(len(data))]
    assert [one["data_samples"].dataset for one in packed] == [
        f"{name}_{split}" for split in ("train", "valid", "reduced", "full")
    ]
    assert all(one["inputs"]["ms"].shape == (bands, 16, 8) and (one["inputs"]["ms"] == 1).all() for one in packed)
    assert all(one["inputs"]["pan"].shape == (guides, 64, 32) for one in packed)


@pytest.mark.parametrize("name", sorted(fusion_pairs.LAYOUTS))
def test_every_layout_of_pairs(tmp_path: Path, name: str) -> None:
    for split, folders in fusion_pairs.LAYOUTS[name].items():
        for folder, channels in zip(folders, (1, 3)):
            (tmp_path / folder).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / folder / "a.png"), np.full((24, 32, channels), 99, np.uint8))
        pipeline = [dict(type=f"mamba_vision.{step}") for step in ("LoadFusionPair", "PackFusionPair")]
        (packed,) = FusionPairs(name, split, tmp_path, pipeline=pipeline)
        assert packed["inputs"]["second"].shape == (1, 24, 32) and packed["data_samples"].dataset == name


def test_where_the_pairs_lie() -> None:
    found = fusion_pairs.LAYOUTS
    assert found["msrs"]["test"] == ("MSRS/test/ir", "MSRS/test/vi")
    assert found["harvard_spect"]["train"] == ("Harvard/SPECT-MRI/train/MRI", "Harvard/SPECT-MRI/train/SPECT")
    assert found["mambadfuse_vif"]["test"] == ("Dataset/testsets/VIR/IR", "Dataset/testsets/VIR/VI_Y")
    assert found["mambadfuse_pet_mri"]["train"] == (
        "Dataset/trainsets/PET-MRI/MRI", "Dataset/trainsets/PET-MRI/PET_Y",
    )  # fmt: skip
    assert {"tno", "roadscene", "m3fd"} <= set(found)
