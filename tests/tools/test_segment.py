"""tools/segment.py as a user calls it: what it writes, what it says, what it refuses."""

import csv
import gzip
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
from matplotlib.image import imread
from segmentation_case import expected_mask, make_scan, make_work_dir

from mamba_vision.utils.paths import project_folder

TOOL = project_folder("tools") / "segment.py"


@pytest.fixture(scope="module")
def segment():
    """The tool's main, in this process."""
    spec = importlib.util.spec_from_file_location("segment_tool", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *args: module.main([str(arg) for arg in args])


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return make_work_dir(tmp_path_factory.mktemp("trained") / "work")


@pytest.fixture
def scans(tmp_path):
    """Two good scans."""
    folder = tmp_path / "scans"
    folder.mkdir()
    nib.save(make_scan(), folder / "a.nii.gz")
    nib.save(make_scan(shape=(28, 28, 14)), folder / "b.nii")
    return folder


def _mask(path):
    return np.asarray(nib.load(path).dataobj)


def _cases(out):
    return json.loads((out / "run.json").read_text())["cases"]


def test_a_folder_as_its_own_process(work, scans, tmp_path):
    out = tmp_path / "deep" / "out"
    run = subprocess.run(
        [sys.executable, TOOL, work, scans, "--out", out, "--device", "cpu"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert sorted(file.name for file in out.iterdir()) == [
        "a.nii.gz", "a_preview.png", "b.nii.gz", "b_preview.png", "run.json", "statistics.csv", "statistics.json",
    ]  # fmt: skip
    for name, file in (("a", "a.nii.gz"), ("b", "b.nii")):
        image = nib.load(scans / file)
        np.testing.assert_array_equal(_mask(out / f"{name}.nii.gz"), expected_mask(image))
        np.testing.assert_allclose(nib.load(out / f"{name}.nii.gz").affine, image.affine)
    assert imread(out / "a_preview.png").std() > 0.01
    rows = list(csv.DictReader((out / "statistics.csv").open()))
    assert [(row["case"], row["name"], row["label"]) for row in rows] == [
        ("a", "gray", "1"), ("a", "white", "4"), ("b", "gray", "1"), ("b", "white", "4"),
    ]  # fmt: skip
    gray = (expected_mask(make_scan()) == 1).sum()
    assert float(rows[0]["ml"]) == pytest.approx(gray * 2 / 1000) and float(rows[1]["mean"]) == 2
    record = json.loads((out / "run.json").read_text())
    assert record["model"]["checkpoint"].endswith("best_dice_epoch_3.pth") and len(record["model"]["sha256"]) == 64
    assert record["peak_memory_bytes"] > 1e6 and record["versions"]["torch"]
    assert {case["status"] for case in record["cases"].values()} == {"done"}
    assert "2 scans; gray, white;" in run.stdout and "2 of 2 segmented" in run.stdout
    assert "Could not import" not in run.stdout and run.stderr == ""


def test_one_file_and_choices(segment, work, scans, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--tta", "none", "--overlap", "0.25", "--max-memory", "16K", "--amp", "--batch-size", "2"]
    assert segment(work, scans / "a.nii.gz", "--out", out, "--labels", "white", "--no-statistics", "--no-preview",
                   "--probabilities", "--uncertainty", *options) == 0  # fmt: skip
    assert sorted(file.name for file in out.iterdir()) == [
        "a.nii.gz", "a_probabilities.nii.gz", "a_uncertainty.nii.gz", "run.json"
    ]  # fmt: skip
    undecided = nib.load(out / "a_uncertainty.nii.gz")
    assert undecided.shape == (30, 26, 12) and (undecided.affine == nib.load(scans / "a.nii.gz").affine).all()
    assert 0 <= np.min(undecided.dataobj) < np.max(undecided.dataobj) <= 1
    assert np.unique(_mask(out / "a.nii.gz")).tolist() == [0, 4]
    assert nib.load(out / "a_probabilities.nii.gz").shape == (30, 26, 12, 3)
    assert "temporary file" in _cases(out)["a"]["logits"] and "at most 16.0 KiB" in capsys.readouterr().out


def _not_an_image(path):
    path.write_bytes(b"hello, I am text")


def _truncated(path):
    noise = nib.Nifti1Image(np.random.default_rng(0).normal(size=(30, 26, 12)).astype(np.float32), np.eye(4))
    path.write_bytes(gzip.compress(noise.to_bytes())[:-9000])


def _array(array):
    return lambda path: nib.save(nib.Nifti1Image(array.astype(np.float32), np.eye(4)), path)


_NAN = np.ones((30, 26, 12))
_NAN[3, 4, 5] = np.nan


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_not_an_image, "is no image"),
        (_truncated, "truncated"),
        (_array(np.ones((30, 26))), "2-D image (30 x 26 x 1)"),
        (_array(np.ones((30, 26, 12, 5))), "4-D image (30 x 26 x 12 x 5)"),
        (_array(_NAN), "1 NaN or Inf voxels"),
    ],
)
def test_a_bad_scan_is_listed_and_the_others_are_segmented(make, message, segment, work, scans, tmp_path, capsys):
    make(scans / "aa_bad.nii.gz")
    out = tmp_path / "out"
    assert segment(work, scans, "--out", out, "--tta", "none") == 1
    said = capsys.readouterr().out
    failed = said[said.index("2 of 3 segmented") :]
    assert "aa_bad" in failed and message in failed and "expected" in failed
    assert sorted(file.name for file in out.glob("*.nii.gz")) == ["a.nii.gz", "b.nii.gz"]
    assert _cases(out)["aa_bad"]["status"] == "failed" and message in _cases(out)["aa_bad"]["error"]
    assert not [file for file in out.iterdir() if file.name.startswith(".")]


def test_channels_by_suffix_or_by_list(segment, tmp_path, capsys):
    work = make_work_dir(tmp_path / "work", ("T1", "T2"))
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in ("p_0000", "p_0001", "lonely_0000", "t1", "t2"):
        nib.save(make_scan(), folder / f"{name}.nii.gz")
    assert segment(work, folder, "--out", tmp_path / "all", "--tta", "none") == 1
    assert {case: entry["status"] for case, entry in _cases(tmp_path / "all").items()} == {
        "lonely": "failed", "p": "done", "t1": "failed", "t2": "failed",
    }  # fmt: skip
    assert "1 channel; expected 2 (T1, T2)" in capsys.readouterr().out
    assert segment(work, "--channels", folder / "t1.nii.gz", folder / "t2.nii.gz", "--out", tmp_path / "one") == 0
    np.testing.assert_array_equal(_mask(tmp_path / "one" / "t1.nii.gz"), expected_mask(make_scan()))
    assert "mean T2" in (tmp_path / "one" / "statistics.csv").read_text().splitlines()[0]


def _write_dicom(folder, image, description, number):
    """One file a slice, in LPS coordinates."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    uid, array = generate_uid(), np.asarray(image.dataobj)
    for index in range(array.shape[2]):
        meta = pydicom.dataset.FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid()
        slice_ = pydicom.dataset.FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        slice_.SeriesInstanceUID, slice_.SeriesDescription, slice_.SeriesNumber = uid, description, number
        slice_.Modality, slice_.PatientName = "CT", "Nobody"
        slice_.Rows, slice_.Columns = array.shape[1], array.shape[0]
        slice_.PixelSpacing, slice_.ImageOrientationPatient = [1, 1], [1, 0, 0, 0, 1, 0]
        slice_.ImagePositionPatient = [0, 0, 2 * index]
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated = slice_.BitsStored = 16
        slice_.HighBit, slice_.PixelRepresentation = 15, 1
        slice_.RescaleSlope, slice_.RescaleIntercept = 1, -5
        slice_.PixelData = (array[:, :, index].T + 5).astype(np.int16).tobytes()
        slice_.save_as(folder / f"{number}_{99 - index}.dcm", enforce_file_format=True)


def test_dicom_series(segment, work, tmp_path, capsys):
    image = make_scan()
    _write_dicom(tmp_path / "patients" / "one", image, "portal venous", 3)
    _write_dicom(tmp_path / "patients" / "two", image, "portal venous", 3)
    _write_dicom(tmp_path / "patients" / "two", image, "native", 2)
    assert segment(work, tmp_path / "patients", "--out", tmp_path / "out", "--tta", "none") == 1
    said = capsys.readouterr().out
    assert "two" in said and "2 series in one folder" in said and "--series" in said and "native" in said
    np.testing.assert_array_equal(_mask(tmp_path / "out" / "one.nii.gz"), expected_mask(image))
    affine = nib.load(tmp_path / "out" / "one.nii.gz").affine
    np.testing.assert_allclose(affine, np.diag([-1, -1, 2, 1]), atol=1e-6)  # LPS seen from RAS
    assert segment(work, tmp_path / "patients" / "two", "--series", "native", "--out", tmp_path / "chosen") == 0


def test_every_format(segment, work, tmp_path):
    image = make_scan()
    uids = [pydicom.uid.generate_uid() for _ in range(2)]
    for series in ("native", "portal venous"):
        _write_dicom(tmp_path / "patients" / "one", image, series, len(series))
    for file in (tmp_path / "patients" / "one").iterdir():
        dataset = pydicom.dcmread(file)
        dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = uids
        dataset.save_as(file)
    out = tmp_path / "out"
    assert segment(
        work, tmp_path / "patients", "--series", "native", "--out", out, "--tta", "none", "--no-preview", "--surface",
        "--format", "nii.gz", "nrrd", "mha", "dicom-seg", "rtstruct", "stl",
    ) == 0  # fmt: skip
    assert sorted(file.name for file in out.iterdir()) == [
        "one.mha", "one.nii.gz", "one.nrrd", "one_gray.ply", "one_gray.stl", "one_rtstruct.dcm", "one_seg.dcm",
        "one_surface.gif", "one_white.ply", "one_white.stl", "run.json", "statistics.csv", "statistics.json",
    ]  # fmt: skip
    found = highdicom.seg.segread(out / "one_seg.dcm")
    assert found.NumberOfFrames > 5 and found.StudyInstanceUID == uids[0]
    referred = {item.ReferencedSOPInstanceUID for item in found.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    native = [pydicom.dcmread(file) for file in (tmp_path / "patients" / "one").glob("6_*")]
    assert referred <= {one.SOPInstanceUID for one in native}
    assert _cases(out)["one"]["outputs"] == ["nii.gz", "nrrd", "mha", "dicom-seg", "rtstruct", "stl", "ply", "gif"]
    stamp = (out / "one.mha").stat().st_mtime_ns
    resumed = [work, tmp_path / "patients", "--series", "native", "--out", out, "--tta", "none", "--resume"]
    assert segment(*resumed, "--no-preview", "--format", "mha") == 0
    assert (out / "one.mha").stat().st_mtime_ns == stamp
    assert segment(*resumed) == 0  # a preview was not there yet
    assert (out / "one_preview.png").exists()


def test_folds_an_ensemble_and_their_clean_up(segment, tmp_path, capsys):
    work = make_work_dir(tmp_path / "work")
    for fold in (0, 1):
        make_work_dir(work / f"fold_{fold}")
    make_work_dir(tmp_path / "other", patch=(6, 12, 20))
    (work / "postprocessing.json").write_text('{"steps": [{"name": "gray", "labels": [1]}]}')
    array = np.asarray(make_scan().dataobj).copy()
    array[0, 0, 0], array[0, 0, 3] = 1, 2
    nib.save(nib.Nifti1Image(array, make_scan().affine), tmp_path / "a.nii")
    for arguments, gray, white in (
        (["--folds", "0", "1"], 0, 4),
        (["--folds", "0", "1", "--postprocessing", "none"], 1, 4),
        (["--ensemble", tmp_path / "other"], 1, 4),  # chosen for one configuration, not for this pair
        (["--ensemble", tmp_path / "other", "--postprocessing", work / "postprocessing.json"], 0, 4),
        (["--keep-largest"], 0, 0),
        (["--postprocessing", "none", "--keep-largest", "white"], 1, 0),
    ):
        out = tmp_path / "out"
        assert segment(work, tmp_path / "a.nii", "--out", out, "--tta", "none", "--resume", *arguments) == 0
        said = capsys.readouterr().out
        assert "already finished" not in said, arguments
        mask = _mask(out / "a.nii.gz")
        assert (mask[0, 0, 0], mask[0, 0, 3]) == (gray, white), arguments
        assert ("2 models of" in said) == ("--folds" in arguments)
    members = json.loads((out / "run.json").read_text())["model"]
    assert members["sha256"] and "members" not in members
    assert segment(work, tmp_path / "a.nii", "--out", out, "--folds", "0", "7") == 2
    assert "fold_7: no checkpoint" in capsys.readouterr().err


def test_two_devices(segment, work, scans, tmp_path, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "mamba_vision.apis.segmentation_workers.segment_on_devices", lambda *args: asked.extend(args) or {"b": "why"}
    )
    assert segment(work, scans, "--out", tmp_path / "out", "--max-memory", "8G", "--device", "cpu,cpu") == 1
    source, devices, found, out, options, _ = asked
    assert source.work_dirs == (work,) and devices == ["cpu", "cpu"] and out == tmp_path / "out"
    assert [scan.case for scan in found] == ["a", "b"] and options.max_memory == 8 * 2**30
    said = capsys.readouterr().out
    assert "on cpu, cpu" in said and "1 of 2 segmented" in said and "b: why" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{scans}", "--format", "rtstruct"], "no DICOM series, which --format rtstruct has to refer to"),
        (["{scans}", "--keep-largest", "liver"], "keep_largest: expected some of gray, white, found liver"),
        (["{scans}", "--postprocessing", "{tmp}/none.json"], "find_postprocessing"),
        (["{scans}", "--device", "cpu,abacus"], "device: 'abacus'"),
        (["{tmp}/empty"], "an empty folder; expected scans"),
        (["{tmp}/empty", "--recursive"], "no scan in it or below"),
        (["{tmp}/none.nii.gz"], "no such file or folder"),
        (["{scans}", "--labels", "liver"], "labels: expected some of background, gray, white, found liver"),
        (["{scans}", "--device", "abacus"], "device: 'abacus'"),
        (["{scans}", "--checkpoint", "{tmp}/none.pth"], "does not exist"),
        (["{scans}/a.nii.gz", "{scans}/a.nii.gz"], "the same scan twice"),
    ],
)
def test_what_cannot_begin_says_so_and_writes_nothing(arguments, message, segment, work, scans, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    arguments = [text.format(tmp=tmp_path, scans=scans) for text in arguments]
    assert segment(work, *arguments, "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [["--overlap", "1"], ["--max-memory", "much"], ["--tta", "all"], ["--overlapp", "0"], ["--batch-size", "0"]],
)
def test_wrong_arguments_are_refused_at_once(arguments, segment, capsys):
    with pytest.raises(SystemExit, match="2"):
        segment("work", "scans", "--out", "out", *arguments)
    assert arguments[0] in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        segment("work", "--out", "out")


def test_results_never_take_the_place_of_scans(segment, work, scans, capsys):
    before = (scans / "a.nii.gz").read_bytes()
    assert segment(work, scans, "--out", scans) == 2
    assert "Choose another --out" in capsys.readouterr().err
    assert (scans / "a.nii.gz").read_bytes() == before


def test_resume_skips_what_is_finished_and_repeats_what_is_not(segment, work, scans, tmp_path, capsys):
    out = tmp_path / "out"
    (scans / "c.nii.gz").write_bytes(b"broken")
    assert segment(work, scans, "--out", out, "--tta", "none") == 1
    (out / "b.nii.gz").unlink()
    nib.save(make_scan(), scans / "c.nii.gz")
    stamp = (out / "a.nii.gz").stat().st_mtime_ns
    capsys.readouterr()
    assert segment(work, scans, "--out", out, "--tta", "none", "--resume") == 0
    said = capsys.readouterr().out
    assert said.count("already finished") == 1 and "3 of 3 segmented" in said
    assert (
        (out / "a.nii.gz").stat().st_mtime_ns == stamp and (out / "b.nii.gz").exists() and (out / "c.nii.gz").exists()
    )
    assert len(list(csv.DictReader((out / "statistics.csv").open()))) == 6
    assert segment(work, scans, "--out", out, "--tta", "flips", "--resume") == 0  # other options: made anew
    assert "already finished" not in capsys.readouterr().out


def test_recursive_gives_scans_of_one_name_their_folders(segment, work, tmp_path):
    for patient in ("p1", "p2"):
        (tmp_path / "study" / patient / "labels").mkdir(parents=True)
        nib.save(make_scan(), tmp_path / "study" / patient / "t1.nii.gz")
        nib.save(make_scan(), tmp_path / "study" / patient / "labels" / "t1.nii.gz")
    nib.save(make_scan(), tmp_path / "study" / "other.nii.gz")
    out = tmp_path / "study" / "results"
    for _ in range(2):  # the second time the results are there, and are no scans
        assert segment(work, tmp_path / "study", "--out", out, "--recursive", "--tta", "none", "--resume") == 0
    assert set(_cases(out)) == {"other", "p1_t1", "p2_t1"}


def test_a_killed_write_leaves_no_half_file(segment, work, scans, tmp_path, monkeypatch):
    def cut(image, path):
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("nibabel.save", cut)
    out = tmp_path / "out"
    assert segment(work, scans / "a.nii.gz", "--out", out, "--tta", "none") == 1
    assert sorted(file.name for file in out.iterdir()) == ["a_preview.png", "run.json"]


def test_an_interrupt_says_how_to_go_on(segment, work, scans, tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("mamba_vision.apis.segmentation_run.segment_prepared", interrupted)
    assert segment(work, scans, "--out", tmp_path / "out") == 130
    assert "--resume" in capsys.readouterr().err
