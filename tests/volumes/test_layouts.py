"""Data sets as people have them: lists, the Decathlon's, BIDS, DICOM patients."""

import json

import nibabel as nib
import numpy as np
import pytest
from dicom_series import write_report, write_series
from scan_files import LABELS, NUMBERS, affine, labels, make_dataset, make_plan, save, voxels

from mamba_vision.volumes import VolumeError, build_cache, check_scans, find_scans, read_dataset_info, read_volume
from mamba_vision.volumes.scan_files import ScanFiles, read_scan, read_scan_label
from mamba_vision.volumes.scans import find_test_scans


def table(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def briefly(scans):
    return [(scan.case, [path.name for path in scan.images], scan.label and scan.label.name) for scan in scans]


def test_a_csv_of_channels_labels_and_folds(tmp_path):
    for name in ("a", "b"):
        for kind in ("t1", "flair", "seg"):
            save(tmp_path / "data" / f"{name}_{kind}.nii.gz", labels() if kind == "seg" else voxels())
    path = table(
        tmp_path / "scans.csv",
        "case,image,image2,label,fold,age",
        "b,data/b_t1.nii.gz,data/b_flair.nii.gz,data/b_seg.nii.gz,1,70",
        "a,data/a_t1.nii.gz,data/a_flair.nii.gz,data/a_seg.nii.gz,0.0,50",
        "x,data/a_t1.nii.gz,data/a_flair.nii.gz,,test,",
    )
    scans = find_scans(path)
    assert briefly(scans) == [
        ("a", ["a_t1.nii.gz", "a_flair.nii.gz"], "a_seg.nii.gz"),
        ("b", ["b_t1.nii.gz", "b_flair.nii.gz"], "b_seg.nii.gz"),
    ]
    assert [scan.fold for scan in scans] == ["0", "1"]
    assert check_scans(scans[:1]) == []
    assert [scan.case for scan in find_scans(path, "test")] == [scan.case for scan in find_test_scans(path)] == ["x"]
    assert read_dataset_info(path).name == "scans"
    semicolons = table(tmp_path / "other.csv", "Image;Label", "data/a_t1.nii.gz;data/a_seg.nii.gz")
    assert briefly(find_scans(semicolons, "test")) == [("a_t1", ["a_t1.nii.gz"], "a_seg.nii.gz")]
    assert find_test_scans(semicolons) == []
    (short,) = find_scans(table(tmp_path / "short.csv", "image,image2", "data/a_t1.nii.gz,"))
    assert check_scans([short], 2, need_label=False)[0].found.startswith("1 channel")


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        (["scan,label", "a,b"], "the columns scan, label; expected image"),
        (["image", ""], "no scan in it"),
        (["image,label", ",b"], r"line 2: image = \[\]; expected the path of an image"),
        (["image,fold", "a.nii,first"], "line 2: fold = 'first'; expected a number, train or test"),
        (["image", "x/ct.nii", "y/ct.nii"], "two cases called ct .*Add a column"),
    ],
)
def test_lists_that_make_no_sense(tmp_path, lines, match):
    with pytest.raises(VolumeError, match=match):
        find_scans(table(tmp_path / "scans.csv", *lines))


def test_links_keep_their_names(tmp_path):
    for name in "ab":
        save(tmp_path / "store" / name / "imaging.nii.gz", voxels(seed=ord(name)))
        (tmp_path / f"{name}.nii.gz").symlink_to(tmp_path / "store" / name / "imaging.nii.gz")
    path = table(tmp_path / "scans.csv", "image", "a.nii.gz", str(tmp_path / "b.nii.gz"))
    assert [scan.case for scan in find_scans(path)] == ["a", "b"]


def test_json_lists(tmp_path):
    scan, truth = save(tmp_path / "a_0000.nii.gz", voxels()), save(tmp_path / "t" / "a.nii.gz", labels())
    record = {"image": "a_0000.nii.gz", "label": "t/a.nii.gz", "fold": 3}
    forms = {
        "plain": [record],
        "monai": {"training": [record], "testing": [{"image": str(scan), "case": "x"}]},
        "nnunet": {"dataset": {"a": {"images": [str(scan)], "label": str(truth)}}, "labels": LABELS},
        "channels": [{"case": "two", "image": ["a_0000.nii.gz", "a_0000.nii.gz"], "label": None}],
    }
    for name, content in forms.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    expected = ScanFiles("a", (scan,), truth, fold="3")
    assert find_scans(tmp_path / "plain.json") == find_scans(tmp_path / "monai.json") == [expected]
    assert find_scans(tmp_path / "nnunet.json") == [ScanFiles("a", (scan,), truth)]
    assert [one.case for one in find_test_scans(tmp_path / "monai.json")] == ["x"]
    assert find_scans(tmp_path / "channels.json") == [ScanFiles("two", (scan, scan))]
    assert read_dataset_info(tmp_path / "plain.json").labels == {}
    (tmp_path / "nnunet.json").write_text(json.dumps({**forms["nnunet"], "channel_names": {"0": "CT"}}))
    assert read_dataset_info(tmp_path / "nnunet.json").labels == LABELS
    for text, match in (
        ("{", "no JSON"),
        ("3", "a int; expected"),
        ('{"name": 1}', "the keys name"),
        ("[{}]", "entry 1: image = None"),
    ):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(VolumeError, match=match):
            find_scans(tmp_path / "bad.json")


def decathlon(folder, channels):
    for name, kind in (("a", "Tr"), ("b", "Tr"), ("x", "Ts")):
        image = np.stack([voxels(seed=seed) for seed in range(channels)], axis=-1) if channels > 1 else voxels()
        save(folder / f"images{kind}" / f"{name}.nii.gz", image)
        if kind == "Tr":
            save(folder / "labelsTr" / f"{name}.nii.gz", labels())
            save(folder / "labelsTr" / f"._{name}.nii.gz", labels())  # as macOS leaves them in the archives
    modality = {str(number): f"MR{number}" for number in range(channels)}
    training = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in "ba"]
    names = {str(value): name for name, value in LABELS.items()}
    content = {"name": "BRATS", "modality": modality, "labels": names, "training": training}
    (folder / "dataset.json").write_text(json.dumps({**content, "test": ["./imagesTs/x.nii.gz"]}))
    return folder


def test_the_decathlon_with_channels_in_one_file(tmp_path):
    decathlon(tmp_path, 3)
    for path in (tmp_path, tmp_path / "dataset.json"):
        scans = find_scans(path)
        assert briefly(scans) == [("a", ["a.nii.gz"], "a.nii.gz"), ("b", ["b.nii.gz"], "b.nii.gz")]
        assert briefly(find_test_scans(path)) == briefly(find_scans(path, "test")) == [("x", ["x.nii.gz"], None)]
        info = read_dataset_info(path)
        assert (info.name, info.channels, info.labels) == ("BRATS", ["MR0", "MR1", "MR2"], LABELS)
    volume = read_scan(scans[0])
    assert volume.array.shape == (3, *voxels().shape)
    np.testing.assert_array_equal(volume.array[2], voxels(seed=2))
    assert [(one.case, one.found) for one in check_scans(scans, 3, list(LABELS.values()))] == [
        ("b", "the same voxels as case a")
    ]
    (problem,) = check_scans(scans[:1], 4)
    assert problem.found == "3 channels along the fourth axis"
    plan = make_plan(
        channels=["A", "B", "C"], normalization=["none"] * 3, use_mask=[False] * 3, intensities=[NUMBERS] * 3
    )
    (case,) = build_cache(scans[:1], plan, tmp_path / "cache", workers=1)
    assert case.image.shape[0] == 3
    with pytest.raises(VolumeError, match="a 4-D image"):
        read_volume(scans[0].images)


def test_the_decathlon_with_one_channel(tmp_path):
    decathlon(tmp_path, 1)
    scans = find_scans(tmp_path)
    assert not scans[0].stacked
    assert check_scans(scans[:1], 1, list(LABELS.values())) == []


def test_nnunets_older_list_of_names_without_channels(tmp_path):
    make_dataset(tmp_path, cases=2, channels=2)
    content = json.loads((tmp_path / "dataset.json").read_text())
    content["training"] = [
        {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in "ab"
    ]
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    assert [len(scan.images) for scan in find_scans(tmp_path)] == [2, 2]


def bids(folder):
    for case, sub in (
        ("sub-01_ses-1", "sub-01/ses-1/anat"),
        ("sub-01_ses-2", "sub-01/ses-2/anat"),
        ("sub-02", "sub-02/anat"),
    ):
        save(folder / sub / f"{case}_T1w.nii.gz", voxels(seed=len(case)))
        save(folder / sub / f"{case}_acq-fast_FLAIR.nii.gz", voxels(seed=3))
        save(folder / "derivatives" / "manual" / sub / f"{case}_space-T1w_dseg.nii.gz", labels())
    save(folder / "sub-02" / "anat" / "sub-02_T2w.nii.gz", voxels())  # which most cases lack
    save(folder / "sub-02" / "func" / "sub-02_task-rest_bold.nii.gz", voxels())
    table(folder / "derivatives" / "manual" / "desc-tissue_dseg.tsv", "index\tname", "1\torgan", "2\tlesion")
    return folder


def test_bids(tmp_path):
    scans = find_scans(bids(tmp_path))
    assert briefly(scans) == [
        (case, [f"{case}_acq-fast_FLAIR.nii.gz", f"{case}_T1w.nii.gz"], f"{case}_space-T1w_dseg.nii.gz")
        for case in ("sub-01_ses-1", "sub-01_ses-2", "sub-02")
    ]
    info = read_dataset_info(tmp_path)
    assert (info.channels, info.labels) == (["FLAIR", "T1w"], LABELS)
    assert check_scans(scans[:1], 2, list(LABELS.values())) == []
    (tmp_path / "sub-02" / "anat" / "sub-02_T1w.nii.gz").unlink()
    (problem,) = check_scans(find_scans(tmp_path)[2:], 2)
    assert problem.file.endswith("sub-02_T1w.nii.gz")
    assert problem.found == "no such file"
    save(tmp_path / "sub-02" / "anat" / "sub-02_run-2_FLAIR.nii.gz", voxels())
    with pytest.raises(VolumeError, match=r"a second FLAIR image beside sub-02_acq-fast_FLAIR.*List the files"):
        find_scans(tmp_path)


def test_dicom_patients_with_labels_beside_their_series(tmp_path):
    stored = np.random.default_rng(0).integers(0, 900, voxels().shape)
    for number, place in enumerate(("study/series_1", "", "CT")):
        patient = tmp_path / f"patient_{number}"
        write_series(patient / place, stored + number)
        grid = read_volume(patient / place)
        save(patient / "label.nii.gz", labels(), grid.affine)
        (patient / "report").mkdir()
        write_report(patient / "report" / "sr.dcm")
    scans = find_scans(tmp_path)
    assert [(scan.case, scan.images[0].name, scan.label.name) for scan in scans] == [
        ("patient_0", "series_1", "label.nii.gz"), ("patient_1", "patient_1", "label.nii.gz"),
        ("patient_2", "CT", "label.nii.gz"),
    ]  # fmt: skip
    assert check_scans(scans) == []
    (tmp_path / "patient_1" / "second.nii.gz").write_bytes((tmp_path / "patient_1" / "label.nii.gz").read_bytes())
    (problem,) = check_scans(find_scans(tmp_path))
    assert problem.found == "2 labels (label.nii.gz, second.nii.gz)"


def test_a_patient_of_several_series(tmp_path):
    stored = np.random.default_rng(0).integers(0, 900, voxels().shape)
    write_series(tmp_path / "p" / "a", stored, number=3, description="arterial")
    uid = write_series(tmp_path / "p" / "v", stored + 1, number=4, description="venous")
    write_series(tmp_path / "q", stored + 2)
    problems = check_scans(find_scans(tmp_path), need_label=False)
    (problem,) = problems  # of p; q is fine
    assert "2 series of one patient: a: " in problem.found
    assert f"v: {uid} (number 4, venous)" in problem.found
    assert "--series" in problem.cure
    for series in ("venous", "4", uid):
        scan = next(scan for scan in find_scans(tmp_path, series=series) if scan.case == "p")
        assert read_scan(scan).array[0, 0, 0, 0] == stored[0, 0, 0] + 1 - 1024
    problems = check_scans(find_scans(tmp_path, series="portal"), need_label=False)
    assert "0 series called 'portal' among" in problems[0].found


def test_labels_in_folders_and_of_other_kinds(tmp_path):
    save(tmp_path / "images" / "a.nii.gz", voxels())
    save(tmp_path / "images" / "b.nii.gz", voxels(seed=1))
    save(tmp_path / "labels" / "a" / "anything.nii.gz", labels())
    (tmp_path / "labels" / "b").mkdir()
    first, second = find_scans(tmp_path)
    assert (first.label.name, second.label) == ("a", None)
    np.testing.assert_array_equal(read_scan_label(first, read_scan(first)).array[0], labels())
    (case,) = build_cache([first], make_plan(), tmp_path / "cache", workers=1)
    assert case.label.max() == 2


def test_oblique_scans_keep_their_geometry_through_any_list(tmp_path):
    matrix = affine()
    matrix[:3, :3] = nib.eulerangles.euler2mat(0.2, 0.1, -0.4) @ matrix[:3, :3]
    save(tmp_path / "a.nii.gz", voxels(), matrix)
    (scan,) = find_scans(table(tmp_path / "scans.csv", "image", "a.nii.gz"))
    np.testing.assert_allclose(read_scan(scan).affine, matrix, atol=1e-5)
