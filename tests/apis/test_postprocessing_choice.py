"""The clean-up and the configuration that validation chooses, and the tools that do so."""

import importlib.util
import json
import math

import nibabel as nib
import numpy as np
import pytest
import torch
from segmentation_case import LABELS, expected_mask, make_scan, make_work_dir

from mamba_vision.apis import cross_validation
from mamba_vision.apis.postprocessing_choice import choose_postprocessing, dice_of, mean_over_cases
from mamba_vision.utils.paths import project_folder
from mamba_vision.volumes.components import KeepLargest, load_steps

STRUCTURES = {"gray": [1], "white": [4]}
UNION, GRAY, WHITE = KeepLargest("all labels together", (1, 4)), KeepLargest("gray", (1,)), KeepLargest("white", (4,))


def _truth():
    return expected_mask(make_scan())


def _with(*specks):
    """The truth as prediction, with voxels of a label added: (place, label)."""
    mask = _truth()
    for place, label in specks:
        mask[place] = label
    return mask


def _choose(*pairs):
    return choose_postprocessing(lambda: [(str(n), *pair) for n, pair in enumerate(pairs)], STRUCTURES)


def test_far_specks_are_removed_together():
    choice = _choose((_with(((0, 0, 0), 1), ((29, 25, 11), 4)), _truth()))
    assert choice.steps == (UNION,)
    assert choice.after == {"gray": 1.0, "white": 1.0} and choice.before["white"] < 1
    assert [trial.adopted for trial in choice.trials] == [True, False, False]


def test_what_takes_from_one_structure_is_not_adopted_for_all():
    """A true lesion away from the rest: removing it with everything would lower `white`; `gray` alone is cleaned."""
    truth = _with(((0, 0, 0), 4))
    choice = _choose((_with(((0, 0, 0), 4), ((29, 25, 11), 1)), truth))
    assert choice.steps == (GRAY,)
    assert choice.after == {"gray": 1.0, "white": 1.0}


def test_structures_one_by_one_after_all_together():
    """A speck of white that touches gray is part of the whole's largest piece, not of white's."""
    mask = _with(((4, 5, 2), 4), ((0, 0, 0), 1))
    choice = _choose((mask, _with(((4, 5, 2), 0))))
    assert choice.steps == (UNION, WHITE)
    assert _choose((_truth(), _truth())).steps == ()


def test_means_leave_out_what_is_undefined():
    empty = np.zeros((3, 3, 3), np.uint8)
    one = empty.copy()
    one[0] = 1
    scores = [dice_of(empty, empty, STRUCTURES), dice_of(one, empty, STRUCTURES), dice_of(one, one, STRUCTURES)]
    assert math.isnan(scores[0]["gray"]) and [score["gray"] for score in scores[1:]] == [0, 1]
    assert mean_over_cases(scores) == {"gray": 0.5, "white": None}
    assert dice_of(np.array([[[1, 2, 0]]]), np.array([[[2, 1, 3]]]), {"both": [1, 2]}) == {"both": 1.0}
    with pytest.raises(ValueError, match="expected at least one"):
        choose_postprocessing(list, STRUCTURES)


def _tool(name):
    spec = importlib.util.spec_from_file_location(name, project_folder("tools") / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *args: module.main([str(arg) for arg in args])


@pytest.fixture
def data(tmp_path):
    """Two cases with a speck that is not in the truth."""
    for name in ("c0", "c1"):
        array = np.asarray(make_scan().dataobj).copy()
        array[0, 0, 0] = 1
        for folder, content in (("imagesTr", array), ("labelsTr", _truth())):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            suffix = "_0000" * (folder == "imagesTr")
            nib.save(
                nib.Nifti1Image(content, make_scan().affine), tmp_path / "data" / folder / f"{name}{suffix}.nii.gz"
            )
    return tmp_path / "data"


def _trained(folder, data, shift=0.0, **changes):
    """Two folds, in which the class of label 1 has `shift` more, logits less sure than `changes` may say."""
    make_work_dir(folder, **changes)
    with (folder / "config.py").open("a") as file:
        file.write(f"\nscans = {str(data)!r}\nsplits = f'{{work_dir}}/splits.json'\nfold = 0\n")
    splits = [{"train": ["c1"], "val": ["c0"]}, {"train": ["c0"], "val": ["c1"]}]
    (folder / "splits.json").write_text(json.dumps(splits))
    next(folder.glob("*.pth")).unlink()
    for fold in (0, 1):
        inner = make_work_dir(folder / f"fold_{fold}", **changes)
        file = next(inner.glob("*.pth"))
        content = torch.load(file, weights_only=True)
        content["state_dict"]["network.bias"][1] += shift
        torch.save(content, file)
    return folder


def test_find_postprocessing(data, tmp_path, capsys):
    work = _trained(tmp_path / "work", data)
    assert _tool("find_postprocessing")(work, "--device", "cpu", "--tta", "none") == 0
    said = capsys.readouterr().out
    assert "all labels together" in said and "adopted" in said and f"segment.py {work} SCANS" in " ".join(said.split())
    assert load_steps(work / "postprocessing.json", LABELS) == (UNION,)
    content = json.loads((work / "postprocessing.json").read_text())
    assert content["cases"] == 2 and content["dice_after"] == {"gray": 1.0, "white": 1.0}
    record = json.loads((work / "cross_validation" / "run.json").read_text())["cases"]
    assert len({record[case]["model_sha256"] for case in ("c0", "c1")}) == 1  # equal weights here, of fold 0 and 1
    # the same from label maps that are there, and those made before are not made again
    (work / "postprocessing.json").unlink()
    arguments = ("--predictions", work / "cross_validation", "--labels", data / "labelsTr")
    assert _tool("find_postprocessing")(work, *arguments) == 0
    assert load_steps(work / "postprocessing.json", LABELS) == (UNION,)
    capsys.readouterr()
    assert _tool("find_postprocessing")(work, "--device", "cpu", "--tta", "none") == 0
    assert capsys.readouterr().out.count("already finished") == 2
    assert _tool("find_postprocessing")(work, "--folds", "0", "2") == 2
    assert "folds: expected numbers below 2, found '2'" in capsys.readouterr().err
    assert _tool("find_postprocessing")(tmp_path, "--folds", "0") == 2


def test_find_best_configuration(data, tmp_path, capsys):
    """One sees too much gray, the other too little; the mean of the two is right but for the speck."""
    more = _trained(tmp_path / "more", data, 1.3)
    less = _trained(tmp_path / "less", data, -1.3, patch=(6, 12, 20))
    out = tmp_path / "out"
    arguments = ("--out", out, "--device", "cpu", "--tta", "none")
    assert _tool("find_best_configuration")(more, less, *arguments) == 0
    said = " ".join(capsys.readouterr().out.split())
    content = json.loads((out / "best_configuration.json").read_text())
    assert content["best"] == content["candidates"][0]["name"] == "more + less"
    assert [one["name"] for one in content["candidates"]][1:] != [] and content["folds"] == "all"
    scores = [one["mean_dice"] for one in content["candidates"]]
    assert scores == sorted(scores, reverse=True) and scores[0] > scores[1]
    assert f"segment.py {more} SCANS --out predictions --ensemble {less}" in said and "--folds 0 1" in said
    assert (out / "postprocessing.json").is_file() and (out / "more+less" / "c0.nii.gz").is_file()
    assert _tool("find_best_configuration")(more, *arguments) == 0
    assert (more / "postprocessing.json").is_file()


def test_a_cascade_is_validated_on_what_its_low_resolution_did_not_train_on(data, tmp_path, monkeypatch):
    work, asked = _trained(tmp_path / "work", data), []
    plan = json.loads((work / "fold_1" / "plan.json").read_text())
    cascaded = {**plan, "configuration": "3d_cascade_fullres"}
    (work / "fold_1" / "plan.json").write_text(json.dumps(cascaded))
    monkeypatch.setattr(cross_validation, "low_resolution", lambda model, folds: asked.append(folds))
    cross_validation.HeldOutSource((work,), ("0",)).build("cpu")
    assert asked == []
    cross_validation.HeldOutSource((work,), ("1",)).build("cpu")
    assert asked == [("1",)]
