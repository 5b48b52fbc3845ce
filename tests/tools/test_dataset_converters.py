"""Each converter on a small data set in the layout that is published; what it makes is a data set that plans."""

import importlib.util
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scan_files import affine, save

from mamba_vision.apis import plan_dataset
from mamba_vision.utils import project_folder
from mamba_vision.volumes import (
    VolumeError,
    check_scans,
    find_scans,
    load_case,
    read_dataset_info,
    read_label,
    read_volume,
)
from mamba_vision.volumes.conversion import Part, RawDataset, SourceCase, write_raw_dataset
from mamba_vision.volumes.scans import find_test_scans

SHAPE = (12, 10, 8)
NAMES = ("acdc", "amos", "brats2023", "btcv", "kits", "msd")


def converter(name):
    spec = importlib.util.spec_from_file_location(name, project_folder("tools") / "dataset_converters" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def truth(values) -> np.ndarray:
    """A slab of each value."""
    array = np.zeros(SHAPE, np.uint8)
    for place, value in enumerate(values):
        array[2 : 4 + place, 2:8, place % SHAPE[2]] = value
    return array


def image(seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 10, SHAPE).astype(np.float32)


def checked(out, channels, values):
    """The data set's description, after every training case has passed the check of tools/plan.py."""
    info, scans = read_dataset_info(out), find_scans(out)
    assert len(info.channels) == channels
    assert [one.found for one in check_scans(scans, channels, info.scheme.values)] == []
    assert sorted(set(info.labels.values())) == list(range(values + 1))
    content = json.loads((out / "dataset.json").read_text())
    assert content["numTraining"] == len(scans)
    assert content["file_ending"] == ".nii.gz"
    return info, scans


def msd_task(folder, channels, values):
    for number, (case, kind) in enumerate((("one", "Tr"), ("two", "Tr"), ("three", "Ts"))):
        stacked = np.stack([image(10 * number + c) for c in range(channels)], axis=-1)
        save(folder / f"images{kind}" / f"{case}.nii.gz", stacked if channels > 1 else stacked[..., 0])
        if kind == "Tr":
            save(folder / "labelsTr" / f"{case}.nii.gz", truth(range(1, values + 1)))
    content = {
        "name": folder.name[7:], "reference": "somebody", "tensorImageSize": "4D",
        "modality": {str(c): f"channel {c}" for c in range(channels)},
        "labels": {"0": "background", **{str(value): f"label {value}" for value in range(1, values + 1)}},
        "numTraining": 2, "numTest": 1, "test": ["./imagesTs/three.nii.gz"],
        "training": [{"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in ("one", "two")],
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("task", converter("msd").TASKS)
def test_msd(tmp_path, task, capsys):
    module = converter("msd")
    channels, values = module.TASKS[task]
    source = msd_task(tmp_path / task, channels, values)
    out = tmp_path / "data" / task
    assert module.main([str(source), str(out)]) == 0
    assert f"2 cases for training, 1 for testing, {channels} channels" in capsys.readouterr().out
    info, scans = checked(out, channels, values)
    assert info.name == task[7:]
    assert [scan.case for scan in scans] == ["one", "two"]
    assert [scan.case for scan in find_test_scans(out)] == ["three"]
    assert scans[0].images[0].is_symlink() == (channels == 1)
    for number in range(channels):
        np.testing.assert_array_equal(read_volume(scans[0].images[number]).array[0], image(number))


def test_msd_that_is_not_what_it_says(tmp_path, capsys):
    module = converter("msd")
    source = msd_task(tmp_path / "Task09_Spleen", 1, 2)
    assert module.main([str(source), str(tmp_path / "out")]) == 1
    assert "1 channels and 2 labels; expected 1 and 1, as Task09_Spleen has" in capsys.readouterr().err
    (source / "dataset.json").unlink()
    assert module.main([str(source), str(tmp_path / "out")]) == 1
    assert "dataset.json: no such file" in capsys.readouterr().err


def test_btcv(tmp_path, capsys):
    source = tmp_path / "RawData"
    for number in ("0001", "0002"):
        save(source / "Training" / "img" / f"img{number}.nii.gz", image(int(number)))
        save(source / "Training" / "label" / f"label{number}.nii.gz", truth(range(1, 14)))
    save(source / "Testing" / "img" / "img0061.nii.gz", image())
    assert converter("btcv").main([str(source / "Training"), str(tmp_path / "early")]) == 1
    assert "no folder Training or" in capsys.readouterr().err
    assert converter("btcv").main([str(source), str(tmp_path / "out"), "--copy"]) == 0
    info, scans = checked(tmp_path / "out", 1, 13)
    assert (info.channels, info.labels["pancreas"]) == (["CT"], 11)
    assert [scan.case for scan in scans] == ["btcv_0001", "btcv_0002"]
    assert not scans[0].images[0].is_symlink()
    assert [scan.case for scan in find_test_scans(tmp_path / "out")] == ["btcv_0061"]


def test_amos(tmp_path):
    for part, numbers in (("Tr", (1, 507)), ("Va", (13, 510)), ("Ts", (2, 600))):
        for number in numbers:
            save(tmp_path / "amos22" / f"images{part}" / f"amos_{number:04d}.nii.gz", image(number))
            if part != "Ts":
                save(tmp_path / "amos22" / f"labels{part}" / f"amos_{number:04d}.nii.gz", truth(range(1, 16)))
    run = converter("amos").main
    assert run([str(tmp_path / "amos22"), str(tmp_path / "ct")]) == 0
    info, scans = checked(tmp_path / "ct", 1, 15)
    assert (info.channels, info.labels["duodenum"], [scan.case for scan in scans]) == (["CT"], 13, ["amos_0001"])
    assert [(scan.case, scan.label is None) for scan in find_test_scans(tmp_path / "ct")] == [
        ("amos_0002", True), ("amos_0013", False),
    ]  # fmt: skip
    assert run([str(tmp_path / "amos22"), str(tmp_path / "mri"), "--modality", "mri", "--validation", "train"]) == 0
    info, scans = checked(tmp_path / "mri", 1, 15)
    assert (info.channels, [scan.case for scan in scans]) == (["MRI"], ["amos_0507", "amos_0510"])


def test_brats2023(tmp_path):
    for number, case in enumerate(("BraTS-GLI-00000-000", "BraTS-GLI-00002-001", "BraTS-GLI-00009-000")):
        for contrast, kind in enumerate(("t1c", "t1n", "t2f", "t2w")):
            save(tmp_path / "in" / case / f"{case}-{kind}.nii.gz", image(10 * number + contrast))
        if number < 2:
            save(tmp_path / "in" / case / f"{case}-seg.nii.gz", truth((1, 2, 3)))
    run = converter("brats2023").main
    assert run([str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    info, scans = checked(tmp_path / "out", 4, 3)
    assert info.channels == ["T1", "T1 contrast-enhanced", "T2", "FLAIR"]
    assert info.regions == {"whole tumour": [1, 2, 3], "tumour core": [1, 3], "enhancing tumour": [3]}
    assert info.region_order == [2, 1, 3]
    assert [path.resolve().name for path in scans[0].images] == [
        f"BraTS-GLI-00000-000-{kind}.nii.gz" for kind in ("t1n", "t1c", "t2w", "t2f")
    ]
    assert [scan.case for scan in find_test_scans(tmp_path / "out")] == ["BraTS-GLI-00009-000"]
    order = ["--contrasts", "t2w", "t2f", "t1n", "t1c"]
    assert run([str(tmp_path / "in"), str(tmp_path / "plain"), "--exclusive", *order]) == 0
    info, scans = checked(tmp_path / "plain", 4, 3)
    assert (info.regions, info.labels["oedema"]) == ({}, 2)
    assert [path.resolve().name[20:23] for path in scans[0].images] == order[1:]
    assert run([str(tmp_path / "in"), str(tmp_path / "twice"), "--contrasts", "t1n", "t1n", "t2f", "t2w"]) == 1


@pytest.mark.parametrize("kind", ["regions", "exclusive"])
def test_what_is_converted_plans_and_is_prepared(tmp_path, kind):
    for case in ("BraTS-GLI-00000-000", "BraTS-GLI-00000-001", "BraTS-GLI-00003-000"):
        for seed, contrast in enumerate(("t1c", "t1n", "t2f", "t2w")):
            save(tmp_path / "in" / case / f"{case}-{contrast}.nii.gz", image(seed + int(case[-9:-4] + case[-1])))
        save(tmp_path / "in" / case / f"{case}-seg.nii.gz", truth((1, 2, 3)))
    options = ["--exclusive"] if kind == "exclusive" else []
    assert converter("brats2023").main([str(tmp_path / "in"), str(tmp_path / "out"), *options]) == 0
    planned = plan_dataset(tmp_path / "out", tmp_path / "work", preset="fast", pictures=0, by_patient=True)
    assert list(planned.plan.regions) == ([] if options else ["whole tumour", "tumour core", "enhancing tumour"])
    both = {"BraTS-GLI-00000-000", "BraTS-GLI-00000-001"}
    assert all(both <= set(fold["train"]) or both <= set(fold["val"]) for fold in planned.splits)
    assert load_case(tmp_path / "work" / "preprocessed", "BraTS-GLI-00003-000").image.shape[0] == 4


def test_brats_with_a_contrast_missing(tmp_path, capsys):
    case = "BraTS-GLI-00000-000"
    for kind in ("t1c", "t1n", "t2w", "seg"):
        save(tmp_path / "in" / case / f"{case}-{kind}.nii.gz", image())
    assert converter("brats2023").main([str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "1 files missing" in said
    assert f"{case}-t2f.nii.gz" in said
    assert not (tmp_path / "out").exists()


def test_acdc(tmp_path, capsys):
    for patient, part, frames in (("patient001", "training", (1, 4)), ("patient101", "testing", (1, 3))):
        folder = tmp_path / "database" / part / patient
        cine = np.stack([image(seed) for seed in range(5)], axis=-1)
        save(folder / f"{patient}_4d.nii.gz", cine)
        (folder / "Info.cfg").write_text(f"ED: {frames[0]}\nES: {frames[1]}\nGroup: DCM\nHeight: 184.0\nNbFrame: 5\n")
        for frame in frames:
            if part == "training":  # the frames of the other are only in the 4-D file
                save(folder / f"{patient}_frame{frame:02d}.nii.gz", cine[..., frame - 1])
            save(folder / f"{patient}_frame{frame:02d}_gt.nii.gz", truth((1, 2, 3)))
    run = converter("acdc").main
    assert run([str(tmp_path), str(tmp_path / "out")]) == 0
    assert "2 frames for training, 2 for testing" in capsys.readouterr().out
    info, scans = checked(tmp_path / "out", 1, 3)
    assert info.labels["myocardium"] == 2
    assert [scan.case for scan in scans] == ["patient001_frame01", "patient001_frame04"]
    test = find_test_scans(tmp_path / "out")
    assert [(scan.case, scan.label is not None) for scan in test] == [
        ("patient101_frame01", True), ("patient101_frame03", True),
    ]  # fmt: skip
    np.testing.assert_array_equal(read_volume(test[1].images).array[0], image(2))
    (tmp_path / "database" / "training" / "patient001" / "Info.cfg").write_text("ED: 1\n")
    assert run([str(tmp_path), str(tmp_path / "again")]) == 1
    assert "Info.cfg: no frame numbers ('ES')" in capsys.readouterr().err


@pytest.mark.parametrize(("year", "values"), [(19, 2), (23, 3)])
def test_kits(tmp_path, year, values):
    folder = tmp_path / ("data" if year == 19 else "dataset")
    for number in range(3):
        save(folder / f"case_{number:05d}" / "imaging.nii.gz", image(number))
        if number < 2:
            save(folder / f"case_{number:05d}" / "segmentation.nii.gz", truth(range(1, values + 1)))
    run = converter("kits").main
    assert run([str(tmp_path), str(tmp_path / "out"), "--year", str(year)]) == 0
    info, _ = checked(tmp_path / "out", 1, values)
    assert info.regions["tumour"] == [2]
    assert next(iter(info.regions.values())) == list(range(1, values + 1))
    assert [scan.case for scan in find_test_scans(tmp_path / "out")] == ["case_00002"]
    assert run([str(folder), str(tmp_path / "plain"), "--year", str(year), "--exclusive"]) == 0
    info, _ = checked(tmp_path / "plain", 1, values)
    assert info.regions == {}


@pytest.mark.parametrize("name", NAMES)
def test_a_source_that_is_none(tmp_path, capsys, name):
    (tmp_path / "in").mkdir()
    for source in ("in", "absent"):
        assert converter(name).main([str(tmp_path / source), str(tmp_path / "out")]) == 1
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert str(tmp_path / source) in said
    assert not (tmp_path / "out").exists()


def test_each_converter_has_its_line_in_the_docs():
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "convert-data-sets.md").read_text()
    assert all(f"`{name}.py`" in page for name in NAMES)


def test_nothing_is_left_half_and_nothing_overwritten(tmp_path):
    scan, label = save(tmp_path / "a.nii.gz", image()), save(tmp_path / "b.nii.gz", truth([1]))
    dataset = RawDataset("x", ["CT"], {"background": 0, "it": 1})
    good = SourceCase("one", (scan,), label)

    def refused(match, *cases, out="out"):
        with pytest.raises(VolumeError, match=match):
            write_raw_dataset(tmp_path / out, dataset, cases)
        assert [file.name for file in tmp_path.iterdir() if "out" in file.name] == []

    refused("none for training")
    refused("two cases called one", good, good)
    refused("no label of two", good, SourceCase("two", (scan,)))
    refused("2 channels of two", good, SourceCase("two", (scan, scan), label))
    refused("1 files missing.*lost", good, SourceCase("two", (tmp_path / "lost.nii.gz",), label))
    refused("expected a 4-D image of more than 0 volumes", good, SourceCase("two", (Part(scan, 0),), label))
    plain = tmp_path / "c.nii"
    nib.save(nib.load(scan), plain)
    refused("files that end in .nii, .nii.gz", good, SourceCase("two", (plain,), label))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(VolumeError, match="something there already"):
        write_raw_dataset(tmp_path / "full", dataset, [good])
    seen = []
    write_raw_dataset(tmp_path / "out", dataset, [good], report=seen.append)
    assert seen == ["one"]
    assert read_label(tmp_path / "out" / "labelsTr" / "one.nii.gz").array.max() == 1


def test_a_part_keeps_voxels_header_and_scale_bit_by_bit(tmp_path):
    stored = np.random.default_rng(0).integers(-1000, 1000, (*SHAPE, 3)).astype(np.int16)
    whole = nib.Nifti1Image(stored, affine())
    whole.header.set_slope_inter(0.37, -11)
    whole.set_qform(affine(), 1)
    whole.header.set_xyzt_units("mm", "sec")
    nib.save(whole, tmp_path / "whole.nii.gz")
    dataset = RawDataset("x", ["first", "last"], {"background": 0, "it": 1})
    parts = tuple(Part(tmp_path / "whole.nii.gz", index) for index in (0, 2))
    label = save(tmp_path / "label.nii.gz", truth([1]))
    write_raw_dataset(tmp_path / "out", dataset, [SourceCase("one", parts, label)])
    made = nib.load(tmp_path / "out" / "imagesTr" / "one_0001.nii.gz")
    assert made.get_data_dtype() == np.int16
    np.testing.assert_array_equal(made.dataobj.get_unscaled(), stored[..., 2])
    assert (made.dataobj.slope, made.dataobj.inter) == (pytest.approx(0.37), -11)
    np.testing.assert_array_equal(made.affine, whole.affine)
    assert (made.header["qform_code"], made.header.get_xyzt_units()[0]) == (1, "mm")
