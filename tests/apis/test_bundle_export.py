"""A bundle that MONAI runs gives the voxels that segment.py gives, and describes itself as MONAI asks for."""

import importlib.util
import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, verify_metadata, verify_net_in_out
from segmentation_case import expected_mask, make_scan, make_work_dir

from mamba_vision.apis import inference_volume, init_volume_ensemble, init_volume_model
from mamba_vision.apis.bundle_export import export_bundle
from mamba_vision.registry import MODELS
from mamba_vision.utils.paths import project_folder

UMAMBA = {"type": "mamba_vision.UMamba", "arch": "tiny", "in_channels": 1, "num_classes": 3, "deep_supervision": True}

# What MONAI's bundle specification says a metadata.json must hold, as a schema.
TENSOR = {
    "type": "object",
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range", "is_patch_data",
                 "channel_def"],
    "properties": {
        "type": {"enum": ["image", "series", "tuples", "probabilities"]},
        "format": {"enum": ["magnitude", "phase", "kspace", "hounsfield", "raw", "labels", "classes", "segmentation",
                            "points", "normalised"]},
        "num_channels": {"type": "integer", "minimum": 1},
        "spatial_shape": {"type": "array", "items": {"type": ["integer", "string"]}, "minItems": 1},
        "dtype": {"type": "string"},
        "value_range": {"type": "array"},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object", "patternProperties": {"^[0-9]+$": {"type": "string"}},
                        "additionalProperties": False},
    },
}  # fmt: skip
TENSORS = {"type": "object", "minProperties": 1, "additionalProperties": TENSOR}
VERSION = {"type": "string", "pattern": r"^\d+\.\d+\.\d+"}
TEXT = {"type": "string", "minLength": 1}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
SPECIFIED = {
    "type": "object",
    "required": ["schema", "version", "changelog", "monai_version", "pytorch_version", "numpy_version",
                 "required_packages_version", "task", "description", "authors", "copyright", "network_data_format"],
    "properties": {
        **dict.fromkeys(("version", "monai_version", "pytorch_version", "numpy_version"), VERSION),
        **dict.fromkeys(("changelog", "required_packages_version"), TEXTS),
        **dict.fromkeys(("schema", "task", "description", "authors", "copyright"), TEXT),
        "network_data_format": {"type": "object", "required": ["inputs", "outputs"],
                                "properties": {"inputs": TENSORS, "outputs": TENSORS}},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A U-Mamba with random weights, scaled so that every class comes up."""
    work = make_work_dir(tmp_path_factory.mktemp("bundle") / "work", patch=(8, 16, 16))
    text = (work / "config.py").read_text()
    start, end = text.index("network="), text.index("inferer=")
    (work / "config.py").write_text(f"{text[:start]}network={UMAMBA!r},\n    {text[end:]}")
    torch.manual_seed(0)
    network = MODELS.build(dict(UMAMBA))
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "meta": {}}, work / "best_dice_epoch_3.pth")
    (work / "postprocessing.json").write_text('{"steps": [{"name": "gray", "labels": [1]}]}')
    return work


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    noise = np.random.default_rng(0).normal(1, 1, (30, 26, 12)).astype(np.float32)
    affine = np.array([[0, -1, 0, 5], [1, 0, 0, 7], [0, 0, 2, -9], [0, 0, 0, 1.0]])
    nib.save(nib.Nifti1Image(noise, affine), folder / "noise_0000.nii.gz")
    nib.save(make_scan(), folder / "boxes.nii")
    return folder


def test_monai_runs_it_as_segment_does(work, scans, tmp_path, capsys):
    bundle = tmp_path / "bundle"
    spec = importlib.util.spec_from_file_location("export_bundle", project_folder("tools") / "export_bundle.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.main([str(work), "-o", str(bundle), "--authors", "us"]) == 0
    assert "python -m monai.bundle run" in capsys.readouterr().out
    assert tool.main([str(work / "none"), "-o", str(bundle)]) == 2
    assert sorted(str(file.relative_to(bundle)) for file in bundle.rglob("*") if file.is_file()) == [
        "configs/inference.json", "configs/logging.conf", "configs/metadata.json", "docs/README.md", "models/model.pt",
    ]  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", "--config_file", bundle / "configs" / "inference.json",
         "--meta_file", bundle / "configs" / "metadata.json", "--bundle_root", bundle, "--dataset_dir", scans,
         "--output_dir", tmp_path / "masks"],
        capture_output=True, text=True, check=False, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    model = init_volume_model(work, device="cpu")
    for name, file in (("noise", "noise_0000.nii.gz"), ("boxes", "boxes.nii")):
        expected = inference_volume(model, scans / file)
        found = nib.load(tmp_path / "masks" / f"{name}.nii.gz")
        np.testing.assert_array_equal(np.asarray(found.dataobj), expected.mask)
        np.testing.assert_array_equal(found.affine, nib.load(scans / file).affine)
    assert len(np.unique(np.asarray(nib.load(tmp_path / "masks" / "noise.nii.gz").dataobj))) > 1


def test_the_metadata_and_the_networks_sizes(work, scans, tmp_path):
    bundle = export_bundle(work, tmp_path / "bundle", name="blobs", version="1.2.3")
    meta = bundle / "configs" / "metadata.json"
    content = json.loads(meta.read_text())
    assert content["version"] == "1.2.3" and content["name"] == "blobs"
    assert content["network_data_format"]["outputs"]["pred"]["channel_def"] == {
        "0": "background", "1": "gray", "2": "white",
    }  # fmt: skip
    (tmp_path / "schema.json").write_text(json.dumps(SPECIFIED))
    local = tmp_path / "metadata.json"
    local.write_text(json.dumps({**content, "schema": (tmp_path / "schema.json").as_uri()}))
    verify_metadata(meta_file=str(local), filepath=str(tmp_path / "fetched.json"))
    local.write_text(json.dumps({**content, "schema": (tmp_path / "schema.json").as_uri(), "version": "first"}))
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(meta_file=str(local), filepath=str(tmp_path / "fetched.json"))
    verify_net_in_out(
        net_id="network_def", meta_file=str(meta), config_file=str(bundle / "configs" / "inference.json"), device="cpu"
    )
    workflow = ConfigWorkflow(
        str(bundle / "configs" / "inference.json"), str(meta), workflow_type="infer", bundle_root=str(bundle),
        dataset_dir=str(scans),
    )  # fmt: skip
    workflow.initialize()
    assert workflow.check_properties() == []


def test_the_card_has_the_scores_of_this_checkpoint_alone(work, tmp_path):
    score = {"dice": {"n": 3, "mean": 0.8765}, "hd95_mm": {"n": 3, "mean": 4.5}}
    summary = {"checkpoint": str(work / "best_dice_epoch_3.pth"), "tested_on": "3 scans", "tta": "flips"}
    (work / "report").mkdir()
    for checkpoint, told in ((summary["checkpoint"], True), (str(work / "epoch_9.pth"), False)):
        content = {**summary, "checkpoint": checkpoint, "classes": {"gray": score}}
        (work / "report" / "summary.json").write_text(json.dumps(content))
        card = (export_bundle(work, tmp_path / "bundle") / "docs" / "README.md").read_text()
        assert ("On 3 scans, with --tta flips:" in card and "| gray | 3 | 0.876 | 4.5 |" in card) == told


def test_folds_are_averaged_in_it(tmp_path, scans):
    work = make_work_dir(tmp_path / "work")
    for fold in (0, 1):
        make_work_dir(work / f"fold_{fold}")
    bundle = export_bundle(work, tmp_path / "bundle", folds=[0, 1], tta="none")
    parser = ConfigParser(json.loads((bundle / "configs" / "inference.json").read_text()))
    assert parser.get("network_def")["models"] == 2 and parser.get("inferer")["mirror_axes"] == []
    parser.update({"bundle_root": str(bundle), "dataset_dir": str(scans / "boxes.nii"), "output_dir": str(tmp_path)})
    for part in ("initialize", "run"):
        parser.get_parsed_content(part)
    found = np.asarray(nib.load(tmp_path / "boxes.nii.gz").dataobj)
    np.testing.assert_array_equal(found, expected_mask(make_scan()))
    expected = inference_volume(init_volume_ensemble(work, [0, 1], device="cpu"), scans / "boxes.nii", tta="none")
    np.testing.assert_array_equal(found, expected.mask)
