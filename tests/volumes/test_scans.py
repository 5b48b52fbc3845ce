"""Which scans a path holds."""

import json

import pytest
from scan_files import LABELS, labels, make_dataset, save, voxels, write_info

from mamba_vision.volumes import ScanFiles, VolumeError, find_scans, read_dataset_info


def test_nnunets_layout(tmp_path):
    make_dataset(tmp_path, cases=2, channels=2)
    save(tmp_path / "imagesTs" / "x_0000.nii.gz", voxels())
    train, test, truth = (tmp_path / name for name in ("imagesTr", "imagesTs", "labelsTr"))
    assert find_scans(tmp_path) == [
        ScanFiles(name, (train / f"{name}_0000.nii.gz", train / f"{name}_0001.nii.gz"), truth / f"{name}.nii.gz")
        for name in "ab"
    ]
    assert find_scans(tmp_path, "test") == [ScanFiles("x", (test / "x_0000.nii.gz",))]
    info = read_dataset_info(tmp_path)
    assert (info.name, info.channels, info.labels) == (tmp_path.name, ["MR0", "MR1"], LABELS)


def test_images_and_labels_of_equal_names(tmp_path):
    for name in ("visit_2021", "visit_2022"):
        save(tmp_path / "images" / f"{name}.nii.gz", voxels())
        save(tmp_path / "labels" / f"{name}.nii", labels())
    (tmp_path / "images" / ".hidden.nii.gz").write_text("")
    (tmp_path / "images" / "notes.txt").write_text("")
    scans = find_scans(tmp_path)
    assert [(scan.case, len(scan.images), scan.label.name) for scan in scans] == [
        ("visit_2021", 1, "visit_2021.nii"),
        ("visit_2022", 1, "visit_2022.nii"),
    ]
    info = read_dataset_info(tmp_path)
    assert info.channels == [] and info.labels == {}


def test_one_file_and_its_further_channels(tmp_path):
    alone = save(tmp_path / "ct.nii.gz", voxels())
    assert find_scans(alone) == [ScanFiles("ct", (alone,))]
    files = [save(tmp_path / f"mr_{number:04d}.nii.gz", voxels()) for number in range(3)]
    assert find_scans(files[0]) == [ScanFiles("mr", tuple(files))]
    assert find_scans(files[1]) == [ScanFiles("mr_0001", (files[1],))]
    assert [scan.case for scan in find_scans(tmp_path)] == ["ct", "mr"]
    text = tmp_path / "readme.txt"
    text.write_text("hello")
    assert find_scans(text) == [ScanFiles("readme.txt", (text,))]  # what is wrong with it is said on reading


def test_nothing_there(tmp_path):
    with pytest.raises(VolumeError, match="absent: no such file or folder"):
        find_scans(tmp_path / "absent")
    with pytest.raises(VolumeError, match="an empty folder; expected scans as NIfTI"):
        find_scans(tmp_path)
    (tmp_path / "imagesTr").mkdir()
    with pytest.raises(VolumeError, match="imagesTr: an empty folder"):
        find_scans(tmp_path)
    (tmp_path / "imagesTr" / "a.jpg").write_text("")
    with pytest.raises(VolumeError, match=r"1 entries, none of them an image .*\. JPEG and WebP are not read.*as PNG"):
        find_scans(tmp_path)
    with pytest.raises(ValueError, match="subset: expected 'train' or 'test', found 'val'"):
        find_scans(tmp_path, "val")


def test_two_files_of_one_case(tmp_path):
    save(tmp_path / "images" / "a.nii.gz", voxels())
    save(tmp_path / "images" / "a.nii", voxels())
    with pytest.raises(VolumeError, match="a second image of the case a"):
        find_scans(tmp_path)
    (tmp_path / "images" / "a.nii").rename(tmp_path / "images" / "a_0000.nii")
    save(tmp_path / "images" / "a_0000.nii.gz", voxels())
    with pytest.raises(VolumeError, match=r"the same case and channel as a_0000\.nii"):
        find_scans(tmp_path)
    save(tmp_path / "b" / "images" / "a.nii", voxels())
    for name in ("a.nii", "a.nii.gz"):
        save(tmp_path / "b" / "labels" / name, labels())
    with pytest.raises(VolumeError, match=r"the same case as a\.nii"):
        find_scans(tmp_path / "b")


def test_the_decathlons_dataset_json(tmp_path):
    write_info(tmp_path, name="Spleen", modality={"0": "CT"}, labels={"0": "background", "1": "spleen"})
    info = read_dataset_info(tmp_path)
    assert (info.name, info.channels, info.labels) == ("Spleen", ["CT"], {"background": 0, "spleen": 1})


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        ({"background": 0, "a": 1, "b": 1}, "two labels of one value"),
        ({"a": 1, "b": 2}, r"expected background = 0"),
        ({"background": 0}, "at least one more"),
        ({"background": 0, "whole": [1, 2]}, "regions_class_order"),
        ({"background": 0, "a": "one"}, "a whole number"),
        ({"background": 0, "a": -1}, "a whole number"),
        ({"background": 0, "a": 3, "ignore": 2}, "the highest value"),
        ({"background": 0, "a": 70000}, "values up to 65535"),
    ],
)
def test_labels_that_cannot_be_learned(tmp_path, labels, match):
    write_info(tmp_path, channel_names={"0": "CT"}, labels=labels)
    with pytest.raises(VolumeError, match=f"dataset.json: .*{match}"):
        read_dataset_info(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"channel_names": {"0": "CT"}})])
def test_a_broken_dataset_json(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(VolumeError, match=r"dataset.json: no usable description"):
        read_dataset_info(tmp_path)
