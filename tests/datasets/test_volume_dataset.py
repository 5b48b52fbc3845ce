import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from miniature import CLASSES, make_work_dir
from mmengine.config import Config

from mamba_vision.datasets import Draw, PreparedCase, VolumeDataset
from mamba_vision.datasets.transforms import MONAI_TRANSFORMS
from mamba_vision.registry import DATASETS, TRANSFORMS


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return make_work_dir(tmp_path_factory.mktemp("dataset"), preset="default", prepare=True).parent


def dataset(work: Path, **options) -> VolumeDataset:
    settings = {"root": work / "preprocessed", "splits": work / "splits.json", "fold": 0, "split": "train"}
    return VolumeDataset(**{**settings, "classes": CLASSES, **options})


def test_validation_gives_whole_volumes_as_prepared(work):
    one = dataset(work, split="val")
    assert len(one) == 1
    item = one[0]
    sample = item["data_samples"]
    case = PreparedCase.open(work / "preprocessed", "case_2")
    assert sample.case == "case_2"
    assert sample.spacing == (1.0, 1.0, 1.0)
    assert np.array_equal(item["inputs"].numpy(), case.image)
    assert np.array_equal(sample.gt_label.numpy(), np.maximum(case.label, 0))
    assert one.metainfo["classes"] == CLASSES


def test_a_patch_depends_on_its_draw_alone(work):
    cfg = Config.fromfile(work / "config.py")
    one, two = (DATASETS.build(cfg.train_dataloader.dataset) for _ in range(2))
    two[Draw(3, 0, False)]  # another history
    for number in range(4):
        first, second = one[Draw(3, number, True)], two[Draw(3, number, True)]
        assert torch.equal(first["inputs"], second["inputs"])
        assert torch.equal(first["data_samples"].gt_label, second["data_samples"].gt_label)
        other = one[Draw(4, number, True)]
        assert not torch.equal(first["inputs"], other["inputs"])


def test_full_augmentation_gives_plain_tensors_of_the_patch_size_and_labels_of_the_classes(work):
    cfg = Config.fromfile(work / "config.py")
    one = DATASETS.build(cfg.train_dataloader.dataset)
    assert one.patch_size > one.final_size == (16, 16, 16)
    seen = set()
    for number in range(40):
        item = one[Draw(0, number, number % 2 == 1)]
        label = item["data_samples"].gt_label
        assert type(item["inputs"]) is torch.Tensor
        assert type(label) is torch.Tensor
        assert item["inputs"].shape == (1, 16, 16, 16)
        assert label.shape == (16, 16, 16)
        assert item["inputs"].dtype == torch.float32
        assert item["inputs"].isfinite().all()
        seen |= set(label.unique().tolist())
    assert seen == {0, 1, 2}


def test_forced_patches_hold_foreground_and_classes_come_equally_often(work):
    one = dataset(work, patch_size=(5, 5, 5))
    middles = []
    for number in range(60):
        item = one[Draw(0, number, True)]
        assert (item["data_samples"].gt_label > 0).any()
        middles.append(int(item["data_samples"].gt_label[2, 2, 2]))
    # The core is an eighth of the ball, yet drawn as often.
    assert 18 <= middles.count(2) <= 42


@given(st.integers(0, 10**6), st.booleans(), st.tuples(*[st.sampled_from([4, 16, 23, 40])] * 3))
@settings(max_examples=30, deadline=None)
def test_patches_of_any_size_leave_the_volume_only_by_what_it_lacks(work, number, forced, size):
    item = dataset(work, patch_size=size)[Draw(0, number, forced)]
    assert item["inputs"].shape == (1, *size)
    case = PreparedCase.open(work / "preprocessed", item["data_samples"].case)
    for first, side, whole in zip(item["data_samples"].corner, size, case.shape):
        lacking = max(side - whole, 0)
        assert -(lacking // 2) >= first >= -((lacking + 1) // 2) or (lacking == 0 and 0 <= first <= whole - side)


def test_room_for_the_augmentation_lets_border_voxels_into_the_middle(work):
    one = dataset(work, patch_size=(20, 20, 20), final_size=(8, 8, 8))
    corners = np.array([one[Draw(0, number, False)]["data_samples"].corner for number in range(80)])
    assert corners.min() == -6  # half of 20 - 8: the crop of 8 then begins at the first voxel


def test_beyond_the_volume_is_zero_and_background(work):
    case = PreparedCase.open(work / "preprocessed", "case_0")
    image, label = case.crop(np.array([-3, 0, 0]), (6, 4, 4))
    assert (image[:, :3] == 0).all()
    assert (label[:3] == -1).all()
    assert np.array_equal(image[:, 3:], case.image[:, :3, :4, :4])
    item = dataset(work, patch_size=(40, 40, 40))[Draw(0, 0, False)]
    assert item["data_samples"].gt_label.min() == 0


def test_every_problem_is_reported_at_once(work, tmp_path):
    import shutil

    root = tmp_path / "preprocessed"
    shutil.copytree(work / "preprocessed", root)
    (root / "case_0" / "label.npy").unlink()
    np.save(root / "case_1" / "label.npy", np.zeros((2, 2, 2), np.int16))
    with pytest.raises(ValueError, match="2 of 2 cases") as error:
        dataset(work, root=root)
    assert "case_0" in str(error.value)
    assert "missing label.npy" in str(error.value)
    assert "contradict" in str(error.value)
    (root / "case_2" / "image.npy").write_bytes(b"rubbish")
    with pytest.raises(ValueError, match="damaged"):
        dataset(work, root=root, split="val")


def test_labels_beyond_the_classes_are_reported_unless_ignored(work):
    with pytest.raises(ValueError, match=r"labels below 2, found \[2\]"):
        dataset(work, classes=CLASSES[:2])
    dataset(work, classes=CLASSES[:2], ignore_index=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fold": 5}, "folds 0 to 1"),
        ({"fold": "none"}, "'all'"),
        ({"split": "test"}, "'train' or 'val'"),
        ({"splits": "missing.json"}, "does not exist"),
        ({"patch_size": (8,)}, "axes"),
    ],
)
def test_bad_arguments(work, options, message):
    with pytest.raises(ValueError, match=message):
        dataset(work, **options)


def test_a_case_in_both_parts_is_refused(work, tmp_path):
    splits = tmp_path / "splits.json"
    splits.write_text(json.dumps([{"train": ["case_0", "case_1"], "val": ["case_1"]}]))
    with pytest.raises(ValueError, match="both for training and validation"):
        dataset(work, splits=splits)


def test_fold_all_is_every_case(work):
    assert len(dataset(work, fold="all")) == len(dataset(work, fold="all", split="val")) == 3


def test_monai_transforms_are_named_in_the_registry():
    assert all(TRANSFORMS.get(name) is not None for name in MONAI_TRANSFORMS)


def test_image_and_label_turn_together(work, monkeypatch):
    cfg = Config.fromfile(work / "config.py")
    steps = [
        {**step, "prob": 1.0} if step.type in ("RandRotated", "RandZoomd") else step for step in cfg.train_pipeline
    ]
    steps = [step for step in steps if step["type"] in ("RandRotated", "RandZoomd", "CenterSpatialCropd", "RandFlipd")]
    one = dataset(work, patch_size=(24, 24, 24), final_size=(16, 16, 16), pipeline=steps)
    # Let the image say which class a voxel is.
    monkeypatch.setattr(
        PreparedCase, "image", property(lambda case: np.maximum(case.label, 0)[None].astype(np.float32))
    )
    agreement, fractions = [], []
    for number in range(12):
        item = one[Draw(1, number, True)]
        agreement.append((item["inputs"][0].round() == item["data_samples"].gt_label).float().mean().item())
        assert set(item["data_samples"].gt_label.unique().tolist()) <= {0, 1, 2}
        fractions.append(float((item["inputs"] % 1 != 0).float().mean()))
    # Linear and nearest interpolation differ at class borders only.
    assert min(agreement) > 0.85
    assert min(fractions) > 0  # the image was interpolated, the label was not
