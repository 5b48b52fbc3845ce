"""2d, 3d_lowres, the cascade, regions and ignored voxels: planned, trained, tested and used on a scan."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from miniature import make_scan, unformatted
from mmengine.config import Config
from monai.bundle import ConfigParser

from mamba_vision.apis import inference_volume, init_volume_model, plan_dataset
from mamba_vision.apis.bundle_export import export_bundle
from mamba_vision.apis.training import train
from mamba_vision.apis.volume_ensemble import init_volume_ensemble
from mamba_vision.apis.volume_testing import evaluate_volumes
from mamba_vision.datasets import VolumeDataset
from mamba_vision.volumes import Plan

# Without pictures, which take most of the time of so short a training.
SHORT = {"epochs": 1, "iterations": 2, "train_cfg.val_interval": 1, "custom_hooks": []}
EXCLUSIVE = {"background": 0, "ball": 1, "core": 2}
REGIONS = {"background": 0, "whole ball": [1, 2], "core": 2, "ignore": 3}


@pytest.fixture(scope="module", autouse=True)
def fast():
    with unformatted():
        yield


def make_data(
    folder: Path, cases=3, shape=(20, 22, 24), spacing=(1.0, 1.0, 1.0), labels=EXCLUSIVE, ignored=False
) -> Path:
    for number in range(cases):
        image, label = make_scan(number, shape)
        if ignored:
            label[:, :, :3] = 3
        for kind, array, name in (("images", image, f"case_{number}_0000"), ("labels", label, f"case_{number}")):
            target = folder / f"{kind}Tr" / f"{name}.nii.gz"
            target.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.diag([*spacing, 1.0])), target)
    content = {"channel_names": {"0": "MR"}, "labels": labels, "regions_class_order": [1, 2]}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def plan(data: Path, work: Path, **options):
    return plan_dataset(data, work, preset="fast", pictures=0, model="nnunet", folds=2, **options)


def test_slices_from_plan_to_mask(tmp_path):
    data = make_data(tmp_path / "data", shape=(24, 26, 8), spacing=(1.0, 1.0, 4.0))
    planned = plan(data, tmp_path / "work")
    assert list(planned.others) == ["2d"]
    folder = tmp_path / "work" / "2d"
    own = Plan.load(folder / "plan.json")
    assert own.slicewise and own.patch_size[0] == 1 and own.network["spatial_dims"] == 2
    train(folder / "config.py", cfg_options=SHORT)
    assert json.loads((folder / "preprocessed" / "case_0" / "case.json").read_text())["spacing"][0] == 4.0
    model = init_volume_model(folder)
    assert model.slicewise
    image = make_scan(7, (24, 26, 6))[0]
    result = inference_volume(model, (image, np.diag([1.0, 1.0, 9.0, 1.0])))  # slices may lie farther apart
    assert result.mask.shape == image.shape and result.info["mirror_axes"] == [1, 2]
    outcome = evaluate_volumes(Config.fromfile(folder / "config.py"), folder / "epoch_1.pth")
    assert len(outcome.scores) == 2 * 2 and not outcome.failures


def test_the_main_configuration_may_be_another(tmp_path):
    planned = plan(make_data(tmp_path / "data"), tmp_path / "work", configurations=["2d", "3d_fullres"], dry_run=True)
    assert planned.plan.configuration == "2d" and list(planned.others) == ["3d_fullres"]
    assert "splits = f'{work_dir}/../splits.json'" in planned.others["3d_fullres"][1]


@pytest.fixture(scope="module")
def cascade(tmp_path_factory) -> Path:
    """A work folder with both folds of the low resolution trained, and one of the cascade."""
    folder = tmp_path_factory.mktemp("cascade")
    data = make_data(folder / "data", shape=(48, 48, 48))
    work = folder / "work"
    planned = plan(data, work, patch_size=(16, 16, 16))
    assert list(planned.others) == ["3d_lowres", "3d_cascade_fullres"]
    with pytest.raises(
        ValueError, match=r"no trained model of fold 0, 1. Train first:\n.*3d_lowres/config.py --fold 0"
    ):
        train(work / "3d_cascade_fullres" / "config.py", cfg_options=SHORT)
    for fold in (0, 1):
        train(work / "3d_lowres" / "config.py", fold=fold, cfg_options=SHORT)
    train(work / "3d_cascade_fullres" / "config.py", cfg_options=SHORT)
    return work


def test_a_cascade_is_trained_on_what_others_found(cascade):
    own = Plan.load(cascade / "3d_cascade_fullres" / "plan.json")
    assert own.in_channels == 3 and own.network["in_channels"] == 3 and own.batch_dice
    record = json.loads((cascade / "3d_cascade_fullres" / "previous" / "made_by.json").read_text())
    folds = json.loads((cascade / "splits.json").read_text())
    used = {case: made["checkpoint"] for case, made in record.items()}
    for fold in folds:  # cases of one validation part were segmented by one model, the others by the other
        assert len({used[case] for case in fold["val"]}) == 1
    assert len(set(used.values())) == 2
    cfg = Config.fromfile(cascade / "3d_cascade_fullres" / "config.py")
    options = dict(cfg.train_dataloader.dataset)
    options.pop("type")
    item = VolumeDataset(**options)[0]
    assert item["inputs"].shape == (3, 16, 16, 16) and set(item["inputs"][1:].unique().tolist()) <= {0, 1}


def test_a_cascade_finds_its_low_resolution_and_uses_it(cascade, tmp_path):
    moved = tmp_path / "elsewhere"
    import shutil

    shutil.copytree(cascade, moved, ignore=shutil.ignore_patterns("preprocessed"))
    model = init_volume_model(moved / "3d_cascade_fullres")
    scan = (make_scan(9, (40, 44, 36))[0], np.eye(4))
    result = inference_volume(model, scan, tta="none")
    assert result.mask.shape == (40, 44, 36)
    assert len(model.low_resolution.models) == 2 and str(moved) in str(model.low_resolution.first.checkpoint)
    assert not any("low_resolution" in name for name in model.state_dict())
    ensemble = init_volume_ensemble([moved / "3d_lowres", moved / "3d_cascade_fullres"])
    assert inference_volume(ensemble, scan, tta="none").mask.shape == (40, 44, 36)


def test_a_cascade_as_a_bundle(cascade, tmp_path):
    """Both networks in one bundle: the voxels are those of inference_volume."""
    bundle = export_bundle(cascade / "3d_cascade_fullres", tmp_path / "bundle", tta="none")
    scan = nib.Nifti1Image(make_scan(9, (40, 44, 36))[0], np.diag([1.0, -1.0, 1.5, 1.0]))
    nib.save(scan, tmp_path / "scan.nii.gz")
    parser = ConfigParser(json.loads((bundle / "configs" / "inference.json").read_text()))
    parser.update(
        {"bundle_root": str(bundle), "dataset_dir": str(tmp_path / "scan.nii.gz"), "output_dir": str(tmp_path / "o")}
    )
    for part in ("initialize", "run"):
        parser.get_parsed_content(part)
    model = init_volume_model(cascade / "3d_cascade_fullres", device="cpu")
    expected = inference_volume(model, tmp_path / "scan.nii.gz", tta="none").mask
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "o" / "scan.nii.gz").dataobj), expected)
    assert len(np.unique(expected)) > 1
    assert (
        parser.get("network_def")["low"]["models"] == 2 and "low resolution" in (bundle / "docs/README.md").read_text()
    )
    meta = json.loads((bundle / "configs" / "metadata.json").read_text())["network_data_format"]["inputs"]["image"]
    assert meta["num_channels"] == 3 and meta["channel_def"]["2"] == "core, found before"


def test_a_case_is_segmented_anew_only_when_its_model_changed(cascade):
    files = sorted((cascade / "3d_cascade_fullres" / "previous").glob("*.npy"))
    before = [file.stat().st_mtime_ns for file in files]
    train(cascade / "3d_cascade_fullres" / "config.py", cfg_options=SHORT)
    assert [file.stat().st_mtime_ns for file in files] == before
    train(cascade / "3d_lowres" / "config.py", fold=1, cfg_options={**SHORT, "randomness.seed": 5})
    train(cascade / "3d_cascade_fullres" / "config.py", cfg_options=SHORT)
    changed = [file.stat().st_mtime_ns != old for file, old in zip(files, before)]
    assert any(changed) and not all(changed)


@pytest.mark.parametrize("model", ["umamba_bot", "umamba_enc", "segmamba", "lightm_unet", "monai_unet"])
def test_regions_and_ignored_voxels_with_every_network(tmp_path, model):
    data = make_data(tmp_path / "data", labels=REGIONS, ignored=True)
    planned = plan_dataset(
        data, tmp_path / "work", preset="fast", pictures=0, model=model, folds=2, patch_size=(16,) * 3
    )
    assert planned.plan.num_outputs == 2 and planned.plan.ignore_class == 3
    assert list(planned.plan.labels) == ["background", "whole ball only", "core"]
    runner = train(tmp_path / "work" / "config.py", cfg_options=SHORT)
    metrics = {name for name in runner.message_hub.log_scalars if name.startswith("val/dice")}
    assert metrics == {"val/dice", "val/dice_whole_ball", "val/dice_core"}
    if model == "monai_unet":
        outcome = evaluate_volumes(Config.fromfile(tmp_path / "work" / "config.py"), tmp_path / "work" / "epoch_1.pth")
        assert {score.name for score in outcome.scores} == {"whole ball", "core"}
