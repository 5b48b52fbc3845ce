"""Segmenting scans without PyTorch: the same masks as tools/segment.py, in the scan's own grid."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data.utils import compute_importance_map
from PIL import Image
from segmentation_case import LABELS, expected_mask, make_scan, make_work_dir
from without_torch import deploy

from mamba_vision.apis import export_onnx, inference_volume, init_volume_model
from mamba_vision.apis.sliding_window import _starts
from mamba_vision.deploy import ModelFile, ScanSegmentor, command
from mamba_vision.deploy.windows import gaussian, sliding_window, starts
from mamba_vision.utils.paths import project_folder


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


def test_pictures_that_were_planned_like_scans(tmp_path: Path, monkeypatch, capsys) -> None:
    """Of nnU-Net's layout imagesTs; masks are pictures of the same kind, cases of one name keep apart."""
    work = make_work_dir(tmp_path / "work", patch=(1, 16, 16))
    plan = json.loads((work / "plan.json").read_text()) | {"axes": [2, 1, 0], "spacing": [999, 1, 1]}
    plan["network"] |= {"spatial_dims": 2}

    class Nearest(ModelFile):
        """The convolution of the work folder."""

        def __init__(self, *_) -> None:
            self.path, self.inputs = work, {"image": (None, 1, 1, None, None)}
            self.info = {"task": "volume_segmentation", "plan": plan, "mirror_axes": [1, 2]}

        def __call__(self, x: np.ndarray) -> np.ndarray:
            return np.concatenate([2 * k * x - k * k for k in range(len(LABELS))], axis=1)

    monkeypatch.setattr(command, "ModelFile", Nearest)
    levels = np.random.default_rng(0).integers(0, 3, (20, 27), dtype=np.uint8)
    for folder in ("one/imagesTs", "one/imagesTr", "two"):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(levels).save(tmp_path / folder / "a b_0000.png")
    out = tmp_path / "masks"
    arguments = ["segment", "model.onnx", *(str(tmp_path / name) for name in ("one", "two")), "-o", str(out)]
    assert command.main(arguments) == 0, capsys.readouterr().err
    assert sorted(file.name for file in out.iterdir()) == ["imagesTs_a b.png", "two_a b.png"]
    for file in out.iterdir():
        assert np.array_equal(np.asarray(Image.open(file)), np.array([0, 1, 4])[levels])
    assert f"white {(levels == 2).sum()} pixels" in capsys.readouterr().out
    assert command.main([*arguments, "-o", str(out / "mask.png")]) == 2
    assert "found 2 scans, expected a folder" in capsys.readouterr().err


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


def intensities(folder: Path, weights: list, bias: list, in_channels: int = 1, **plan) -> Path:
    """A work folder whose network is a 1 x 1 x 1 convolution with these weights (K rows, a number a channel)."""
    work = make_work_dir(folder, patch=(8, 16, 16))
    content = json.loads((work / "plan.json").read_text())
    (work / "plan.json").write_text(json.dumps(content | plan))
    text = (work / "config.py").read_text()
    (work / "config.py").write_text(text.replace("in_channels=1", f"in_channels={in_channels}"))
    state = {"network.weight": torch.tensor(weights)[..., None, None, None], "network.bias": torch.tensor(bias)}
    torch.save({"state_dict": state, "meta": {}}, work / "best_dice_epoch_3.pth")
    return work


def test_a_cascade_is_two_files(tmp_path: Path) -> None:
    """The first network finds 'gray' from 0.5; the second makes it 'white' where it was found and x > 1.5."""
    first = intensities(
        tmp_path / "3d_lowres", [[0.0], [1.0], [0.0]], [0.0, -0.5, -9.0], configuration="3d_lowres",
        spacing=[4.0, 2.0, 2.0],
    )  # fmt: skip
    (first / "postprocessing.json").write_text('{"steps": [{"name": "gray", "labels": [1]}]}')  # not within a cascade
    second = intensities(
        tmp_path / "3d_cascade_fullres", [[0.0, 0, 0], [0.0, 2, 0], [1.0, 1, 0]], [0.0, -1.0, -1.5], in_channels=3,
        configuration="3d_cascade_fullres",
    )  # fmt: skip
    image = make_scan(affine=oblique())
    nib.save(image, tmp_path / "scan.nii.gz")
    expected = inference_volume(init_volume_model(second, device="cpu"), tmp_path / "scan.nii.gz").mask
    assert set(np.unique(expected)) == {0, 1, 4}
    report = export_onnx(second, None, tmp_path / "cascade.onnx")
    assert report.lowres.path == tmp_path / "cascade_lowres.onnx" and report.lowres.task == "volume_segmentation"
    assert np.array_equal(ScanSegmentor(tmp_path / "cascade.onnx")(tmp_path / "scan.nii.gz").mask, expected)
    model = init_volume_model(tmp_path / "cascade.onnx")
    assert np.array_equal(inference_volume(model, tmp_path / "scan.nii.gz").mask, expected)
    with pytest.raises(ValueError, match="is no cascade, so that it has no use for"):
        ScanSegmentor(tmp_path / "cascade_lowres.onnx", tmp_path / "cascade.onnx")
    with pytest.raises(ValueError, match="the second network of a cascade; expected the first"):
        ScanSegmentor(tmp_path / "cascade.onnx", ScanSegmentor(tmp_path / "cascade.onnx"))
    (tmp_path / "cascade_lowres.onnx").unlink()
    for use in (ScanSegmentor, init_volume_model):
        with pytest.raises(FileNotFoundError, match=r"not found as cascade_lowres\.onnx beside it"):
            use(tmp_path / "cascade.onnx")


def test_folds_and_clean_up_go_into_the_file(tmp_path: Path) -> None:
    work = intensities(tmp_path / "work", [[0.0], [1.0], [0.0]], [0.0, -0.5, -9.0])
    (work / "postprocessing.json").write_text('{"steps": [{"name": "gray", "labels": [1]}]}')
    for fold, edge in (("0", 0.1), ("1", 1.1)):  # their mean begins at 0.6
        inner = intensities(work / f"fold_{fold}", [[0.0], [1.0], [0.0]], [0.0, -edge, -9.0])
        assert inner.is_dir()
    export_onnx(work, None, tmp_path / "both.onnx", folds=["0", "1"])
    image = make_scan()
    array = np.asarray(image.dataobj)
    array[array == 1] = 0.55  # found by the first fold, not by both
    array[0, 0, 0] = 2  # a piece by itself
    nib.save(nib.Nifti1Image(array, image.affine), tmp_path / "scan.nii.gz")
    found = ScanSegmentor(tmp_path / "both.onnx")(tmp_path / "scan.nii.gz").mask
    assert found[0, 0, 0] == 0 and np.array_equal(found[1:] == 1, array[1:] == 2)
    raw = ScanSegmentor(tmp_path / "both.onnx")(tmp_path / "scan.nii.gz", postprocessing=False).mask
    assert raw[0, 0, 0] == 1
    described = json.loads((tmp_path / "both.json").read_text())
    assert described["postprocessing"] == [{"name": "gray", "labels": [1]}] and len(described["weights"]) == 2
    with pytest.raises(ValueError, match="vim_test is no work folder, so that it has none"):
        export_onnx("vim_test", None, tmp_path / "v.onnx", folds=["0"])


def test_tools_segment_takes_the_file(work: Path, tmp_path: Path, capsys) -> None:
    """The same masks and the same files beside them, by either way to name the model."""
    if not (work / "model.onnx").exists():
        export_onnx(work, None, work / "model.onnx")
    spec = importlib.util.spec_from_file_location("segment_tool", project_folder("tools") / "segment.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    nib.save(make_scan(affine=oblique()), tmp_path / "scan.nii.gz")
    expected = inference_volume(init_volume_model(work, device="cpu"), tmp_path / "scan.nii.gz").mask
    file, out = str(work / "model.onnx"), str(tmp_path / "out")
    for names in ([file], ["--onnx", file], ["--onnx", file, str(work)]):
        more = ["--max-memory", "16K", "--format", "nii.gz", "nrrd", "--no-preview"]
        assert tool.main([*names, str(tmp_path / "scan.nii.gz"), "--out", out, *more]) == 0
        mask = np.asarray(nib.load(tmp_path / "out" / "scan.nii.gz").dataobj)
        for value in np.unique(expected):
            one, two = mask == value, expected == value
            assert 2 * (one & two).sum() / (one.sum() + two.sum()) >= 0.999
    assert {"scan.nrrd", "statistics.csv", "run.json"} <= {path.name for path in (tmp_path / "out").iterdir()}
    for more, message in (
        (["--folds", "0"], "--folds: not with an exported model, export them"),
        (["--amp"], "choose the precision at export"),
        (["--box", "1,1,5,5"], "use python -m mamba_vision.deploy prompt"),
    ):
        with pytest.raises(SystemExit):
            tool.main([file, "scan.nii.gz", "--out", out, *more])
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"device: the installed ONNX Runtime cannot use 'meta'"):
        init_volume_model(file, device="meta")


@pytest.mark.skipif(sys.platform != "linux", reason="needs the kernel's memory limit")
def test_logits_beyond_the_memory(tmp_path: Path) -> None:
    """An 1/64 of a CT of 512 x 512 x 700 with 16 classes: 175 MiB of logits within 128 MiB beside the imports."""
    labels = {"background": 0, **{f"organ {value}": value for value in range(1, 16)}}
    work = make_work_dir(tmp_path / "work", ("CT",), labels, patch=(32, 64, 64))
    export_onnx(work, None, tmp_path / "m.onnx")
    scan = np.zeros((128, 128, 175), np.int16)
    scan[20:100, 30:110], scan[50:70, 45:60, 20:150] = 3, 9
    scan[0, 0, 0] = scan[-1, -1, -1] = 1  # nothing is cropped
    nib.save(nib.Nifti1Image(scan, np.diag([-1.0, -1.0, 2.0, 1.0])), tmp_path / "scan.nii.gz")
    code = """
import re, resource, sys
import scipy.ndimage, nibabel, mamba_vision.volumes, mamba_vision.volumes.preprocess, mamba_vision.volumes.restore
from mamba_vision.deploy import ModelFile, ScanSegmentor, command
segmentor = ScanSegmentor("m.onnx", threads=1)
taken = 1024 * int(re.search(r"VmData:\\s*(\\d+)", open("/proc/self/status").read())[1])
resource.setrlimit(resource.RLIMIT_DATA, (taken + 2**27,) * 2)
segmentor("scan.nii.gz", "none", 0.25, max_memory=2**25, scratch=".").save("mask.nii.gz")
"""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "131072"}
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    assert np.array_equal(np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj), scan)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(("tmp", "."))]
