"""Segmenting scans without PyTorch: the same masks as tools/segment.py, in the scan's own grid."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data.utils import compute_importance_map
from segmentation_case import LABELS, expected_mask, make_scan, make_work_dir
from without_torch import deploy

from mamba_vision.apis import export_onnx, inference_volume, init_volume_model
from mamba_vision.apis.sliding_window import _starts
from mamba_vision.deploy import ScanSegmentor
from mamba_vision.deploy.windows import gaussian, sliding_window, starts


def oblique() -> np.ndarray:
    """Voxels turned in space, axes in another order and direction than the network's."""
    affine = np.diag([-0.9, 1.1, 2.3, 1.0])[[1, 0, 2, 3]]
    affine[:3, 3] = (10, -20, 5)
    return affine


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A work folder with a tiny U-Mamba, as initialized, in place of the usual convolution."""
    folder = make_work_dir(tmp_path_factory.mktemp("scans") / "work", patch=(8, 16, 16))
    network = dict(
        type="UMamba",
        arch=dict(spatial_dims=3, in_channels=1, num_classes=len(LABELS), features=[4, 8], strides=[1, 2]),
    )
    text = (folder / "config.py").read_text()
    start, stop = text.index("network="), text.index("    inferer=")
    (folder / "config.py").write_text(text[:start] + f"network={network!r},\n" + text[stop:])
    from mamba_vision.models.networks.umamba import UMamba

    torch.manual_seed(3)
    model = UMamba(network["arch"])
    state = {f"network.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state, "meta": {}}, folder / "best_dice_epoch_3.pth")
    return folder


def test_the_same_mask_as_with_pytorch(work: Path, tmp_path: Path) -> None:
    report = export_onnx(work, None, work / "model.onnx")
    assert report.task == "volume_segmentation" and report.error < 1e-4
    rng = np.random.default_rng(0)
    image = make_scan(affine=oblique())
    noisy = np.asarray(image.dataobj) + rng.normal(0, 0.3, image.shape).astype(np.float32)
    nib.save(nib.Nifti1Image(noisy, image.affine, image.header), tmp_path / "scan.nii.gz")
    run = deploy("segment", work / "model.onnx", tmp_path / "scan.nii.gz", "-o", tmp_path / "mask.nii.gz")
    assert run.returncode == 0, run.stderr
    found = nib.load(tmp_path / "mask.nii.gz")
    expected = inference_volume(init_volume_model(work, device="cpu"), tmp_path / "scan.nii.gz")
    assert np.allclose(found.affine, expected.affine, atol=1e-4)
    mask = np.asarray(found.dataobj)
    assert set(np.unique(mask)) == set(np.unique(expected.mask)) and len(np.unique(mask)) > 1
    for value in np.unique(mask):
        one, two = mask == value, expected.mask == value
        assert 2 * (one & two).sum() / (one.sum() + two.sum()) >= 0.999


def test_scans_that_do_not_fit(work: Path, tmp_path: Path) -> None:
    if not (work / "model.onnx").exists():
        export_onnx(work, None, work / "model.onnx")
    segmentor = ScanSegmentor(work / "model.onnx")
    nib.save(make_scan(), tmp_path / "one.nii.gz")
    with pytest.raises(ValueError, match="2 channels; expected 1"):
        segmentor([tmp_path / "one.nii.gz", tmp_path / "one.nii.gz"])
    with pytest.raises(ValueError, match="no such file"):
        segmentor(tmp_path / "none.nii.gz")
    with pytest.raises(ValueError, match="tta"):
        segmentor(tmp_path / "one.nii.gz", tta="all")


@pytest.mark.parametrize("side", [3, 8, 16, 33, 96])
def test_weights_of_windows_are_monais(side: int) -> None:
    expected = compute_importance_map((side,), mode="gaussian", sigma_scale=0.125, dtype=torch.float32)
    assert np.allclose(gaussian(side), expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("length", [5, 8, 9, 20, 100])
@pytest.mark.parametrize("overlap", [0, 0.5, 0.75])
def test_places_of_windows_are_monais(length: int, overlap: float) -> None:
    side = 8
    assert starts(max(length, side), side, max(1, int(side * (1 - overlap)))) == _starts(length, side, overlap)


def test_windows_put_an_image_together_again() -> None:
    image = np.random.default_rng(0).normal(size=(2, 5, 21, 18)).astype(np.float32)
    out = np.zeros_like(image)
    sliding_window(image, lambda window: window, (8, 8, 8), (4, 3, 8), out)
    assert np.allclose(out, image, atol=1e-5)


def test_slices_and_regions(tmp_path: Path) -> None:
    """A 2-D network with an output a region: 'all' where x > 0.5, 'white' where x > 1.5, painted in this order."""
    work = make_work_dir(tmp_path / "work", patch=(1, 16, 16))
    plan = json.loads((work / "plan.json").read_text())
    plan |= {"configuration": "2d", "regions": {"all": [1, 4], "white": [4]}, "region_order": [1, 4]}
    (work / "plan.json").write_text(json.dumps(plan))
    text = (work / "config.py").read_text()
    text = text.replace("torch.nn.Conv3d", "torch.nn.Conv2d").replace("out_channels=3", "out_channels=2")
    (work / "config.py").write_text(text.replace("mirror_axes=()", "slicewise=True, paints=[1, 2]"))
    state = {"network.weight": torch.ones(2, 1, 1, 1), "network.bias": torch.tensor([-0.5, -1.5])}
    torch.save({"state_dict": state, "meta": {}}, work / "best_dice_epoch_3.pth")
    image = make_scan(affine=oblique())
    nib.save(image, tmp_path / "scan.nii.gz")
    expected = inference_volume(init_volume_model(work, device="cpu"), tmp_path / "scan.nii.gz").mask
    assert np.array_equal(expected, expected_mask(image))
    export_onnx(work, None, work / "model.onnx")
    assert np.array_equal(ScanSegmentor(work / "model.onnx")(tmp_path / "scan.nii.gz").mask, expected)


def test_a_cascade_is_not_exported(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work, tmp_path / "work")
    plan = json.loads((work / "plan.json").read_text())
    (tmp_path / "work" / "plan.json").write_text(json.dumps({**plan, "configuration": "3d_cascade_fullres"}))
    with pytest.raises(ValueError, match="a cascade needs what another network finds first"):
        export_onnx(tmp_path / "work", None, tmp_path / "model.onnx")
