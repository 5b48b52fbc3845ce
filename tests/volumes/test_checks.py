"""Every problem of a folder in one list."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from scan_files import affine, labels, make_dataset, save, voxels

from mamba_vision.volumes import check_scans, find_scans, survey, write_problems
from mamba_vision.volumes.checks import errors, miscounted, orphan_labels, present_values, unread_files


def _found(folder, channels=1, values=(0, 1, 2), **options):
    return {(one.case, one.found) for one in check_scans(find_scans(folder), channels, values, **options)}


def test_a_good_folder_has_no_problems(tmp_path):
    make_dataset(tmp_path, channels=2)
    assert check_scans(find_scans(tmp_path), 2, [0, 1, 2]) == []
    seen = survey(find_scans(tmp_path), 2, [0, 1, 2])
    assert seen.problems == [] and len(seen.fingerprint.cases) == 3


def test_all_problems_at_once(tmp_path):
    make_dataset(tmp_path, cases=12)
    images, truths = tmp_path / "imagesTr", tmp_path / "labelsTr"
    whole = (images / "a_0000.nii.gz").read_bytes()
    (images / "a_0000.nii.gz").write_bytes(whole[: len(whole) // 2])
    (images / "b_0000.nii.gz").write_text("no image")
    (truths / "c.nii.gz").unlink()
    save(truths / "d.nii.gz", labels() * 3)
    save(truths / "e.nii.gz", labels() * np.float32(0.5))
    save(truths / "f.nii.gz", labels()[1:])
    save(truths / "g.nii.gz", labels(), affine((1, 1, 2.1)))
    save(images / "h_0001.nii.gz", voxels())
    save(images / "i_0000.nii.gz", voxels()[:, :, 0])
    save(images / "j_0000.nii.gz", np.stack([voxels()] * 2, -1))
    save(images / "k_0000.nii.gz", np.where(voxels() > 100, np.nan, voxels()).astype(np.float32))
    save(images / "l_0000.nii.gz", np.full((18, 20, 16), 3, np.float32))
    problems = check_scans(find_scans(tmp_path), 1, (0, 1, 2))
    found = {}
    for one in problems:
        found.setdefault(one.case, []).append(one.found)
        assert one.severity == "error" and one.expected and str(tmp_path) in one.file
    expected = {
        "a": "truncated", "b": "is no image", "c": "no label file", "d": "label values 3, 6", "e": "label value 0.5",
        "f": "shape 17 x 20 x 16", "g": "spacing 1 x 1 x 2.1", "h": "2 channels (h_0000.nii.gz, h_0001.nii.gz)",
        "i": "instead of 18 x 20 x 1", "j": "a 4-D image", "k": "NaN or Inf", "l": "every voxel is 3",
    }  # fmt: skip
    assert set(found) == set(expected)
    for case, text in expected.items():
        assert any(text in line for line in found[case]), (case, found[case])
    seen = survey(find_scans(tmp_path), 1, (0, 1, 2), workers=3)
    assert seen.fingerprint is None and {one.found for one in seen.problems} == {one.found for one in problems}


def test_copies_under_another_name(tmp_path):
    make_dataset(tmp_path)
    save(tmp_path / "imagesTr" / "b_0000.nii.gz", voxels(seed=0))  # the voxels of a, compressed anew
    assert _found(tmp_path) == {("b", "the same voxels as case a")}


def test_warnings_do_not_stop(tmp_path):
    make_dataset(tmp_path)
    save(tmp_path / "labelsTr" / "b.nii.gz", labels() * 0)
    seen = survey(find_scans(tmp_path), 1, (0, 1, 2))
    assert [(one.case, one.found, one.severity) for one in seen.problems] == [("b", "an empty label", "warning")]
    assert seen.fingerprint is not None and not errors(seen.problems)
    shape = (4, 4, 500)
    rng = np.random.default_rng(0)
    save(tmp_path / "imagesTr" / "c_0000.nii.gz", rng.random(shape, np.float32), np.eye(4))
    save(tmp_path / "labelsTr" / "c.nii.gz", np.ones(shape, np.uint8), np.eye(4))
    assert ("c", "4 x 4 x 500 voxels of exactly 1 mm") in _found(tmp_path)


def test_nothing_but_empty_labels(tmp_path):
    make_dataset(tmp_path)
    for file in (tmp_path / "labelsTr").iterdir():
        save(file, labels() * 0)
    seen = survey(find_scans(tmp_path), 1, (0, 1, 2))
    assert seen.fingerprint is None and errors(seen.problems)[0].found == "no label file with any foreground"


def test_fixing_the_geometry_settles_the_problem(tmp_path):
    make_dataset(tmp_path)
    save(tmp_path / "labelsTr" / "b.nii.gz", labels(), affine((1, 1, 2.1)))
    assert len(_found(tmp_path)) == 1
    assert _found(tmp_path, fix_geometry="copy") == _found(tmp_path, fix_geometry="resample") == set()


def test_labels_without_an_image_and_without_a_list(tmp_path):
    make_dataset(tmp_path)
    save(tmp_path / "labelsTr" / "z.nii.gz", labels())
    (orphan,) = orphan_labels(find_scans(tmp_path), tmp_path / "labelsTr")
    assert (orphan.case, orphan.found, orphan.severity) == ("z", "a label without an image", "warning")
    save(tmp_path / "labelsTr" / "a.nii.gz", labels().astype(np.int16) * -1)
    assert _found(tmp_path, values=None) == {("a", "label values -2, -1")}


def test_scans_alone_need_no_label(tmp_path):
    make_dataset(tmp_path)
    scans = [replace(scan, label=None) for scan in find_scans(tmp_path)]
    assert check_scans(scans, 1, need_label=False) == [] and len(check_scans(scans, 1)) == 3


def test_the_table_as_csv(tmp_path):
    make_dataset(tmp_path)
    (tmp_path / "labelsTr" / "a.nii.gz").unlink()
    problems = check_scans(find_scans(tmp_path))
    rows = list(csv.DictReader(write_problems(tmp_path / "out" / "problems.csv", problems).open()))
    assert len(rows) == 1 and rows[0]["case"] == "a" and rows[0]["found"] == "no label file"
    assert write_problems(tmp_path / "none.csv", []).read_text() == "case,file,found,expected,cure,severity\n"


@pytest.mark.parametrize("values", [[0], [-3, 0, 7], [5, 100000]])
def test_present_values(values):
    array = np.random.default_rng(0).choice(values, (1, 6, 7, 8))
    assert present_values(array) == sorted(values)


def test_files_that_no_case_has_are_told_but_not_notes(tmp_path):
    make_dataset(tmp_path)
    images, scans = tmp_path / "imagesTr", find_scans(tmp_path)
    for name in ("notes.txt", "a_0000.json", ".hidden.mgz"):
        (images / name).write_text("")
    assert unread_files(scans, images) == []
    (images / "d.mgz").write_text("")
    (problem,) = unread_files(scans, images)
    assert problem.found == "1 file that no case has: d.mgz" and problem.severity == "warning"


def test_a_data_set_with_fewer_scans_than_it_says(tmp_path):
    assert miscounted(tmp_path, None, 3) == miscounted(tmp_path, 3, 3) == []
    assert "numTraining 9" in miscounted(tmp_path, 9, 3)[0].found


def test_a_label_of_one_value_is_a_warning(tmp_path):
    make_dataset(tmp_path)
    save(tmp_path / "labelsTr" / "b.nii.gz", np.full_like(labels(), 2))  # the ignore label, say
    assert ("b", "label 2 in every voxel") in _found(tmp_path)
    assert not errors(check_scans(find_scans(tmp_path), 1, (0, 1, 2)))
