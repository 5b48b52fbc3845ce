"""Prepared cases on disk: right, whole, and made once."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from scan_files import LABELS, labels, make_dataset, make_plan, save

from mamba_vision.volumes import (
    VolumeError,
    build_cache,
    cache,
    find_scans,
    load_case,
    preprocess,
    read_label,
    read_volume,
)


@pytest.fixture
def data(tmp_path):
    return make_dataset(tmp_path / "data")


@pytest.fixture
def prepared(monkeypatch):
    """Names of the cases that are really prepared, in order."""
    names = []
    original = cache._prepare
    monkeypatch.setattr(
        cache, "_prepare", lambda folder, scan, *rest: names.append(scan.case) or original(folder, scan, *rest)
    )
    return names


def _build(data, folder, **changes):
    return build_cache(find_scans(data), make_plan(**changes), folder, workers=1)


def test_what_is_stored_is_what_preprocess_gives(data, tmp_path):
    scans, plan = find_scans(data), make_plan(spacing=(1.5, 1.0, 1.0))
    cases = build_cache(scans, plan, tmp_path / "out", workers=2)
    assert [case.case for case in cases] == ["a", "b", "c"]
    volume = read_volume(scans[1].images)
    expected = preprocess(volume, plan, read_label(scans[1].label, volume))
    stored = load_case(tmp_path / "out", "b")
    np.testing.assert_array_equal(stored.image, expected.image)
    np.testing.assert_array_equal(stored.label, expected.label)
    assert stored.geometry == expected.geometry and isinstance(stored.image, np.memmap)
    assert stored.sources == [path.resolve() for path in scans[1].images]
    assert stored.label_source == scans[1].label.resolve()
    assert stored.record["spacing"] == [1.5, 1.0, 1.0]
    names = {path.name for path in (tmp_path / "out" / "b").iterdir()}
    assert names == {"image.npy", "label.npy", "foreground.npz", "case.json"}  # no temporary files
    for number, places in stored.foreground.items():
        assert set(expected.label[tuple(places.T)]) == {number}
        assert len(places) == (expected.label == number).sum()
    assert set(stored.foreground) == {1, 2}


def test_nothing_is_made_twice(data, tmp_path, prepared):
    _build(data, tmp_path / "out")
    assert prepared == ["a", "b", "c"]
    _build(data, tmp_path / "out")
    _build(data, tmp_path / "out", patch_size=(8, 8, 8), batch_size=5, network={"type": "Other"})
    assert prepared == ["a", "b", "c"]
    _build(data, tmp_path / "out", spacing=(3.0, 1.0, 1.0))
    assert prepared == ["a", "b", "c"] * 2


def test_changed_files_are_made_again_and_touched_ones_are_not(data, tmp_path, prepared):
    _build(data, tmp_path / "out")
    os.utime(data / "labelsTr" / "a.nii.gz", (1, 1))  # copied, say: another time, the same content
    save(data / "labelsTr" / "b.nii.gz", labels()[::-1].copy())
    (data / "imagesTr" / "d_0000.nii.gz").write_bytes((data / "imagesTr" / "a_0000.nii.gz").read_bytes())
    (data / "labelsTr" / "d.nii.gz").write_bytes((data / "labelsTr" / "a.nii.gz").read_bytes())
    prepared.clear()
    _build(data, tmp_path / "out")
    assert prepared == ["b", "d"]


@pytest.mark.parametrize("lost", ["image.npy", "label.npy", "foreground.npz", "case.json"])
def test_a_lost_file_is_made_again(data, tmp_path, prepared, lost):
    _build(data, tmp_path / "out")
    (tmp_path / "out" / "b" / lost).unlink()
    prepared.clear()
    _build(data, tmp_path / "out")
    assert prepared == ["b"] and (tmp_path / "out" / "b" / lost).is_file()


def test_an_interrupted_case_is_not_there(data, tmp_path, monkeypatch):
    _build(data, tmp_path / "out")
    before = np.array(load_case(tmp_path / "out", "a").image)

    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "foreground_locations", killed)
    with pytest.raises(KeyboardInterrupt):
        _build(data, tmp_path / "out", spacing=(3.0, 1.0, 1.0))
    with pytest.raises(VolumeError, match="no such prepared case"):
        load_case(tmp_path / "out", "a")
    monkeypatch.undo()
    _build(data, tmp_path / "out")
    np.testing.assert_array_equal(load_case(tmp_path / "out", "a").image, before)


def test_a_bad_case_is_named_and_the_good_ones_stay(data, tmp_path):
    (data / "imagesTr" / "c_0000.nii.gz").write_text("no image")
    with pytest.raises(VolumeError, match=r"c_0000\.nii\.gz: is no image"):
        _build(data, tmp_path / "out")
    assert load_case(tmp_path / "out", "a").image.shape == load_case(tmp_path / "out", "b").image.shape


def test_scans_without_labels(data, tmp_path):
    scans = [replace(scan, label=None) for scan in find_scans(data)]
    (case, *_) = build_cache(scans, make_plan(), tmp_path / "out")
    assert case.label is None and case.label_source is None
    assert sorted(path.name for path in case.folder.iterdir()) == ["case.json", "image.npy"]


def test_geometry_is_fixed_as_the_plan_says(data, tmp_path):
    save(data / "labelsTr" / "b.nii.gz", labels(), np.eye(4))
    with pytest.raises(VolumeError, match="spacing 1 x 1 x 1"):
        _build(data, tmp_path / "out")
    _build(data, tmp_path / "out", fix_geometry="copy")
    label = load_case(tmp_path / "out", "b").label
    np.testing.assert_array_equal(label, load_case(tmp_path / "out", "a").label)


def test_ten_thousand_places_or_one_percent():
    label = np.zeros((120, 120, 120), np.int16)
    label[:110] = 1  # 1 584 000 voxels: 1 % is more than 10 000
    label[110:114] = 2  # 57 600 voxels
    label[115, 0, :5] = 4
    places = cache.foreground_locations(label, classes=5)
    assert {number: len(found) for number, found in places.items()} == {1: 15840, 2: 10000, 4: 5}
    assert all(len(np.unique(found, axis=0)) == len(found) for found in places.values())
    again = cache.foreground_locations(label, classes=5)
    assert all(np.array_equal(places[number], again[number]) for number in places)


def test_the_hash_follows_what_preparing_depends_on():
    plan = make_plan()
    same = {cache.plan_hash(plan), cache.plan_hash(make_plan(patch_size=(8, 8, 8), reasons={"a": "b"}))}
    assert len(same) == 1
    others = [
        {"spacing": (1.0, 1.0, 1.0)},
        {"axes": (0, 1, 2)},
        {"normalization": ["ct"]},
        {"use_mask": [True]},
        {"labels": {**LABELS, "x": 9}},
        {"fix_geometry": "copy"},
    ]
    assert len({cache.plan_hash(make_plan(**change)) for change in others} | same) == 7
    assert json.loads(json.dumps(plan.to_dict()))
