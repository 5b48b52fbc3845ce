"""Folds average logits, configurations probabilities; which checkpoints a work folder holds."""

import json
import shutil

import numpy as np
import pytest
import torch
from segmentation_case import expected_mask, make_scan, make_work_dir

from mamba_vision.apis import inference_volume, init_volume_ensemble, init_volume_model
from mamba_vision.apis.volume_ensemble import EnsembleSource


def _scale(folder, factor, shift=0.0):
    """The same network with its logits times `factor`, plus `shift` for the class of label 1."""
    file = next(folder.glob("*.pth"))
    content = torch.load(file, weights_only=True)
    content["state_dict"] = {name: value * factor for name, value in content["state_dict"].items()}
    content["state_dict"]["network.bias"][1] += shift
    torch.save(content, file)


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    """A work folder with folds 0 and 1, the second of which sees class 1 everywhere, but weakly."""
    work = make_work_dir(tmp_path_factory.mktemp("folds") / "work")
    for fold in (0, 1):
        make_work_dir(work / f"fold_{fold}")
    next(work.glob("*.pth")).unlink()
    _scale(work / "fold_1", 0.05, 0.8)
    return work


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another configuration for the same labels: other spacing and patch."""
    work = make_work_dir(tmp_path_factory.mktemp("other") / "work", patch=(4, 20, 12))
    plan = json.loads((work / "plan.json").read_text())
    (work / "plan.json").write_text(json.dumps({**plan, "axes": [0, 1, 2], "spacing": [1.0, 1.0, 2.0]}))
    _scale(work, 0.5, 0.3)
    return work


def _logits(scale, shift):
    image = np.asarray(make_scan().dataobj)[None]
    classes = np.arange(3).reshape(3, 1, 1, 1)
    logits = scale * (2 * classes * image - classes**2)
    logits[1] += shift
    return logits


def _softmax(logits):
    powers = np.exp(logits - logits.max(0))
    return powers / powers.sum(0)


def _cropped(probabilities):
    """What is outside of the scan's non-zero box is background, whatever a network says."""
    result = np.zeros_like(probabilities)
    result[0] = 1
    box = (slice(None), slice(4, -6), slice(5, -3), slice(2, -4))
    result[box] = probabilities[box]
    return result


VALUES = np.array([0, 1, 4])


def test_folds_average_logits(folds):
    assert [len(models) for models in init_volume_ensemble(folds).configurations] == [2]  # all that it holds
    ensemble = init_volume_ensemble(folds, ["0", "1"], device="cpu")
    result = inference_volume(ensemble, make_scan(), probabilities=True)
    expected = _cropped(_softmax((_logits(1, 0) + _logits(0.05, 0.8)) / 2))
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-5)
    np.testing.assert_array_equal(result.mask, VALUES[expected.argmax(0)])
    assert result.info["models"] == [2] and "2 models of" in ensemble.describe()
    models = [init_volume_model(folds / f"fold_{fold}", device="cpu") for fold in (0, 1)]
    np.testing.assert_array_equal(inference_volume(models, make_scan()).mask, result.mask)
    alone = inference_volume(init_volume_ensemble(folds, [1], device="cpu"), make_scan())
    np.testing.assert_array_equal(alone.mask, VALUES[_cropped(_softmax(_logits(0.05, 0.8))).argmax(0)])
    assert (alone.mask != result.mask).any()


@pytest.mark.parametrize("max_memory", [None, 20_000])
def test_configurations_average_probabilities(folds, other, max_memory, tmp_path):
    ensemble = init_volume_ensemble([folds / "fold_0", other], device="cpu")
    seen = []
    result = inference_volume(
        ensemble, make_scan(), probabilities=True, max_memory=max_memory, scratch=tmp_path,
        progress=lambda stage, done, total: seen.append((done, total)) if stage == "predict" else None,
    )  # fmt: skip
    expected = _cropped((_softmax(_logits(1, 0)) + _softmax(_logits(0.5, 0.3))) / 2)
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-5)
    np.testing.assert_array_equal(result.mask, VALUES[expected.argmax(0)])
    assert result.info["models"] == [1, 1] and seen[-1][0] == seen[-1][1] == result.info["windows"]
    assert not list(tmp_path.iterdir())


def test_a_source_builds_in_another_process_what_was_meant(folds, other):
    ensemble = EnsembleSource((folds, other.resolve()), ()).build("cpu")
    assert [len(models) for models in ensemble.configurations] == [2, 1]


def test_what_does_not_go_together_is_refused(folds, other, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"fold_4: no checkpoint; train it first: .* --fold 4"):
        init_volume_ensemble(folds, [0, 4])
    with pytest.raises(ValueError, match="checkpoint: expected one work folder and no folds"):
        init_volume_ensemble(folds, [0], folds / "fold_0" / "best_dice_epoch_3.pth")
    relabelled = make_work_dir(tmp_path / "relabelled", labels={"background": 0, "gray": 1, "white": 2})
    with pytest.raises(ValueError, match=r"labels .* expected those of"):
        init_volume_ensemble([folds, relabelled])
    shutil.copytree(other, tmp_path / "mixed" / "fold_1")
    shutil.copytree(folds / "fold_0", tmp_path / "mixed" / "fold_0")
    with pytest.raises(ValueError, match=r"another axes, spacing, patch_size than .*expected folds of one plan"):
        init_volume_ensemble(tmp_path / "mixed", [0, 1])


def test_a_work_folder_trained_without_a_fold_is_the_fold_of_its_configuration(tmp_path):
    work = make_work_dir(tmp_path / "work")
    with (work / "config.py").open("a") as file:
        file.write("\nfold = 2\n")
    assert init_volume_ensemble(work, [2]).folder == work
    with pytest.raises(FileNotFoundError, match="fold_0"):
        init_volume_ensemble(work, [0])


def _scan_with_a_speck():
    image = make_scan()
    array = np.asarray(image.dataobj).copy()
    array[0, 0, 0] = 1
    array[0, -1, -1] = 2
    return array, image.affine


def test_postprocessing_of_the_work_folder_is_applied(tmp_path):
    work = make_work_dir(tmp_path / "work")
    scan = _scan_with_a_speck()
    plain = inference_volume(init_volume_ensemble(work), scan)
    assert plain.mask[0, 0, 0] == 1 and plain.mask[0, -1, -1] == 4
    (work / "postprocessing.json").write_text('{"steps": [{"name": "gray", "labels": [1]}]}')
    for model in (init_volume_ensemble(work), init_volume_model(work)):
        cleaned = inference_volume(model, scan)
        assert cleaned.mask[0, 0, 0] == 0 and cleaned.mask[0, -1, -1] == 4
        assert cleaned.info["postprocessing"] == [{"name": "gray", "labels": [1]}]
    assert inference_volume(model, scan, postprocessing="none").mask[0, 0, 0] == 1
    both = inference_volume(model, scan, keep_largest=[])
    np.testing.assert_array_equal(both.mask, expected_mask(make_scan()))
    white = inference_volume(model, scan, postprocessing="none", keep_largest=["white"])
    assert white.mask[0, 0, 0] == 1 and white.mask[0, -1, -1] == 0
    with pytest.raises(ValueError, match="keep_largest: expected some of gray, white, found liver"):
        inference_volume(model, scan, keep_largest=["liver"])
