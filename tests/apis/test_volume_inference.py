"""A scan in, its labels out in its own grid: every kind of input, every option, every complaint."""

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from segmentation_case import LABELS, expected_mask, make_scan, make_work_dir

from mamba_vision.apis import VolumeInferencer, inference_volume, init_volume_model
from mamba_vision.apis.volume_inference import mirror_axes
from mamba_vision.registry import MODELS
from mamba_vision.volumes.reading import read_volume
from mamba_vision.volumes.volume import VolumeError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return init_volume_model(make_work_dir(tmp_path_factory.mktemp("model") / "work"), device="cpu")


def _grids():
    """Orders and directions of axes as scanners store them, and an oblique one."""
    angle = np.deg2rad(10)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    oblique = np.eye(4)
    oblique[:3, :3] = turn @ np.diag([1.0, 1.0, 2.0])
    oblique[:3, 3] = (-40, 12, 300)
    return {
        "RAS": np.diag([1.0, 1.0, 2.0, 1.0]),
        "LPS": np.diag([-1.0, -1.0, 2.0, 1.0]),
        "oblique": oblique,
    }


@pytest.mark.parametrize("grid", ["RAS", "LPS", "oblique"])
def test_mask_lies_in_the_grid_of_the_scan(model, grid, tmp_path):
    image = make_scan(affine=_grids()[grid])
    image.header.set_qform(image.affine, code=2)
    nib.save(image, tmp_path / "scan.nii.gz")
    result = inference_volume(model, tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(result.mask, expected_mask(image))
    saved = nib.load(result.save(tmp_path / "out" / "mask.nii.gz"))
    np.testing.assert_array_equal(np.asarray(saved.dataobj), expected_mask(image))
    np.testing.assert_allclose(saved.affine, image.affine, atol=1e-5)
    assert saved.get_data_dtype() == np.uint8
    assert int(saved.header["qform_code"]) == 2 and saved.header.get_xyzt_units()[0] == "mm"
    assert result.case == "scan" and result.labels == LABELS


def test_another_spacing_is_resampled_and_comes_back(model):
    image = make_scan(shape=(60, 52, 12), spacing=(0.5, 0.5, 2.0))
    result = inference_volume(model, image)
    expected = expected_mask(image)
    assert result.mask.shape == expected.shape
    for label in (1, 4):
        found, truth = result.mask == label, expected == label
        assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.9


def test_every_kind_of_input_gives_the_same(model, tmp_path):
    image = make_scan()
    nib.save(image, tmp_path / "a.nii")
    array = np.asarray(image.dataobj)
    kinds = [
        tmp_path / "a.nii", str(tmp_path / "a.nii"), [tmp_path / "a.nii"], image, [image],
        nib.Nifti1Image(array[..., None], image.affine),
        MetaTensor(torch.from_numpy(array), affine=torch.from_numpy(image.affine)),
        MetaTensor(torch.from_numpy(array)[None], affine=torch.from_numpy(image.affine)),
        (array, image.affine), (array[None].astype(np.int16), image.affine), read_volume(tmp_path / "a.nii"),
    ]  # fmt: skip
    for kind in kinds:
        result = inference_volume(model, kind, tta="none")
        np.testing.assert_array_equal(result.mask, expected_mask(image))
        np.testing.assert_allclose(result.affine, image.affine)


def test_statistics_agree_with_the_mask(model):
    image = make_scan()
    gray, white = inference_volume(model, image).statistics()
    voxels = (expected_mask(image) == 1).sum()
    assert (gray["name"], gray["voxels"], gray["ml"]) == ("gray", voxels, pytest.approx(voxels * 2 / 1000))
    assert white["intensity"] == {"T1": pytest.approx({"mean": 2, "sd": 0, "min": 2, "max": 2})}


def test_chosen_labels_only(model):
    image = make_scan()
    result = inference_volume(model, image, labels=["white"])
    np.testing.assert_array_equal(result.mask, np.where(expected_mask(image) == 4, 4, 0))
    assert [one["name"] for one in result.statistics()] == ["white"]


def test_probabilities(model, tmp_path):
    image = make_scan()
    result = inference_volume(model, image, probabilities=True)
    assert result.probabilities.shape == (3, *image.shape)
    np.testing.assert_allclose(result.probabilities.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(np.array([0, 1, 4])[result.probabilities.argmax(0)], result.mask)
    in_file = inference_volume(model, image, probabilities=True, max_memory=10_000, scratch=tmp_path)
    np.testing.assert_allclose(in_file.probabilities, result.probabilities, atol=1e-5)
    saved = nib.load(in_file.save_probabilities(tmp_path / "p.nii.gz"))
    assert saved.shape == (*image.shape, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.nii.gz"]
    with pytest.raises(ValueError, match="probabilities=True"):
        inference_volume(model, image).save_probabilities(tmp_path / "q.nii.gz")


def test_memory_amp_and_batches_change_nothing_but_the_way(model, tmp_path):
    image = make_scan()
    plain = inference_volume(model, image)
    assert "in memory" in plain.info["logits"]
    small = inference_volume(model, image, max_memory=20_000, scratch=tmp_path)
    assert "temporary file" in small.info["logits"]
    for result in (small, inference_volume(model, image, amp=True), inference_volume(model, image, batch_size=3)):
        np.testing.assert_array_equal(result.mask, plain.mask)


def test_mirrors_along_the_axes_that_training_mirrored(model):
    assert mirror_axes(model) == (0, 2)
    seen = []
    handle = model.network.register_forward_hook(lambda _, inputs, __: seen.extend(inputs[0]))
    try:
        none = inference_volume(model, make_scan(), tta="none")
        once = len(seen)
        flips = inference_volume(model, make_scan(), tta="flips")
    finally:
        handle.remove()
    assert len(seen) - once == 4 * once == 4 * none.info["windows"]
    assert flips.info["mirror_axes"] == [0, 2] and none.info["mirror_axes"] == []


def test_progress_tells_stages_in_order(model):
    seen = []
    inference_volume(model, make_scan(), progress=lambda stage, done, total: seen.append(stage))
    assert list(dict.fromkeys(seen)) == ["read", "prepare", "predict", "restore"]


def test_two_channels(tmp_path):
    model = init_volume_model(make_work_dir(tmp_path / "work", ("T1", "T2")), device="cpu")
    image = make_scan()
    other = nib.Nifti1Image(np.full(image.shape, 7, np.float32), image.affine)
    for result in (
        inference_volume(model, [image, other]),
        inference_volume(model, (np.stack([image.get_fdata(), other.get_fdata()]), image.affine)),
    ):
        np.testing.assert_array_equal(result.mask, expected_mask(image))
        assert set(result.statistics()[0]["intensity"]) == {"T1", "T2"}
    with pytest.raises(VolumeError, match=r"1 channel; expected 2 \(T1, T2\)"):
        inference_volume(model, image)
    shifted = nib.Nifti1Image(other.get_fdata(), np.diag([1.0, 1.0, 3.0, 1.0]))
    with pytest.raises(VolumeError, match="channels in different grids"):
        inference_volume(model, [image, shifted])


@pytest.mark.parametrize(
    ("scan", "message"),
    [
        ((np.zeros((8, 8)), np.eye(4)), r"an array of shape \(8, 8\); expected a 3-D scan"),
        ((np.zeros((2, 8, 8, 8, 3)), np.eye(4)), r"an array of shape \(2, 8, 8, 8, 3\)"),
        ((np.full((8, 8, 8), np.nan), np.eye(4)), "512 NaN or Inf voxels"),
        ((np.zeros((2, 8, 8, 8)), np.eye(4)), r"2 channels; expected 1 \(T1\)"),
        ((np.zeros((8, 8, 8)), np.zeros((4, 4))), "affine: expected an invertible"),
        (3, "scan: expected paths, a nibabel image"),
        ([], "scan: expected paths"),
        ("no/such/scan.nii.gz", "no such file"),
    ],
)
def test_what_is_no_scan_is_refused(model, scan, message):
    with pytest.raises(ValueError, match=message):
        inference_volume(model, scan)


def test_unknown_options_are_refused(model):
    with pytest.raises(ValueError, match="tta: expected one of flips, none, found 'all'"):
        inference_volume(model, make_scan(), tta="all")
    with pytest.raises(ValueError, match="labels: expected some of background, gray, white, found liver"):
        inference_volume(model, make_scan(), labels=["liver"])


@pytest.mark.gpu
def test_a_gpu_gives_the_same(tmp_path):
    model = init_volume_model(make_work_dir(tmp_path / "work"), device="cuda")
    image = make_scan(shape=(90, 70, 40))
    for options in ({}, {"amp": True}, {"max_memory": 100_000, "scratch": tmp_path}):
        result = inference_volume(model, image, **options)
        np.testing.assert_array_equal(result.mask, expected_mask(image))
        assert result.info["device"].startswith("cuda")


@pytest.mark.parametrize("buffer", ["memory", "file", "gpu"])
def test_the_buffer_changes_nothing_but_the_way(model, buffer, tmp_path):
    image = make_scan()
    result = inference_volume(model, image, buffer=buffer, scratch=tmp_path)
    assert {"memory": "in memory", "file": "temporary file", "gpu": "on cpu"}[buffer] in result.info["logits"]
    np.testing.assert_array_equal(result.mask, expected_mask(image))


SIZE = (60, 52, 30)


def _noisy_scan():
    image = make_scan(shape=SIZE)
    noise = np.random.default_rng(0).normal(0, 0.3, SIZE)
    return nib.Nifti1Image((np.asarray(image.dataobj) + noise).astype(np.float32), image.affine)


def _trained(folder, device, steps=150):
    """A small U-Mamba that has learnt the boxes, so that its classes are apart as those of a trained network are."""
    settings = {"type": "mamba_vision.UMamba", "arch": "tiny", "in_channels": 1, "num_classes": 3}
    work = make_work_dir(folder, patch=(16, 32, 32))
    text = (work / "config.py").read_text()
    start, end = text.index("network="), text.index("inferer=")
    (work / "config.py").write_text(f"{text[:start]}network={settings!r},\n    {text[end:]}")
    torch.manual_seed(0)
    network = MODELS.build({**settings, "deep_supervision": False}).to(device)
    scan, truth = (
        torch.from_numpy(np.asarray(one.dataobj, np.float32).transpose(2, 0, 1).copy()).to(device)
        for one in (_noisy_scan(), make_scan(shape=SIZE))
    )
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(steps):
        corner = [int(torch.randint(side - length + 1, ())) for side, length in zip(scan.shape, (16, 32, 32))]
        place = tuple(slice(start, start + length) for start, length in zip(corner, (16, 32, 32)))
        loss = torch.nn.functional.cross_entropy(network(scan[place][None, None]), truth[place][None].round().long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    state = {f"network.{name}": value.cpu() for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "meta": {}}, work / "best_dice_epoch_3.pth")
    return work


def _agreement(one, other):
    """The least Dice of any label."""
    pairs = [(one == label, other == label) for label in (1, 4)]
    return min(2 * (mine & yours).sum() / (mine.sum() + yours.sum()) for mine, yours in pairs)


@pytest.mark.gpu
def test_a_trained_network_gives_the_same_on_a_gpu(tmp_path):
    work, image = _trained(tmp_path / "work", "cuda"), _noisy_scan()
    expected = inference_volume(init_volume_model(work, device="cpu"), image).mask
    assert _agreement(expected, expected_mask(make_scan(shape=SIZE))) > 0.5  # it has learnt something
    model = init_volume_model(work, device="cuda")
    for buffer in ("auto", "memory", "file", "gpu"):
        result = inference_volume(model, image, buffer=buffer)
        assert result.info["device"].startswith("cuda")
        assert _agreement(result.mask, expected) >= 0.999, buffer


def test_an_empty_scan_is_all_background(model):
    result = inference_volume(model, (np.zeros((20, 20, 10), np.float32), np.eye(4)))
    assert not result.mask.any()
    assert result.statistics()[0]["voxels"] == 0


def test_inferencer(tmp_path):
    work = make_work_dir(tmp_path / "work")
    image = make_scan()
    (tmp_path / "scans").mkdir()
    for name in ("a", "b"):
        nib.save(image, tmp_path / "scans" / f"{name}.nii.gz")
    inferencer = VolumeInferencer(work, device="cpu", show_progress=False)
    found = inferencer(str(tmp_path / "scans"), out_dir=tmp_path / "out", tta="none")
    assert [one.case for one in found["predictions"]] == ["a", "b"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a.nii.gz", "a_preview.png", "b.nii.gz", "b_preview.png",
    ]  # fmt: skip
    inferencer([image, (image.get_fdata(), image.affine)], out_dir=tmp_path / "arrays", preview=False, tta="none")
    assert sorted(path.name for path in (tmp_path / "arrays").iterdir()) == ["scan.nii.gz", "scan_2.nii.gz"]
    cleaned = inferencer(image, tta="none", keep_largest=[], buffer="file")["predictions"][0]
    assert cleaned.info["postprocessing"] and "temporary file" in cleaned.info["logits"]
    cleaned.save(tmp_path / "mask.nrrd")
    np.testing.assert_array_equal(read_volume(tmp_path / "mask.nrrd").array[0], expected_mask(image))
    pair = VolumeInferencer([work, work], device="cpu", show_progress=False)
    assert pair(image, tta="none")["predictions"][0].info["models"] == [1, 1]
    with pytest.raises(ValueError, match="overlapp: unknown"):
        inferencer(image, overlapp=0.2)


# A scan of 48 MiB, 32 classes: 1.5 GiB of logits. All of it, from the array to the picture, within 300 MiB more than
# the process held before; the kernel refuses anything above. (Mapped files don't count: their pages go on demand.)
_BOUNDED = """
import re, resource, sys, numpy as np, torch
from pathlib import Path
torch.set_num_threads(1)
from segmentation_case import make_scan, make_work_dir
from mamba_vision.apis import inference_volume, init_volume_model
folder, classes = Path(sys.argv[1]), 32
work = make_work_dir(folder / 'work', labels={f'class {k}': k for k in range(classes)}, patch=(32, 128, 128))
model = init_volume_model(work, device='cpu')
inference_volume(model, make_scan()).preview(folder / 'warm.png')
scan = np.zeros((256, 256, 192), np.float32)
scan[8:-8, 8:-8, 8:-8] = 1
scan[60:200, 60:200, 60:130] = 2
now = int(re.search(r'VmData:\\s*(\\d+)', Path('/proc/self/status').read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (now + 300 * 2**20,) * 2)
limits = dict(tta='none', overlap=0, max_memory=2**26, scratch=folder)
result = inference_volume(model, (scan, np.diag([1, 1, 2, 1.0])), **limits)
assert 'temporary file' in result.info['logits'], result.info
assert np.bincount(result.mask.ravel())[1:].tolist() == [(scan == 1).sum(), (scan == 2).sum()]
assert [one['components'] for one in result.statistics()][:3] == [1, 1, 0]
result.save(folder / 'mask.nii.gz')
result.preview(folder / 'preview.png')
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and needs the kernel's memory limit")
def test_memory_is_bounded_from_the_scan_to_the_picture(tmp_path):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
        "MALLOC_MMAP_THRESHOLD_": "131072",
        "MALLOC_ARENA_MAX": "1",
    }
    run = subprocess.run(
        [sys.executable, "-c", _BOUNDED, tmp_path], capture_output=True, text=True, check=False, env=environment
    )
    assert run.returncode == 0, run.stderr
