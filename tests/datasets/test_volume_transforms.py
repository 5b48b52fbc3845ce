"""Our own transforms of patches, and slices and cascades as VolumeDataset makes them."""

import numpy as np
import pytest
import torch
from miniature import CLASSES, make_work_dir

from mamba_vision.datasets import Draw, PreparedCase, VolumeDataset
from mamba_vision.datasets.transforms import MaskOutsided, RandPerturbClassesd


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return make_work_dir(tmp_path_factory.mktemp("dataset"), prepare=True).parent


def dataset(work, **options) -> VolumeDataset:
    settings = {"root": work / "preprocessed", "splits": work / "splits.json", "fold": 0, "split": "train"}
    return VolumeDataset(**{**settings, "classes": CLASSES, **options})


def test_masked_channels_are_zero_outside():
    label = torch.zeros(1, 2, 2)
    label[0, 0, 0] = -1
    item = {"image": torch.ones(2, 2, 2), "label": label}
    both = MaskOutsided("image")(item)["image"]
    assert both[:, 0, 0].tolist() == [0, 0] and both.sum() == 6
    assert MaskOutsided("image", channels=[1])(item)["image"][:, 0, 0].tolist() == [1, 0]
    assert item["image"].sum() == 8  # the one given is left as it is


def test_classes_are_reshaped_but_stay_exclusive():
    labels = torch.zeros(1, 20, 20, 20)
    labels[0, 4:9, 4:9, 4:9], labels[0, 12:16, 12:16, 12:16] = 1, 2
    step = RandPerturbClassesd("previous", classes=3, prob=1, prob_remove=0)
    step.set_random_state(0)
    changed = [step({"previous": labels})["previous"] for _ in range(12)]
    assert all(one.shape == labels.shape and set(one.unique().tolist()) <= {0, 1, 2} for one in changed)
    sizes = np.array([[(one == number).sum() for number in (1, 2)] for one in changed])
    assert (sizes > [125, 64]).any() and (sizes < [125, 64]).any()
    never = RandPerturbClassesd("previous", classes=3, prob=0, prob_remove=0)
    assert torch.equal(never({"previous": labels})["previous"], labels)


def test_a_small_piece_goes_missing_and_a_large_one_stays():
    labels = torch.zeros(1, 10, 10, 10)
    labels[0, :4], labels[0, 8, 8, 8], labels[0, 6, 1, 1] = 1, 1, 1
    step = RandPerturbClassesd("previous", classes=2, prob=0, prob_remove=1)
    step.set_random_state(0)
    assert {int((step({"previous": labels})["previous"] == 1).sum()) for _ in range(5)} == {401}


def test_slices_are_cut_for_two_dimensions(work):
    slices = dataset(work, patch_size=(12, 16), pipeline=[dict(type="RandFlipd", keys=["image", "label"], prob=0.5)])
    item = slices[Draw(0, 3, True)]
    assert item["inputs"].shape == (1, 12, 16) and item["data_samples"].gt_label.shape == (12, 16)
    assert (item["data_samples"].gt_label > 0).any()
    planes = {dataset(work, patch_size=(8, 8))[Draw(0, n, False)]["data_samples"].corner[0] for n in range(30)}
    assert len(planes) > 10
    assert dataset(work, split="val")[0]["inputs"].ndim == 4


@pytest.fixture
def previous(work, tmp_path):
    for name in ("case_0", "case_1", "case_2"):
        case = PreparedCase.open(work / "preprocessed", name)
        np.save(tmp_path / f"{name}.npy", np.maximum(case.label, 0).astype(np.uint8))
    return tmp_path


def test_what_a_network_found_before_comes_one_hot(work, previous):
    flips = [dict(type="RandFlipd", keys=["image", "label", "previous"], prob=1.0, spatial_axis=1)]
    item = dataset(work, previous=previous, patch_size=(14, 14, 14), pipeline=flips)[Draw(0, 1, True)]
    label = item["data_samples"].gt_label
    assert item["inputs"].shape == (3, 14, 14, 14)
    for number in (1, 2):
        assert torch.equal(item["inputs"][number], (label == number).float())
    whole = dataset(work, previous=previous, split="val")[0]
    assert torch.equal(whole["inputs"][2], (whole["data_samples"].gt_label == 2).float())


def test_missing_or_other_findings_are_told(work, previous):
    np.save(previous / "case_0.npy", np.zeros((2, 2, 2), np.uint8))
    (previous / "case_1.npy").unlink()
    with pytest.raises(ValueError, match="2 of 2 cases") as error:
        dataset(work, previous=previous)
    assert "expected shape" in str(error.value) and "does not exist" in str(error.value)


def test_patches_are_centred_on_what_is_annotated(work, tmp_path, monkeypatch):
    import shutil

    root = tmp_path / "preprocessed"
    shutil.copytree(work / "preprocessed", root)
    for file in root.glob("*/foreground.npz"):
        with np.load(file) as stored:
            kept = dict(stored)
        np.savez(file, **kept, annotated=np.full((1, 3), 9), region_1=np.full((1, 3), 11))
    one = dataset(work, root=root, patch_size=(4, 4, 4))
    assert {one[Draw(0, n, False)]["data_samples"].corner for n in range(5)} == {(7, 7, 7)}
    assert {one[Draw(0, n, True)]["data_samples"].corner for n in range(5)} == {(9, 9, 9)}
