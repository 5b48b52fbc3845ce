"""The demo data set is a data set: it passes its own checks and is what it says."""

import runpy
import sys

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("nilearn")

from mamba_vision.utils import project_folder
from mamba_vision.volumes import check_scans, find_scans, read_dataset_info, read_label, read_volume

TOOL = str(project_folder("tools") / "make_demo_data.py")


def make(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["make_demo_data.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(TOOL, run_name="__main__")
    if end.value.code:
        raise end.value


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "data"
    with pytest.MonkeyPatch.context() as patch:
        make(patch, folder, "--resolution", 3)
    return folder


def test_it_has_no_problems(demo):
    info = read_dataset_info(demo)
    assert info.channels == ["T1"] and list(info.labels) == ["background", "gray matter", "white matter"]
    for subset, cases in (("train", 6), ("test", 1)):
        scans = find_scans(demo, subset)
        assert len(scans) == cases and check_scans(scans, 1, [0, 1, 2]) == []


def test_training_and_test_are_different_hemispheres(demo):
    for subset, right in (("train", True), ("test", False)):
        for scan in find_scans(demo, subset):
            volume = read_volume(scan.images)
            corners = nib.affines.apply_affine(volume.affine, [(0, 0, 0), (np.array(volume.shape) - 1)])
            assert ((corners[:, 0] > 0) == right).all()
            assert volume.header.get_xyzt_units()[0] == "mm" and volume.header["sform_code"] == 4
            label = read_label(scan.label, volume)
            assert set(np.unique(label.array)) == {0, 1, 2}
            gray, white = (volume.array[label.array == value].mean() for value in (1, 2))
            assert gray < white  # T1


def test_it_says_what_it_is_and_what_comes_next(tmp_path, monkeypatch, capsys):
    make(monkeypatch, tmp_path / "d", "--resolution", 4)
    out = capsys.readouterr().out
    assert "left-right symmetric" in out and "one brain" in out
    assert f"Next:  python tools/plan.py {tmp_path / 'd'}" in out
    with pytest.raises(SystemExit) as ended:
        make(monkeypatch, tmp_path / "d")
    assert ended.value.code == 2 and "is not empty" in capsys.readouterr().err


def test_without_nilearn_the_error_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nilearn", None)
    with pytest.raises(SystemExit, match=r'nilearn, which is missing: pip install "nilearn'):
        make(monkeypatch, tmp_path / "d")
    assert not (tmp_path / "d").exists()
