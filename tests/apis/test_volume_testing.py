"""tools/test.py measures what tools/segment.py gives, in one process or several."""

import csv
import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from segmentation_case import expected_mask, make_scan, make_work_dir

from mamba_vision.apis import inference_volume, init_volume_model
from mamba_vision.apis.config_loading import load_config
from mamba_vision.apis.sharing import from_all, joined, my_device, my_share, rank
from mamba_vision.apis.volume_testing import evaluate_volumes
from mamba_vision.checkpoints import load_file
from mamba_vision.utils.paths import project_folder
from mamba_vision.volumes.splits import save_splits


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return make_work_dir(tmp_path_factory.mktemp("testing") / "work")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three cases; the scans of two have a speck that is not in the truth, a fourth scan is none."""
    folder = tmp_path_factory.mktemp("data")
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for name in "abc":
        image = make_scan()
        nib.save(nib.Nifti1Image(expected_mask(image), image.affine), folder / "labels" / f"{name}.nii.gz")
        array = np.asarray(image.dataobj).copy()
        array[0, 0, 0] = name != "a"
        nib.save(nib.Nifti1Image(array, image.affine), folder / "images" / f"{name}.nii.gz")
    (folder / "images" / "d.nii.gz").write_bytes(b"no image")
    (folder / "labels" / "d.nii.gz").write_bytes((folder / "labels" / "a.nii.gz").read_bytes())
    return folder


def _evaluate(work, data, **options):
    cfg = load_config(work / "config.py")
    return evaluate_volumes(cfg, next(work.glob("*.pth")), data=data, device="cpu", **options)


def test_it_measures_what_segment_gives(work, data, tmp_path):
    seen = []
    model = init_volume_model(work, device="cpu")
    plain = inference_volume(model, data / "images" / "b.nii.gz")
    outcome = _evaluate(work, data, folder=tmp_path / "r", masks=tmp_path / "m", report=lambda *one: seen.append(one))
    assert outcome.summary["tta"] == plain.info["tta"] == "flips" and outcome.summary["processes"] == 1
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "m" / "b.nii.gz").dataobj), plain.mask)
    assert seen == [(case, number, 4) for number, case in enumerate("abcd")]
    assert list(outcome.failures) == ["d"]
    gray = {score.case: score.dice for score in outcome.scores if score.name == "gray"}
    assert gray["a"] == 1 > gray["b"] == gray["c"]
    # the clean-up of the work folder is part of what is measured, as it is of what is segmented
    (work / "postprocessing.json").write_text('{"steps": [{"name": "gray", "labels": [1]}]}')
    try:
        cleaned = _evaluate(work, data, folder=tmp_path / "r")
    finally:
        (work / "postprocessing.json").unlink()
    assert cleaned.summary["postprocessing"] == [{"name": "gray", "labels": [1]}]
    assert {score.dice for score in cleaned.scores} == {1.0}


def test_two_processes_share_the_scans(work, data, tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
         project_folder("tools") / "test.py", work / "config.py", next(work.glob("*.pth")), "--data", data,
         "--launcher", "pytorch", "--work-dir", tmp_path, "--out", tmp_path / "masks", "--device", "cpu"],
        capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert "failed: d:" in run.stdout, run.stderr
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert summary["processes"] == 2 and list(summary["failures"]) == ["d"]
    rows = list(csv.DictReader((tmp_path / "report" / "cases.csv").open()))
    assert [row["case"] for row in rows] == list("aabbcc")
    assert sorted(file.name for file in (tmp_path / "masks").iterdir()) == [f"{name}.nii.gz" for name in "abc"]
    assert run.stdout.count("[1/2]") == 2 and run.stdout.count("Tested on") == 1
    alone = _evaluate(work, data, folder=tmp_path / "alone")
    assert summary["classes"] == json.loads(json.dumps(alone.summary["classes"]))


def test_one_process_shares_with_nobody():
    with joined("none"):
        assert (rank(), my_share("abc"), from_all(1), my_device(None)) == (0, ["a", "b", "c"], [1], None)
    with (
        pytest.raises(ValueError, match="--launcher slurm: scans are shared by processes that torchrun starts"),
        joined("slurm"),
    ):
        pass


def test_a_fold_is_not_tested_on_what_it_has_seen(work, data, tmp_path):
    """The validation cases of one fold are the training cases of all others."""
    content = load_file(next(work.glob("*.pth")))
    content["meta"] = {"cfg": "epochs=1\nfold=1\nmodel=dict()\n"}
    torch.save(content, tmp_path / "fold_1.pth")
    cfg = load_config(work / "config.py")
    splits = [dict(train=["b", "c"], val=["a"]), dict(train=["a", "c"], val=["b"])]
    cfg.merge_from_dict(dict(scans=str(data), splits=str(save_splits(tmp_path / "splits.json", splits)), fold=0))
    with pytest.raises(ValueError, match=r"trained with fold 1, .* expected --fold 1"):
        evaluate_volumes(cfg, tmp_path / "fold_1.pth", device="cpu")
    cfg.fold = 1
    outcome = evaluate_volumes(cfg, tmp_path / "fold_1.pth", device="cpu", folder=tmp_path / "r", tta="none")
    assert {score.case for score in outcome.scores} == {"b"}
