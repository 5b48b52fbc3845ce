"""Scene folders in miniature: fixed label orders, lists, drawn splits, and errors that name what is missing."""

import numpy as np
import pytest
from PIL import Image

from mamba_vision.datasets.scenes import CLASSES, SceneDataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("uc")
    for name in CLASSES["uc"].split():
        (root / name).mkdir()
        for i in range(10):
            Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(root / name / f"{name}{i:02}.tif")
    return root


def test_class_counts():
    assert [len(set(names.split())) for names in CLASSES.values()] == [21, 30, 45]


def test_drawn_split_is_a_partition_and_repeats(folder):
    train, again, val = (SceneDataset("uc", folder, split) for split in ("train", "train", "val"))
    paths = [{item["img_path"] for item in data} for data in (train, val)]
    assert len(train) == 147 and len(val) == 63 and not paths[0] & paths[1]
    assert [d["img_path"] for d in train] == [d["img_path"] for d in again]
    other = SceneDataset("uc", folder, "train", seed=1)
    assert {d["img_path"] for d in other} != paths[0]


def test_labels_follow_the_published_order(folder):
    data = SceneDataset("uc", folder, "val")
    assert data.metainfo["classes"][0] == "harbor"
    assert all(d["img_path"].split("/")[-2] == data.metainfo["classes"][d["gt_label"]] for d in data)


def test_list_of_images(folder, tmp_path):
    (tmp_path / "list.txt").write_text("river/river03.tif\nharbor/harbor00.tif\n\n")
    data = SceneDataset("uc", folder, "val", ann_file=str(tmp_path / "list.txt"))
    assert [d["gt_label"] for d in data] == [17, 0]


def test_errors(folder, tmp_path):
    with pytest.raises(ValueError, match="name: found 'ucm'"):
        SceneDataset("ucm", folder, "train")
    with pytest.raises(ValueError, match="split: found 'test'"):
        SceneDataset("uc", folder, "test")
    with pytest.raises(ValueError, match="train_share: found 70"):
        SceneDataset("uc", folder, "train", train_share=70)
    with pytest.raises(FileNotFoundError, match="expected a folder for each of 21 classes"):
        SceneDataset("uc", tmp_path, "train")
    (tmp_path / "list.txt").write_text("river/river03.tif\nriver/none.tif\n")
    with pytest.raises(FileNotFoundError, match=r"no such image in .*river/none\.tif"):
        SceneDataset("uc", folder, "val", ann_file=str(tmp_path / "list.txt"))
