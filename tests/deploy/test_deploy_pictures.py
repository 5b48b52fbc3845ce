"""Classifying, restoring, fusing and prompting without PyTorch: the same results as with it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from without_torch import deploy

from mamba_vision.apis import ImageClassifierInferencer, export_onnx, get_model, init_fuser, init_restorer
from mamba_vision.apis.fusion import fuse_pictures
from mamba_vision.apis.onnx_models import load_exportable
from mamba_vision.apis.prompt_inference import segment_with_prompts
from mamba_vision.apis.prompt_model import init_prompt_model
from mamba_vision.apis.restoration import restore_picture
from mamba_vision.deploy import PromptSegmentor
from mamba_vision.deploy.model_file import ModelFile
from mamba_vision.utils.paths import project_folder
from mamba_vision.utils.picture_files import read_picture

CONFIG = project_folder("configs") / "vim" / "vim-micro_digits.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    rng = np.random.default_rng(0)
    for name, shape in (("gray", (40, 30)), ("colour", (70, 60, 3)), ("other", (70, 60))):
        coarse = rng.integers(0, 256, (*(side // 10 for side in shape[:2]), *shape[2:]), dtype=np.uint8)
        Image.fromarray(coarse.repeat(10, 0).repeat(10, 1)).save(folder / f"{name}.png")
    return folder


def weights_of(model: torch.nn.Module, path: Path) -> Path:
    torch.save({"state_dict": model.state_dict()}, path)
    return path


def test_classify(folder: Path) -> None:
    from mamba_vision.apis.config_loading import load_config
    from mamba_vision.apis.image_model import build_from_config

    weights = weights_of(build_from_config(load_config(CONFIG)), folder / "vim.pth")
    report = export_onnx(CONFIG, weights, folder / "vim.onnx")
    assert report.error < 1e-5 and report.free == ("batch", "height", "width") and not report.notes
    assert [check["inputs"][0][0] for check in report.checks] == [1, 3]
    run = deploy("classify", folder / "vim.onnx", folder / "gray.png", "-o", folder / "out.json", "--topk", 10)
    assert run.returncode == 0, run.stderr
    found = json.loads((folder / "out.json").read_text())[str(folder / "gray.png")]
    (expected,) = ImageClassifierInferencer(CONFIG, weights, "cpu").classify([folder / "gray.png"], topk=10)
    assert dict(zip(found["labels"], found["scores"])) == pytest.approx(
        dict(zip(expected.labels, expected.scores)), abs=2e-3
    )


def test_restore(folder: Path) -> None:
    weights = weights_of(get_model("mambair_tiny"), folder / "mambair.pth")
    report = export_onnx("mambair_tiny", weights, folder / "mambair.onnx", size=(24, 24))
    assert report.task == "restoration" and report.error < 1e-4
    run = deploy("restore", folder / "mambair.onnx", folder / "colour.png", folder / "gray.png", "-o", folder / "out")
    assert run.returncode == 0, run.stderr
    model = init_restorer(checkpoint=weights, arch="MambaIR:tiny", device="cpu")
    for name in ("colour", "gray"):
        expected = restore_picture(model, read_picture(folder / f"{name}.png"))
        expected = np.rint(np.clip(expected.color, 0, 1) * 255).squeeze()
        found = np.asarray(Image.open(folder / "out" / f"{name}.png")).astype(float)
        assert found.shape == expected.shape and np.abs(found - expected).max() <= 1


def test_fuse(folder: Path) -> None:
    weights = weights_of(get_model("mambadfuse_tiny"), folder / "dfuse.pth")
    export_onnx("mambadfuse_tiny", weights, folder / "dfuse.onnx", size=(24, 24))
    run = deploy("fuse", folder / "dfuse.onnx", folder / "other.png", folder / "colour.png", "-o", folder / "f.png")
    assert run.returncode == 0, run.stderr
    model = init_fuser(checkpoint=weights, arch="MambaDFuse:tiny", device="cpu")
    pictures = [read_picture(folder / f"{name}.png") for name in ("other", "colour")]
    expected = fuse_pictures(model, *pictures)
    found = np.asarray(Image.open(folder / "f.png")) / 255
    assert np.abs(found - expected.color).max() < 0.003


@pytest.mark.slow
def test_prompt(folder: Path) -> None:
    model = get_model("promamba_test").eval()
    weights = weights_of(model, folder / "promamba.pth")
    report = export_onnx("promamba_test", weights, folder / "promamba.onnx", size=(48, 48))
    assert set(report.free) == {"batch", "height", "width"}
    segmentor = PromptSegmentor(folder / "promamba.onnx")
    picture = np.asarray(Image.open(folder / "colour.png"))
    mean, std = torch.tensor([[123.675, 116.28, 103.53], [58.395, 57.12, 57.375]])
    x = ((torch.tensor(picture).float() - mean) / std).permute(2, 0, 1)[None]
    with torch.no_grad():
        box = model(x, torch.tensor([[[10.0, 10, 40, 50]]]))
        points = model(x, points=torch.tensor([[[20.0, 30], [5, 5]]]), labels=torch.tensor([[1, 0]]))
        nothing = model(x)
    for logits, mask in (
        (box, segmentor(picture, boxes=[[10, 10, 40, 50]])),
        (points, segmentor(picture, points=[[20, 30], [5, 5]], point_labels=[1, 0])),
        (nothing, segmentor(picture)),
    ):
        sure = (logits[0, 0].abs() > 1e-4).numpy()
        assert mask.shape == (70, 60) and np.array_equal(mask[sure], (logits[0, 0] > 0).numpy()[sure])
    with pytest.raises(ValueError, match="boxes: expected rows of 4"):
        segmentor(picture, boxes=[[1, 2, 3]])
    with pytest.raises(ValueError, match="boxes: the model has room for 4, found 5"):
        segmentor(picture, boxes=[[1, 2, 3, 4]] * 5)
    with pytest.raises(ValueError, match="point_labels: found 1"):
        segmentor(picture, points=[[1, 2], [3, 4]], point_labels=[1])


def test_prompts_at_the_size_of_the_test_pipeline(folder: Path) -> None:
    """Picture and prompts are brought to it, and the mask back, as tools/segment.py does; the network is PyTorch's."""
    config = project_folder("configs") / "promamba" / "promamba-micro_mni152.py"
    torch.manual_seed(0)
    found = load_exportable(config)
    model = init_prompt_model(config, weights_of(found.module.model, folder / "micro.pth"), "cpu")
    assert found.metadata["preprocess"]["steps"][0]["size"] == [192, 192] and found.metadata["threshold"] == 0.5

    class OfPyTorch(ModelFile):
        def __init__(self) -> None:
            self.info, self.inputs = found.metadata, {"boxes": (1, 4, 4), "points": (1, 8, 2)}

        def __call__(self, *arrays: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return found.module(*map(torch.from_numpy, arrays)).numpy()

    picture = np.asarray(Image.open(folder / "colour.png"))
    expected = segment_with_prompts(model, picture, [[10, 10, 40, 50]], [[20, 30, 1]])
    level = float(np.median(expected.probability))
    found.metadata["threshold"] = level  # random weights find all or nothing at 0.5
    mask = PromptSegmentor(OfPyTorch())(picture, [[10, 10, 40, 50]], [[20, 30]])
    sure = np.abs(expected.probability - level) > 0.02 * np.ptp(expected.probability)
    assert sure.mean() > 0.5 and np.array_equal(mask[sure], expected.probability[sure] >= level)
